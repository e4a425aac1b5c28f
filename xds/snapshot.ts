/** What a data plane knows: our own immutable types for every xDS resource, and the check that a set of them fits together. */

export { consistent } from './consistent.ts';

/** Milliseconds; durations of the wire are converted at the border. */
type Ms = number;
/** JSON of a protobuf message by proto3's mapping, camelCase or snake_case as the decoder gives it (it gives camelCase). */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

/** An extension as Envoy names one: `type` is the message's full name without a host, `config` its JSON with camelCase names. */
export interface ExtensionConfig {
  readonly name: string;
  /** Empty when the wire carries a name only and the name is not one of Envoy's own. */
  readonly type: string;
  readonly config: JsonObject;
  /** In a per-route configuration: the filter does not run there. */
  readonly disabled?: boolean;
}

/** A listener filter; `filterDisabled` is the predicate (JSON) of connections that skip it. */
export interface ListenerFilterConfig extends ExtensionConfig {
  readonly filterDisabled?: JsonObject;
}

/** An access log; `filter` (JSON of AccessLogFilter) says which requests it takes, all when absent. */
export interface AccessLogConfig extends ExtensionConfig {
  readonly filter?: JsonObject;
}

/** Bytes that the resource names instead of carrying: a file, or a variable of the environment. */
export type DataRef = { readonly kind: 'file'; readonly path: string } | { readonly kind: 'environment'; readonly name: string };

export interface Address {
  /** IP address, or a name for STRICT_DNS and LOGICAL_DNS clusters; a path when `pipe` is set. */
  readonly host: string;
  readonly port: number;
  readonly pipe?: true;
}

// ---- listener -------------------------------------------------------------------------------------------------------

export interface Listener {
  readonly name: string;
  readonly address: Address;
  readonly additionalAddresses?: readonly Address[];
  /** Names its statistics; absent = its address does. */
  readonly statPrefix?: string;
  readonly trafficDirection: 'INBOUND' | 'OUTBOUND' | 'UNSPECIFIED';
  readonly filterChains: readonly FilterChain[];
  readonly defaultFilterChain?: FilterChain;
  readonly listenerFilters: readonly ListenerFilterConfig[];
  readonly listenerFiltersTimeoutMs: Ms;
  readonly continueOnListenerFiltersTimeout: boolean;
  readonly useOriginalDst: boolean;
  readonly bindToPort: boolean;
  readonly perConnectionBufferBytesMax: number;
  /** Proxyless gRPC: a listener that is only an HTTP connection manager. */
  readonly apiListener?: HttpConnectionManager;
}

export interface FilterChain {
  readonly name: string;
  readonly match: FilterChainMatch;
  readonly tls?: DownstreamTls;
  readonly filters: readonly NetworkFilter[];
  readonly transportSocketConnectTimeoutMs?: Ms;
}

/** Absent means "matches all". */
export interface FilterChainMatch {
  readonly destinationPort?: number;
  readonly prefixRanges?: readonly Cidr[];
  readonly serverNames?: readonly string[];
  readonly transportProtocol?: string;
  readonly applicationProtocols?: readonly string[];
  readonly sourceType?: 'SAME_IP_OR_LOOPBACK' | 'EXTERNAL';
  readonly sourcePrefixRanges?: readonly Cidr[];
  readonly directSourcePrefixRanges?: readonly Cidr[];
  readonly sourcePorts?: readonly number[];
}

export interface Cidr {
  readonly address: string;
  readonly prefixLength: number;
}

export type NetworkFilter =
  | { readonly kind: 'http'; readonly name: string; readonly http: HttpConnectionManager }
  | { readonly kind: 'tcp'; readonly name: string; readonly tcp: TcpProxy }
  | { readonly kind: 'other'; readonly name: string; readonly extension: ExtensionConfig };

export interface TcpProxy {
  readonly statPrefix: string;
  readonly clusters: readonly WeightedCluster[];
  readonly idleTimeoutMs: Ms;
  readonly maxConnectAttempts: number;
  readonly accessLogs: readonly AccessLogConfig[];
}

