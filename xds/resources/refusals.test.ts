/** What is refused, in which words: every message names the resource, the field, the rule and the value. */
import { expect, test } from '@jest/globals';
import { toBinary } from '@bufbuild/protobuf';
import type { Json } from '../snapshot.ts';
import { topOf } from './decoding.ts';
import { decodeResource, type Kind, TYPE_URLS } from './index.ts';
import { messageFromJson } from './loose.ts';
import { messageType, typeNameOf } from './registry.ts';

const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.';
const HTTP = 'type.googleapis.com/envoy.extensions.filters.http.';

/** A resource from the JSON that Envoy's documentation would show. */
function decode(kind: Kind, json: Json) {
  const schema = messageType(typeNameOf(TYPE_URLS[kind]))!;
  return decodeResource(TYPE_URLS[kind], toBinary(schema, messageFromJson(schema, json, topOf(kind), [])));
}

function manager(fields: Record<string, Json>): Json {
  const config = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'in',
    rds: { route_config_name: 'r', config_source: { ads: {} } },
    http_filters: [{ name: 'envoy.filters.http.router' }],
    ...fields,
  };
  const address = { socket_address: { address: '0.0.0.0', port_value: 80 } };
  return { name: 'l', address, filter_chains: [{ filters: [{ name: 'hcm', typed_config: config }] }] };
}

const host = (fields: Record<string, Json>): Json => ({ name: 'r', virtual_hosts: [{ name: 'v', domains: ['*'], ...fields }] });
const route = (fields: Record<string, Json>): Json => host({ routes: [{ match: { prefix: '/' }, ...fields }] });
const cluster = (fields: Record<string, Json>): Json => ({ name: 'c', ...fields });
const upstreamTls = (context: Json): Json =>
  cluster({
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: { '@type': `${TLS}UpstreamTlsContext`, common_tls_context: context },
    },
  });
const endpoint = (address: string): Json => ({ endpoint: { address: { socket_address: { address, port_value: 80 } } } });

