/** Bootstrap files as people write them, good and bad. */
import { expect, test } from '@jest/globals';
import { parseBootstrap, type BootstrapOptions } from './bootstrap.ts';

const parse = (text: string, options: Partial<BootstrapOptions> = {}) =>
  parseBootstrap(text, { format: 'yaml', file: 'b.yaml', ...options });

const XDS_CLUSTER = `
static_resources:
  clusters:
  - name: xds
    type: strict_dns
    http2_protocol_options: {}
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: control, port_value: 15010}}}
`;

test('a bootstrap with ADS is read, whatever the case of enums and with one object where a list is expected', () => {
  const { bootstrap, warnings } = parse(`
node: {id: a, cluster: b, locality: {zone: z}, metadata: {ROLE: x}}
admin:
  access_log_path: /dev/null
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
dynamic_resources:
  ads_config:
    api_type: delta_grpc
    set_node_on_first_message_only: true
    grpc_services:
      envoy_grpc: {cluster_name: xds}
      initial_metadata: [{key: authorization, value: token}]
  lds_config: {ads: {}, initial_fetch_timeout: {nanos: 500000000}}
  cds_config: {path_config_source: {path: /cds.yaml, watched_directory: {path: /}}}
layered_runtime:
  layers:
  - {name: static, static_layer: {a: {b: 1}}}
  - {name: disk, disk_layer: {symlink_root: /r, subdirectory: envoy}}
  - {name: admin, admin_layer: {}}
stats_config: {stats_tags: [{tag_name: mesh, fixed_value: m}, {tag_name: r, regex: "x(.*)"}]}
${XDS_CLUSTER}`);

  expect(warnings).toEqual(['stats_config: is ignored']);
  expect(bootstrap).toMatchObject({
    node: { id: 'a', cluster: 'b', locality: { region: '', zone: 'z', subZone: '' }, metadata: { ROLE: 'x' } },
    admin: {
      address: { host: '127.0.0.1', port: 9901 },
      accessLogs: [{ type: 'envoy.extensions.access_loggers.file.v3.FileAccessLog', config: { path: '/dev/null' } }],
    },
    static: { clusters: [{ resource: { name: 'xds', type: 'STRICT_DNS', protocol: 'http2' } }] },
    dynamic: {
      lds: { kind: 'ads', initialFetchTimeoutMs: 500 },
      cds: { kind: 'path', path: '/cds.yaml', watchedDirectory: '/', initialFetchTimeoutMs: 15_000 },
      ads: {
        apiType: 'DELTA_GRPC',
        services: [{ target: { kind: 'cluster', cluster: 'xds' }, initialMetadata: [{ key: 'authorization', value: 'token' }] }],
        setNodeOnFirstMessageOnly: true,
      },
    },
    runtimeLayers: [
      { kind: 'static', name: 'static', values: { a: { b: 1 } } },
      { kind: 'disk', name: 'disk', symlinkRoot: '/r', subdirectory: 'envoy', appendServiceCluster: false },
      { kind: 'admin', name: 'admin' },
    ],
    statsTags: new Map([['mesh', 'm']]),
    statsFlushIntervalMs: 5_000,
  });
});

test('merge keys and anchors are resolved, and a listener without a name gets its address', () => {
  const { bootstrap } = parse(`
static_resources:
  listeners:
  - address: &a {socket_address: &s {address: 0.0.0.0, port_value: 1}}
    filter_chains: [{filters: [{name: envoy.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]}]
  - address: {socket_address: {<<: *s, port_value: 2}}
    default_filter_chain: {}
`);

  expect(bootstrap.static.listeners.map(({ resource }) => resource.name)).toEqual(['0.0.0.0_1', '0.0.0.0_2']);
  expect(bootstrap.static.listeners[0]?.resource.filterChains[0]?.filters).toMatchObject([
    { kind: 'tcp', tcp: { clusters: [{ cluster: 'c', weight: 1 }] } },
  ]);
});

