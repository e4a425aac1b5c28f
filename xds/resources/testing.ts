/** Random resources of our own types for property tests: everything that the wire can carry and a decoder accepts. */
import * as fc from 'fast-check';
import {
  type Cluster,
  type CommonTls,
  type ExtensionConfig,
  type FilterChain,
  type HttpConnectionManager,
  type LbEndpoint,
  type Listener,
  type LoadAssignment,
  NO_HEADER_MUTATIONS,
  type Secret,
  type SecretRef,
} from '../snapshot.ts';
import { addresses, both, extensions, json, ms, names, optional, percent, positiveMs, stringMatches, uint32 } from './testing-parts.ts';
import { routeConfigurations } from './testing-routes.ts';

const sans = fc.array(fc.record({ type: fc.constantFrom('URI' as const, 'DNS' as const), match: stringMatches }), { maxLength: 2 });

export const secrets: fc.Arbitrary<Secret> = fc
  .tuple(
    names,
    fc.oneof(
      fc.record({ kind: fc.constant('certificate' as const), chainPem: names, keyPem: names }),
      names.map((name) => ({
        kind: 'certificate' as const,
        chainPem: '',
        keyPem: '',
        chainFrom: { kind: 'file' as const, path: `/tls/${name}` },
        keyFrom: { kind: 'environment' as const, name },
      })),
      fc.record({ kind: fc.constant('validation' as const), rootsPem: names, matchSubjectAltNames: sans, trustUnverified: fc.boolean() }),
    ),
  )
  .map(([name, content]) => ({ name, content }));

const sds: fc.Arbitrary<SecretRef> = fc.oneof(
  names.map((name) => ({ kind: 'sds' as const, name })),
  fc.tuple(names, names).map(([name, cluster]) => ({ kind: 'sds' as const, name, source: { kind: 'cluster' as const, cluster } })),
  fc.tuple(names, names).map(([name, path]) => ({ kind: 'sds' as const, name, source: { kind: 'path' as const, path: `/${path}` } })),
);

const versions: fc.Arbitrary<Pick<CommonTls, 'minVersion' | 'maxVersion'>> = fc.constantFrom(
  { minVersion: 'TLSv1_2', maxVersion: 'TLSv1_3' },
  { minVersion: 'TLSv1_3', maxVersion: 'TLSv1_3' },
  { minVersion: 'TLSv1_2', maxVersion: 'TLSv1_2' },
);

/** Proxyless gRPC: certificates come from a provider of the client, and nothing is said about versions. */
const providedTls: fc.Arbitrary<CommonTls> = fc.tuple(names, names, sans).map(([name, instance, matchSubjectAltNames]) => {
  const provided: SecretRef = { kind: 'sds', name, source: { kind: 'provider', instance } };
  return { certificates: [provided], validation: provided, matchSubjectAltNames, alpn: [], minVersion: 'TLSv1_2', maxVersion: 'TLSv1_3' };
});

const namedTls: fc.Arbitrary<CommonTls> = both(
  versions,
  fc.oneof(
    fc.record({
      certificates: fc.array(sds, { minLength: 1, maxLength: 2 }),
      validation: sds,
      matchSubjectAltNames: sans,
      alpn: fc.constantFrom([], ['h2', 'http/1.1']),
    }),
    fc.record({
      certificates: fc.array(sds, { minLength: 1, maxLength: 2 }),
      matchSubjectAltNames: fc.constant([]),
      alpn: fc.constant(['h2']),
    }),
  ),
);

const commonTls = fc.oneof(namedTls, providedTls);

