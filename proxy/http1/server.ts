/** The HTTP/1.1 server side of one connection: bytes in, `ProxyRequest` to the service, `ProxyResponse` out as bytes. */
import type { Socket } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { Headers } from '../headers.ts';
import type { Body, DownstreamConnection, ProxyRequest, ProxyResponse, Service } from '../service.ts';
import { FlowingBody, wholeBody } from './body.ts';
import type { BodySource } from './body.ts';
import { latin1 } from './bytes.ts';
import { ChunkedDecoder } from './chunked.ts';
import { errorResponse } from './error-response.ts';
import type { ErrorResponse } from './error-response.ts';
import { bad } from './fields.ts';
import { newRequestHead, readRequestHead } from './head.ts';
import { expectsContinue, newRequest, redirectFor } from './request.ts';
import { continueLine, interimHead, responseHead } from './respond.ts';
import type { Http1Settings } from './settings.ts';
import { SWEEP_MS, sweepOf } from './sweep.ts';
import type { Sweep, Swept } from './sweep.ts';
import { Splice } from './tunnel.ts';
import { BodyWriter, writeWhole } from './write.ts';
import type { WriterOwner } from './write.ts';

/** Counters of a listener, called on the way; each is a few additions and must not throw. */
export interface Http1Events {
  /** A message was refused before any service saw it. */
  rejected?(code: ErrorCode): void;
  /** A head was complete, and an exchange was over. Their difference is what is under way. */
  requestStarted?(): void;
  requestEnded?(): void;
}

export interface Http1Options {
  readonly connection: DownstreamConnection;
  readonly service: Service;
  readonly settings: Http1Settings;
  readonly clock: Clock;
  readonly events?: Http1Events;
  readonly errorResponse?: ErrorResponse;
  /** Called once when the connection is over, tunnels included. */
  readonly onClose?: () => void;
}

/** A served connection. */
export interface Http1Connection {
  readonly closed: boolean;
  /** Requests answered or under way. */
  readonly requests: number;
  /** Finishes what is under way, tells the client that the connection ends, and closes; idle ones close after the drain time-out. */
  drain(): void;
  /** Closes at once. */
  destroy(): void;
}

/** Serves HTTP/1.1 on a socket until either side ends. `head` is what was read from it already. The socket's `data` must have no other listener. */
export function serveHttp1(socket: Socket, head: Buffer | undefined, options: Http1Options): Http1Connection {
  const served = new ServerConnection(socket, options);
  if (head !== undefined && head.length > 0) served.read(head);
  return served;
}

/** Where the reading side stands. */
const HEAD = 0;
const BODY = 1;
/** The request is read; what follows waits for the answer to be written. */
const WAIT = 2;
/** Nothing that comes is looked at any more. */
const DISCARD = 3;
const TUNNEL = 4;

/** What a client may send ahead of an answer before its socket is left alone. */
const AHEAD_BYTES_MAX = 64 * 1024;
/** What is read and dropped after an answer that ends the connection, so that a reset does not destroy it on its way. */
const DISCARD_BYTES_MAX = 64 * 1024;
const DISCARD_MS = 1_000;
const RATE_GRACE_MS = 20_000;
const EXTENSION_BYTES_MAX = 16 * 1024;

class ServerConnection implements Http1Connection, BodySource, WriterOwner, Swept {
  readonly #socket: Socket;
  readonly #options: Http1Options;
  readonly #settings: Http1Settings;
  readonly #sweep: Sweep;
  readonly #head = newRequestHead();
  #state = HEAD;
  #pending: Buffer | undefined;
  /** Bytes of `#pending` that were searched for the end of a head. */
  #searched = 0;
  #request: ProxyRequest | undefined;
  #response: ProxyResponse | undefined;
  #body: FlowingBody | undefined;
  #bodyLeft = 0;
  /** Bytes of the body since reading it was last held back, and in all. */
  #bodyBytes = 0;
  #bodyTotal = 0;
  #decoder: ChunkedDecoder | undefined;
  #chunked = false;
  #writer: BodyWriter | undefined;
  #continueWanted = false;
  #headSent = false;
  #keepAlive = true;
  #minor = 1;
  #draining = false;
  #held = false;
  #halfClosed = false;
  #discarded = 0;
  #closeAtMs = 0;
  readonly #openedMs: number;
  #activeMs: number;
  /** Start of the head or the body that is being read; 0 = none. */
  #readingSinceMs: number;
  #drainSinceMs = 0;
  closed = false;
  requests = 0;