test.each<[Kind, Json, string]>([
  ['cluster', { name: '' }, 'cluster "": name: must not be empty, received ""'],
  ['cluster', cluster({ connect_timeout: '0s' }), 'cluster "c": connect_timeout: must be more than 0ms, received "0ms"'],
  ['cluster', cluster({ type: 'EDS' }), 'cluster "c": eds_cluster_config.eds_config: is required for an EDS cluster'],
  [
    'cluster',
    cluster({ type: 'LOGICAL_DNS', load_assignment: { cluster_name: 'c', endpoints: [{ lb_endpoints: [endpoint('a'), endpoint('b')] }] } }),
    'cluster "c": load_assignment: LOGICAL_DNS clusters take one locality with one endpoint, received 2',
  ],
  [
    'cluster',
    cluster({ load_assignment: { cluster_name: 'c', endpoints: [{ lb_endpoints: [endpoint('name')] }] } }),
    'cluster "c": load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: must be an IP address (names need STRICT_DNS or LOGICAL_DNS), received "name"',
  ],
  [
    'cluster',
    cluster({
      transport_socket: {
        name: 'x',
        typed_config: {
          '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tap.v3.Tap',
          common_config: { static_config: { match_config: { any_match: true }, output_config: { sinks: [{ streaming_admin: {} }] } } },
          transport_socket: { name: 'raw_buffer' },
        },
      },
    }),
    'cluster "c": transport_socket.typed_config: transport socket is not supported here, received "envoy.extensions.transport_sockets.tap.v3.Tap"',
  ],
  [
    'cluster',
    upstreamTls({
      validation_context: {
        trusted_ca: { filename: '/ca' },
        verify_certificate_hash: ['df6ff72fe9116521268f6f2dd4966f51df479883fe7037b39f75916ac3049d1a'],
      },
    }),
    'cluster "c": transport_socket.typed_config.common_tls_context.validation_context.verify_certificate_hash: is not supported',
  ],
  [
    'cluster',
    upstreamTls({ validation_context: { trusted_ca: { filename: '/ca' }, crl: { filename: '/crl' } } }),
    'cluster "c": transport_socket.typed_config.common_tls_context.validation_context.crl: is not supported',
  ],
  [
    'cluster',
    cluster({ cluster_type: { name: 'envoy.clusters.redis', typed_config: { '@type': 'type.googleapis.com/example.Redis' } } }),
    'cluster "c": cluster_type.typed_config: cluster type is not supported, received "example.Redis"',
  ],
  [
    'cluster',
    cluster({
      health_checks: [
        { timeout: '1s', interval: '1s', unhealthy_threshold: 1, healthy_threshold: 1, custom_health_check: { name: 'redis' } },
      ],
    }),
    'cluster "c": health_checks[0]: needs http_health_check, tcp_health_check or grpc_health_check, received "customHealthCheck"',
  ],
  ['endpoints', { cluster_name: '' }, 'endpoints "": cluster_name: must not be empty, received ""'],
  [
    'endpoints',
    { cluster_name: 'e', endpoints: [{ priority: 129 }] },
    'endpoints "e": endpoints[0].priority: must be at most 128, received 129',
  ],
  [
    'endpoints',
    { cluster_name: 'e', endpoints: [{ lb_endpoints: [{ ...(endpoint('10.0.0.1') as object), load_balancing_weight: 0 }] }] },
    'endpoints "e": endpoints[0].lb_endpoints[0].load_balancing_weight: must be at least 1, received 0',
  ],
  [
    'route',
    {
      name: 'r',
      virtual_hosts: [
        { name: 'a', domains: ['x'] },
        { name: 'b', domains: ['X'] },
      ],
    },
    'route "r": virtual_hosts[1].domains: must be unique in a route configuration (virtual host "a" has it too), received "x"',
  ],
  [
    'route',
    {
      name: 'r',
      virtual_hosts: [
        { name: 'a', domains: ['x'] },
        { name: 'a', domains: ['y'] },
      ],
    },
    'route "r": virtual_hosts[1].name: must be unique in a route configuration, received "a"',
  ],
  [
    'route',
    host({ domains: ['a*b'] }),
    'route "r": virtual_hosts[0].domains[0]: must be exact, "*", "*suffix" or "prefix*", received "a*b"',
  ],
  ['route', host({ routes: [{ route: { cluster: 'c' } }] }), 'route "r": virtual_hosts[0].routes[0].match: is required'],
  [
    'route',
    host({ routes: [{ match: { safe_regex: { regex: '(' } }, route: { cluster: 'c' } }] }),
    'route "r": virtual_hosts[0].routes[0].match.safe_regex.regex: must be a regular expression of RE2',
  ],
  [
    'route',
    host({ routes: [{ match: { prefix: '/', tls_context: { presented: true } }, route: { cluster: 'c' } }] }),
    'route "r": virtual_hosts[0].routes[0].match.tls_context: is not supported',
  ],
  [
    'route',
    route({ route: { weighted_clusters: { clusters: [{ name: 'a', weight: 0 }] } } }),
    'route "r": virtual_hosts[0].routes[0].route.weighted_clusters.clusters: the weights must add up to more than 0, received 0',
  ],
  [
    'route',
    route({ route: { cluster: 'c' }, request_headers_to_remove: [':path'] }),
    'route "r": virtual_hosts[0].routes[0].request_headers_to_remove[0]: :-prefixed or host headers may not be removed, received ":path"',
  ],
  [
    'route',
    route({ route: { cluster: 'c' }, response_headers_to_add: [{ header: { key: 'Host', value: 'x' } }] }),
    'route "r": virtual_hosts[0].routes[0].response_headers_to_add[0].header.key: :-prefixed or host headers may not be modified, received "Host"',
  ],
  [
    'route',
    route({ direct_response: { status: 200, body: { inline_string: 'x'.repeat(5_000) } } }),
    'route "r": virtual_hosts[0].routes[0].direct_response.body: takes at most 4096 bytes (max_direct_response_body_size_bytes), received 5000',
  ],
  [
    'route',
    route({ route: { cluster: 'c', retry_policy: { retry_back_off: { base_interval: '1s', max_interval: '0.5s' } } } }),
    'route "r": virtual_hosts[0].routes[0].route.retry_policy.retry_back_off.max_interval: must be at least base_interval, received "500ms"',
  ],
  [
    'listener',
    manager({ http_filters: [{ name: 'envoy.filters.http.router' }, { name: 'envoy.filters.http.cors' }] }),
    'listener "l": filter_chains[0].filters[0].typed_config.http_filters[0]: the router must be the last HTTP filter, received "envoy.filters.http.router"',
  ],
  [
    'listener',
    manager({ http_filters: [{ name: 'envoy.filters.http.cors' }] }),
    'listener "l": filter_chains[0].filters[0].typed_config.http_filters[0]: the last HTTP filter must be the router, received "envoy.filters.http.cors"',
  ],
  [
    'listener',
    manager({ http_filters: [{ name: 'f', typed_config: { '@type': `${HTTP}buffer.v3.Buffer` } }, { name: 'envoy.filters.http.router' }] }),
    'listener "l": filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.max_request_bytes: is required',
  ],
  [
    'listener',
    manager({ stat_prefix: '' }),
    'listener "l": filter_chains[0].filters[0].typed_config.stat_prefix: must not be empty, received ""',
  ],
  ['listener', { name: 'l', filter_chains: [] }, 'listener "l": address: is required'],
  [
    'listener',
    { name: 'l', address: { socket_address: { address: '0.0.0.0', port_value: 80 } } },
    'listener "l": filter_chains: a listener needs at least one filter chain',
  ],
  [
    'listener',
    {
      name: 'l',
      address: { socket_address: { address: '0.0.0.0', port_value: 80 } },
      filter_chains: [{ filter_chain_match: { destination_port: 1 } }, { filter_chain_match: { destination_port: 1 } }],
    },
    'listener "l": filter_chains[1].filter_chain_match: must differ from that of filter_chains[0], received {"destinationPort":1}',
  ],
  [
    'listener',
    {
      name: 'l',
      address: { socket_address: { address: '0.0.0.0', port_value: 80 } },
      filter_chains: [
        {
          transport_socket: {
            name: 'envoy.transport_sockets.tls',
            typed_config: { '@type': `${TLS}DownstreamTlsContext`, common_tls_context: {} },
          },
        },
      ],
    },
    'listener "l": filter_chains[0].transport_socket.typed_config.common_tls_context: a server needs a certificate',
  ],
  ['secret', { name: 's' }, 'secret "s": needs tls_certificate or validation_context'],
  [
    'secret',
    { name: 's', tls_certificate: { certificate_chain: { inline_string: 'C' } } },
    'secret "s": tls_certificate.private_key: must hold a key',
  ],
])('%s %j is refused', (kind, json, message) => {
  let thrown: unknown;
  try {
    decode(kind, json);
  } catch (error) {
    thrown = error;
  }

  expect(thrown).toMatchObject({ name: 'DecodeError', message: expect.stringContaining(message) });
});

