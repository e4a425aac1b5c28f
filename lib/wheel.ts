/** A hashed timing wheel: one platform timer for thousands of time-outs, most of which are taken back before they are due. */
import type { Clock } from './clock.ts';

/** A time-out. Subclass it with the state that `expire` needs: one object per time-out and no closure. */
export abstract class WheelTimer {
  /** Tick at which it is due; -1 while it is on no wheel. Only the wheel writes these three. */
  dueTick = -1;
  previous: WheelTimer | undefined = undefined;
  next: WheelTimer | undefined = undefined;

  /** Called once when due. It may put itself on the wheel again. */
  abstract expire(): void;
}

/**
 * Timers are due on the first tick at or after their time, never early. Adding and removing cost a few writes. The wheel keeps no process
 * alive: what a time-out is about (a socket) does.
 */
export class Wheel {
  readonly #clock: Clock;
  readonly #tickMs: number;
  readonly #slots: (WheelTimer | undefined)[];
  #size = 0;
  /** Last tick that was worked off. */
  #cursor = 0;
  #armedTick = Number.POSITIVE_INFINITY;
  #disarm: (() => void) | undefined = undefined;

  /** `tickMs` is the precision, 4 by default; `slots` times `tickMs` is one turn, after which timers share slots. */
  constructor(clock: Clock, options: { tickMs?: number; slots?: number } = {}) {
    this.#clock = clock;
    this.#tickMs = options.tickMs ?? 4;
    this.#slots = Array.from({ length: options.slots ?? 4096 }, () => undefined);
    this.#cursor = Math.floor(clock.now() / this.#tickMs);
  }

  /** Timers that wait. */
  get size(): number {
    return this.#size;
  }

  /** Puts a timer on the wheel, due at `dueMs` on the clock. One that is already on it is moved. */
  add(timer: WheelTimer, dueMs: number): void {
    if (timer.dueTick !== -1) this.remove(timer);
    if (this.#size === 0) this.#cursor = Math.max(this.#cursor, Math.floor(this.#clock.now() / this.#tickMs));
    const dueTick = Math.max(this.#cursor + 1, Math.ceil(dueMs / this.#tickMs));
    const slot = dueTick % this.#slots.length;
    const head = this.#slots[slot];
    timer.dueTick = dueTick;
    timer.previous = undefined;
    timer.next = head;
    if (head !== undefined) head.previous = timer;
    this.#slots[slot] = timer;
    this.#size++;
    if (dueTick < this.#armedTick) this.#arm(dueTick);
  }

  /** Takes a timer off; one that is not on the wheel is left alone. */
  remove(timer: WheelTimer): void {
    if (timer.dueTick === -1) return;
    if (timer.previous === undefined) this.#slots[timer.dueTick % this.#slots.length] = timer.next;
    else timer.previous.next = timer.next;
    if (timer.next !== undefined) timer.next.previous = timer.previous;
    timer.dueTick = -1;
    timer.previous = undefined;
    timer.next = undefined;
    this.#size--;
    // The armed platform timer stays, on an empty wheel too, where each request would start another: it fires at most once for nothing.
  }

  #arm(tick: number): void {
    this.#disarm?.();
    this.#armedTick = tick;
    this.#disarm = this.#clock.afterUnheld(tick * this.#tickMs - this.#clock.now(), () => this.#turn());
  }

  #turn(): void {
    this.#disarm = undefined;
    this.#armedTick = Number.POSITIVE_INFINITY;
    const nowTick = Math.floor(this.#clock.now() / this.#tickMs);
    const due: WheelTimer[] = [];
    const from = Math.max(this.#cursor + 1, nowTick - this.#slots.length + 1);
    for (let tick = from; tick <= nowTick; tick++) {
      for (let timer = this.#slots[tick % this.#slots.length]; timer !== undefined; timer = timer.next)
        if (timer.dueTick <= nowTick) due.push(timer);
    }
    this.#cursor = Math.max(this.#cursor, nowTick);
    due.sort((a, b) => a.dueTick - b.dueTick);
    for (const timer of due) {
      // One that fired before it may have taken it back or moved it.
      if (timer.dueTick === -1 || timer.dueTick > nowTick) continue;
      this.remove(timer);
      timer.expire();
    }
    if (this.#size > 0) this.#armNext();
  }

  /** Arms for the next slot that holds anything; what waits there may be due a turn later, then this is done again. */
  #armNext(): void {
    const length = this.#slots.length;
    for (let tick = this.#cursor + 1; tick <= this.#cursor + length; tick++) {
      if (this.#slots[tick % length] === undefined) continue;
      if (tick < this.#armedTick) this.#arm(tick);
      return;
    }
  }
}