  constructor(socket: Socket, options: Http1Options) {
    this.#socket = socket;
    this.#options = options;
    this.#settings = options.settings;
    this.#sweep = sweepOf(options.clock);
    this.#sweep.add(this);
    this.#openedMs = this.#activeMs = this.#readingSinceMs = this.#sweep.nowMs;
    socket.allowHalfOpen = true;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.read(chunk));
    socket.on('drain', () => this.#writer?.drained());
    socket.on('end', () => this.#onEnd());
    socket.on('error', () => undefined);
    socket.on('close', () => this.#onClose());
    if (socket.destroyed) this.#onClose();
  }

  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#drainSinceMs = this.#sweep.nowMs;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // ---- reading --------------------------------------------------------------------------------------------------------

  read(chunk: Buffer): void {
    this.#activeMs = this.#sweep.nowMs;
    switch (this.#state) {
      case HEAD:
        this.#readHeads(chunk);
        return;
      case BODY:
        this.#readBodySafely(chunk, 0);
        return;
      case WAIT:
        this.#keep(chunk);
        if (this.#pending!.length > AHEAD_BYTES_MAX) this.holdReading();
        return;
      case DISCARD:
        this.#discarded += chunk.length;
        if (this.#discarded > DISCARD_BYTES_MAX) this.#socket.pause();
        return;
      default:
    }
  }

  #keep(chunk: Buffer): void {
    this.#pending = this.#pending === undefined ? chunk : Buffer.concat([this.#pending, chunk]);
  }

  /** Looks for one whole head. What follows it stays pending until its exchange is over. */
  #readHeads(chunk: Buffer): void {
    if (this.#pending !== undefined) {
      this.#keep(chunk);
      chunk = this.#pending!;
    }
    const limit = this.#settings.headBytesMax;
    const text = latin1(chunk, 0, Math.min(chunk.length, limit + 4));
    // RFC 9112 section 2.2: one empty line before the request line is let pass.
    const at = text.startsWith('\r\n') ? 2 : 0;
    const end = text.indexOf('\r\n\r\n', Math.max(at, this.#searched - 3));
    try {
      if (end === -1 || end > limit) this.#checkPartial(text, at, limit);
      if (end === -1) {
        if (this.#searched === 0) this.#readingSinceMs = this.#sweep.nowMs;
        this.#pending = chunk;
        this.#searched = chunk.length;
        return;
      }
      this.#pending = undefined;
      this.#searched = 0;
      readRequestHead(text, at, end, this.#settings, this.#head);
      this.#startRequest(chunk, end + 4);
    } catch (error) {
      this.#refuse(ProxyError.from(error));
    }
  }

  /** A head that is not all there may already be wrong: too long, or with a bare LF that would never end it. */
  #checkPartial(text: string, at: number, limit: number): void {
    const eol = text.indexOf('\r\n', at);
    if ((eol === -1 ? text.length : eol) - at > this.#settings.uriBytesMax + 64)
      throw bad(`The target is longer than ${this.#settings.uriBytesMax} bytes.`, 'uriTooLong');
    if (text.length > limit) throw bad(`A head may have ${limit} bytes.`, 'headersTooLarge');
    for (let i = text.indexOf('\n', this.#searched); i !== -1; i = text.indexOf('\n', i + 1))
      if (text.charCodeAt(i - 1) !== 0x0d) throw bad('A line ends with a bare LF.');
    const first = text.charCodeAt(at);
    if (first === 0x20 || first === 0x09 || (at === 2 && first === 0x0d)) throw bad('The request line does not start with a method.');
  }

  #startRequest(chunk: Buffer, at: number): void {
    const head = this.#head;
    const settings = this.#settings;
    const continueWanted = expectsContinue(head, settings);
    const request = newRequest(head, this.#options.connection, settings, this.#options.clock.now());
    const redirect = request.path === head.path ? undefined : redirectFor(request);
    this.#minor = head.minor;
    this.requests++;
    this.#headSent = false;
    this.#keepAlive =
      head.keepAlive && !this.#halfClosed && !(settings.maxRequestsPerConnection > 0 && this.requests >= settings.maxRequestsPerConnection);
    this.#continueWanted = continueWanted;
    this.#bodyBytes = this.#bodyTotal = 0;
    this.#chunked = head.chunked;
    if (head.chunked) {
      this.#decoder ??= new ChunkedDecoder({
        extensionBytesMax: EXTENSION_BYTES_MAX,
        trailerBytesMax: settings.headBytesMax,
        trailerFieldsMax: settings.headerFieldsMax,
      });
      this.#decoder.reset();
      this.#readFirstChunks(request, this.#decoder, chunk, at);
    } else if (head.contentLength > 0) {
      if (chunk.length - at >= head.contentLength) {
        request.body = wholeBody(chunk.subarray(at, at + head.contentLength));
        request.info.requestBytes = head.contentLength;
        this.#rest(chunk, at + head.contentLength);
      } else {
        this.#bodyLeft = head.contentLength;
        this.#flowBody(request, head.contentLength);
        this.#readBody(chunk, at);
      }
    } else {
      if (head.contentLength === 0 && request.method !== 'GET' && request.method !== 'HEAD') request.body = wholeBody(EMPTY);
      this.#rest(chunk, at);
    }
    if (request.upgrade === undefined && this.#minor === 1)
      request.onInterim = (status, reason, headers) => this.#interim(request, status, reason, headers);
    this.#request = request;
    this.#options.events?.requestStarted?.();
    if (redirect !== undefined) this.#answer(request, redirect);
    else
      this.#options.service(request).then(
        (response) => this.#answer(request, response),
        (error: unknown) => this.#fail(request, ProxyError.from(error)),
      );
  }

  /** A chunked body that came whole with its head is made whole; its length then frames it on the next hop. */
  #readFirstChunks(request: ProxyRequest, decoder: ChunkedDecoder, chunk: Buffer, at: number): void {
    const runs: Buffer[] = [];
    const next = decoder.decode(chunk, at, (run) => runs.push(run));
    this.#bodyTotal = request.info.requestBytes = decoder.bytes;
    if (decoder.done && decoder.trailers === undefined) {
      request.body = wholeBody(runs.length === 1 ? runs[0]! : Buffer.concat(runs));
      this.#rest(chunk, next);
      return;
    }
    this.#flowBody(request, undefined);
    const body = this.#body!;
    for (const run of runs) body.push(run);
    if (decoder.done) this.#endBody(body, chunk, next);
  }

  #flowBody(request: ProxyRequest, length: number | undefined): void {
    this.#state = BODY;
    this.#readingSinceMs = this.#sweep.nowMs;
    this.#body = new FlowingBody(this, length);
    request.body = this.#body;
  }

  /** The request is read to its end; `chunk[at…]` belongs to what comes after it. */
  #rest(chunk: Buffer, at: number): void {
    this.#state = WAIT;
    this.#readingSinceMs = 0;
    if (at < chunk.length) this.#pending = chunk.subarray(at);
  }

  #readBodySafely(chunk: Buffer, at: number): void {
    try {
      this.#readBody(chunk, at);
    } catch (error) {
      this.#breakRequest(ProxyError.from(error));
    }
  }

  /** Takes body bytes; the rest of the chunk after the body's end stays pending. Throws for broken chunked coding. */
  #readBody(chunk: Buffer, at: number): void {
    const body = this.#body!;
    if (this.#chunked) {
      const decoder = this.#decoder!;
      const next = decoder.decode(chunk, at, (run) => body.push(run));
      this.#bodyTotal = decoder.bytes;
      if (decoder.done) this.#endBody(body, chunk, next);
      return;
    }
    const size = Math.min(this.#bodyLeft, chunk.length - at);
    if (size > 0) {
      this.#bodyLeft -= size;
      this.#bodyBytes += size;
      this.#bodyTotal += size;
      body.push(at === 0 && size === chunk.length ? chunk : chunk.subarray(at, at + size));
    }
    if (this.#bodyLeft === 0) this.#endBody(body, chunk, at + size);
  }

  #endBody(body: FlowingBody, chunk: Buffer, next: number): void {
    if (this.#state !== BODY) return;
    if (this.#request !== undefined) this.#request.info.requestBytes = this.#bodyTotal;
    this.#body = undefined;
    this.#rest(chunk, next);
    body.end(this.#chunked ? this.#decoder!.trailers : undefined);
    if (this.#headSent && this.#writer === undefined) this.#finish();
  }

  // ---- BodySource, the request's body --------------------------------------------------------------------------------

  bodyWanted(): void {
    if (!this.#continueWanted || this.#headSent) return;
    this.#continueWanted = false;
    this.#socket.write(continueLine, 'latin1');
  }

  holdReading(): void {
    if (this.#held) return;
    this.#held = true;
    this.#socket.pause();
  }

  resumeReading(): void {
    if (!this.#held || this.#state === TUNNEL) return;
    this.#held = false;
    // A body that was held back by its reader is not slow by itself.
    this.#readingSinceMs = this.#state === BODY ? this.#sweep.nowMs : this.#readingSinceMs;
    this.#bodyBytes = this.#state === BODY ? 0 : this.#bodyBytes;
    this.#socket.resume();
  }

  bodyCancelled(): void {
    // The rest of the body cannot be skipped without reading it: this connection ends with the answer.
    this.#body = undefined;
    this.#keepAlive = false;
    this.#discard();
  }

  // ---- answering ------------------------------------------------------------------------------------------------------

  #interim(request: ProxyRequest, status: number, reason: string, headers: Headers): void {
    if (this.closed || this.#request !== request || this.#headSent || status === 101) return;
    if (status === 100) {
      if (!this.#continueWanted && !this.#settings.proxy100Continue) return;
      this.#continueWanted = false;
    }
    this.#socket.write(interimHead(status, reason, headers), 'latin1');
  }

  #fail(request: ProxyRequest, error: ProxyError): void {
    if (this.closed || this.#request !== request) return;
    if (request.info.responseFlags === '') request.info.responseFlags = error.row.flag;
    if (request.info.responseDetails === '') request.info.responseDetails = error.row.details;
    this.#answer(request, (this.#options.errorResponse ?? errorResponse)(request, error));
  }

  #answer(request: ProxyRequest, response: ProxyResponse): void {
    if (this.closed || this.#request !== request || this.#headSent) {
      response.body?.cancel(new ProxyError('downstreamReset'));
      if (response.tunnel !== undefined) closeTunnel(response.tunnel);
      return;
    }
    try {
      this.#respond(request, response);
    } catch (error) {
      // The head could not be written: nothing is on the wire yet.
      response.body?.cancel(new ProxyError('internal'));
      this.#headSent = false;
      this.#fail(request, ProxyError.from(error));
    }
  }

  #respond(request: ProxyRequest, response: ProxyResponse): void {
    if (this.#draining || this.#body !== undefined || this.#state === DISCARD) this.#keepAlive = false;
    const body = response.body;
    const bodiless = body === undefined || request.method === 'HEAD' || response.status === 204 || response.status === 304;
    // Only a close can end a body of unknown length for a client of HTTP/1.0.
    const closeDelimited = !bodiless && this.#minor === 0 && body.whole === undefined && body.length === undefined;
    if (closeDelimited) this.#keepAlive = false;
    const head = responseHead(request, response, bodiless, closeDelimited, this.#minor, this.#keepAlive, this.#settings);
    this.#headSent = true;
    this.#response = response;
    this.#activeMs = this.#sweep.nowMs;
    if (response.tunnel !== undefined) {
      this.#tunnel(head, response);
    } else if (bodiless) {
      body?.cancel(new ProxyError('internal', 'This answer has no body.'));
      this.#socket.write(head, 'latin1');
      this.#written();
    } else if (body.whole !== undefined) {
      request.info.responseBytes = body.whole.length;
      writeWhole(this.#socket, head, body.whole);
      this.#written();
    } else this.#stream(head, body, closeDelimited);
  }

  #stream(head: string, body: Body, closeDelimited: boolean): void {
    const writer = new BodyWriter(this.#socket, this, body, body.length !== undefined ? 'length' : closeDelimited ? 'none' : 'chunked');
    this.#writer = writer;
    this.#socket.cork();
    this.#socket.write(head, 'latin1');
    writer.start();
    this.#socket.uncork();
  }

  bodyWritten(writer: BodyWriter): void {
    if (this.#request !== undefined) this.#request.info.responseBytes = writer.bytes;
    this.#writer = undefined;
    this.#written();
  }

  bodyBroken(writer: BodyWriter, error: ProxyError): void {
    const info = this.#request?.info;
    if (info !== undefined) {
      info.responseBytes = writer.bytes;
      if (info.responseFlags === '') info.responseFlags = error.row.flag;
      info.responseDetails = error.row.details;
    }
    this.#writer = undefined;
    // Never a clean end: the client must see that something is missing (RFC 9112 section 8).
    this.#socket.resetAndDestroy?.();
    this.#socket.destroy();
  }

  /** The answer is with the socket. Goes on when the request is read too. */
  #written(): void {
    if (this.#state === BODY && this.#body !== undefined) {
      // An early final answer: the client may still be sending what nobody will read.
      const body = this.#body;
      this.#body = undefined;
      body.fail(new ProxyError('downstreamReset', 'The exchange was over before the request was sent.'));
      this.#discard();
    }
    this.#finish();
  }

  #finish(): void {
    const request = this.#request;
    if (request === undefined) return;
    this.#done(request);
    if (!this.#keepAlive || this.#halfClosed) {
      this.#close();
      return;
    }
    this.#state = HEAD;
    if (this.#held) this.resumeReading();
    const pending = this.#pending;
    if (pending !== undefined) {
      this.#pending = undefined;
      this.#readHeads(pending);
    }
  }

  #done(request: ProxyRequest): void {
    this.#request = undefined;
    const response = this.#response;
    this.#response = undefined;
    this.#options.events?.requestEnded?.();
    request.onDone?.(response);
  }

  // ---- ends -----------------------------------------------------------------------------------------------------------

  /** The request cannot be understood: says so, and ends the connection without looking at another byte. */
  #refuse(error: ProxyError): void {
    if (this.closed) return;
    this.#options.events?.rejected?.(error.code);
    this.#keepAlive = false;
    const body = this.#body;
    this.#body = undefined;
    body?.fail(error);
    const response = (this.#options.errorResponse ?? errorResponse)(undefined, error);
    const whole = response.body?.whole ?? EMPTY;
    writeWhole(this.#socket, responseHead(undefined, response, false, false, 1, false, this.#settings), whole);
    this.#close();
  }

  /** The body of a request under way is broken or too slow: the upstream must not take it for complete. */
  #breakRequest(error: ProxyError): void {
    if (this.closed) return;
    this.#options.events?.rejected?.(error.code);
    const request = this.#request;
    const body = this.#body;
    this.#body = undefined;
    this.#keepAlive = false;
    this.#discard();
    body?.fail(error);
    if (request === undefined) return;
    if (this.#headSent) this.#socket.destroy();
    else {
      request.abort?.(error);
      this.#fail(request, error);
    }
  }

  #discard(): void {
    this.#state = DISCARD;
    this.#pending = undefined;
    this.#readingSinceMs = 0;
    this.#held = false;
    this.#socket.resume();
  }

  /** Ends the writing side and reads on for a moment, so that the answer is not lost to a reset. */
  #close(): void {
    if (this.#halfClosed && this.#state !== DISCARD) {
      this.#socket.end();
      this.#state = DISCARD;
      this.#closeAtMs = this.#sweep.nowMs + DISCARD_MS;
      return;
    }
    this.#discard();
    this.#closeAtMs = this.#sweep.nowMs + DISCARD_MS + SWEEP_MS;
    this.#socket.end();
  }

  #onEnd(): void {
    this.#halfClosed = true;
    if (this.#state === TUNNEL) return;
    if (this.#state === HEAD || this.#state === DISCARD) {
      // Nothing is under way, or everything is said.
      if (this.#request === undefined) this.#socket.end();
      return;
    }
    if (this.#state === BODY) this.#socket.destroy();
  }

  #onClose(): void {
    if (this.closed || this.#state === TUNNEL) return;
    this.#over();
    const error = new ProxyError('downstreamReset');
    const request = this.#request;
    const body = this.#body;
    const writer = this.#writer;
    this.#body = undefined;
    this.#writer = undefined;
    this.#pending = undefined;
    body?.fail(error);
    if (writer !== undefined && request !== undefined) request.info.responseBytes = writer.bytes;
    writer?.stop(error);
    if (request === undefined) return;
    if (request.info.responseFlags === '') {
      request.info.responseFlags = 'DC';
      request.info.responseDetails = error.row.details;
    }
    request.abort?.(error);
    this.#done(request);
  }

  #over(): void {
    this.closed = true;
    this.#sweep.remove(this);
    this.#options.onClose?.();
  }

  #tunnel(head: string, response: ProxyResponse): void {
    const tunnel = response.tunnel!;
    const ahead = this.#pending;
    this.#pending = undefined;
    this.#state = TUNNEL;
    this.#sweep.remove(this);
    this.#socket.write(head, 'latin1');
    if (tunnel.head.length > 0) this.#socket.write(tunnel.head);
    if (ahead !== undefined) tunnel.socket.write(ahead);
    this.#socket.removeAllListeners('data');
    const request = this.#request;
    const splice = new Splice(this.#socket, tunnel.socket, this.#sweep, this.#settings.streamIdleTimeoutMs, () => {
      tunnel.closed();
      if (request !== undefined) this.#done(request);
      this.closed = true;
      this.#options.onClose?.();
    });
    if (this.#halfClosed) tunnel.socket.end();
    void splice;
  }

  // ---- deadlines ------------------------------------------------------------------------------------------------------

  sweep(nowMs: number): void {
    const settings = this.#settings;
    if (this.#closeAtMs > 0) {
      if (nowMs >= this.#closeAtMs) this.#socket.destroy();
      return;
    }
    if (this.#request !== undefined) {
      this.#sweepExchange(nowMs);
      return;
    }
    if (this.#pending !== undefined || this.requests === 0) {
      const headMs = settings.requestHeadersTimeoutMs;
      if (headMs > 0 && nowMs - this.#readingSinceMs >= headMs) {
        if (this.#pending === undefined) this.#socket.destroy();
        else this.#refuse(new ProxyError('requestHeaderTimeout'));
      }
      return;
    }
    const idle = settings.idleTimeoutMs > 0 && nowMs - this.#activeMs >= settings.idleTimeoutMs;
    const old = settings.maxConnectionDurationMs > 0 && nowMs - this.#openedMs >= settings.maxConnectionDurationMs;
    const drained = this.#draining && nowMs - this.#drainSinceMs >= settings.drainTimeoutMs;
    if (idle || old || drained) this.#socket.end();
  }

  #sweepExchange(nowMs: number): void {
    const settings = this.#settings;
    if (settings.maxConnectionDurationMs > 0 && nowMs - this.#openedMs >= settings.maxConnectionDurationMs) this.drain();
    if (this.#state === BODY && !this.#held) {
      const spentMs = nowMs - this.#readingSinceMs;
      const tooLong = settings.requestTimeoutMs > 0 && nowMs - this.#request!.startMs >= settings.requestTimeoutMs;
      const rate = settings.bodyBytesPerSecondMin;
      const tooSlow = !this.#chunked && rate > 0 && spentMs >= RATE_GRACE_MS && this.#bodyBytes * 1000 < rate * spentMs;
      if (tooLong || tooSlow) {
        this.#breakRequest(new ProxyError('requestTimeout'));
        return;
      }
    }
    if (settings.streamIdleTimeoutMs === 0) return;
    if (this.#writer !== undefined && this.#writer.bytes !== this.#writerBytes) {
      this.#writerBytes = this.#writer.bytes;
      this.#activeMs = nowMs;
    }
    if (nowMs - this.#activeMs < settings.streamIdleTimeoutMs) return;
    if (this.#headSent) this.#socket.destroy();
    else {
      const request = this.#request!;
      const error = new ProxyError('streamIdleTimeout');
      request.abort?.(error);
      this.#keepAlive = false;
      this.#fail(request, error);
    }
  }

  #writerBytes = 0;
}

const EMPTY = Buffer.alloc(0);

function closeTunnel(tunnel: NonNullable<ProxyResponse['tunnel']>): void {
  tunnel.socket.destroy();
  tunnel.closed();
}
