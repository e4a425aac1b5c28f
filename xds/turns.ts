/** Work for many streams, done a slice at a time, so that a thousand pushes do not stop timers, health checks and requests. */
import type { Clock } from '../lib/clock.ts';
import { SLICE_MS, nextSlice } from '../lib/slices.ts';

export interface Task {
  /** Must not throw: it handles its own errors. */
  turn(): void;
}

export class Turns {
  readonly #clock: Clock;
  /** In the order of asking; who asks again while waiting keeps the place. */
  readonly #waiting = new Set<Task>();
  #scheduled = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Gives `task` a turn soon, once however often it is asked for. */
  ask(task: Task): void {
    this.#waiting.add(task);
    this.#schedule();
  }

  forget(task: Task): void {
    this.#waiting.delete(task);
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    nextSlice(this.#clock, () => {
      this.#scheduled = false;
      this.#run();
    });
  }

  #run(): void {
    const untilMs = this.#clock.now() + SLICE_MS;
    for (const task of this.#waiting) {
      this.#waiting.delete(task);
      task.turn();
      if (this.#clock.now() >= untilMs) break;
    }
    if (this.#waiting.size > 0) this.#schedule();
  }
}
