/** Writing messages: request and response heads as one string, and flowing bodies under a framing, with back-pressure. */
import type { Socket } from 'node:net';
import { ProxyError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import type { Body, BodySink, ProxyRequest } from '../service.ts';
import { TextBody } from './body.ts';
import { TEXT_BYTES_MAX, latin1, writeLatin1 } from './bytes.ts';
import { TARGET, TOKEN, VALUE, all } from './chars.ts';
import { lastChunk } from './chunked.ts';
import type { Output } from './output.ts';

/** How a body that flows is framed: `none` ends with the connection. */
export type Framing = 'length' | 'chunked' | 'none';

/** Chunks up to this size are copied together with the text around them. */
const JOINED_CHUNK_BYTES_MAX = 4096;

/** Methods without a body say nothing about its length when they have none; all others say 0, so that no reader has to guess (as Envoy). */
const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'TRACE', 'CONNECT']);

/** The head of a request to an upstream, written anew from the parsed message. Throws `internal` when a filter made it unwritable. */
export function requestHead(request: ProxyRequest, keepAlive: boolean): string {
  const { method, path, authority, body, upgrade } = request;
  const connect = upgrade === 'connect';
  if (!all(method, TOKEN)) throw unwritable('method', method);
  if (connect ? path !== '' : !all(path, TARGET)) throw unwritable('path', path);
  if (!all(authority, TARGET)) throw unwritable('authority', authority);
  let head = `${method} ${connect ? authority : path} HTTP/1.1\r\nHost: ${authority}\r\n`;
  const { headers } = request;
  head += headers.lines;
  if (body !== undefined) {
    const length = bodyLength(body);
    head += length === undefined ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${length}\r\n`;
  } else if (!BODILESS.has(method)) head += 'Content-Length: 0\r\n';
  if (upgrade !== undefined && !connect) head += `Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n\r\n`;
  else if (headers.has('te')) head += keepAlive ? 'Connection: TE\r\n\r\n' : 'Connection: close, TE\r\n\r\n';
  else head += keepAlive ? '\r\n' : 'Connection: close\r\n\r\n';
  return head;
}

/** What `Content-Length` will say; undefined = nobody knows. */
export function bodyLength(body: Body): number | undefined {
  return body instanceof TextBody || body.whole === undefined ? body.length : body.whole.length;
}

function unwritable(what: string, value: string): ProxyError {
  return new ProxyError('internal', `The ${what} ${JSON.stringify(value.slice(0, 100))} cannot be written to a request line.`);
}

/** Status line and fields of a response, without framing fields and without the empty line. */
export function responseFields(status: number, reason: string, headers: Headers): string {
  if (!(status >= 100 && status <= 999)) throw new ProxyError('internal', `The status ${status} is not from 100 to 999.`);
  if (status === 200 && reason === 'OK') return `HTTP/1.1 200 OK\r\n${headers.lines}`;
  return `HTTP/1.1 ${status} ${reason === '' || all(reason, VALUE) ? reason : ''}\r\n${headers.lines}`;
}

/** Bodies up to this size are copied behind their head into one buffer, which costs less than a write of two parts. */
const JOINED_BYTES_MAX = 16 * 1024;

/** Writes a head and a whole body in one call. */
export function writeMessage(output: Output, head: string, body: Body): void {
  if (body instanceof TextBody) output.later(head + body.text);
  else writeWhole(output, head, body.whole!);
}

/** The same with the bytes of a body. */
export function writeWhole(output: Output, head: string, body: Buffer): void {
  if (body.length <= TEXT_BYTES_MAX) {
    output.later(body.length === 0 ? head : head + latin1(body, 0, body.length));
    return;
  }
  const socket = output.now();
  if (body.length <= JOINED_BYTES_MAX) {
    const joined = Buffer.allocUnsafe(head.length + body.length);
    writeLatin1(joined, head, 0);
    joined.set(body, head.length);
    socket.write(joined);
    return;
  }
  socket.cork();
  socket.write(head, 'latin1');
  socket.write(body);
  socket.uncork();
}

/** Who wants to know how the writing of a body ended. */
export interface WriterOwner {
  /** The last byte is handed to the socket. */
  bodyWritten(writer: BodyWriter): void;
  /** The source failed or lied about its length: the message cannot be completed and the connection must go. */
  bodyBroken(writer: BodyWriter, error: ProxyError): void;
}

/** Takes a flowing body and writes it to a socket under a framing. The connection calls `drained` when its socket has room again. */
export class BodyWriter implements BodySink {
  readonly #socket: Socket;
  readonly #owner: WriterOwner;
  readonly #body: Body;
  readonly #framing: Framing;
  #left: number;
  #waiting = false;
  #over = false;
  /** Content bytes taken so far. */
  bytes = 0;

  constructor(socket: Socket, owner: WriterOwner, body: Body, framing: Framing) {
    this.#socket = socket;
    this.#owner = owner;
    this.#body = body;
    this.#framing = framing;
    this.#left = body.length ?? 0;
  }

  /** Starts the flow. What is there already leaves together with what the caller wrote under `cork`. */
  start(): void {
    this.#body.pipe(this);
  }

  data(chunk: Buffer): boolean {
    if (this.#over || chunk.length === 0) return true;
    if (!this.#count(chunk.length)) return false;
    const room = this.#framing === 'chunked' ? writeChunk(this.#socket, chunk) : this.#socket.write(chunk);
    if (!room) this.#waiting = true;
    return room;
  }

  /** Done with when the kernel took all of it; else the source rests until it has. */
  lend(chunk: Buffer): boolean {
    if (this.#over || chunk.length === 0) return true;
    if (!this.#count(chunk.length)) return false;
    const socket = this.#socket;
    if (this.#framing === 'chunked') writeChunk(socket, chunk);
    else socket.write(chunk);
    if (socket.writableLength === 0) return true;
    this.#waiting = true;
    // The empty write is done after the one before it; a `drain` may not come, or find the body's end gone by.
    socket.write('', () => this.drained());
    return false;
  }

  /** False when the body is longer than it said, which ends it. */
  #count(bytes: number): boolean {
    this.bytes += bytes;
    if (this.#framing !== 'length') return true;
    this.#left -= bytes;
    if (this.#left >= 0) return true;
    this.#break(new ProxyError('upstreamBodyReset', 'The body is longer than its Content-Length.'), true);
    return false;
  }

  end(trailers: Headers | undefined): void {
    if (this.#over) return;
    if (this.#framing === 'length' && this.#left > 0) {
      this.#break(new ProxyError('upstreamBodyReset', 'The body is shorter than its Content-Length.'), false);
      return;
    }
    this.#over = true;
    if (this.#framing === 'chunked') this.#socket.write(lastChunk(trailers), 'latin1');
    this.#owner.bodyWritten(this);
  }

  fail(error: ProxyError): void {
    if (!this.#over) this.#break(error, false);
  }

  /** The socket has room. */
  drained(): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#body.resume();
  }

  /** Nobody reads any more: tells the source. */
  stop(error: ProxyError): void {
    if (this.#over) return;
    this.#over = true;
    this.#body.cancel(error);
  }

  #break(error: ProxyError, cancel: boolean): void {
    this.#over = true;
    if (cancel) this.#body.cancel(error);
    this.#owner.bodyBroken(this, error);
  }
}

function writeChunk(socket: Socket, chunk: Buffer): boolean {
  const size = `${chunk.length.toString(16)}\r\n`;
  if (chunk.length <= JOINED_CHUNK_BYTES_MAX) {
    const joined = Buffer.allocUnsafe(size.length + chunk.length + 2);
    writeLatin1(joined, size, 0);
    joined.set(chunk, size.length);
    joined[joined.length - 2] = 0x0d;
    joined[joined.length - 1] = 0x0a;
    return socket.write(joined);
  }
  socket.cork();
  socket.write(size, 'latin1');
  socket.write(chunk);
  const room = socket.write('\r\n', 'latin1');
  socket.uncork();
  return room;
}
