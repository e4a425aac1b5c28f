/** Lets streams begin a few at a time: after an outage a thousand clients come at once, each with long first requests that would be held until their turn. */
import type { Clock } from '../lib/clock.ts';
import { nextSlice } from '../lib/slices.ts';

/** Streams whose first requests are being read. All that they send in a turn of the event loop is read in that turn, up to 64 KiB of each. */
const PLACES = 8;
/** Who has sent nothing after this long gives its place to others, and goes on reading. */
const PATIENCE_MS = 25;
/** A client begins with several requests: it keeps its place until nothing has come for this long. */
const SILENCE_MS = 20;
/** But no longer than this: nobody keeps others out by asking on and on. */
const STAY_MS_MAX = 200;

export interface Beginner {
  /** Reading may begin. */
  begin(): void;
}

export class Doorway {
  readonly #clock: Clock;
  readonly #inside = new Map<Beginner, Place>();
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
    this.#leaveAfter(PATIENCE_MS, beginner, this.#clock.now() + STAY_MS_MAX);
    beginner.begin();
  }

  /** A request was taken. Nothing when the stream has left already. */
  taken(beginner: Beginner): void {
    const place = this.#inside.get(beginner);
    if (place === undefined) return;
    place.stop();
    const leftMs = Math.max(0, place.untilMs - this.#clock.now());
    this.#leaveAfter(Math.min(SILENCE_MS, leftMs), beginner, place.untilMs);
  }

  /** The stream has ended. Leaving twice is fine. */
  leave(beginner: Beginner): void {
    this.#waiting.delete(beginner);
    const place = this.#inside.get(beginner);
    if (place === undefined) return;
    place.stop();
    this.#inside.delete(beginner);
    const [next] = this.#waiting;
    if (next === undefined) return;
    this.#waiting.delete(next);
    this.enter(next);
  }

  #leaveAfter(ms: number, beginner: Beginner, untilMs: number): void {
    const leave = (): void => {
      // In a later turn: after a long one the timer comes before what the stream has sent meanwhile.
      nextSlice(this.#clock, () => {
        if (this.#inside.get(beginner) === place) this.leave(beginner);
      });
    };
    const place: Place = { untilMs, stop: this.#clock.after(ms, leave) };
    this.#inside.set(beginner, place);
  }
}

interface Place {
  /** It is left by then. */
  readonly untilMs: number;
  /** Stops the timer. */
  readonly stop: () => void;
}
