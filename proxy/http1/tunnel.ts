/** Tunnels: two sockets joined raw after an upgrade or CONNECT, with back-pressure, half-close and an idle time-out. */
import type { Socket } from 'node:net';
import type { Sweep, Swept } from './sweep.ts';

/** Joins two sockets until both have ended or either fails. Neither may have listeners for data left. */
export class Splice implements Swept {
  readonly #a: Socket;
  readonly #b: Socket;
  readonly #sweep: Sweep;
  readonly #idleTimeoutMs: number;
  #onClosed: () => void = () => undefined;
  #activeMs: number;
  #open = 2;
  #closed = false;

  constructor(a: Socket, b: Socket, sweep: Sweep, idleTimeoutMs: number) {
    this.#a = a;
    this.#b = b;
    this.#sweep = sweep;
    this.#idleTimeoutMs = idleTimeoutMs;
    this.#activeMs = sweep.nowMs;
  }

  /** Starts the flow both ways. `aEnded`: the first socket's peer has said its last already. `onClosed` is called once. */
  start(aEnded: boolean, onClosed: () => void): void {
    this.#onClosed = onClosed;
    this.#sweep.add(this);
    this.#join(this.#a, this.#b, aEnded);
    this.#join(this.#b, this.#a, false);
    if (this.#a.destroyed || this.#b.destroyed) this.close();
  }

  sweep(nowMs: number): void {
    if (this.#idleTimeoutMs > 0 && nowMs - this.#activeMs >= this.#idleTimeoutMs) this.close();
  }

  /** Ends both sides at once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sweep.remove(this);
    this.#a.destroy();
    this.#b.destroy();
    this.#onClosed();
  }

  #join(from: Socket, to: Socket, ended: boolean): void {
    from.allowHalfOpen = true;
    from.on('data', (chunk: Buffer) => {
      this.#activeMs = this.#sweep.nowMs;
      if (!to.write(chunk)) from.pause();
    });
    to.on('drain', () => from.resume());
    const end = (): void => {
      ended = true;
      to.end();
    };
    if (ended) to.end();
    else from.on('end', end);
    from.on('error', () => this.close());
    from.on('close', () => {
      // After an orderly end the other side may still have bytes to write.
      if (!ended || --this.#open === 0) this.close();
    });
    from.resume();
  }
}
