/** What the connection manager does to each request's headers before anything looks at them: origin, request id, identity, and nothing forged. */
import { idOf, idsOf } from './ids.ts';
import { ConfigError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import type { DownstreamConnection, Layer, PeerTls, ProxyRequest } from '../service.ts';
import type { Random } from '../../lib/random.ts';
import type { HttpConnectionManager } from '../../xds/snapshot.ts';

/** Control headers that only callers inside the mesh may set (Envoy: http_conn_man/header_sanitizing). */
const INTERNAL_HEADERS: ReadonlySet<string> = new Set([
  'x-envoy-attempt-count',
  'x-envoy-decorator-operation',
  'x-envoy-downstream-service-cluster',
  'x-envoy-downstream-service-node',
  'x-envoy-expected-rq-timeout-ms',
  'x-envoy-external-address',
  'x-envoy-force-trace',
  'x-envoy-hedge-on-per-try-timeout',
  'x-envoy-internal',
  'x-envoy-ip-tags',
  'x-envoy-is-timeout-retry',
  'x-envoy-max-retries',
  'x-envoy-original-path',
  'x-envoy-original-url',
  'x-envoy-retriable-header-names',
  'x-envoy-retriable-status-codes',
  'x-envoy-retry-grpc-on',
  'x-envoy-retry-on',
  'x-envoy-upstream-alt-stat-name',
  'x-envoy-upstream-rq-per-try-timeout-ms',
  'x-envoy-upstream-rq-timeout-alt-response',
  'x-envoy-upstream-rq-timeout-ms',
  'x-envoy-upstream-stream-duration-ms',
]);

/** Of these, the ones that steer this proxy: nobody but a trusted caller may, wherever the listener stands. */
const CONTROL_HEADERS: ReadonlySet<string> = new Set([
  'x-envoy-expected-rq-timeout-ms',
  'x-envoy-force-trace',
  'x-envoy-hedge-on-per-try-timeout',
  'x-envoy-internal',
  'x-envoy-ip-tags',
  'x-envoy-max-retries',
  'x-envoy-original-url',
  'x-envoy-retriable-header-names',
  'x-envoy-retriable-status-codes',
  'x-envoy-retry-grpc-on',
  'x-envoy-retry-on',
  'x-envoy-upstream-alt-stat-name',
  'x-envoy-upstream-rq-per-try-timeout-ms',
  'x-envoy-upstream-rq-timeout-alt-response',
  'x-envoy-upstream-rq-timeout-ms',
]);

/** Identity and origin, written by proxies alone. Spelled with underscores they reach many applications under the same name, so those forms go. */
const GUARDED_HEADERS: ReadonlySet<string> = new Set([
  'x-forwarded-client-cert',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-envoy-external-address',
  'x-envoy-internal',
  'x-request-id',
]);

/**
 * Compiles the treatment of request headers. `trusted`: callers are this proxy's own application, whose control headers are honoured. Throws
 * for client certificate details that are not available.
 */
export function compileEdge(http: HttpConnectionManager, random: Random, path: string, trusted = false): Layer {
  const details = http.setCurrentClientCertDetails;
  if (details.cert || details.chain)
    throw new ConfigError(`${path}.set_current_client_cert_details`, 'cert and chain are not supported; subject, dns and uri are');
  const xfcc = compileClientCert(http);
  const stripPort = http.stripAnyHostPort ? stripAnyPort : http.stripMatchingHostPort ? stripOwnPort : undefined;
  const ids = idsOf(random);
  return (next) => (request, reply) => {
    const headers = request.headers;
    stripPort?.(request);
    dropLookAlikes(headers);
    const external = markOrigin(http, request, trusted);
    xfcc(headers, request.connection.tls);
    const known = headers.get('x-request-id');
    if (known !== undefined && !(external && !http.preserveExternalRequestId)) request.info.requestId = known;
    else if (http.generateRequestId) {
      const line = ids.requestLine();
      request.info.requestId = idOf(line);
      headers.putLine('x-request-id', request.info.requestId, line);
    }
    next(request, reply);
  };
}

/**
 * Appends to x-forwarded-for, sets x-forwarded-proto, strips control headers of outsiders. Answers whether the request came in at the edge. No
 * address is internal by itself, as in Envoy without internal_address_config: whoever can reach a private address is not yet a friend.
 */
function markOrigin(http: HttpConnectionManager, request: ProxyRequest, trusted: boolean): boolean {
  const headers = request.headers;
  const connection = request.connection;
  if (http.useRemoteAddress) {
    const forwardedFor = headers.joined('x-forwarded-for');
    if (!http.skipXffAppend) {
      headers.set('x-forwarded-for', forwardedFor === undefined ? connection.remoteAddress : `${forwardedFor},${connection.remoteAddress}`);
    }
    if (http.xffNumTrustedHops === 0 || !headers.has('x-forwarded-proto')) headers.set('x-forwarded-proto', schemeOf(connection));
  } else if (!headers.has('x-forwarded-proto')) {
    if (connection.tls === undefined) headers.putLine('x-forwarded-proto', 'http', 'x-forwarded-proto: http\r\n');
    else headers.putLine('x-forwarded-proto', 'https', 'x-forwarded-proto: https\r\n');
  }
  const edge = http.useRemoteAddress && !trusted;
  const dropped = edge ? INTERNAL_HEADERS : CONTROL_HEADERS;
  if (!trusted && headers.mayHaveEnvoy) headers.removeIf((lower) => dropped.has(lower));
  if (edge) headers.append('x-envoy-external-address', connection.remoteAddress);
  return edge;
}

/** The x-forwarded-client-cert header by forward_client_cert_details. Without a client certificate on this connection nothing can be believed. */
function compileClientCert(http: HttpConnectionManager): (headers: Headers, tls: PeerTls | undefined) => void {
  const mode = http.forwardClientCert;
  const details = http.setCurrentClientCertDetails;
  const remove = (headers: Headers): void => headers.remove('x-forwarded-client-cert');
  if (mode === 'ALWAYS_FORWARD_ONLY') return () => undefined;
  if (mode === 'SANITIZE') return remove;
  return (headers, tls) => {
    if (tls?.peerHash === undefined) return remove(headers);
    if (mode === 'FORWARD_ONLY') return undefined;
    const parts: string[] = [];
    if (tls.localUri !== undefined) parts.push(`By=${tls.localUri}`);
    parts.push(`Hash=${tls.peerHash}`);
    if (details.subject && tls.peerSubject !== undefined) parts.push(`Subject=${quote(tls.peerSubject)}`);
    if (details.uri && tls.peerUri !== undefined) parts.push(`URI=${tls.peerUri}`);
    const current = parts.join(';');
    const earlier = mode === 'APPEND_FORWARD' ? headers.joined('x-forwarded-client-cert') : undefined;
    headers.set('x-forwarded-client-cert', earlier === undefined ? current : `${earlier},${current}`);
    return undefined;
  };
}

function dropLookAlikes(headers: Headers): void {
  if (headers.mayHaveUnderscore) headers.removeIf((lower) => lower.includes('_') && GUARDED_HEADERS.has(lower.replaceAll('_', '-')));
}

function stripAnyPort(request: ProxyRequest): void {
  if (request.upgrade !== 'connect') request.authority = request.authority.replace(/:\d+$/, '');
}

function stripOwnPort(request: ProxyRequest): void {
  const port = `:${request.connection.localPort}`;
  if (request.upgrade !== 'connect' && request.authority.endsWith(port)) request.authority = request.authority.slice(0, -port.length);
}

function schemeOf(connection: DownstreamConnection): string {
  return connection.tls === undefined ? 'http' : 'https';
}

function quote(text: string): string {
  return `"${text.replaceAll(/["\\]/g, (character) => `\\${character}`)}"`;
}