const managerFields: fc.Arbitrary<Omit<HttpConnectionManager, 'routeConfig' | 'rdsName' | 'tracing' | 'localReplyConfig'>> = fc.record({
  statPrefix: names,
  codecType: fc.constantFrom('AUTO', 'HTTP1', 'HTTP2'),
  httpFilters: fc
    .array(both(extensions, fc.record({ disabled: fc.boolean(), isOptional: fc.boolean() })), { maxLength: 2 })
    .map((filters) => [
      ...filters,
      {
        name: 'envoy.filters.http.router',
        type: 'envoy.extensions.filters.http.router.v3.Router',
        config: {},
        disabled: false,
        isOptional: false,
      },
    ]),
  accessLogs: fc.constantFrom(
    [],
    [
      {
        name: 'log',
        type: 'envoy.extensions.access_loggers.file.v3.FileAccessLog',
        config: { path: '/dev/null' },
        filter: { notHealthCheckFilter: {} },
      },
    ],
  ),
  serverName: names,
  serverHeader: fc.constantFrom('OVERWRITE', 'APPEND_IF_ABSENT', 'PASS_THROUGH'),
  useRemoteAddress: fc.boolean(),
  xffNumTrustedHops: uint32,
  skipXffAppend: fc.boolean(),
  generateRequestId: fc.boolean(),
  preserveExternalRequestId: fc.boolean(),
  alwaysSetRequestIdInResponse: fc.boolean(),
  forwardClientCert: fc.constantFrom('SANITIZE', 'FORWARD_ONLY', 'APPEND_FORWARD', 'SANITIZE_SET', 'ALWAYS_FORWARD_ONLY'),
  setCurrentClientCertDetails: fc.record({
    subject: fc.boolean(),
    cert: fc.boolean(),
    chain: fc.boolean(),
    dns: fc.boolean(),
    uri: fc.boolean(),
  }),
  idleTimeoutMs: ms,
  streamIdleTimeoutMs: ms,
  requestTimeoutMs: ms,
  requestHeadersTimeoutMs: ms,
  drainTimeoutMs: ms,
  maxConnectionDurationMs: ms,
  maxStreamDurationMs: ms,
  maxRequestsPerConnection: uint32,
  headerFieldsMax: fc.integer({ min: 1, max: 1_000 }),
  headBytesMax: fc.integer({ min: 1, max: 8_192 }).map((kibibytes) => kibibytes * 1_024),
  normalizePath: fc.boolean(),
  mergeSlashes: fc.boolean(),
  pathWithEscapedSlashes: fc.constantFrom('KEEP_UNCHANGED', 'REJECT_REQUEST', 'UNESCAPE_AND_REDIRECT', 'UNESCAPE_AND_FORWARD'),
  headersWithUnderscores: fc.constantFrom('ALLOW', 'REJECT_REQUEST', 'DROP_HEADER'),
  stripMatchingHostPort: fc.boolean(),
  stripAnyHostPort: fc.boolean(),
  acceptHttp10: fc.boolean(),
  defaultHostForHttp10: fc.constantFrom('', 'example.org'),
  proxy100Continue: fc.boolean(),
  upgradeTypes: fc.constantFrom([], ['websocket']),
});

export const managers: fc.Arbitrary<HttpConnectionManager> = both(
  managerFields,
  fc.oneof(
    names.map((rdsName) => ({ rdsName })),
    routeConfigurations.map((routeConfig) => ({ routeConfig })),
    names.map((rdsName) => ({
      rdsName,
      tracing: {
        randomSamplingPercent: 10,
        clientSamplingPercent: 100,
        overallSamplingPercent: 50,
        serviceName: rdsName,
        provider: { name: 'otel', type: 'envoy.config.trace.v3.OpenTelemetryConfig', config: { serviceName: rdsName } },
      },
    })),
  ),
);

