/** A request body that can be sent again: what went out is kept up to a bound, beyond it the body flows on and cannot be replayed. */
import { Gathered } from '../http1/gathered.ts';
import type { ProxyError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import type { Body, BodySink } from '../service.ts';

/** Bodies above this are neither kept nor retried (rule T10; Linkerd's bound too). */
export const REPLAY_BYTES_MAX = 64 * 1024;

/** Chunks below this are kept joined: of a client that sends bytes one by one, a chunk for each would weigh a hundred times what they do. */
const SMALL_BYTES_MAX = 1024;

/** What went out, in order. */
class Kept {
  readonly #chunks: Buffer[] = [];
  /** Small chunks behind them. */
  #small: Gathered | undefined;

  add(chunk: Buffer): void {
    if (chunk.length >= SMALL_BYTES_MAX) {
      if (this.#small !== undefined) this.#chunks.push(this.#small.all());
      this.#small = undefined;
      this.#chunks.push(chunk);
    } else if (this.#small === undefined) this.#small = new Gathered(chunk);
    else this.#small.add(chunk, chunk.length);
  }

  all(): readonly Buffer[] {
    return this.#small === undefined ? this.#chunks : [...this.#chunks, this.#small.all()];
  }
}

/** Sits between the client's body and the attempts; each attempt gets a view of its own. */
export class ReplayBody implements BodySink {
  readonly source: Body;
  #kept: Kept | undefined = new Kept();
  #bytes = 0;
  #started = false;
  #ended = false;
  #trailers: Headers | undefined = undefined;
  #failure: ProxyError | undefined = undefined;
  #current: View | undefined = undefined;
  #settled = false;

  constructor(source: Body) {
    this.source = source;
    if (source.length !== undefined && source.length > REPLAY_BYTES_MAX) this.#kept = undefined;
  }

  /** Nothing was taken from it yet, or all that was is still here. */
  get replayable(): boolean {
    return this.#failure === undefined && (!this.#started || this.#kept !== undefined);
  }

  /** The body for the next attempt; the one before gets nothing more. */
  view(): Body {
    this.#current = undefined;
    return new View(this);
  }

  /** No further attempt will come: what is kept is let go, and the last view's reader speaks for the whole. */
  settle(): void {
    this.#settled = true;
    this.#kept = undefined;
  }

  /** No attempt takes it any more. */
  giveUp(error: ProxyError): void {
    this.settle();
    this.#current = undefined;
    if (!this.#ended && this.#failure === undefined) this.source.cancel(error);
  }

  attach(view: View): void {
    this.#current = view;
    if (!this.#started) {
      this.#started = true;
      this.source.pipe(this);
      return;
    }
    let room = true;
    for (const chunk of this.#kept?.all() ?? []) room = view.sink!.data(chunk);
    if (this.#current !== view) return;
    if (this.#failure !== undefined) view.sink!.fail(this.#failure);
    else if (this.#ended) view.sink!.end(this.#trailers);
    else if (room) this.source.resume();
  }

  detach(view: View, error: ProxyError): void {
    if (this.#current !== view) return;
    this.#current = undefined;
    if (this.#settled) this.giveUp(error);
    else if (!this.#ended) this.source.pause();
  }

  data(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#bytes > REPLAY_BYTES_MAX) this.#kept = undefined;
    else this.#kept?.add(chunk);
    const sink = this.#current?.sink;
    return sink === undefined ? false : sink.data(chunk);
  }

  /** What is kept is copied; once nothing is, bytes go through as they came. */
  lend(chunk: Buffer): boolean {
    if (this.#kept !== undefined && this.#bytes + chunk.length <= REPLAY_BYTES_MAX) return this.data(Buffer.from(chunk));
    this.#bytes += chunk.length;
    this.#kept = undefined;
    const sink = this.#current?.sink;
    if (sink === undefined) return false;
    return sink.lend === undefined ? sink.data(Buffer.from(chunk)) : sink.lend(chunk);
  }

  end(trailers: Headers | undefined): void {
    this.#ended = true;
    this.#trailers = trailers;
    this.#current?.sink?.end(trailers);
  }

  fail(error: ProxyError): void {
    this.#failure = error;
    this.#current?.sink?.fail(error);
  }
}

/** What one attempt sees. */
class View implements Body {
  readonly length: number | undefined;
  readonly whole = undefined;
  readonly #owner: ReplayBody;
  sink: BodySink | undefined = undefined;

  constructor(owner: ReplayBody) {
    this.#owner = owner;
    this.length = owner.source.length;
  }

  pipe(sink: BodySink): void {
    this.sink = sink;
    this.#owner.attach(this);
  }

  pause(): void {
    if (this.sink !== undefined) this.#owner.source.pause();
  }

  resume(): void {
    if (this.sink !== undefined) this.#owner.source.resume();
  }

  cancel(error: ProxyError): void {
    this.#owner.detach(this, error);
    this.sink = undefined;
  }
}