export interface HttpConnectionManager {
  readonly statPrefix: string;
  readonly codecType: 'AUTO' | 'HTTP1' | 'HTTP2';
  /** Exactly one of the two. */
  readonly routeConfig?: RouteConfiguration;
  readonly rdsName?: string;
  readonly httpFilters: readonly HttpFilterConfig[];
  readonly accessLogs: readonly AccessLogConfig[];
  readonly tracing?: {
    readonly randomSamplingPercent: number;
    readonly clientSamplingPercent: number;
    readonly overallSamplingPercent: number;
    readonly serviceName?: string;
    readonly provider?: ExtensionConfig;
  };
  readonly serverName: string;
  readonly serverHeader: 'OVERWRITE' | 'APPEND_IF_ABSENT' | 'PASS_THROUGH';
  readonly useRemoteAddress: boolean;
  readonly xffNumTrustedHops: number;
  readonly skipXffAppend: boolean;
  readonly generateRequestId: boolean;
  readonly preserveExternalRequestId: boolean;
  readonly alwaysSetRequestIdInResponse: boolean;
  readonly forwardClientCert: 'SANITIZE' | 'FORWARD_ONLY' | 'APPEND_FORWARD' | 'SANITIZE_SET' | 'ALWAYS_FORWARD_ONLY';
  readonly setCurrentClientCertDetails: {
    readonly subject: boolean;
    readonly cert: boolean;
    readonly chain: boolean;
    readonly dns: boolean;
    readonly uri: boolean;
  };
  /** 0 = none. */
  readonly idleTimeoutMs: Ms;
  readonly streamIdleTimeoutMs: Ms;
  readonly requestTimeoutMs: Ms;
  readonly requestHeadersTimeoutMs: Ms;
  readonly drainTimeoutMs: Ms;
  readonly maxConnectionDurationMs: Ms;
  readonly maxStreamDurationMs: Ms;
  readonly maxRequestsPerConnection: number;
  readonly headerFieldsMax: number;
  readonly headBytesMax: number;
  readonly normalizePath: boolean;
  readonly mergeSlashes: boolean;
  readonly pathWithEscapedSlashes: 'KEEP_UNCHANGED' | 'REJECT_REQUEST' | 'UNESCAPE_AND_REDIRECT' | 'UNESCAPE_AND_FORWARD';
  readonly headersWithUnderscores: 'ALLOW' | 'REJECT_REQUEST' | 'DROP_HEADER';
  readonly stripMatchingHostPort: boolean;
  readonly stripAnyHostPort: boolean;
  readonly acceptHttp10: boolean;
  readonly defaultHostForHttp10: string;
  readonly proxy100Continue: boolean;
  /** Lower case, for example `websocket`, `CONNECT` as `connect`. */
  readonly upgradeTypes: readonly string[];
  readonly localReplyConfig?: JsonObject;
}

/** The last one is the router. A route can override by `name` (typed_per_filter_config). */
export interface HttpFilterConfig extends ExtensionConfig {
  readonly disabled: boolean;
  readonly isOptional: boolean;
}

// ---- route ----------------------------------------------------------------------------------------------------------

export interface RouteConfiguration {
  readonly name: string;
  readonly virtualHosts: readonly VirtualHost[];
  /** Further virtual hosts are asked for by name, `<this name>/<host>`, over the stream that this came on (VHDS). */
  readonly vhds?: true;
  readonly headerMutations: HeaderMutations;
  readonly validateClusters: boolean;
  readonly ignorePortInHostMatching: boolean;
  readonly mostSpecificHeaderMutationsWins: boolean;
  readonly maxDirectResponseBodyBytes: number;
}

export interface VirtualHost {
  readonly name: string;
  /** Exact, `*.suffix`, `prefix.*` or `*`; lower case. */
  readonly domains: readonly string[];
  readonly routes: readonly Route[];
  readonly headerMutations: HeaderMutations;
  readonly retryPolicy?: RetryPolicy;
  readonly includeRequestAttemptCount: boolean;
  readonly includeAttemptCountInResponse: boolean;
  readonly requireTls: 'NONE' | 'EXTERNAL_ONLY' | 'ALL';
  readonly perFilterConfig: ReadonlyMap<string, ExtensionConfig>;
}

