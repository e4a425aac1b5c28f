/** How long to wait before the next attempt: exponential with full jitter, so that a thousand clients do not come back together. */
import type { Random } from '../../lib/random.ts';

/** Envoy's numbers for xDS streams: base 500 ms, cap 30 s (rule 38). */
export interface BackoffOptions {
  readonly random: Random;
  readonly baseMs?: number;
  readonly capMs?: number;
}

export class Backoff {
  #attempts = 0;
  readonly #random: Random;
  readonly #baseMs: number;
  readonly #capMs: number;

  constructor(options: BackoffOptions) {
    this.#random = options.random;
    this.#baseMs = options.baseMs ?? 500;
    this.#capMs = options.capMs ?? 30_000;
  }

  /** Anything from 0 to min(cap, base × 2^attempts) milliseconds; each call doubles the bound. */
  nextMs(): number {
    const boundMs = Math.min(this.#capMs, this.#baseMs * 2 ** this.#attempts);
    if (boundMs < this.#capMs) this.#attempts += 1;
    return this.#random() * boundMs;
  }

  /** To be called when a response was received, and not merely a connection made (gRPC A57). */
  reset(): void {
    this.#attempts = 0;
  }
}
