/** Coarse deadlines for connections: one timer looks over all of them a few times a second, part by part, so that a request costs none. */
import type { Clock } from '../../lib/clock.ts';

/** Something with deadlines. `sweep` compares them with `nowMs` and acts; it may remove itself. */
export interface Swept {
  sweep(nowMs: number): void;
}

/** Deadlines are met within this, unless very many fall due together; what needs better takes a timer of its own. */
export const SWEEP_MS = 200;

/**
 * Many members are looked over in parts, evenly over that time: a hundred slow clients that fall due together and are sent away in one go
 * hold everybody else up for 20 ms.
 */
const PARTS_MAX = 10;
const PART_MEMBERS = 64;
/** A part that takes longer, because most of its members fell due, gives way to other work, and goes on a little later. Asked after so many members. */
const PART_SPENT_MS_MAX = 0.5;
const ASKED_EVERY = 4;
const REST_MS = 2;

export class Sweep {
  readonly #clock: Clock;
  readonly #members = new Set<Swept>();
  /** Where the round over the members stands. What joins meanwhile comes at its end, what leaves is passed over. */
  #round: Iterator<Swept> | undefined;
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
    const parts = Math.max(1, Math.min(PARTS_MAX, Math.ceil(this.#members.size / PART_MEMBERS)));
    this.#armPart(SWEEP_MS / parts, () => Math.ceil(this.#members.size / parts));
  }

  /** Sweeps so many after that time, and what is left of them after a rest. */
  #armPart(waitMs: number, count: () => number): void {
    this.#cancel = this.#clock.after(waitMs, () => {
      this.#cancel = undefined;
      this.nowMs = this.#clock.now();
      const left = this.#sweepPart(count());
      if (this.#members.size === 0) return;
      if (left > 0) this.#armPart(REST_MS, () => left);
      else this.#arm();
    });
  }

  /** Answers how many there was no time for. */
  #sweepPart(count: number): number {
    for (let i = 1; i <= count; i++) {
      const member = this.#next();
      if (member === undefined) return 0;
      member.sweep(this.nowMs);
      if (i % ASKED_EVERY === 0 && this.#clock.now() - this.nowMs > PART_SPENT_MS_MAX) return count - i;
    }
    return 0;
  }

  /** The next member of the round, or the first of a new one. */
  #next(): Swept | undefined {
    const next = this.#round?.next();
    if (next !== undefined && next.done !== true) return next.value;
    this.#round = this.#members.values();
    const first = this.#round.next();
    return first.done === true ? undefined : first.value;
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
