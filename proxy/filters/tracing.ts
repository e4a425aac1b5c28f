/** Trace context: continues what the caller sent (W3C, B3), starts a trace where there is none, and hands spans to an exporter when one is configured. */
import { idsOf, parentOf, spanIdOf, traceIdOf } from './ids.ts';
import type { Exchange } from './format.ts';
import type { Headers } from '../headers.ts';
import type { Layer, RequestInfo } from '../service.ts';
import type { Random } from '../../lib/random.ts';

/** A finished piece of work, ready for export. Times in milliseconds since the epoch, with a fraction. */
export interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  readonly kind: 'server' | 'client';
  readonly startWallMs: number;
  readonly endWallMs: number;
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly failed: boolean;
}

export interface TracingOptions {
  /** Share of new traces that are sampled, 0 to 1. */
  readonly randomShare: number;
  /** Bound on what is sampled whoever asked for it, 0 to 1. */
  readonly overallShare: number;
  readonly random: Random;
  /** `client` on outbound listeners, `server` on inbound ones. */
  readonly kind: 'server' | 'client';
  /** Undefined = nothing is exported; then the span that is passed on is the caller's own. */
  readonly export: ((span: Span) => void) | undefined;
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const ZERO_TRACE = '0'.repeat(32);
const ZERO_SPAN = '0'.repeat(16);

/** The filter that reads and writes trace headers, and reports the span when the request is over. */
export function tracing(options: TracingOptions): Layer {
  const ids = idsOf(options.random);
  return (next) => (request, reply) => {
    const info = request.info;
    const known = readContext(request.headers, info);
    if (!known) info.sampled = options.randomShare >= 1 || options.random() < options.randomShare;
    if (info.sampled && options.overallShare < 1 && options.random() >= options.overallShare) info.sampled = false;
    const sendSpan = options.export;
    if (known && (sendSpan === undefined || !info.sampled)) {
      info.spanId = info.parentSpanId;
      next(request, reply);
      return;
    }
    if (known) {
      info.spanId = ids.spanId();
      request.headers.put('traceparent', `00-${info.traceId}-${info.spanId}-${info.sampled ? '01' : '00'}`);
    } else {
      const line = ids.traceLine(info.sampled);
      info.traceId = traceIdOf(line);
      info.spanId = spanIdOf(line);
      info.parentSpanId = '';
      request.headers.putLine('traceparent', parentOf(line), line);
    }
    writeB3(request.headers, info);
    if (sendSpan !== undefined && info.sampled) {
      (info.filterState ??= new Map()).set('span', options.kind);
    }
    next(request, reply);
  };
}

/** Makes the span of an exchange that the filter marked; called when it is over. */
export function reportSpan(exchange: Exchange, kind: Span['kind'], send: (span: Span) => void): void {
  const { request, response, startWallMs, durationMs } = exchange;
  const info = request.info;
  if (!info.sampled || info.filterState?.get('span') !== kind) return;
  const status = response?.status ?? 0;
  send({
    traceId: info.traceId,
    spanId: info.spanId,
    parentSpanId: info.parentSpanId,
    name: info.routeName === '' ? request.method : `${request.method} ${info.routeName}`,
    kind,
    startWallMs,
    endWallMs: startWallMs + durationMs,
    failed: status === 0 || status >= 500,
    attributes: {
      'http.request.method': request.method,
      'http.response.status_code': status,
      'url.path': request.path.split('?', 1)[0]!,
      'url.scheme': request.scheme,
      'server.address': request.authority,
      'network.protocol.version': request.connection.protocol.slice('HTTP/'.length),
      'client.address': request.connection.remoteAddress,
      'meshwork.cluster': info.clusterName,
      'meshwork.endpoint': info.endpoint?.key ?? '',
      'meshwork.attempts': info.attemptCount,
      'meshwork.response_flags': info.responseFlags,
      'meshwork.request_id': info.requestId,
    },
  });
}

/** Reads traceparent, else B3 in one or several headers. Answers whether a context was there; a malformed one counts as absent (W3C section 4.2). */
function readContext(headers: Headers, info: RequestInfo): boolean {
  const parent = headers.get('traceparent');
  const match = parent === undefined ? null : TRACEPARENT.exec(parent);
  if (
    match !== null &&
    match[1] !== 'ff' &&
    match[2] !== ZERO_TRACE &&
    match[3] !== ZERO_SPAN &&
    (match[1] !== '00' || match[5] === undefined)
  ) {
    info.traceId = match[2]!;
    info.parentSpanId = match[3]!;
    info.sampled = (Number.parseInt(match[4]!, 16) & 1) === 1;
    return true;
  }
  const single = headers.get('b3');
  if (single !== undefined) {
    const [trace = '', span = '', flag = ''] = single.split('-');
    return takeB3(trace, span, flag, info);
  }
  return takeB3(headers.get('x-b3-traceid') ?? '', headers.get('x-b3-spanid') ?? '', headers.get('x-b3-sampled') ?? '', info);
}

function takeB3(trace: string, span: string, flag: string, info: RequestInfo): boolean {
  if (trace === '') return false;
  if (!/^(?:[0-9a-f]{16}|[0-9a-f]{32})$/.test(trace) || !/^[0-9a-f]{16}$/.test(span)) return false;
  info.traceId = trace.padStart(32, '0');
  info.parentSpanId = span;
  info.sampled = flag === '1' || flag === 'd' || flag === 'true';
  return true;
}

/** Callers that speak B3 get the new span in the headers that they used. */
function writeB3(headers: Headers, info: RequestInfo): void {
  if (headers.has('b3'))
    headers.set(
      'b3',
      `${info.traceId}-${info.spanId}-${info.sampled ? '1' : '0'}${info.parentSpanId === '' ? '' : `-${info.parentSpanId}`}`,
    );
  if (!headers.has('x-b3-traceid')) return;
  headers.set('x-b3-traceid', info.traceId);
  headers.set('x-b3-spanid', info.spanId);
  if (info.parentSpanId !== '') headers.set('x-b3-parentspanid', info.parentSpanId);
}