const chains: fc.Arbitrary<FilterChain> = both(
  fc.record({
    name: names,
    filters: fc.oneof(
      managers.map((http) => [{ kind: 'http' as const, name: 'hcm', http }]),
      fc.array(names, { minLength: 1, maxLength: 3 }).map((clusters) => [
        {
          kind: 'tcp' as const,
          name: 'tcp',
          tcp: {
            statPrefix: 'tcp',
            clusters: clusters.map((cluster) => ({ cluster, weight: 1, headerMutations: NO_HEADER_MUTATIONS, perFilterConfig: new Map() })),
            idleTimeoutMs: 1_000,
            maxConnectAttempts: 2,
            accessLogs: [],
          },
        },
      ]),
      extensions.map((extension) => [{ kind: 'other' as const, name: extension.name, extension }]),
    ),
  }),
  optional({
    tls: both(commonTls, fc.record({ requireClientCertificate: fc.boolean() })),
    transportSocketConnectTimeoutMs: positiveMs,
  }),
).chain((chain) =>
  optional({
    destinationPort: fc.integer({ min: 1, max: 65_535 }),
    serverNames: fc.constantFrom(['a.example', '*.b.example']),
    transportProtocol: fc.constantFrom('tls', 'raw_buffer'),
    applicationProtocols: fc.constant(['h2']),
    sourceType: fc.constantFrom('EXTERNAL' as const, 'SAME_IP_OR_LOOPBACK' as const),
    prefixRanges: fc.constant([{ address: '10.0.0.0', prefixLength: 8 }]),
    sourcePorts: fc.constant([80, 81]),
  }).map((match) => ({ ...chain, match })),
);

export const listeners: fc.Arbitrary<Listener> = both(
  fc.record({
    name: names,
    address: addresses,
    trafficDirection: fc.constantFrom('INBOUND', 'OUTBOUND', 'UNSPECIFIED'),
    filterChains: fc.uniqueArray(chains, {
      minLength: 1,
      maxLength: 2,
      selector: (chain) => JSON.stringify(chain.match, Object.keys(chain.match).toSorted()),
    }),
    listenerFilters: fc.constantFrom(
      [],
      [
        {
          name: 'envoy.filters.listener.tls_inspector',
          type: 'envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector',
          config: {},
          filterDisabled: { destinationPortRange: { start: 80, end: 81 } },
        },
      ],
    ),
    listenerFiltersTimeoutMs: ms,
    continueOnListenerFiltersTimeout: fc.boolean(),
    useOriginalDst: fc.boolean(),
    bindToPort: fc.boolean(),
    perConnectionBufferBytesMax: uint32,
  }),
  optional({ defaultFilterChain: chains, apiListener: managers, additionalAddresses: fc.array(addresses, { minLength: 1, maxLength: 2 }) }),
);

const endpoints: fc.Arbitrary<LbEndpoint> = fc.record({
  address: addresses,
  hostname: names,
  weight: fc.integer({ min: 1, max: 1_000 }),
  health: fc.constantFrom('UNKNOWN', 'HEALTHY', 'UNHEALTHY', 'DRAINING', 'TIMEOUT', 'DEGRADED'),
  metadata: fc.oneof(
    fc.constant({}),
    json.map((labels) => ({ 'envoy.lb': labels })),
  ),
});

export const loadAssignments: fc.Arbitrary<LoadAssignment> = fc.record({
  clusterName: names,
  localities: fc.array(
    both(
      fc.record({
        locality: fc.record({ region: names, zone: names, subZone: names }),
        priority: fc.integer({ min: 0, max: 128 }),
        endpoints: fc.array(endpoints, { maxLength: 4 }),
      }),
      optional({ weight: fc.integer({ min: 1, max: 1_000 }) }),
    ),
    { maxLength: 3 },
  ),
  overprovisioningFactor: fc.integer({ min: 1, max: 1_000 }),
  dropPercent: percent,
});

const breakers = both(
  fc.record({ maxConnections: uint32, maxPendingRequests: uint32, maxRequests: uint32, maxRetries: uint32, trackRemaining: fc.boolean() }),
  optional({ retryBudget: fc.record({ budgetPercent: percent, minRetryConcurrency: uint32 }) }),
);

