/** From a parsed head to a `ProxyRequest`: Host, path, upgrade and expectation as the settings say. */
import { ProxyError } from '../errors.ts';
import { Headers } from '../headers.ts';
import type { DownstreamConnection, ProxyRequest, ProxyResponse, RequestInfo } from '../service.ts';
import { bad, hasToken } from './fields.ts';
import type { RequestHead } from './head.ts';
import { normalisedPath, redirectWanted } from './path.ts';
import { REASONS } from './error-response.ts';
import type { Http1Settings } from './settings.ts';

/** A fresh record of what becomes of a request. */
export function newRequestInfo(): RequestInfo {
  return {
    requestId: '',
    traceId: '',
    spanId: '',
    parentSpanId: '',
    sampled: false,
    virtualHostName: '',
    routeName: '',
    clusterName: '',
    endpoint: undefined,
    triedEndpoints: undefined,
    attemptCount: 0,
    responseFlags: '',
    responseDetails: '',
    requestBytes: 0,
    responseBytes: 0,
    answeredMs: 0,
    deadlineMs: 0,
    hash: undefined,
    filterState: undefined,
  };
}

/** The request that a head asks for, without its body. Throws `ProxyError` where the settings refuse it. */
export function newRequest(head: RequestHead, connection: DownstreamConnection, settings: Http1Settings, startMs: number): ProxyRequest {
  const values = head.values;
  if (head.minor === 0 && !settings.acceptHttp10) throw new ProxyError('upgradeRequired');
  let authority = head.authority;
  if (authority === undefined) {
    if (settings.defaultHostForHttp10 === '') throw bad('There is no Host field.');
    authority = settings.defaultHostForHttp10;
  }
  if (values.te !== undefined && hasToken(values.te, 'trailers')) values.headers.append('TE', 'trailers');
  return {
    connection,
    method: head.method,
    scheme: connection.tls === undefined ? 'http' : 'https',
    authority,
    path: head.path.charCodeAt(0) === 0x2f ? normalisedPath(head.path, settings) : head.path,
    headers: values.headers,
    body: undefined,
    upgrade: upgradeOf(head, settings),
    abort: undefined,
    onInterim: undefined,
    onDone: undefined,
    startMs,
    info: newRequestInfo(),
  };
}

/** The allowed protocol that the client asks for; one that is not allowed, or comes with a body, is as if it were not there. */
function upgradeOf(head: RequestHead, settings: Http1Settings): string | undefined {
  if (head.method === 'CONNECT') {
    if (!settings.upgradeTypes.includes('connect')) throw bad('CONNECT is not allowed here.');
    if (head.chunked || head.contentLength > 0) throw bad('CONNECT has no body.');
    return 'connect';
  }
  const upgrade = head.values.upgrade;
  if (upgrade === undefined || head.minor === 0 || head.chunked || head.contentLength > 0) return undefined;
  if (!hasToken(head.values.connection, 'upgrade')) return undefined;
  const protocol = upgrade.toLowerCase();
  return settings.upgradeTypes.includes(protocol) && protocol !== 'connect' ? protocol : undefined;
}

/** Does the client wait for `100 Continue`? Throws `expectationFailed` for any other expectation. */
export function expectsContinue(head: RequestHead, settings: Http1Settings): boolean {
  const expect = head.values.expect;
  if (expect === undefined || head.minor === 0) return false;
  if (expect.toLowerCase() !== '100-continue') throw new ProxyError('expectationFailed');
  if (!head.chunked && head.contentLength <= 0) return false;
  if (!settings.proxy100Continue) return true;
  head.values.headers.append('Expect', '100-continue');
  return false;
}

/** After `newRequest`: the redirect to the unescaped path where the settings ask for one. */
export function redirectFor(request: ProxyRequest): ProxyResponse | undefined {
  if (!redirectWanted) return undefined;
  const headers = Headers.of({ location: request.path });
  return { status: 307, reason: REASONS[307]!, headers, body: undefined, contentLength: undefined, tunnel: undefined };
}
