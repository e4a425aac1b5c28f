/** Lets streams begin a few at a time: after an outage a thousand clients come at once, each with a long first request that would be held until its turn. */
import type { Clock } from '../lib/clock.ts';

/** Streams whose first request is being read. */
const PLACES = 32;
/** Who has sent nothing after this long gives its place to others, and goes on reading. */
const PATIENCE_MS = 100;

export interface Beginner {
  /** Reading may begin. */
  begin(): void;
}

export class Doorway {
  readonly #clock: Clock;
  /** Who is in, with what stops the timer. */
  readonly #inside = new Map<Beginner, () => void>();
  readonly #waiting = new Set<Beginner>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `begin` at once when there is a place, later when there is none. */
  enter(beginner: Beginner): void {
    if (this.#inside.size >= PLACES) {
      this.#waiting.add(beginner);
      return;
    }
    this.#inside.set(
      beginner,
      this.#clock.after(PATIENCE_MS, () => this.leave(beginner)),
    );
    beginner.begin();
  }

  /** The first request was taken, or the stream has ended. Leaving twice is fine. */
  leave(beginner: Beginner): void {
    this.#waiting.delete(beginner);
    const stop = this.#inside.get(beginner);
    if (stop === undefined) return;
    stop();
    this.#inside.delete(beginner);
    const [next] = this.#waiting;
    if (next === undefined) return;
    this.#waiting.delete(next);
    this.enter(next);
  }
}