export interface Route {
  readonly name: string;
  readonly match: RouteMatch;
  readonly action: RouteAction;
  readonly headerMutations: HeaderMutations;
  readonly perFilterConfig: ReadonlyMap<string, ExtensionConfig>;
  readonly metadata?: JsonObject;
}

export interface RouteMatch {
  readonly path:
    | { readonly kind: 'prefix'; readonly value: string }
    | { readonly kind: 'exact'; readonly value: string }
    | { readonly kind: 'segmentPrefix'; readonly value: string }
    | { readonly kind: 'regex'; readonly value: string }
    | { readonly kind: 'connect' };
  readonly caseSensitive: boolean;
  /** Includes matches on `:method` and other pseudo-headers, as on the wire. */
  readonly headers: readonly HeaderMatch[];
  readonly queryParameters: readonly QueryMatch[];
  /** 0 to 1; 1 when not set. */
  readonly runtimeFraction: number;
  /** Runtime key whose value, in per cent, goes before `runtimeFraction`. */
  readonly runtimeKey?: string;
  readonly grpcOnly: boolean;
}

export interface HeaderMatch {
  readonly name: string;
  readonly match: ValueMatch;
  readonly invert: boolean;
  readonly treatMissingAsEmpty: boolean;
}

export interface QueryMatch {
  readonly name: string;
  readonly match: ValueMatch;
}

export type ValueMatch =
  | { readonly kind: 'present'; readonly present: boolean }
  | { readonly kind: 'range'; readonly start: number; readonly end: number }
  | StringMatch;

export type StringMatch =
  | { readonly kind: 'exact' | 'prefix' | 'suffix' | 'contains'; readonly value: string; readonly ignoreCase: boolean }
  | { readonly kind: 'regex'; readonly value: string };

export type RouteAction =
  | ({ readonly kind: 'forward' } & ForwardAction)
  | { readonly kind: 'redirect'; readonly redirect: RedirectAction }
  | { readonly kind: 'direct'; readonly status: number; readonly body?: Uint8Array; readonly bodyFrom?: DataRef }
  /** Server side of proxyless gRPC: the application answers by itself. */
  | { readonly kind: 'nonForwarding' };

export interface ForwardAction {
  readonly target:
    | { readonly kind: 'cluster'; readonly cluster: string }
    | { readonly kind: 'header'; readonly header: string }
    | { readonly kind: 'weighted'; readonly clusters: readonly WeightedCluster[]; readonly randomHeader?: string };
  readonly clusterNotFoundStatus: 503 | 404 | 500;
  /** Undefined = Envoy's default of 15 s; 0 = none. */
  readonly timeoutMs: Ms;
  readonly idleTimeoutMs?: Ms;
  readonly maxStreamDurationMs?: Ms;
  readonly retryPolicy?: RetryPolicy;
  readonly prefixRewrite?: string;
  readonly regexRewrite?: { readonly pattern: string; readonly substitution: string };
  readonly hostRewrite?:
    | { readonly kind: 'literal'; readonly value: string }
    | { readonly kind: 'auto' }
    | { readonly kind: 'header'; readonly header: string };
  readonly appendXForwardedHost: boolean;
  readonly hashPolicies: readonly HashPolicy[];
  readonly mirrors: readonly {
    readonly cluster: string;
    readonly fraction: number;
    /** Runtime key whose value, in per cent, goes before `fraction`. */
    readonly runtimeKey?: string;
    readonly disableShadowHostSuffix: boolean;
  }[];
  /** `terminates` (connect_config): a CONNECT ends here, and what comes through the tunnel goes to the cluster as bytes. */
  readonly upgradeConfigs: readonly { readonly type: string; readonly enabled: boolean; readonly terminates?: true }[];
  readonly priority: 'DEFAULT' | 'HIGH';
  /** envoy.lb subset labels. */
  readonly metadataMatch?: JsonObject;
}

