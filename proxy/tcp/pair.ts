/** Two ends of a connection inside the process, for code that wants a socket where there is none. */
import { Duplex } from 'node:stream';
import type { Socket } from 'node:net';

/** What is written to one end is read at the other, with back-pressure both ways. Destroying one end destroys the other. */
export function socketPair(): readonly [Socket, Socket] {
  const near = new PairEnd();
  const far = new PairEnd();
  near.join(far);
  far.join(near);
  // The codecs use a socket as a stream, and of its own calls only those below.
  return [near as unknown as Socket, far as unknown as Socket];
}

class PairEnd extends Duplex {
  #other: PairEnd | undefined;
  #resumeWriter: (() => void) | undefined;

  constructor() {
    super({ allowHalfOpen: true });
  }

  join(other: PairEnd): void {
    this.#other = other;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  setTimeout(): this {
    return this;
  }

  resetAndDestroy(): this {
    return this.destroy();
  }

  override _read(): void {
    const resume = this.#resumeWriter;
    this.#resumeWriter = undefined;
    resume?.();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#other!.#take(chunk, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#other!.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const other = this.#other!;
    // The write that waits for the other side to read will not be taken any more.
    this.#resumeWriter?.();
    this.#resumeWriter = undefined;
    if (!other.destroyed) process.nextTick(() => other.destroy());
    done(error);
  }

  #take(chunk: Buffer, done: (error?: Error | null) => void): void {
    if (this.destroyed || this.push(chunk)) done();
    else this.#resumeWriter = done;
  }
}
