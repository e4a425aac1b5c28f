/** What holds where no resource says otherwise. The reasons are in docs/decisions/007-defaults.md. */
import type { CircuitBreakers, HttpConnectionManager, HttpFilterConfig, OutlierDetection, RetryPolicy } from '../../xds/snapshot.ts';
import type { Node } from '../world.ts';

/** Only what is safe by construction: the upstream has not seen the request, or has refused it unprocessed. */
const SAFE_RETRY_ON: readonly string[] = ['connect-failure', 'refused-stream', 'reset-before-request'];

const DEFAULT_RETRY: RetryPolicy = {
  retryOn: SAFE_RETRY_ON,
  numRetries: 2,
  retriableStatusCodes: [],
  retriableHeaders: [],
  backOffBaseMs: 25,
  backOffMaxMs: 250,
  resetHeaders: [],
  resetMaxMs: 300_000,
  previousHosts: true,
  hostSelectionAttemptsMax: 5,
};

/** Towards the application beside the sidecar: one endpoint only, so there is no other to choose. */
const INBOUND_RETRY: RetryPolicy = {
  ...DEFAULT_RETRY,
  retryOn: ['reset-before-request', 'refused-stream'],
  numRetries: 1,
  previousHosts: false,
  hostSelectionAttemptsMax: 1,
};

/**
 * Our sidecar repeats after a reset only what may happen twice (RFC 9110, section 9.2.2, or an idempotency key), so it may be told to; other
 * data planes would repeat a POST too.
 */
export function defaultRetry(flavour: Node['flavour'], direction: 'outbound' | 'inbound'): RetryPolicy {
  const known = RETRIES[direction];
  return flavour === 'sidecar' ? known.careful : known.plain;
}

const withReset = (policy: RetryPolicy): RetryPolicy => ({ ...policy, retryOn: [...policy.retryOn, 'reset'] });
const RETRIES = {
  outbound: { plain: DEFAULT_RETRY, careful: withReset(DEFAULT_RETRY) },
  inbound: { plain: INBOUND_RETRY, careful: withReset(INBOUND_RETRY) },
} as const;

export const DEFAULT_CIRCUIT_BREAKERS: CircuitBreakers = {
  maxConnections: 100_000,
  maxPendingRequests: 16_384,
  maxRequests: 100_000,
  maxRetries: 100_000,
  retryBudget: { budgetPercent: 20, minRetryConcurrency: 3 },
  trackRemaining: true,
};

export const DEFAULT_OUTLIER_DETECTION: OutlierDetection = {
  consecutive5xx: 5,
  enforcingConsecutive5xxPercent: 100,
  consecutiveGatewayFailure: 5,
  enforcingConsecutiveGatewayFailurePercent: 0,
  consecutiveLocalOriginFailure: 5,
  enforcingConsecutiveLocalOriginFailurePercent: 100,
  splitExternalLocalOriginErrors: false,
  intervalMs: 10_000,
  baseEjectionTimeMs: 30_000,
  maxEjectionTimeMs: 300_000,
  maxEjectionTimeJitterMs: 0,
  maxEjectionPercent: 50,
  alwaysEjectOneEndpoint: true,
  enforcingSuccessRatePercent: 0,
  successRateMinimumHosts: 5,
  successRateRequestVolume: 100,
  successRateStdevFactor: 1_900,
  failurePercentageThreshold: 85,
  enforcingFailurePercentagePercent: 0,
  failurePercentageMinimumHosts: 5,
  failurePercentageRequestVolume: 50,
};

export const CONNECT_TIMEOUT_MS = 5_000;
export const INBOUND_CONNECT_TIMEOUT_MS = 1_000;
export const UPSTREAM_IDLE_TIMEOUT_MS = 3_600_000;
export const BUFFER_BYTES_MAX = 1_048_576;

export const ROUTER_FILTER: HttpFilterConfig = {
  name: 'envoy.filters.http.router',
  type: 'envoy.extensions.filters.http.router.v3.Router',
  config: {},
  disabled: false,
  isOptional: false,
};

/** A connection manager with nothing of its own; listeners add their routes and filters. */
export const DEFAULT_CONNECTION_MANAGER: Omit<HttpConnectionManager, 'statPrefix'> = {
  codecType: 'AUTO',
  httpFilters: [ROUTER_FILTER],
  accessLogs: [],
  serverName: 'meshwork',
  serverHeader: 'PASS_THROUGH',
  useRemoteAddress: false,
  xffNumTrustedHops: 0,
  skipXffAppend: false,
  generateRequestId: true,
  preserveExternalRequestId: true,
  alwaysSetRequestIdInResponse: false,
  forwardClientCert: 'SANITIZE',
  setCurrentClientCertDetails: { subject: false, cert: false, chain: false, dns: false, uri: false },
  idleTimeoutMs: 3_600_000,
  // Streams may stay silent for as long as their ends like: a mesh must not end what both ends keep open.
  streamIdleTimeoutMs: 0,
  requestTimeoutMs: 0,
  requestHeadersTimeoutMs: 30_000,
  drainTimeoutMs: 5_000,
  maxConnectionDurationMs: 0,
  maxStreamDurationMs: 0,
  maxRequestsPerConnection: 0,
  headerFieldsMax: 100,
  headBytesMax: 61_440,
  normalizePath: true,
  mergeSlashes: false,
  pathWithEscapedSlashes: 'KEEP_UNCHANGED',
  headersWithUnderscores: 'ALLOW',
  stripMatchingHostPort: false,
  stripAnyHostPort: false,
  acceptHttp10: true,
  defaultHostForHttp10: '',
  proxy100Continue: true,
  upgradeTypes: ['websocket'],
};