export interface WeightedCluster {
  readonly cluster: string;
  readonly weight: number;
  readonly headerMutations: HeaderMutations;
  readonly perFilterConfig: ReadonlyMap<string, ExtensionConfig>;
  readonly hostRewriteLiteral?: string;
  /** Labels of the subset, over those of the route (`ForwardAction.metadataMatch`). */
  readonly metadataMatch?: JsonObject;
}

export type HashPolicy =
  | { readonly kind: 'header'; readonly header: string; readonly terminal: boolean }
  | { readonly kind: 'cookie'; readonly name: string; readonly ttlMs?: Ms; readonly path: string; readonly terminal: boolean }
  | { readonly kind: 'sourceIp'; readonly terminal: boolean }
  | { readonly kind: 'query'; readonly name: string; readonly terminal: boolean }
  | { readonly kind: 'filterState'; readonly key: string; readonly terminal: boolean };

export interface RedirectAction {
  readonly schemeRedirect?: string;
  readonly httpsRedirect: boolean;
  readonly hostRedirect?: string;
  readonly portRedirect?: number;
  readonly pathRedirect?: string;
  readonly prefixRewrite?: string;
  readonly regexRewrite?: { readonly pattern: string; readonly substitution: string };
  readonly status: 301 | 302 | 303 | 307 | 308;
  readonly stripQuery: boolean;
}

export interface RetryPolicy {
  /** Envoy's words: `5xx`, `gateway-error`, `reset`, `connect-failure`, `retriable-4xx`, `refused-stream`, `retriable-status-codes`, `cancelled` … */
  readonly retryOn: readonly string[];
  readonly numRetries: number;
  readonly perTryTimeoutMs?: Ms;
  readonly perTryIdleTimeoutMs?: Ms;
  readonly retriableStatusCodes: readonly number[];
  readonly retriableHeaders: readonly HeaderMatch[];
  readonly backOffBaseMs: Ms;
  readonly backOffMaxMs: Ms;
  /** Headers (`Retry-After`, `X-RateLimit-Reset`) whose value replaces the back-off. */
  readonly resetHeaders: readonly { readonly name: string; readonly format: 'SECONDS' | 'UNIX_TIMESTAMP' }[];
  readonly resetMaxMs: Ms;
  readonly previousHosts: boolean;
  readonly hostSelectionAttemptsMax: number;
}

/** Empty lists where nothing is to be done. */
export interface HeaderMutations {
  readonly requestAdd: readonly HeaderValueOption[];
  readonly requestRemove: readonly string[];
  readonly responseAdd: readonly HeaderValueOption[];
  readonly responseRemove: readonly string[];
}

export interface HeaderValueOption {
  readonly name: string;
  readonly value: string;
  readonly append: 'APPEND_IF_EXISTS_OR_ADD' | 'ADD_IF_ABSENT' | 'OVERWRITE_IF_EXISTS_OR_ADD' | 'OVERWRITE_IF_EXISTS';
  readonly keepEmptyValue: boolean;
}

export const NO_HEADER_MUTATIONS: HeaderMutations = { requestAdd: [], requestRemove: [], responseAdd: [], responseRemove: [] };

// ---- cluster and endpoints ------------------------------------------------------------------------------------------

