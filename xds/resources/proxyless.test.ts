/** What we write for proxyless gRPC is taken by the checks of @grpc/grpc-js-xds itself. */
import { beforeAll, expect, test } from '@jest/globals';
import { createRequire } from 'node:module';
import {
  type Cluster,
  type CommonTls,
  type HttpConnectionManager,
  type Listener,
  NO_HEADER_MUTATIONS,
  type RouteConfiguration,
  type SecretRef,
} from '../snapshot.ts';
import { encodeResource, type Kind, type ResourceOf } from './index.ts';

interface Checked {
  readonly name?: string;
  readonly error?: string;
}
interface ResourceType {
  decode(context: unknown, resource: { type_url: string; value: Buffer }): Checked;
}

const require = createRequire(import.meta.url);
const library = '@grpc/grpc-js-xds/build/src';
const typeOf = (file: string, name: string): ResourceType =>
  (require(`${library}/xds-resource-type/${file}-resource-type`) as Record<string, { get(): ResourceType }>)[name]!.get();

// Without it the library knows neither filters nor policies.
beforeAll(() => (require(library) as { register(): void }).register());

/** The library's verdict on a resource that we encoded: nothing, or its complaint. */
function complaint<K extends Kind>(type: ResourceType, kind: K, resource: ResourceOf<K>): string | undefined {
  const { typeUrl, bytes } = encodeResource(kind, resource);
  const bootstrap = { certificateProviders: { default: {} }, xdsServers: [] };
  const server = { serverFeatures: new Set(), equals: () => true };
  return type.decode({ server, bootstrap }, { type_url: typeUrl, value: Buffer.from(bytes) }).error;
}

const provided: SecretRef = { kind: 'sds', name: '', source: { kind: 'provider', instance: 'default' } };
const TLS: CommonTls = {
  certificates: [provided],
  validation: provided,
  matchSubjectAltNames: [],
  alpn: [],
  minVersion: 'TLSv1_2',
  maxVersion: 'TLSv1_3',
};
const LIMITS = { maxConnections: 1_024, maxPendingRequests: 1_024, maxRequests: 100, maxRetries: 3, trackRemaining: false };

const MANAGER: HttpConnectionManager = {
  statPrefix: 'x',
  codecType: 'AUTO',
  rdsName: 'echo',
  httpFilters: [
    {
      name: 'envoy.filters.http.router',
      type: 'envoy.extensions.filters.http.router.v3.Router',
      config: {},
      disabled: false,
      isOptional: false,
    },
  ],
  accessLogs: [],
  serverName: 'envoy',
  serverHeader: 'OVERWRITE',
  useRemoteAddress: false,
  xffNumTrustedHops: 0,
  skipXffAppend: false,
  generateRequestId: true,
  preserveExternalRequestId: false,
  alwaysSetRequestIdInResponse: false,
  forwardClientCert: 'SANITIZE',
  setCurrentClientCertDetails: { subject: false, cert: false, chain: false, dns: false, uri: false },
  idleTimeoutMs: 3_600_000,
  streamIdleTimeoutMs: 300_000,
  requestTimeoutMs: 0,
  requestHeadersTimeoutMs: 0,
  drainTimeoutMs: 5_000,
  maxConnectionDurationMs: 0,
  maxStreamDurationMs: 0,
  maxRequestsPerConnection: 0,
  headerFieldsMax: 100,
  headBytesMax: 61_440,
  normalizePath: false,
  mergeSlashes: false,
  pathWithEscapedSlashes: 'KEEP_UNCHANGED',
  headersWithUnderscores: 'ALLOW',
  stripMatchingHostPort: false,
  stripAnyHostPort: false,
  acceptHttp10: false,
  defaultHostForHttp10: '',
  proxy100Continue: false,
  upgradeTypes: [],
};

const LISTENER: Listener = {
  name: 'echo',
  address: { host: '', port: 0 },
  trafficDirection: 'OUTBOUND',
  filterChains: [],
  listenerFilters: [],
  listenerFiltersTimeoutMs: 15_000,
  continueOnListenerFiltersTimeout: false,
  useOriginalDst: false,
  bindToPort: true,
  perConnectionBufferBytesMax: 1_048_576,
};

const CLUSTER: Cluster = {
  name: 'c',
  altStatName: '',
  type: 'EDS',
  edsServiceName: 'c',
  connectTimeoutMs: 250,
  lbPolicy: { name: 'ROUND_ROBIN', type: 'envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin', config: {} },
  circuitBreakers: { default: LIMITS, high: LIMITS },
  healthChecks: [],
  tlsMatches: [],
  protocol: 'http2',
  maxRequestsPerConnection: 0,
  idleTimeoutMs: 3_600_000,
  dnsRefreshMs: 5_000,
  respectDnsTtl: false,
  dnsLookupFamily: 'AUTO',
  panicThresholdPercent: 50,
  localityWeighted: true,
  perConnectionBufferBytesMax: 1_048_576,
};