test.each<[string, string, string]>([
  ['a duplicate key', 'node:\n  id: a\n  id: b\n', 'b.yaml:3:3: a key must not be given twice: id'],
  [
    'a duration that is a number',
    'static_resources:\n  clusters:\n  - name: a\n    connect_timeout: 5\n',
    'b.yaml:4:22: static_resources.clusters[0].connect_timeout: must be a duration like "0.25s", received 5',
  ],
  [
    'an unknown field',
    'static_resources:\n  clusters:\n  - name: a\n    conect_timeout: 5s\n',
    'b.yaml:4:21: static_resources.clusters[0].conect_timeout: is no field that is known; --allow-unknown-static-fields lets it pass',
  ],
  [
    'an unknown word of an enum',
    'static_resources:\n  clusters:\n  - {name: a, lb_policy: FASTEST}\n',
    'b.yaml:3:26: static_resources.clusters[0].lb_policy: must be one of ROUND_ROBIN, LEAST_REQUEST',
  ],
  ['a text where a number is wanted', 'admin: {address: {socket_address: {address: "::1", port_value: http}}}', 'b.yaml:1:1: cannot read'],
  [
    'a rule of the protos',
    'static_resources:\n  clusters:\n  - name: ""\n',
    'b.yaml:3:11: static_resources.clusters[0].name: must not be empty, received ""',
  ],
  [
    'two static clusters of one name',
    'static_resources:\n  clusters: [{name: a}, {name: a}]\n',
    'b.yaml:2:32: cluster "a": name: must be unique among the static clusters, received "a"',
  ],
  [
    'ads without ads_config',
    'dynamic_resources:\n  lds_config: {ads: {}}\n',
    'b.yaml:2:15: dynamic_resources.lds_config: names ads, which needs dynamic_resources.ads_config',
  ],
  [
    'a control plane behind a cluster that is not there',
    'dynamic_resources:\n  ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}\n',
    'b.yaml:2:15: dynamic_resources.ads_config: must name a cluster of static_resources, received "xds"',
  ],
  [
    'REST polling',
    'dynamic_resources:\n  ads_config: {api_type: REST, cluster_names: [a]}\n',
    'b.yaml:2:26: dynamic_resources.ads_config.api_type: must be GRPC or DELTA_GRPC, received "REST"',
  ],
  [
    'a place inside a map key with dots',
    'static_resources:\n  clusters:\n  - name: a\n    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        explicit_http_config: {http3_protocol_options: {}}\n',
    'b.yaml:7:31: cluster "a": typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.explicit_http_config: HTTP/3 is not supported',
  ],
  ['a list at the top', '[1]', 'b.yaml:1:1: must be an object, received [1]'],
  [
    'an alias that grows without end',
    `a: &a [x, x, x, x, x, x, x, x, x]\n${'bcdefgh'
      .split('')
      .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefg'[i]}`).join(', ')}]`)
      .join('\n')}\n`,
    'b.yaml',
  ],
])('%s is refused at its place', (_what, text, message) => {
  expect(() => parse(text)).toThrow(expect.objectContaining({ name: 'DecodeError', message: expect.stringContaining(message) }));
});

test('unknown fields are warned of when they are allowed', () => {
  const { warnings } = parse('node: {id: a}\nnew_thing: {x: 1}\n', { allowUnknownStaticFields: true });

  expect(warnings).toEqual(['b.yaml:2:12: unknown field new_thing is ignored']);
});

test('what has no effect is told with the resource and its place', () => {
  const { warnings } = parse(
    'static_resources:\n  listeners:\n  - {name: l, transparent: true, default_filter_chain: {}, address: {pipe: {path: /s}}}\nstats_sinks: [{name: s}]\n',
  );

  expect(warnings).toEqual(['stats_sinks: is ignored', 'b.yaml:3:5: listener "l": transparent: is ignored']);
});

test('a configuration of the command line is merged over the file: single values replaced, lists appended', () => {
  const { bootstrap } = parse(`node: {id: a, cluster: b}\n${XDS_CLUSTER}`, {
    configYaml: 'node: {id: over}\nstatic_resources: {clusters: [{name: more}]}',
  });

  expect(bootstrap.node).toMatchObject({ id: 'over', cluster: 'b' });
  expect(bootstrap.static.clusters.map(({ resource }) => resource.name)).toEqual(['xds', 'more']);
});

test('a .json file is held to JSON', () => {
  expect(parse('{"node": {"id": "a"}}', { format: 'json' }).bootstrap.node.id).toBe('a');
  expect(() => parse('node: {id: a}', { format: 'json', file: 'b.json' })).toThrow(/^b\.json: /);
});

test('a dump keeps the snake_case names and hides keys', () => {
  const { bootstrap } = parse(`
static_resources:
  secrets:
  - name: s
    tls_certificate: {certificate_chain: {inline_string: C}, private_key: {inline_string: PRIVATE}}
`);

  const dump = JSON.stringify(bootstrap.dump()) + JSON.stringify(bootstrap.static.secrets[0]?.dump());

  expect(dump).toContain('"tls_certificate":{"certificate_chain":{"inline_string":"C"},"private_key":{"inline_string":"[redacted]"}}');
  expect(dump).not.toContain('PRIVATE');
});

test.each([
  ['', 'is empty'],
  ['# nothing\n', 'is empty'],
  ['layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: b, admin_layer: {}}]}', 'may be the only admin layer'],
  [`dynamic_resources: {lds_config: {resource_api_version: V2, path: /lds.yaml}}`, 'resource_api_version: must be V3'],
])('%j is refused: %s', (text, message) => {
  expect(() => parse(text)).toThrow(message);
});

test('booleans may be words of YAML 1.1, and enums their numbers as text', () => {
  const resourcesOf = (flag: string): string =>
    `static_resources: {clusters: [{name: a, connect_timeout: 1s, lb_policy: "1", respect_dns_ttl: ${flag}, load_assignment: {cluster_name: a}}]}`;
  const read = (flag: string): unknown => {
    const { respectDnsTtl, lbPolicy } = parse(resourcesOf(flag)).bootstrap.static.clusters[0]!.resource;
    return [respectDnsTtl, lbPolicy.name];
  };

  for (const word of ['true', 'yes', 'On', '"true"', 'Y']) expect(read(word)).toEqual([true, 'LEAST_REQUEST']);
  for (const word of ['false', 'no', 'OFF', '"false"', 'n']) expect(read(word)).toEqual([false, 'LEAST_REQUEST']);
  expect(() => read('maybe')).toThrow('must be true or false');
});
