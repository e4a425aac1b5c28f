/** The HTTP/1.1 server side of one connection: bytes in, `ProxyRequest` to the service, `ProxyResponse` out as bytes. */
import type { Socket } from 'node:net';
import { ProxyError } from '../errors.ts';
import type { ProxyResponse } from '../service.ts';
import { BodyReader } from './body-reader.ts';
import type { BodySource } from './body.ts';
import { headText } from './bytes.ts';
import { errorResponse } from './error-response.ts';
import { checkPartialHead, isPartOfHead, newRequestHead, readRequestHead } from './head.ts';
import { gather } from './gathered.ts';
import type { Gathered } from './gathered.ts';
import type { RequestHead } from './head.ts';
import type { Http1Connection, Http1Options } from './options.ts';
import { Output } from './output.ts';
import { Pace } from './pace.ts';
import { cutOff, own, stopReadFrom } from './reading.ts';
import type { SocketOwner } from './reading.ts';
import { expectsContinue, newRequest, redirectFor } from './request.ts';
import { responseHead } from './respond.ts';
import { Responder } from './responder.ts';
import type { ResponderOwner } from './responder.ts';
import type { Http1Settings } from './settings.ts';
import { sweepOf } from './sweep.ts';
import type { Sweep, Swept } from './sweep.ts';
import { Splice } from './tunnel.ts';
import { writeWhole } from './write.ts';

/**
 * Serves HTTP/1.1 on a socket until either side ends. `head` is what was read from it already. Nothing else may listen to the socket's
 * `data`. Every message is answered or the connection is cut; the service sees only messages that are valid.
 */