test('unknown fields are tolerated and named as warnings', () => {
  const bytes = Uint8Array.from([...toBinaryCluster(), 0xf8, 0x3f, 0x01]);

  const { resource, warnings } = decodeResource(TYPE_URLS.cluster, bytes);

  expect(resource).toMatchObject({ name: 'c', type: 'STATIC' });
  expect(warnings).toEqual(['unknown field #1023 is ignored']);
});

function toBinaryCluster(): Uint8Array {
  const schema = messageType(typeNameOf(TYPE_URLS.cluster))!;
  return toBinary(schema, messageFromJson(schema, { name: 'c' }, topOf('c'), []));
}

test('a younger condition on certificates is refused, since it cannot be checked', () => {
  const context = (bytes: readonly number[]) => {
    const schema = messageType('envoy.extensions.transport_sockets.tls.v3.Secret')!;
    const head = toBinary(schema, messageFromJson(schema, { name: 's' }, topOf('s'), []));
    return Uint8Array.from([...head, 0x22, bytes.length, ...bytes]);
  };

  expect(decodeResource(TYPE_URLS.secret, context([])).name).toBe('s');
  expect(() => decodeResource(TYPE_URLS.secret, context([0xf8, 0x3f, 0x01]))).toThrow(
    'secret "s": validation_context: has a field #1023 that is not known here',
  );
});

test('CORS in its deprecated place becomes the configuration of the CORS filter', () => {
  const { resource } = decode(
    'route',
    host({ cors: { allow_methods: 'GET' }, routes: [{ match: { prefix: '/' }, route: { cluster: 'c', cors: { max_age: '5' } } }] }),
  );

  const type = 'envoy.extensions.filters.http.cors.v3.CorsPolicy';
  expect(resource).toMatchObject({
    virtualHosts: [
      {
        perFilterConfig: new Map([['envoy.filters.http.cors', { name: 'envoy.filters.http.cors', type, config: { allowMethods: 'GET' } }]]),
        routes: [
          { perFilterConfig: new Map([['envoy.filters.http.cors', { name: 'envoy.filters.http.cors', type, config: { maxAge: '5' } }]]) },
        ],
      },
    ],
  });
});

test("Envoy's defaults are filled in", () => {
  const { resource } = decode('cluster', { name: 'c', outlier_detection: {} });

  expect(resource).toMatchObject({
    type: 'STATIC',
    connectTimeoutMs: 5_000,
    lbPolicy: { name: 'ROUND_ROBIN' },
    protocol: 'http1',
    idleTimeoutMs: 3_600_000,
    dnsRefreshMs: 5_000,
    panicThresholdPercent: 50,
    perConnectionBufferBytesMax: 1_048_576,
    circuitBreakers: { default: { maxConnections: 1_024, maxPendingRequests: 1_024, maxRequests: 1_024, maxRetries: 3 } },
    outlierDetection: {
      consecutive5xx: 5,
      enforcingConsecutive5xxPercent: 100,
      enforcingConsecutiveGatewayFailurePercent: 0,
      intervalMs: 10_000,
      baseEjectionTimeMs: 30_000,
      maxEjectionTimeMs: 300_000,
      maxEjectionPercent: 10,
      successRateStdevFactor: 1_900,
      failurePercentageThreshold: 85,
    },
  });
});

test('what has no effect is told with its place', () => {
  const warningsOf = (kind: Kind, json: Json): readonly string[] => decode(kind, json).warnings;

  expect(warningsOf('cluster', cluster({ common_lb_config: { zone_aware_lb_config: {} } }))[0]).toMatch(
    /^common_lb_config\.zone_aware_lb_config: is ignored: endpoints are chosen by/,
  );
  expect(warningsOf('route', route({ route: { cluster: 'c', retry_policy: { retry_on: '5xx', per_try_idle_timeout: '1s' } } }))[0]).toMatch(
    /retry_policy\.per_try_idle_timeout: is ignored$/,
  );
});
