/** Long work, done a slice at a time, so that timers, sockets and requests have their turns in between. */
import type { Clock } from './clock.ts';

/** One slice; an event loop that is late by this much is not felt. */
export const SLICE_MS = 5;

/** Those who have more to do, in the order of asking. One of them goes on in a turn of the event loop, so that their slices do not add up in it. */
class Line {
  readonly #clock: Clock;
  readonly #waiting: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  join(goOn: () => void): void {
    this.#waiting.push(goOn);
    if (this.#waiting.length === 1) this.#wait();
  }

  #wait(): void {
    this.#clock.after(0, () => {
      const goOn = this.#waiting.shift()!;
      if (this.#waiting.length > 0) this.#wait();
      goOn();
    });
  }
}

/** One line for all that run on the same event loop, which are those with the same clock. */
const lines = new WeakMap<Clock, Line>();

/** Calls `goOn` in a later turn of the event loop, in which no other slice is done. */
export function nextSlice(clock: Clock, goOn: () => void): void {
  let line = lines.get(clock);
  if (line === undefined) {
    line = new Line(clock);
    lines.set(clock, line);
  }
  line.join(goOn);
}

/** Lets the event loop do other things, other slices among them. */
export function turn(clock: Clock): Promise<void> {
  return new Promise((resolve) => nextSlice(clock, resolve));
}

/** Takes all steps in one go, for those who cannot wait. Throws what they throw. */
export function atOnce<T>(steps: Iterator<void, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** Takes all steps, with a turn of the event loop after each slice; answers what they return. Rejects with what they throw. */
export async function inSlices<T>(clock: Clock, steps: Iterator<void, T>): Promise<T> {
  let sliceMs = clock.now();
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (clock.now() - sliceMs < SLICE_MS) continue;
    await turn(clock);
    sliceMs = clock.now();
  }
}