test('a client takes a listener that is only a connection manager', () => {
  expect(complaint(typeOf('listener', 'ListenerResourceType'), 'listener', { ...LISTENER, apiListener: MANAGER })).toBeUndefined();
});

test('a server takes a listener whose certificates come from its providers', () => {
  const chain = {
    name: 'a',
    match: {},
    tls: { ...TLS, requireClientCertificate: true },
    filters: [{ kind: 'http' as const, name: 'h', http: MANAGER }],
  };
  const listener: Listener = { ...LISTENER, name: 'srv', address: { host: '0.0.0.0', port: 50_051 }, filterChains: [chain] };

  expect(complaint(typeOf('listener', 'ListenerResourceType'), 'listener', listener)).toBeUndefined();
});

test('a client takes clusters with each policy that it knows, plain and with certificates', () => {
  const type = typeOf('cluster', 'ClusterResourceType');
  const ring = {
    name: 'RING_HASH',
    type: 'envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash',
    config: { hashFunction: 'XX_HASH' },
  };
  const san = { type: 'URI' as const, match: { kind: 'exact' as const, value: 'spiffe://td/ns/a/sa/b', ignoreCase: false } };

  expect(complaint(type, 'cluster', CLUSTER)).toBeUndefined();
  expect(complaint(type, 'cluster', { ...CLUSTER, lbPolicy: ring })).toBeUndefined();
  expect(
    complaint(type, 'cluster', { ...CLUSTER, tls: { ...TLS, matchSubjectAltNames: [san], sni: '', autoHostSni: false } }),
  ).toBeUndefined();
});

test('a client takes a route with weights, a retry policy and header matches', () => {
  const route: RouteConfiguration = {
    name: 'echo',
    virtualHosts: [
      {
        name: 'v',
        domains: ['echo'],
        routes: [
          {
            name: '',
            match: {
              path: { kind: 'prefix', value: '' },
              caseSensitive: true,
              headers: [{ name: 'x', match: { kind: 'exact', value: 'y', ignoreCase: false }, invert: false, treatMissingAsEmpty: false }],
              queryParameters: [],
              runtimeFraction: 1,
              grpcOnly: false,
            },
            action: {
              kind: 'forward',
              target: {
                kind: 'weighted',
                clusters: [{ cluster: 'c', weight: 1, headerMutations: NO_HEADER_MUTATIONS, perFilterConfig: new Map() }],
              },
              clusterNotFoundStatus: 503,
              timeoutMs: 0,
              maxStreamDurationMs: 1_000,
              appendXForwardedHost: false,
              hashPolicies: [],
              mirrors: [],
              upgradeConfigs: [],
              priority: 'DEFAULT',
              retryPolicy: {
                retryOn: ['unavailable'],
                numRetries: 2,
                retriableStatusCodes: [],
                retriableHeaders: [],
                backOffBaseMs: 25,
                backOffMaxMs: 250,
                resetHeaders: [],
                resetMaxMs: 300_000,
                previousHosts: true,
                hostSelectionAttemptsMax: 5,
              },
            },
            headerMutations: NO_HEADER_MUTATIONS,
            perFilterConfig: new Map(),
          },
        ],
        headerMutations: NO_HEADER_MUTATIONS,
        includeRequestAttemptCount: false,
        includeAttemptCountInResponse: false,
        requireTls: 'NONE',
        perFilterConfig: new Map(),
      },
    ],
    headerMutations: NO_HEADER_MUTATIONS,
    validateClusters: false,
    ignorePortInHostMatching: false,
    mostSpecificHeaderMutationsWins: false,
    maxDirectResponseBodyBytes: 4_096,
  };

  expect(complaint(typeOf('route-config', 'RouteConfigurationResourceType'), 'route', route)).toBeUndefined();
});

test('a client takes endpoints in a locality with a weight', () => {
  const endpoint = { address: { host: '10.0.0.1', port: 80 }, hostname: '', weight: 1, health: 'HEALTHY' as const, metadata: {} };
  const localities = [{ locality: { region: 'r', zone: 'z', subZone: '' }, weight: 1, priority: 0, endpoints: [endpoint] }];

  expect(
    complaint(typeOf('endpoint', 'EndpointResourceType'), 'endpoints', {
      clusterName: 'c',
      localities,
      overprovisioningFactor: 140,
      dropPercent: 0,
    }),
  ).toBeUndefined();
});
