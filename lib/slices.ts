/** Long work, done a slice at a time, so that timers, sockets and requests have their turns in between. */
import type { Clock } from './clock.ts';

/** One slice; an event loop that is late by this much is not felt. */
export const SLICE_MS = 5;

/** Lets the event loop do other things. */
export function turn(clock: Clock): Promise<void> {
  return new Promise((resolve) => clock.after(0, resolve));
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