export interface Cluster {
  readonly name: string;
  readonly altStatName: string;
  /** DYNAMIC_FORWARD_PROXY dials what the request's authority names (`envoy.clusters.dynamic_forward_proxy`). */
  readonly type: 'STATIC' | 'STRICT_DNS' | 'LOGICAL_DNS' | 'EDS' | 'ORIGINAL_DST' | 'AGGREGATE' | 'DYNAMIC_FORWARD_PROXY';
  /** AGGREGATE only: the clusters in order of preference. */
  readonly aggregateClusters?: readonly string[];
  /** EDS only; the cluster's name when the wire leaves it out. */
  readonly edsServiceName?: string;
  readonly connectTimeoutMs: Ms;
  /**
   * `name` is ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV, CLUSTER_PROVIDED, or an extension's own name; `type` is the message
   * below `envoy.extensions.load_balancing_policies` (of `lb_policy` too) and `config` its JSON: `choiceCount`, `minimumRingSize` …
   */
  readonly lbPolicy: ExtensionConfig;
  readonly loadAssignment?: LoadAssignment;
  readonly circuitBreakers: { readonly default: CircuitBreakers; readonly high: CircuitBreakers };
  readonly outlierDetection?: OutlierDetection;
  readonly healthChecks: readonly HealthCheck[];
  readonly tls?: UpstreamTls;
  /** Chosen by endpoint metadata `envoy.transport_socket_match`; first match wins, else `tls`. An undefined `tls` is plaintext. */
  readonly tlsMatches: readonly { readonly name: string; readonly match: JsonObject; readonly tls?: UpstreamTls }[];
  readonly protocol: 'http1' | 'http2' | 'downstream' | 'auto';
  /** 0 = no limit. */
  readonly maxRequestsPerConnection: number;
  readonly idleTimeoutMs: Ms;
  readonly dnsRefreshMs: Ms;
  /** lrs_server `self`: the client reports its load to the server that it has this cluster from. */
  readonly reportsLoad?: true;
  readonly respectDnsTtl: boolean;
  readonly dnsLookupFamily: 'AUTO' | 'V4_ONLY' | 'V6_ONLY' | 'V4_PREFERRED' | 'ALL';
  readonly slowStart?: { readonly windowMs: Ms; readonly aggression: number; readonly minWeightPercent: number };
  readonly panicThresholdPercent: number;
  readonly zoneAware?: { readonly minClusterSize: number; readonly routingEnabledPercent: number };
  readonly localityWeighted: boolean;
  /** JSON of Cluster.LbSubsetConfig: endpoints are grouped by the metadata under `envoy.lb`. */
  readonly lbSubset?: JsonObject;
  /** The server name of a TLS connection is the request's authority; with `autoSanValidation` the certificate must name it too. */
  readonly autoSni?: boolean;
  readonly autoSanValidation?: boolean;
  readonly perConnectionBufferBytesMax: number;
  readonly metadata?: JsonObject;
}

/** Numbers are maxima; a budget replaces `maxRetries` when set. */
export interface CircuitBreakers {
  readonly maxConnections: number;
  readonly maxPendingRequests: number;
  readonly maxRequests: number;
  readonly maxRetries: number;
  readonly retryBudget?: { readonly budgetPercent: number; readonly minRetryConcurrency: number };
  readonly trackRemaining: boolean;
}

/** Envoy's outlier_detection with its defaults filled in. */
export interface OutlierDetection {
  readonly consecutive5xx: number;
  readonly enforcingConsecutive5xxPercent: number;
  readonly consecutiveGatewayFailure: number;
  readonly enforcingConsecutiveGatewayFailurePercent: number;
  readonly consecutiveLocalOriginFailure: number;
  readonly enforcingConsecutiveLocalOriginFailurePercent: number;
  readonly splitExternalLocalOriginErrors: boolean;
  readonly intervalMs: Ms;
  readonly baseEjectionTimeMs: Ms;
  readonly maxEjectionTimeMs: Ms;
  readonly maxEjectionTimeJitterMs: Ms;
  readonly maxEjectionPercent: number;
  readonly alwaysEjectOneEndpoint: boolean;
  readonly enforcingSuccessRatePercent: number;
  readonly successRateMinimumHosts: number;
  readonly successRateRequestVolume: number;
  readonly successRateStdevFactor: number;
  readonly failurePercentageThreshold: number;
  readonly enforcingFailurePercentagePercent: number;
  readonly failurePercentageMinimumHosts: number;
  readonly failurePercentageRequestVolume: number;
}

export interface HealthCheck {
  readonly timeoutMs: Ms;
  readonly intervalMs: Ms;
  readonly noTrafficIntervalMs: Ms;
  readonly unhealthyThreshold: number;
  readonly healthyThreshold: number;
  readonly check:
    | {
        readonly kind: 'http';
        readonly path: string;
        readonly host: string;
        readonly expectedStatuses: readonly { readonly start: number; readonly end: number }[];
      }
    | { readonly kind: 'tcp' }
    | { readonly kind: 'grpc'; readonly service: string };
}

