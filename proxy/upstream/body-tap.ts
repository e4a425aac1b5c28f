/** A body that passes through and tells when it is over: for in-flight counts, time-outs and everything that must know the end. */
import type { ProxyError } from '../errors.ts';
import type { Headers } from '../headers.ts';
import type { Body, BodySink } from '../service.ts';

/** Subclass it with `over`, and with `touched` to see that bytes flow. One object per streamed body: it is the body above and the sink below. */
export abstract class BodyTap implements Body, BodySink {
  readonly length: number | undefined;
  readonly whole = undefined;
  readonly #source: Body;
  #sink: BodySink | undefined = undefined;
  #isOver = false;

  constructor(source: Body) {
    this.#source = source;
    this.length = source.length;
  }

  /** Called once: without an error when the last byte went through, with one when either side failed or gave up. */
  protected abstract over(error: ProxyError | undefined): void;

  /** Called per chunk, which stands only until this returns. */
  protected touched(_chunk: Buffer): void {}

  pipe(sink: BodySink): void {
    this.#sink = sink;
    this.#source.pipe(this);
  }

  pause(): void {
    this.#source.pause();
  }

  resume(): void {
    this.#source.resume();
  }

  /** The reader gives up. */
  cancel(error: ProxyError): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#source.cancel(error);
  }

  /** Ends it from the middle: the source stops and the reader hears of it. */
  breakOff(error: ProxyError): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#source.cancel(error);
    this.#sink?.fail(error);
  }

  data(chunk: Buffer): boolean {
    if (this.#isOver) return true;
    this.touched(chunk);
    return this.#sink!.data(chunk);
  }

  lend(chunk: Buffer): boolean {
    if (this.#isOver) return true;
    this.touched(chunk);
    const sink = this.#sink!;
    return sink.lend === undefined ? sink.data(Buffer.from(chunk)) : sink.lend(chunk);
  }

  end(trailers: Headers | undefined): void {
    if (this.#isOver) return;
    this.#end(undefined);
    this.#sink!.end(trailers);
  }

  fail(error: ProxyError): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#sink!.fail(error);
  }

  #end(error: ProxyError | undefined): void {
    this.#isOver = true;
    this.over(error);
  }
}
