/** The one place where an error becomes a response: plain text for people, trailers-only status for gRPC callers. */
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

/** The default `ErrorResponse`: the error's plain sentence as text, or a gRPC status in a response without a body. */
export const errorResponse: ErrorResponse = (request, error) => {
  const row = error.row;
  const contentType = request?.headers.get('content-type');
  if (contentType !== undefined && contentType.startsWith('application/grpc')) {
    const headers = Headers.of({
      'content-type': 'application/grpc',
      'grpc-status': String(row.grpcStatus),
      'grpc-message': percentEncoded(error.message),
    });
    return { status: 200, reason: 'OK', headers, body: undefined, contentLength: undefined, tunnel: undefined };
  }
  const headers = Headers.of({ 'content-type': 'text/plain; charset=utf-8' });
  if (error.code === 'overflow') headers.append('x-envoy-overloaded', 'true');
  const body = request?.method === 'HEAD' ? undefined : wholeBody(Buffer.from(`${error.message}\n`));
  return { status: row.status, reason: REASONS[row.status] ?? '', headers, body, contentLength: undefined, tunnel: undefined };
};

/** gRPC's encoding of status messages: visible ASCII without `%` stands, all else is percent-encoded UTF-8. */
function percentEncoded(text: string): string {
  let out = '';
  for (const byte of Buffer.from(text)) {
    out +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25 ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}