export interface LoadAssignment {
  readonly clusterName: string;
  readonly localities: readonly LocalityEndpoints[];
  readonly overprovisioningFactor: number;
  readonly dropPercent: number;
}

export interface LocalityEndpoints {
  readonly locality: Locality;
  /** Undefined = the locality takes part only when the cluster is not locality weighted. */
  readonly weight?: number;
  readonly priority: number;
  readonly endpoints: readonly LbEndpoint[];
}

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subZone: string;
}

export interface LbEndpoint {
  readonly address: Address;
  readonly hostname: string;
  readonly weight: number;
  readonly health: 'UNKNOWN' | 'HEALTHY' | 'UNHEALTHY' | 'DRAINING' | 'TIMEOUT' | 'DEGRADED';
  readonly metadata: JsonObject;
}

// ---- TLS and secrets ------------------------------------------------------------------------------------------------

/** Where a certificate or a set of roots comes from: named (SDS) or in the resource itself. */
export type SecretRef =
  /** Without a `source` the secret comes over ADS, or from the static secrets of the bootstrap. */
  { readonly kind: 'sds'; readonly name: string; readonly source?: SecretSource } | { readonly kind: 'inline'; readonly secret: Secret };

/** Another place than ADS: an SDS server behind a cluster, a file, or (proxyless gRPC) a certificate provider of the client's bootstrap. */
export type SecretSource =
  | { readonly kind: 'cluster'; readonly cluster: string }
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'provider'; readonly instance: string };

export interface CommonTls {
  readonly certificates: readonly SecretRef[];
  readonly validation?: SecretRef;
  /** Matched against the peer's SANs, beside those that the validation secret names. */
  readonly matchSubjectAltNames: readonly SanMatch[];
  readonly alpn: readonly string[];
  readonly minVersion: 'TLSv1_2' | 'TLSv1_3';
  readonly maxVersion: 'TLSv1_2' | 'TLSv1_3';
}

export interface DownstreamTls extends CommonTls {
  readonly requireClientCertificate: boolean;
}

export interface UpstreamTls extends CommonTls {
  readonly sni: string;
  readonly autoHostSni: boolean;
}

export interface SanMatch {
  readonly type: 'URI' | 'DNS' | 'EMAIL' | 'IP_ADDRESS' | 'ANY';
  readonly match: StringMatch;
}

export interface Secret {
  readonly name: string;
  readonly content:
    /** A text is empty where its `…From` names the place to read it; see resolveSecret. */
    | {
        readonly kind: 'certificate';
        readonly chainPem: string;
        readonly keyPem: string;
        readonly chainFrom?: DataRef;
        readonly keyFrom?: DataRef;
      }
    | {
        readonly kind: 'validation';
        readonly rootsPem: string;
        readonly rootsFrom?: DataRef;
        readonly matchSubjectAltNames: readonly SanMatch[];
        readonly trustUnverified: boolean;
      };
}

// ---- the whole ------------------------------------------------------------------------------------------------------

/** Everything that one proxy knows at one moment. Maps go by resource name. */
export interface Snapshot {
  readonly listeners: ReadonlyMap<string, Listener>;
  readonly routes: ReadonlyMap<string, RouteConfiguration>;
  /** By resource name, `<route configuration>/<host>`: those that VHDS brought. */
  readonly virtualHosts: ReadonlyMap<string, VirtualHost>;
  readonly clusters: ReadonlyMap<string, Cluster>;
  /** By EDS service name. */
  readonly endpoints: ReadonlyMap<string, LoadAssignment>;
  readonly secrets: ReadonlyMap<string, Secret>;
}

export const EMPTY_SNAPSHOT: Snapshot = {
  listeners: new Map(),
  routes: new Map(),
  virtualHosts: new Map(),
  clusters: new Map(),
  endpoints: new Map(),
  secrets: new Map(),
};
