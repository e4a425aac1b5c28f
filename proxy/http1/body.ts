/** Bodies that come from a connection: what was there with the head, or a flow with back-pressure. */
import type { Socket } from 'node:net';
import type { ProxyError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import type { Body, BodySink } from '../service.ts';
import { canLend, giveSpare, kept, spareOf } from './reading.ts';

/** Is all of the body there? The same as `body.whole !== undefined`, without making a buffer of a body that is text. */
export function isWhole(body: Body): boolean {
  return body instanceof TextBody || body.whole !== undefined;
}

/** A body that is all there. */
class WholeBody implements Body {
  readonly length: number;
  readonly whole: Buffer;
  #cancelled = false;

  constructor(whole: Buffer) {
    this.whole = whole;
    this.length = whole.length;
  }

  pipe(sink: BodySink): void {
    if (this.whole.length > 0) sink.data(this.whole);
    if (!this.#cancelled) sink.end(undefined);
  }

  pause(): void {}

  resume(): void {}

  cancel(): void {
    this.#cancelled = true;
  }
}

/** A small body that was read together with its head, as one character per byte: relayed so, it is never copied into a buffer. */
export class TextBody implements Body {
  readonly length: number;
  readonly text: string;
  #whole: Buffer | undefined;
  #cancelled = false;

  constructor(text: string) {
    this.text = text;
    this.length = text.length;
  }

  /** Made when somebody asks for it. */
  get whole(): Buffer {
    return (this.#whole ??= Buffer.from(this.text, 'latin1'));
  }

  pipe(sink: BodySink): void {
    if (this.length > 0) sink.data(this.whole);
    if (!this.#cancelled) sink.end(undefined);
  }

  pause(): void {}

  resume(): void {}

  cancel(): void {
    this.#cancelled = true;
  }
}

/** The body of a message that is complete, for readers' `whole` path and for those that pipe. */
export function wholeBody(bytes: Buffer): Body {
  return new WholeBody(bytes);
}

/** The connection that a flowing body comes from. */
export interface BodySource {
  readonly socket: Socket;
  /** The reader is there: first call of `pipe`. */
  bodyWanted(): void;
  /** Stop and start reading the socket. */
  holdReading(): void;
  resumeReading(): void;
  /** The reader gave up. */
  bodyCancelled(error: ProxyError): void;
}

/** A body that flows: the connection pushes, a sink takes, and what cannot go on is held here while the socket is not read. */
export class FlowingBody implements Body {
  readonly length: number | undefined;
  readonly whole = undefined;
  readonly #source: BodySource;
  #sink: BodySink | undefined;
  #held: Buffer[] | undefined;
  #paused = false;
  #ended = false;
  #trailers: Headers | undefined;
  #failure: ProxyError | undefined;
  #over = false;
  /** The sink still uses what it was lent last. */
  lent = false;
  /** What it was lent is in this one, which nobody needs afterwards. */
  #spare: Buffer | undefined;
  /** Is the source asked to hold its socket? */
  #holding = false;

  constructor(source: BodySource, length: number | undefined) {
    this.#source = source;
    this.length = length;
  }

  // ---- the reader's side

  pipe(sink: BodySink): void {
    this.#sink = sink;
    if (this.#over) return;
    this.#source.bodyWanted();
    this.#flow();
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused && !this.#holding) return;
    this.#paused = this.lent = false;
    if (this.#spare !== undefined) giveSpare(this.#spare);
    this.#spare = undefined;
    this.#flow();
  }

  cancel(error: ProxyError): void {
    if (this.#over) return;
    this.#over = true;
    this.#held = undefined;
    if (!this.#ended) this.#source.bodyCancelled(error);
  }

  // ---- the connection's side

  /** True once it has ended, failed or been cancelled. */
  get over(): boolean {
    return this.#over;
  }

  /** Takes bytes that may be the shared buffer's. */
  push(chunk: Buffer): void {
    if (this.#over) return;
    if (this.#sink !== undefined && !this.#paused && this.#held === undefined) {
      if (this.#sink.lend !== undefined && canLend(chunk)) {
        if (!this.#sink.lend(chunk)) this.#paused = this.lent = true;
      } else this.#hand(this.#sink, kept(chunk));
    } else (this.#held ??= []).push(kept(chunk));
    if ((this.#paused || this.#sink === undefined) && !this.#holding) this.#hold();
  }

  /** Hands on bytes of our own. Those in a spare are lent, so that it can be had again. */
  #hand(sink: BodySink, chunk: Buffer): void {
    const spare = sink.lend === undefined ? undefined : spareOf(chunk);
    if (spare === undefined) {
      if (!sink.data(chunk)) this.#paused = true;
    } else if (sink.lend!(chunk)) giveSpare(spare);
    else {
      this.#paused = this.lent = true;
      this.#spare = spare;
    }
  }

  /** The source's own buffer, which it does not read into any more: free at once, or when what was lent of it is done with. */
  release(own: Buffer): void {
    if (!this.lent) giveSpare(own);
    else this.#spare ??= own;
  }

  end(trailers: Headers | undefined): void {
    if (this.#over) return;
    this.#ended = true;
    this.#trailers = trailers;
    this.#flow();
  }

  fail(error: ProxyError): void {
    if (this.#over) return;
    if (this.#sink === undefined) {
      this.#failure = error;
      return;
    }
    this.#over = true;
    this.#held = undefined;
    this.#sink.fail(error);
  }

  #hold(): void {
    this.#holding = true;
    this.#source.holdReading();
  }

  #flow(): void {
    const sink = this.#sink;
    if (sink === undefined) return;
    if (this.#failure !== undefined) {
      this.#over = true;
      this.#held = undefined;
      sink.fail(this.#failure);
      return;
    }
    const held = this.#held;
    if (held !== undefined) {
      while (held.length > 0 && !this.#paused && !this.#over) this.#hand(sink, held.shift()!);
      if (held.length > 0) return;
      this.#held = undefined;
    }
    if (this.#over) return;
    if (this.#ended) {
      this.#over = true;
      sink.end(this.#trailers);
    }
    if (this.#holding && !this.#paused) {
      this.#holding = false;
      this.#source.resumeReading();
    }
  }
}
