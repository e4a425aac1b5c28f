/** The HTTP/1.1 client side of one connection: a `ProxyRequest` out as bytes, a `ProxyResponse` back, one exchange at a time. */
import type { Socket } from 'node:net';
import { ProxyError, upstreamFault } from '../errors.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { BodyReader } from './body-reader.ts';
import { isWhole } from './body.ts';
import type { BodySource } from './body.ts';
import { TEXT_BYTES_MAX, headText } from './bytes.ts';
import { bad } from './fields.ts';
import { checkPartialResponseHead, newResponseHead, readResponseHead } from './head.ts';
import type { HeadLimits, ResponseHead } from './head.ts';
import { Output } from './output.ts';
import { kept, own, stopReadFrom, wasReset } from './reading.ts';
import type { SocketOwner } from './reading.ts';
import { BodyWriter, requestHead, writeMessage } from './write.ts';
import type { WriterOwner } from './write.ts';

/** One request and whoever waits for its answer. Exactly one of the two is called, once. */
export interface Exchange {
  readonly request: ProxyRequest;
  answered(response: ProxyResponse): void;
  /** `unanswered`: not one byte of an answer came, so that a retry elsewhere may be safe. */
  failed(error: ProxyError, unanswered: boolean): void;
}

/** Whom a connection belongs to. */
export interface ClientOwner {
  /** The exchange is over and the connection can take another. */
  connectionIdle(connection: ClientConnection): void;
  /** The connection is gone; called once. */
  connectionClosed(connection: ClientConnection): void;
}

export interface ClientLimits extends HeadLimits {
  /** Exchanges on one connection; 0 = no limit. */
  readonly maxRequestsPerConnection: number;
}

export const DEFAULT_CLIENT_LIMITS: ClientLimits = {
  headBytesMax: 60 * 1024,
  headerFieldsMax: 100,
  uriBytesMax: 8 * 1024,
  headersWithUnderscores: 'ALLOW',
  maxRequestsPerConnection: 0,
};

const INTERIM_MAX = 16;

/** Where the reading side stands. */
const IDLE = 0;
const HEAD = 1;
const BODY = 2;
const TUNNEL = 3;
const CLOSED = 4;

export class ClientConnection implements BodySource, WriterOwner, SocketOwner {
  readonly socket: Socket;
  readonly #output: Output;
  readonly #owner: ClientOwner;
  readonly #limits: ClientLimits;
  #state = IDLE;
  #exchange: Exchange | undefined;
  #answered = false;
  #sent = true;
  #writer: BodyWriter | undefined;
  readonly #reader: BodyReader;
  #pending: Buffer | undefined;
  #searched = 0;
  #interims = 0;
  #keepAlive = true;
  #held = false;
  /** Exchanges started on it; the pool knows by it whether a failure may be the keep-alive race. */
  exchanges = 0;
  /** `Keep-Alive: timeout` as the peer last said, in milliseconds; 0 = it said nothing. */
  peerIdleTimeoutMs = 0;
  /** The owner's note: when it became idle. */
  idleSinceMs = 0;
  /** The owner's note: from then on it takes no new exchange. */
  retireAtMs = Number.POSITIVE_INFINITY;
  /** The owner's notes: when it was opened, and the bytes that are counted by now. */
  openedMs = 0;
  receivedCounted = 0;
  sentCounted = 0;
  /** Once it is over: who ended it, and whether an exchange was under way. */
  endedBy: 'local' | 'remote' | 'protocol' = 'local';
  endedBusy = false;

  constructor(socket: Socket, owner: ClientOwner, limits: ClientLimits) {
    this.socket = socket;
    this.#output = new Output(socket);
    this.#owner = owner;
    this.#limits = limits;
    socket.setNoDelay(true);
    this.#reader = new BodyReader(this, limits);
    own(socket, this);
    socket.resume();
  }

  /** Can it take an exchange right now? */
  get usable(): boolean {
    return this.#state === IDLE && !this.socket.destroyed && this.socket.writable;
  }

  destroy(): void {
    this.socket.destroy();
    this.#closed('', this.endedBy);
  }

