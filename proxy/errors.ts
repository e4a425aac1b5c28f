/** The closed table of everything the proxy can fail with, and the one error class that carries it. */

/** `retry`: `always` = the upstream saw nothing; `idempotent` = it may have seen it; `never` = pointless or unsafe. */
interface ErrorRow {
  readonly status: number;
  /** gRPC status code sent to gRPC callers. */
  readonly grpcStatus: number;
  /** Envoy's short response flag in access logs. */
  readonly flag: string;
  /** Envoy's RESPONSE_CODE_DETAILS. */
  readonly details: string;
  readonly retry: 'always' | 'idempotent' | 'never';
  /** Which retry_on word covers it. */
  readonly retryOn: 'connect-failure' | 'reset' | 'refused-stream' | 'gateway-error' | '';
  /** The plain sentence that the client reads. */
  readonly sentence: string;
}

const row = (
  status: number,
  grpcStatus: number,
  flag: string,
  details: string,
  retry: ErrorRow['retry'],
  retryOn: ErrorRow['retryOn'],
  sentence: string,
): ErrorRow => ({ status, grpcStatus, flag, details, retry, retryOn, sentence });

export const ERRORS = {
  // The client's side.
  badRequest: row(400, 13, 'DPE', 'http1.codec_error', 'never', '', 'The request is not valid HTTP.'),
  uriTooLong: row(414, 13, 'DPE', 'http1.uri_too_long', 'never', '', 'The request target is too long.'),
  headersTooLarge: row(431, 13, 'DPE', 'http1.headers_too_large', 'never', '', 'The request header section is too large.'),
  payloadTooLarge: row(413, 8, '', 'request_payload_too_large', 'never', '', 'The request body is larger than this route allows.'),
  expectationFailed: row(
    417,
    13,
    'DPE',
    'http1.expectation_failed',
    'never',
    '',
    'The Expect field names something other than 100-continue.',
  ),
  notImplemented: row(501, 12, 'DPE', 'http1.unsupported_transfer_encoding', 'never', '', 'The transfer coding is not supported.'),
  versionNotSupported: row(505, 13, 'DPE', 'http1.version_not_supported', 'never', '', 'This HTTP version is not supported.'),
  upgradeRequired: row(426, 13, '', 'low_version', 'never', '', 'HTTP/1.1 is needed.'),
  requestTimeout: row(408, 4, 'DPE', 'request_overall_timeout', 'never', '', 'The request did not arrive in time.'),
  requestHeaderTimeout: row(408, 4, 'DPE', 'request_header_timeout', 'never', '', 'The request head did not arrive in time.'),
  downstreamReset: row(499, 1, 'DC', 'downstream_remote_disconnect', 'never', '', 'The client went away.'),
  // Routing.
  routeNotFound: row(404, 12, 'NR', 'route_not_found', 'never', '', 'No route matches this host and path.'),
  hostNotDiscovered: row(
    503,
    14,
    'NR',
    'on_demand_discovery_timeout',
    'never',
    '',
    'The control plane did not say in time which routes this host has.',
  ),
  hostOverflow: row(503, 14, 'UO', 'on_demand_discovery_overflow', 'never', '', 'Too many hosts or requests wait for their routes.'),
  clusterNotFound: row(503, 14, 'NC', 'cluster_not_found', 'never', '', 'The route names a cluster that does not exist.'),
  // A route may choose the status of an unknown cluster.
  clusterNotFound404: row(404, 14, 'NC', 'cluster_not_found', 'never', '', 'The route names a cluster that does not exist.'),
  clusterNotFound500: row(500, 14, 'NC', 'cluster_not_found', 'never', '', 'The route names a cluster that does not exist.'),
  upgradeFailed: row(403, 7, '', 'upgrade_failed', 'never', '', 'This route does not allow that upgrade.'),
  loopDetected: row(508, 13, 'LH', 'loop_detected', 'never', '', 'The request came back to the same proxy.'),
  // Policy.
  rbacDenied: row(403, 7, '', 'rbac_access_denied', 'never', '', 'RBAC: access denied'),
  unauthenticated: row(401, 16, 'UAEX', 'unauthenticated', 'never', '', 'Credentials are missing or not valid.'),
  rateLimited: row(429, 8, 'RL', 'local_rate_limited', 'never', '', 'local_rate_limited'),
  faultAbort: row(503, 14, 'FI', 'fault_filter_abort', 'never', '', 'fault filter abort'),
  // Upstream.
  noHealthyEndpoint: row(503, 14, 'UH', 'no_healthy_upstream', 'never', '', 'no healthy upstream'),
  overflow: row(
    503,
    14,
    'UO',
    'upstream_reset_before_response_started{overflow}',
    'never',
    '',
    'A circuit breaker of the cluster is open: too many connections, pending requests or requests.',
  ),
  dropOverload: row(503, 14, 'DO', 'drop_overload', 'never', '', 'The control plane asks to drop a share of the requests to this cluster.'),
  connectFailed: row(
    503,
    14,
    'UF',
    'upstream_reset_before_response_started{remote_connection_failure}',
    'always',
    'connect-failure',
    'The endpoint could not be connected to.',
  ),
  connectTimeout: row(
    503,
    14,
    'UF',
    'upstream_reset_before_response_started{connection_timeout}',
    'always',
    'connect-failure',
    'Connecting to the endpoint took too long.',
  ),
  tlsFailed: row(
    503,
    14,
    'UF',
    'upstream_reset_before_response_started{remote_connection_failure|TLS_error}',
    'always',
    'connect-failure',
    'The TLS handshake with the endpoint failed.',
  ),
  upstreamReset: row(
    503,
    14,
    'UC',
    'upstream_reset_before_response_started{connection_termination}',
    'idempotent',
    'reset',
    'The endpoint closed the connection before it answered.',
  ),
  upstreamRefused: row(
    503,
    14,
    'UR',
    'upstream_reset_before_response_started{remote_refused_stream_reset}',
    'always',
    'refused-stream',
    'The endpoint refused the request before working on it.',
  ),
  upstreamProtocol: row(
    502,
    14,
    'UPE',
    'upstream_reset_before_response_started{protocol_error}',
    'idempotent',
    'reset',
    'The endpoint answered with something that is not valid HTTP.',
  ),
  upstreamBodyReset: row(
    502,
    14,
    'UC',
    'upstream_reset_after_response_started{connection_termination}',
    'never',
    '',
    'The endpoint closed the connection in the middle of its answer.',
  ),
  upstreamTimeout: row(504, 4, 'UT', 'response_timeout', 'never', '', 'upstream request timeout'),
  perTryTimeout: row(504, 4, 'UT', 'upstream_per_try_timeout', 'idempotent', 'gateway-error', 'upstream request timeout'),
  streamIdleTimeout: row(504, 4, 'SI', 'stream_idle_timeout', 'never', '', 'stream timeout'),
  maxDuration: row(504, 4, 'UMSDR', 'max_duration_timeout', 'never', '', 'The stream was open for longer than allowed.'),
  // The proxy's own.
  overloaded: row(503, 14, 'OM', 'overload', 'never', '', 'The proxy is overloaded.'),
  draining: row(503, 14, 'DR', 'draining', 'always', 'refused-stream', 'The proxy is shutting down.'),
  internal: row(500, 13, '', 'internal_error', 'never', '', 'The proxy failed while handling this request.'),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

/** A failure of the data path. `detail` says what exactly, in words for logs and the body; it never holds secrets. */
export class ProxyError extends Error {
  readonly code: ErrorCode;
  readonly detail: string;
  constructor(code: ErrorCode, detail = '', cause?: unknown) {
    super(detail === '' ? ERRORS[code].sentence : `${ERRORS[code].sentence} ${detail}`, cause === undefined ? undefined : { cause });
    this.name = 'ProxyError';
    this.code = code;
    this.detail = detail;
  }

  get row(): ErrorRow {
    return ERRORS[this.code];
  }

  /** The single way in for what was thrown by anything else: it becomes `internal`, with the cause kept. */
  static from(value: unknown): ProxyError {
    if (value instanceof ProxyError) return value;
    return new ProxyError('internal', value instanceof Error ? value.message : String(value), value);
  }
}

/** A configuration that cannot be compiled. The path names the resource and the field; it becomes the NACK's text. */
export class ConfigError extends Error {
  readonly path: string;
  constructor(path: string, message: string) {
    super(`${path}: ${message}`);
    this.name = 'ConfigError';
    this.path = path;
  }
}

/** What is wrong with a response is the endpoint's fault, whatever the reader called it. */
export function upstreamFault(error: ProxyError, answered: boolean): ProxyError {
  if (error.code === 'internal') return error;
  return new ProxyError(answered ? 'upstreamBodyReset' : 'upstreamProtocol', error.detail, error);
}
