/** Coarse deadlines for connections: one timer looks over all of them a few times a second, so that a request costs none. */
import type { Clock } from '../../lib/clock.ts';

/** Something with deadlines. `sweep` compares them with `nowMs` and acts; it may remove itself. */
export interface Swept {
  sweep(nowMs: number): void;
}

/** Deadlines are met within this; what needs better takes a timer of its own. */
export const SWEEP_MS = 200;

export class Sweep {
  readonly #clock: Clock;
  readonly #members = new Set<Swept>();
  #cancel: (() => void) | undefined;
  /** Reading of the clock at the last sweep: at most `SWEEP_MS` old while there are members. */
  nowMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.nowMs = clock.now();
  }

  add(member: Swept): void {
    if (this.#members.size === 0) {
      this.nowMs = this.#clock.now();
      this.#arm();
    }
    this.#members.add(member);
  }

  remove(member: Swept): void {
    this.#members.delete(member);
    if (this.#members.size > 0) return;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #arm(): void {
    this.#cancel = this.#clock.after(SWEEP_MS, () => {
      this.#cancel = undefined;
      this.nowMs = this.#clock.now();
      for (const member of this.#members) member.sweep(this.nowMs);
      if (this.#members.size > 0) this.#arm();
    });
  }
}

const SWEEPS = new WeakMap<Clock, Sweep>();

/** The one sweep of a clock: every connection that was given the same clock shares a timer. */
export function sweepOf(clock: Clock): Sweep {
  let sweep = SWEEPS.get(clock);
  if (sweep === undefined) {
    sweep = new Sweep(clock);
    SWEEPS.set(clock, sweep);
  }
  return sweep;
}
