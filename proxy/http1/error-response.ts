/** The one place where an error becomes a response: plain text for browsers and curl, a trailers-only answer for gRPC. */
import { Headers } from '../headers.ts';
import type { ProxyError } from '../errors.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { wholeBody } from './body.ts';

/** `request` is undefined when the message was refused before it became one. */
export type ErrorResponse = (request: ProxyRequest | undefined, error: ProxyError) => ProxyResponse;

/** Names of the statuses that the proxy answers with itself. */
export const REASONS: Readonly<Record<number, string>> = {
  200: 'OK',
  301: 'Moved Permanently',
  302: 'Found',
  303: 'See Other',
  307: 'Temporary Redirect',
  308: 'Permanent Redirect',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  408: 'Request Timeout',
  413: 'Content Too Large',
  414: 'URI Too Long',
  417: 'Expectation Failed',
  426: 'Upgrade Required',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  499: 'Client Closed Request',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  505: 'HTTP Version Not Supported',
  508: 'Loop Detected',
};

/** A response that the proxy makes itself. `text` empty = no body. */
export function localResponse(request: ProxyRequest | undefined, status: number, text: string, contentType = 'text/plain'): ProxyResponse {
  const headers = new Headers();
  const reason = REASONS[status] ?? '';
  if (text === '') return { status, reason, headers, body: undefined, contentLength: 0, tunnel: undefined };
  headers.append('content-type', contentType);
  const bytes = Buffer.from(text);
  if (request?.method === 'HEAD') return { status, reason, headers, body: undefined, contentLength: bytes.length, tunnel: undefined };
  return { status, reason, headers, body: wholeBody(bytes), contentLength: undefined, tunnel: undefined };
}

/** Answers for a failed request, with flags and details in its `info`. */
export function errorResponse(request: ProxyRequest | undefined, error: ProxyError): ProxyResponse {
  const { status, grpcStatus, flag, details, sentence } = error.row;
  if (request !== undefined) {
    const { info } = request;
    if (flag !== '' && !info.responseFlags.includes(flag))
      info.responseFlags = info.responseFlags === '' ? flag : `${info.responseFlags},${flag}`;
    info.responseDetails = details;
  }
  const text = error.detail === '' ? sentence : `${sentence} ${error.detail}`;
  const response = request !== undefined && isGrpc(request) ? grpcResponse(grpcStatus, text) : localResponse(request, status, text);
  if (error.code === 'overflow') response.headers.append('x-envoy-overloaded', 'true');
  return response;
}

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
