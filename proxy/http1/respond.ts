/** Response heads as a client gets them: the message's own fields, then the framing that this hop chose. */
import type { Headers } from '../headers.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import type { Http1Settings } from './settings.ts';
import { bodyLength, responseFields } from './write.ts';

export const continueLine = 'HTTP/1.1 100 Continue\r\n\r\n';

/** An interim response as text. */
export function interimHead(status: number, reason: string, headers: Headers): string {
  return `${responseFields(status, reason, headers)}\r\n`;
}

/**
 * The whole head. `bodiless`: no body follows whatever the message says. `minor` is the client's; a client of HTTP/1.0 gets no
 * chunked coding (`closeDelimited`) and is told when the connection stays. `request` is undefined for messages that were refused.
 */
export function responseHead(
  request: ProxyRequest | undefined,
  response: ProxyResponse,
  bodiless: boolean,
  closeDelimited: boolean,
  minor: number,
  keepAlive: boolean,
  settings: Http1Settings,
): string {
  const { status, headers, body } = response;
  if (settings.serverHeader !== 'PASS_THROUGH') setServer(headers, settings);
  let head = responseFields(status, response.reason, headers);
  if (response.tunnel !== undefined) {
    return status === 101 ? `${head}Connection: Upgrade\r\nUpgrade: ${request?.upgrade ?? ''}\r\n\r\n` : `${head}\r\n`;
  }
  if (status !== 204 && status >= 200) {
    if (!bodiless && body !== undefined) {
      const length = bodyLength(body);
      if (length !== undefined) head += `Content-Length: ${length}\r\n`;
      else if (!closeDelimited) head += 'Transfer-Encoding: chunked\r\n';
    } else if (response.contentLength !== undefined) head += `Content-Length: ${response.contentLength}\r\n`;
    else if (request?.method === 'HEAD' || status === 304) {
      const length = body === undefined ? undefined : bodyLength(body);
      if (length !== undefined) head += `Content-Length: ${length}\r\n`;
    } else head += 'Content-Length: 0\r\n';
  }
  if (!keepAlive) return `${head}Connection: close\r\n\r\n`;
  return minor === 0 ? `${head}Connection: keep-alive\r\n\r\n` : `${head}\r\n`;
}

function setServer(headers: Headers, settings: Http1Settings): void {
  if (settings.serverHeader === 'OVERWRITE') headers.set('server', settings.serverName);
  else if (!headers.has('server')) headers.append('server', settings.serverName);
}
