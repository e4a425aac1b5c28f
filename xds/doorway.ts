/** Lets streams begin a few at a time: after an outage a thousand clients come at once, each with long first requests that would be held until their turn. */
import type { Clock } from '../lib/clock.ts';

/** Streams whose first requests are being read. All that they send in a turn of the event loop is read in that turn, up to 64 KiB of each. */
const PLACES = 16;
/** Who has sent nothing after this long gives its place to others, and goes on reading. */
const PATIENCE_MS = 100;
/** A client begins with several requests: it keeps its place until nothing has come for this long. */
const SILENCE_MS = 30;

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
    this.#wait(beginner, PATIENCE_MS);
    beginner.begin();
  }

  /** A request was taken. Nothing when the stream has left already. */
  taken(beginner: Beginner): void {
    const stop = this.#inside.get(beginner);
    if (stop === undefined) return;
    stop();
    this.#wait(beginner, SILENCE_MS);
  }

  #wait(beginner: Beginner, ms: number): void {
    this.#inside.set(
      beginner,
      this.#clock.after(ms, () => this.leave(beginner)),
    );
  }

  /** The stream has ended. Leaving twice is fine. */
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