  /** Writes the request; the exchange hears the answer. Only on a `usable` connection. */
  start(exchange: Exchange): void {
    const request = exchange.request;
    const max = this.#limits.maxRequestsPerConnection;
    this.#keepAlive = max === 0 || this.exchanges + 1 < max;
    let head: string;
    try {
      head = requestHead(request, this.#keepAlive);
    } catch (error) {
      exchange.failed(ProxyError.from(error), false);
      this.#owner.connectionIdle(this);
      return;
    }
    this.exchanges++;
    this.#exchange = exchange;
    this.#answered = false;
    this.#interims = 0;
    this.#state = HEAD;
    request.abort = this.#abort;
    const body = request.body;
    if (body === undefined) {
      this.#sent = true;
      this.#output.later(head);
    } else if (isWhole(body)) {
      this.#sent = true;
      writeMessage(this.#output, head, body);
    } else {
      this.#sent = false;
      const socket = this.#output.now();
      this.#writer = new BodyWriter(socket, this, body, body.length === undefined ? 'chunked' : 'length');
      socket.cork();
      socket.write(head, 'latin1');
      this.#writer.start();
      socket.uncork();
    }
  }

  // ---- WriterOwner, the request's body --------------------------------------------------------------------------------

  bodyWritten(): void {
    this.#writer = undefined;
    this.#sent = true;
  }

  /** The client's side failed or lied: the upstream must never take what it has for the whole. */
  bodyBroken(_writer: BodyWriter, error: ProxyError): void {
    this.#writer = undefined;
    this.#fail(error, false);
  }

  // ---- BodySource, the answer's body ----------------------------------------------------------------------------------

  bodyWanted(): void {}

  holdReading(): void {
    if (this.#held || this.#state === CLOSED) return;
    this.#held = true;
    this.socket.pause();
  }

  resumeReading(): void {
    if (!this.#held || this.#state === CLOSED) return;
    this.#held = false;
    this.socket.resume();
  }

  bodyCancelled(): void {
    this.#reader.drop();
    this.destroy();
  }

  // ---- reading --------------------------------------------------------------------------------------------------------

  read(buffer: Buffer, end: number): void {
    switch (this.#state) {
      case IDLE:
        // Bytes that nobody asked for would become the next caller's answer (RFC 9112 section 11.2).
        this.endedBy = 'protocol';
        this.destroy();
        return;
      case CLOSED:
      case TUNNEL:
        return;
      default:
    }
    try {
      if (this.#state === HEAD) this.#readHeads(buffer, end);
      else this.#readBody(buffer.subarray(0, end));
    } catch (error) {
      this.endedBy = 'protocol';
      this.#fail(upstreamFault(ProxyError.from(error), this.#answered), false);
    }
  }

  /** Interim responses go on at once; a final one ends the loop. `buffer[0, bytes)` is what was read. */
  #readHeads(buffer: Buffer, bytes: number): void {
    if (this.#pending !== undefined) {
      buffer = Buffer.concat([this.#pending, buffer.subarray(0, bytes)]);
      bytes = buffer.length;
      this.#pending = undefined;
    }
    const max = this.#limits.headBytesMax;
    let from = 0;
    for (;;) {
      const text = headText(buffer, from, Math.min(bytes, from + max + 4), 0);
      const end = text.indexOf('\r\n\r\n', Math.max(0, this.#searched - 3));
      if (end === -1 || end > max) {
        if (text.length > max) throw bad(`A response head may have ${max} bytes.`);
        checkPartialResponseHead(text, this.#searched);
        this.#pending = kept(buffer.subarray(from, bytes));
        this.#searched = text.length;
        return;
      }
      this.#searched = 0;
      const head = newResponseHead();
      readResponseHead(text, buffer, from, 0, end, this.#limits, head);
      if (head.status === 101) return this.#switch(head, buffer.subarray(0, bytes), from + end + 4);
      if (head.status >= 200) return this.#answer(head, buffer, from, bytes, text, end + 4);
      this.#interim(head);
      from += end + 4;
      if (from === bytes || this.#state !== HEAD) return;
    }
  }

  #interim(head: ResponseHead): void {
    if (++this.#interims > INTERIM_MAX) throw bad(`There are more than ${INTERIM_MAX} interim responses.`);
    this.#exchange?.request.onInterim?.(head.status, head.reason, head.values.headers);
  }

  /** A final response's head is there, up to `text[at]`: frames the body and hands the response on. `text` starts at `buffer[from]`. */
  #answer(head: ResponseHead, buffer: Buffer, from: number, bytes: number, text: string, at: number): void {
    const exchange = this.#exchange!;
    const request = exchange.request;
    if (request.upgrade === 'connect' && head.status < 300) return this.#switch(head, buffer.subarray(0, bytes), from + at);
    if (!head.keepAlive) this.#keepAlive = false;
    if (head.values.keepAlive !== undefined) this.#readKeepAlive(head.values.keepAlive);
    const response: ProxyResponse = {
      status: head.status,
      reason: head.reason,
      headers: head.values.headers,
      body: undefined,
      contentLength: undefined,
      tunnel: undefined,
    };
    const reader = this.#reader;
    this.#state = BODY;
    if (request.method === 'HEAD' || head.status === 204 || head.status === 304) {
      if (head.status !== 204 && head.contentLength >= 0) response.contentLength = head.contentLength;
      // A 204 that announces a body will likely send one.
      if (head.status === 204 && (head.chunked || head.contentLength > 0)) this.#keepAlive = false;
      reader.next = at;
    } else if (head.contentLength >= 0 && head.contentLength <= TEXT_BYTES_MAX && text.length - at >= head.contentLength)
      response.body = reader.beginText(head.contentLength, text, at);
    else {
      const chunk = buffer.subarray(from, bytes);
      if (head.contentLength >= 0) response.body = reader.beginLength(head.contentLength, chunk, at);
      // Broken coding in the first chunks throws before anything went on: that is still a 502.
      else if (head.chunked) response.body = reader.beginChunked(chunk, at);
      else {
        this.#keepAlive = false;
        response.body = reader.beginUntilClose(chunk, at);
      }
    }
    this.#answered = true;
    request.abort = undefined;
    if (reader.next !== -1) this.#complete(reader.next === bytes - from);
    exchange.answered(response);
  }

  #readBody(chunk: Buffer): void {
    const reader = this.#reader;
    const body = reader.body;
    if (body === undefined) return;
    reader.read(chunk, 0);
    if (reader.next === -1 || this.#state !== BODY) return;
    const trailers = reader.trailers;
    this.#complete(reader.next === chunk.length);
    body.end(trailers);
  }

  /** The answer is read to its end. The connection goes on if the request is too, and `clean`: nothing follows. */
  #complete(clean: boolean): void {
    this.#exchange = undefined;
    if (!this.#keepAlive || !this.#sent || !clean || !this.socket.writable) {
      const writer = this.#writer;
      this.#writer = undefined;
      this.#state = CLOSED;
      writer?.stop(new ProxyError('upstreamReset', 'The endpoint answered before the request was sent.'));
      this.socket.destroy();
      this.#owner.connectionClosed(this);
      return;
    }
    this.#state = IDLE;
    // A reader that is slow with the last bytes must not keep the idle connection deaf.
    if (this.#held) this.resumeReading();
    this.#owner.connectionIdle(this);
  }

  /** `timeout=5, max=100`; RFC 2068 section 19.7.1.1, and what Node and others send. */
  #readKeepAlive(value: string): void {
    const at = value.indexOf('timeout=');
    if (at === -1) return;
    const seconds = Number.parseInt(value.slice(at + 8, at + 16), 10);
    if (seconds >= 0) this.peerIdleTimeoutMs = Math.max(1, seconds * 1000);
  }

  /** 101, or 2xx to CONNECT: the socket leaves HTTP. */
  #switch(head: ResponseHead, chunk: Buffer, at: number): void {
    const exchange = this.#exchange!;
    const request = exchange.request;
    if (request.upgrade === undefined || (head.status === 101) !== (request.upgrade !== 'connect'))
      throw bad('There is a 101 that nobody asked for.');
    if (head.status === 101 && (head.values.upgrade ?? '').toLowerCase() !== request.upgrade)
      throw bad('The 101 switches to another protocol.');
    this.#state = TUNNEL;
    this.#exchange = undefined;
    request.abort = undefined;
    stopReadFrom(this.socket);
    exchange.answered({
      status: head.status,
      reason: head.reason,
      headers: head.values.headers,
      body: undefined,
      contentLength: undefined,
      tunnel: {
        socket: this.socket,
        head: kept(chunk.subarray(at)),
        closed: () => {
          if (this.#state !== TUNNEL) return;
          this.#state = CLOSED;
          this.#owner.connectionClosed(this);
        },
      },
    });
  }

  // ---- ends -----------------------------------------------------------------------------------------------------------

  /** Ends what is under way. It leaves its request with the exchange, so it cannot reach one that comes later. */
  readonly #abort = (error: ProxyError): void => {
    if (this.#exchange !== undefined) this.#fail(error, false);
  };

  onDrain(): void {
    this.#writer?.drained();
  }

  onError(error: Error): void {
    this.#closed(error.message, 'remote');
  }

  onClose(): void {
    this.#closed('', 'remote');
  }

  onEnd(): void {
    // While reading is held nothing comes from below: then the end was in what TLS had read already, and only close_notify can be that.
    if (this.#state === BODY && this.#reader.untilClose && (this.#held || !wasReset(this.socket))) {
      this.endedBy = 'remote';
      const body = this.#reader.drop();
      this.#complete(true);
      body?.end(undefined);
    } else this.#closed('', 'remote');
  }

  #closed(detail: string, by: ClientConnection['endedBy']): void {
    if (this.#state === CLOSED || this.#state === TUNNEL) return;
    this.endedBy = by;
    const unanswered = this.#state === HEAD && this.#pending === undefined && this.#interims === 0;
    this.#fail(new ProxyError(this.#answered ? 'upstreamBodyReset' : 'upstreamReset', detail), unanswered);
  }

  #fail(error: ProxyError, unanswered: boolean): void {
    if (this.#state === CLOSED) return;
    const exchange = this.#exchange;
    const body = this.#reader.drop();
    const writer = this.#writer;
    const answered = this.#answered;
    this.endedBusy = this.#state === HEAD || this.#state === BODY;
    this.#state = CLOSED;
    this.#exchange = undefined;
    this.#writer = undefined;
    this.socket.destroy();
    this.#owner.connectionClosed(this);
    writer?.stop(error);
    body?.fail(error);
    if (exchange === undefined || answered) return;
    exchange.request.abort = undefined;
    exchange.failed(error, unanswered);
  }
}
