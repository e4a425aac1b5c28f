/** Tunnels: two sockets joined raw after an upgrade or CONNECT, with back-pressure, half-close and an idle time-out. */
import type { Socket } from 'node:net';
import type { Sweep, Swept } from './sweep.ts';

/** Joins two sockets until both have ended or either fails. Neither may have listeners for data left. `onClosed` is called once. */
export class Splice implements Swept {
  readonly #a: Socket;
  readonly #b: Socket;
  readonly #sweep: Sweep;
  readonly #idleTimeoutMs: number;
  readonly #onClosed: () => void;
  #activeMs: number;
  #open = 2;
  #closed = false;

  constructor(a: Socket, b: Socket, sweep: Sweep, idleTimeoutMs: number, onClosed: () => void) {
    this.#a = a;
    this.#b = b;
    this.#sweep = sweep;
    this.#idleTimeoutMs = idleTimeoutMs;
    this.#onClosed = onClosed;
    this.#activeMs = sweep.nowMs;
    this.#join(a, b);
    this.#join(b, a);
    sweep.add(this);
    if (a.destroyed || b.destroyed) this.close();
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

  #join(from: Socket, to: Socket): void {
    from.allowHalfOpen = true;
    from.on('data', (chunk: Buffer) => {
      this.#activeMs = this.#sweep.nowMs;
      if (!to.write(chunk)) from.pause();
    });
    to.on('drain', () => from.resume());
    let ended = false;
    from.on('end', () => {
      ended = true;
      to.end();
    });
    from.on('error', () => this.close());
    from.on('close', () => {
      // After an orderly end the other side may still have bytes to write.
      if (!ended || --this.#open === 0) this.close();
    });
    from.resume();
  }
}
