/** The one place where an error becomes a response: plain text for browsers and curl, a trailers-only answer for gRPC. */
import { ProxyError } from '../errors.ts';
import { Headers } from '../headers.ts';
import { wholeBody } from '../http1/body.ts';
import { REASONS } from '../http1/error-response.ts';
import type { Filter, ProxyRequest, ProxyResponse } from '../service.ts';
import type { Clock } from '../../lib/clock.ts';

/** A response that the proxy makes itself. `text` empty = no body. */
export function localResponse(request: ProxyRequest, status: number, text: string, contentType = 'text/plain'): ProxyResponse {
  const headers = new Headers();
  const reason = REASONS[status] ?? '';
  if (text === '') return { status, reason, headers, body: undefined, contentLength: 0, tunnel: undefined };
  headers.append('content-type', contentType);
  const bytes = Buffer.from(text);
  if (request.method === 'HEAD') return { status, reason, headers, body: undefined, contentLength: bytes.length, tunnel: undefined };
  return { status, reason, headers, body: wholeBody(bytes), contentLength: undefined, tunnel: undefined };
}

/** Answers for a failed request, with flags and details in `info`. */
export function errorResponse(request: ProxyRequest, error: ProxyError): ProxyResponse {
  const { status, grpcStatus, flag, details, sentence } = error.row;
  const info = request.info;
  if (flag !== '' && !info.responseFlags.includes(flag))
    info.responseFlags = info.responseFlags === '' ? flag : `${info.responseFlags},${flag}`;
  info.responseDetails = details;
  const text = error.detail === '' ? sentence : `${sentence} ${error.detail}`;
  const response = isGrpc(request) ? grpcResponse(grpcStatus, text) : localResponse(request, status, text);
  if (error.code === 'overflow') response.headers.append('x-envoy-overloaded', 'true');
  return response;
}

/** What the connection manager says about its answers. */
export interface AnswerOptions {
  /** Tells how long the endpoint took, in `x-envoy-upstream-service-time`. Undefined = not told. */
  readonly clock?: Clock | undefined;
  /** Rewrites what the proxy answers itself (local_reply_config). */
  readonly localReply?: ((request: ProxyRequest, response: ProxyResponse) => ProxyResponse) | undefined;
}

/**
 * Outermost but for observation: what fails inside is answered here, and each answer gets what every answer has. A client that went away
 * gets none, its error goes on to the codec.
 */
export function answers(options: AnswerOptions = {}): Filter {
  const { clock, localReply } = options;
  const own = (request: ProxyRequest, response: ProxyResponse): ProxyResponse =>
    localReply === undefined ? response : localReply(request, response);
  return (next) => (request) =>
    next(request).then(
      (response) => {
        const info = request.info;
        if (info.responseDetails !== '') return info.responseDetails === VIA_UPSTREAM ? response : own(request, response);
        if (info.endpoint === undefined) {
          info.responseDetails = 'direct_response';
          return own(request, response);
        }
        info.responseDetails = VIA_UPSTREAM;
        if (clock !== undefined) response.headers.set('x-envoy-upstream-service-time', String(Math.round(clock.now() - request.startMs)));
        return response;
      },
      (thrown: unknown) => {
        const error = ProxyError.from(thrown);
        if (error.code !== 'downstreamReset') return own(request, errorResponse(request, error));
        request.info.responseFlags = 'DC';
        request.info.responseDetails = error.row.details;
        throw error;
      },
    );
}

const VIA_UPSTREAM = 'via_upstream';

export function isGrpc(request: ProxyRequest): boolean {
  const type = request.headers.get('content-type');
  return type !== undefined && type.startsWith('application/grpc') && (type.length === 16 || type[16] === '+' || type[16] === ';');
}

/** gRPC's trailers-only form: status 200, the outcome in headers, no body (gRPC over HTTP/2, "Responses"). */
function grpcResponse(grpcStatus: number, text: string): ProxyResponse {
  const headers = Headers.of({
    'content-type': 'application/grpc',
    'grpc-status': String(grpcStatus),
    'grpc-message': percentEncode(text),
  });
  return { status: 200, reason: 'OK', headers, body: undefined, contentLength: 0, tunnel: undefined };
}

/** grpc-message is percent-encoded outside printable ASCII. */
function percentEncode(text: string): string {
  return text.replaceAll(/[^\x20-\x24\x26-\x7e]/gu, (character) => encodeURIComponent(character));
}