export function serveHttp1(socket: Socket, head: Buffer | undefined, options: Http1Options): Http1Connection {
  const served = new ServerConnection(socket, options);
  if (head !== undefined && head.length > 0) served.read(head, head.length);
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
/** What is read and dropped beside an answer that ends the connection, so that a reset does not destroy it on its way. */
const DISCARD_BYTES_MAX = 64 * 1024;
const DISCARD_MS = 1_000;

class ServerConnection implements Http1Connection, BodySource, ResponderOwner, SocketOwner, Swept {
  readonly socket: Socket;
  readonly #options: Http1Options;
  readonly #settings: Http1Settings;
  readonly #sweep: Sweep;
  readonly #reader: BodyReader;
  readonly #output: Output;
  readonly #responder: Responder;
  #state = HEAD;
  #pending: Gathered | undefined;
  /** Bytes of `#pending` that were searched for the end of a head. */
  #searched = 0;
  #starting = false;
  #held = false;
  #halfClosed = false;
  #discarded = 0;
  /** When to cut the connection after its last answer; 0 = not yet. */
  #closeAtMs = 0;
  readonly #pace: Pace;
  #drainSinceMs: number | undefined;
  /** The client takes its answers too slowly: the next request waits until the socket has room. */
  #full = false;
  closed = false;
  requests = 0;

  constructor(socket: Socket, options: Http1Options) {
    this.socket = socket;
    this.#options = options;
    this.#settings = options.settings;
    this.#reader = new BodyReader(this, options.settings);
    this.#output = new Output(socket);
    this.#responder = new Responder(this.#output, this, options);
    this.#sweep = sweepOf(options.clock);
    this.#sweep.add(this);
    this.#pace = new Pace(options.settings, this.#sweep.nowMs);
    socket.allowHalfOpen = true;
    socket.setNoDelay(true);
    own(socket, this);
    if (socket.destroyed) this.onClose();
    else socket.resume();
  }

  drain(): void {
    this.#drainSinceMs ??= this.#sweep.nowMs;
  }

  destroy(): void {
    this.#closeAtMs ||= this.#sweep.nowMs;
    this.socket.destroy();
  }

  // ---- reading --------------------------------------------------------------------------------------------------------

  /** Takes `buffer[0, bytes)`, which stands only until this returns. */
  read(buffer: Buffer, bytes: number): void {
    this.#pace.activeMs = this.#sweep.nowMs;
    switch (this.#state) {
      case HEAD:
        this.#readHead(buffer, bytes);
        if (this.#pending !== undefined) this.#readPending();
        return;
      case BODY:
        this.#readBody(buffer.subarray(0, bytes));
        return;
      case WAIT:
        this.#pending = gather(this.#pending, buffer, bytes);
        if (this.#pending.bytes > AHEAD_BYTES_MAX) this.holdReading();
        return;
      case DISCARD:
        if ((this.#discarded += bytes) > DISCARD_BYTES_MAX) this.socket.pause();
        return;
      default:
    }
  }

  /** Looks for one whole head. What follows its message stays pending until the exchange is over. */
  #readHead(buffer: Buffer, bytes: number): void {
    const pending = this.#pending;
    if (pending !== undefined) {
      ({ memory: buffer, bytes } = gather(pending, buffer, bytes));
      if (isPartOfHead(buffer, this.#searched, bytes, this.#settings)) return void (this.#searched = bytes);
      this.#pending = undefined;
    }
    const limit = this.#settings.headBytesMax;
    // RFC 9112 section 2.2: one empty line before the request line is let pass.
    const at = bytes > 1 && buffer[0] === 0x0d && buffer[1] === 0x0a ? 2 : 0;
    const text = headText(buffer, 0, Math.min(bytes, limit + 4), at);
    const end = text.indexOf('\r\n\r\n', Math.max(at, this.#searched - 3));
    try {
      if (end === -1 || end > limit) {
        checkPartialHead(text, at, this.#searched, this.#settings);
        if (this.#searched === 0) this.#pace.readingSinceMs = this.#sweep.nowMs;
        this.#pending = pending ?? gather(undefined, buffer, bytes);
        this.#searched = bytes;
        return;
      }
      this.#searched = 0;
      // Made anew each time: filling an old object costs more, since the collector must be told of each young string in it.
      const head = newRequestHead();
      readRequestHead(text, buffer, 0, at, end, this.#settings, head);
      this.#starting = true;
      this.#startRequest(head, buffer, bytes, text, end + 4);
      this.#starting = false;
    } catch (error) {
      this.#starting = false;
      this.#refuse(ProxyError.from(error));
    }
  }

  /** Requests that came with the one before: a loop, since answers that need no upstream come before the call for them returns. */
  #readPending(): void {
    while (this.#state === HEAD && this.#pending !== undefined && this.#searched === 0) {
      const { memory, bytes } = this.#pending;
      this.#pending = undefined;
      this.#readHead(memory, bytes);
    }
    if (this.#halfClosed && this.#state === HEAD) this.#close();
  }

  #startRequest(head: RequestHead, buffer: Buffer, bytes: number, text: string, at: number): void {
    const settings = this.#settings;
    const continueWanted = expectsContinue(head, settings);
    const request = newRequest(head, this.#options.connection, settings, this.#options.clock.now());
    const redirect = request.path === head.path ? undefined : redirectFor(request);
    const reader = this.#reader;
    this.requests++;
    this.#pace.requestBegins(this.#sweep.nowMs);
    const last = settings.maxRequestsPerConnection > 0 && this.requests >= settings.maxRequestsPerConnection;
    if (last) this.#options.events?.retired?.('requests');
    this.#state = BODY;
    request.body = reader.beginRequest(head, text, buffer, bytes, at);
    request.info.requestBytes = reader.bytes;
    if (reader.next !== -1) this.#requestRead(buffer, bytes, reader.next);
    this.#responder.begin(request, head.minor, head.keepAlive && !last, continueWanted);
    this.#options.events?.requestStarted?.();
    if (redirect === undefined) this.#responder.serve(request);
    else this.#responder.answered(redirect);
  }

  /** The request is read to its end; `buffer[at, bytes)` belongs to what comes after it. */
  #requestRead(buffer: Buffer, bytes: number, at: number): void {
    this.#state = WAIT;
    if (at < bytes) this.#pending = gather(undefined, buffer.subarray(at, bytes), bytes - at);
  }

  #readBody(chunk: Buffer): void {
    const reader = this.#reader;
    const body = reader.body!;
    try {
      reader.read(chunk, 0);
    } catch (error) {
      return this.#breakRequest(ProxyError.from(error));
    }
    const request = this.#responder.request;
    if (request !== undefined) request.info.requestBytes = reader.bytes;
    if (reader.next === -1 || this.#state !== BODY) return;
    this.#requestRead(chunk, chunk.length, reader.next);
    body.end(reader.trailers);
  }

  // ---- BodySource, the request's body --------------------------------------------------------------------------------

  bodyWanted(): void {
    this.#responder.sendContinue();
  }

  holdReading(): void {
    if (this.#held) return;
    this.#held = true;
    this.socket.pause();
  }

  resumeReading(): void {
    if (!this.#held || this.#state === TUNNEL) return;
    this.#held = false;
    this.#pace.readingResumes(this.#sweep.nowMs, this.#reader.bytes);
    this.socket.resume();
  }

  bodyCancelled(): void {
    // The rest of the body cannot be skipped without reading it: this connection ends with the answer.
    this.#reader.drop();
    this.#discard();
  }

  // ---- ResponderOwner ------------------------------------------------------------------------------------------------

  endsAfterAnswer(): boolean {
    const drains = this.#drainSinceMs !== undefined;
    if (drains) this.#options.events?.retired?.('drain');
    // A client that has ended its side may have sent more requests before that.
    return drains || (this.#halfClosed && this.#pending === undefined) || this.#state === BODY || this.#state === DISCARD;
  }

  answerWritten(): void {
    const responder = this.#responder;
    if (this.#state === BODY) {
      // An early final answer: the client may still be sending what nobody will read.
      this.#options.events?.answeredEarly?.();
      this.#reader.drop()?.fail(new ProxyError('downstreamReset', 'The exchange was over before the request was sent.'));
      this.#discard();
    }
    this.#options.events?.requestEnded?.();
    responder.done();
    if (!responder.keepAlive) return this.#close();
    // Answers that nobody takes must not pile up: who pipelines reads as fast as he asks.
    this.#full = this.#output.waitingBytes > AHEAD_BYTES_MAX;
    return this.#full ? this.holdReading() : this.#nextRequest();
  }

  #nextRequest(): void {
    this.#full = false;
    this.#state = HEAD;
    if (this.#held) this.resumeReading();
    if (!this.#starting) this.#readPending();
  }

  tunnelOpened(response: ProxyResponse): void {
    const tunnel = response.tunnel!;
    const ahead = this.#pending;
    this.#pending = undefined;
    this.#state = TUNNEL;
    this.#sweep.remove(this);
    stopReadFrom(this.socket);
    const socket = this.#output.now();
    if (tunnel.head.length > 0) socket.write(tunnel.head);
    if (ahead !== undefined) tunnel.socket.write(ahead.all());
    const over = this.#options.events?.tunnelOpened?.();
    const splice = new Splice(this.socket, tunnel.socket, this.#sweep, this.#settings.streamIdleTimeoutMs);
    splice.start(this.#halfClosed, () => {
      tunnel.closed();
      over?.();
      this.#options.events?.requestEnded?.();
      this.#responder.done();
      this.closed = true;
      this.#options.onClose?.({ by: this.socket.readableEnded ? 'remote' : 'local', busy: false });
    });
  }

  // ---- ends -----------------------------------------------------------------------------------------------------------

  /** The request cannot be understood: says so, and ends the connection without looking at another byte. */
  #refuse(error: ProxyError): void {
    if (this.closed) return;
    this.#options.events?.rejected?.(error.code);
    this.#reader.drop()?.fail(error);
    const response = (this.#options.errorResponse ?? errorResponse)(undefined, error);
    const head = responseHead(undefined, response, false, false, 1, false, this.#settings);
    writeWhole(this.#output, head, response.body?.whole ?? Buffer.alloc(0));
    this.#close();
  }

  /** The body of a request under way is broken or too slow: the upstream must not take it for complete. */
  #breakRequest(error: ProxyError): void {
    this.#options.events?.rejected?.(error.code);
    this.#abandon(error);
  }

  #abandon(error: ProxyError): void {
    const body = this.#reader.drop();
    this.#discard();
    const { request, headSent } = this.#responder;
    body?.fail(error);
    if (headSent) cutOff(this.#output.now());
    else {
      this.#responder.failed(error);
      request?.abort?.(error);
    }
  }

  #discard(): void {
    this.#state = DISCARD;
    this.#pending = undefined;
    this.#held = false;
    this.#discarded = 0;
    this.socket.resume();
  }

  /** Ends the writing side and reads on for a moment, so that the answer is not lost to a reset. */
  #close(): void {
    this.#discard();
    this.#closeAtMs = this.#sweep.nowMs + DISCARD_MS;
    this.#output.now().end();
  }

  onDrain(): void {
    this.#responder.drained();
    if (this.#full) this.#nextRequest();
  }

  /** What it means is in the `close` that follows it. */
  onError(): void {}

  onEnd(): void {
    this.#halfClosed = true;
    if (this.#state === BODY) this.socket.destroy();
    else if (this.#state === HEAD) this.#close();
  }

  onClose(): void {
    if (this.closed || this.#state === TUNNEL) return;
    this.closed = true;
    this.#sweep.remove(this);
    const error = new ProxyError('downstreamReset');
    this.#pending = undefined;
    this.#reader.drop()?.fail(error);
    const busy = this.#responder.request !== undefined;
    if (busy) this.#options.events?.requestEnded?.();
    this.#responder.giveUp(error);
    this.#options.onClose?.({ by: this.#closeAtMs > 0 ? 'local' : 'remote', busy });
  }

  // ---- deadlines ------------------------------------------------------------------------------------------------------

  sweep(nowMs: number): void {
    const pace = this.#pace;
    if (this.#closeAtMs > 0) {
      if (pace.isLastOver(nowMs, this.#closeAtMs, this.#output.waitingBytes)) this.socket.destroy();
      return;
    }
    const old = pace.isOld(nowMs);
    if (this.#responder.request !== undefined) {
      if (old) this.drain();
      this.#sweepExchange(nowMs);
    } else if (this.#full) {
      if (pace.isSilent(nowMs, this.#settings.streamIdleTimeoutMs)) this.destroy();
    } else if (this.#pending !== undefined || this.requests === 0) {
      if (!pace.isHeadLate(nowMs)) return;
      if (this.#pending === undefined) this.destroy();
      else this.#refuse(new ProxyError('requestHeaderTimeout'));
    } else {
      const drained = this.#drainSinceMs !== undefined && nowMs - this.#drainSinceMs >= this.#settings.drainTimeoutMs;
      if (!old && !drained && !pace.isSilent(nowMs, this.#settings.idleTimeoutMs)) return;
      this.#options.events?.retired?.(old ? 'age' : drained ? 'drain' : 'idle');
      this.#close();
    }
  }

  #sweepExchange(nowMs: number): void {
    const pace = this.#pace;
    const { body, bytes } = this.#reader;
    pace.wrote(this.#responder.writtenBytes, nowMs);
    const slow = this.#state === BODY && !this.#held && pace.isBodySlow(nowMs, this.#responder.request!.startMs, body?.length, bytes);
    if (slow) this.#breakRequest(new ProxyError('requestTimeout'));
    else if (pace.isSilent(nowMs, this.#settings.streamIdleTimeoutMs)) this.#abandon(new ProxyError('streamIdleTimeout'));
  }
}