const POLICY = 'envoy.extensions.load_balancing_policies.';
const policies: fc.Arbitrary<ExtensionConfig> = fc.oneof(
  fc.constant({ name: 'ROUND_ROBIN', type: `${POLICY}round_robin.v3.RoundRobin`, config: {} }),
  fc
    .integer({ min: 2, max: 9 })
    .map((choiceCount) => ({ name: 'LEAST_REQUEST', type: `${POLICY}least_request.v3.LeastRequest`, config: { choiceCount } })),
  fc.constant({
    name: 'RING_HASH',
    type: `${POLICY}ring_hash.v3.RingHash`,
    config: { hashFunction: 'XX_HASH', minimumRingSize: '1024', consistentHashingLbConfig: { hashBalanceFactor: 150 } },
  }),
  fc.constant({ name: 'MAGLEV', type: `${POLICY}maglev.v3.Maglev`, config: { tableSize: '65537' } }),
  fc.constant({ name: 'RANDOM', type: `${POLICY}random.v3.Random`, config: {} }),
  fc.constant({ name: 'pick', type: `${POLICY}pick_first.v3.PickFirst`, config: { shuffleAddressList: true } }),
  fc.constant({ name: 'own', type: 'example.PeakEwma', config: { decay: '10s' } }),
);

const kinds: fc.Arbitrary<Pick<Cluster, 'type' | 'edsServiceName' | 'aggregateClusters' | 'loadAssignment'>> = fc.oneof(
  names.map((edsServiceName) => ({ type: 'EDS' as const, edsServiceName })),
  loadAssignments.map((loadAssignment) => ({ type: 'STATIC' as const, loadAssignment })),
  loadAssignments.map((loadAssignment) => ({ type: 'STRICT_DNS' as const, loadAssignment })),
  fc.array(names, { minLength: 1, maxLength: 3 }).map((aggregateClusters) => ({ type: 'AGGREGATE' as const, aggregateClusters })),
  fc.constantFrom({ type: 'ORIGINAL_DST' as const }, { type: 'DYNAMIC_FORWARD_PROXY' as const }),
);

const upstreamTls = both(commonTls, fc.record({ sni: names, autoHostSni: fc.boolean() }));

export const clusters: fc.Arbitrary<Cluster> = both(
  both(
    kinds,
    fc.record({
      name: names,
      altStatName: names,
      connectTimeoutMs: positiveMs,
      lbPolicy: policies,
      circuitBreakers: fc.record({ default: breakers, high: breakers }),
      healthChecks: fc.constantFrom(
        [],
        [
          {
            timeoutMs: 100,
            intervalMs: 200,
            noTrafficIntervalMs: 60_000,
            unhealthyThreshold: 2,
            healthyThreshold: 1,
            check: { kind: 'grpc' as const, service: 's' },
          },
        ],
        [
          {
            timeoutMs: 1,
            intervalMs: 2,
            noTrafficIntervalMs: 3,
            unhealthyThreshold: 2,
            healthyThreshold: 1,
            check: { kind: 'http' as const, path: '/', host: '', expectedStatuses: [{ start: 200, end: 300 }] },
          },
        ],
      ),
      tlsMatches: fc
        .array(both(fc.record({ name: names, match: json }), optional({ tls: upstreamTls })), { maxLength: 2 })
        .map((list) => list.map((item, i) => ({ ...item, name: `${item.name}-${i}` }))),
      protocol: fc.constantFrom('http1', 'http2', 'downstream', 'auto'),
      maxRequestsPerConnection: uint32,
      idleTimeoutMs: ms,
      dnsRefreshMs: fc.integer({ min: 2, max: 10_000_000 }),
      respectDnsTtl: fc.boolean(),
      dnsLookupFamily: fc.constantFrom('AUTO', 'V4_ONLY', 'V6_ONLY', 'V4_PREFERRED', 'ALL'),
      panicThresholdPercent: percent,
      localityWeighted: fc.boolean(),
      perConnectionBufferBytesMax: uint32,
    }),
  ),
  optional({
    tls: upstreamTls,
    autoSni: fc.constant(true),
    autoSanValidation: fc.constant(true),
    reportsLoad: fc.constant(true as const),
    metadata: fc.constant({ istio: { services: ['a'] } }),
  }),
);
