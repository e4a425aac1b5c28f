/** Time as an argument: the clock that everything is given, the real one and one that tests move by hand. */

/** Monotonic milliseconds and one-shot timers. Wall-clock time is a separate reading, for log lines and certificates. */
export interface Clock {
  /** Monotonic milliseconds with a fraction; only differences mean anything. */
  now(): number;
  /** Milliseconds since the Unix epoch. */
  wallMs(): number;
  /** Calls `fn` once after `ms` milliseconds; after 0 once what waits at sockets has had its turn. The answer cancels it; cancelling twice is fine. */
  after(ms: number, fn: () => void): () => void;
  /** As `after`, but what waits does not keep the process alive. */
  afterUnheld(ms: number, fn: () => void): () => void;
}

/** Resolves after `ms` on the given clock, or at once when the signal aborts. Never rejects. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const done = (): void => {
      cancel();
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.after(ms, done);
    signal?.addEventListener('abort', done, { once: true });
  });
}

/** Longest delay that the platform's timers take; a longer wait is made of several. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The machine's own clock. Its timers do not keep a process alive unless `keepAlive` says so. */
export function systemClock(options: { keepAlive?: boolean } = {}): Clock {
  const keepAlive = options.keepAlive ?? true;
  return {
    now: () => performance.now(),
    wallMs: () => Date.now(),
    after: (ms, fn) => startTimer(ms, fn, keepAlive),
    afterUnheld: (ms, fn) => startTimer(ms, fn, false),
  };
}

function startTimer(ms: number, fn: () => void, keepAlive: boolean): () => void {
  if (ms <= 0) return nextTurn(fn, keepAlive);
  let timer: ReturnType<typeof setTimeout>;
  const arm = (leftMs: number): void => {
    const stepMs = Math.min(leftMs, TIMER_MS_MAX);
    timer = setTimeout(() => (leftMs > stepMs ? arm(leftMs - stepMs) : fn()), stepMs);
    if (!keepAlive) timer.unref();
  };
  arm(ms);
  return () => clearTimeout(timer);
}

/** Not a timer of 0 ms: Node takes that for 1 ms, and runs the next one without a look at the sockets when the one before took as long. */
function nextTurn(fn: () => void, keepAlive: boolean): () => void {
  const immediate = setImmediate(fn);
  if (!keepAlive) immediate.unref();
  return () => clearImmediate(immediate);
}

/** A clock that stands still until `advance` is called; timers fire in order of due time, then of creation. */
export class ManualClock implements Clock {
  #nowMs: number;
  #sequence = 0;
  readonly #wallOffsetMs: number;
  readonly #timers = new Map<number, { dueMs: number; held: boolean; fn: () => void }>();

  constructor(options: { nowMs?: number; wallMs?: number } = {}) {
    this.#nowMs = options.nowMs ?? 0;
    this.#wallOffsetMs = (options.wallMs ?? Date.UTC(2026, 0, 1)) - this.#nowMs;
  }

  now(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs + this.#wallOffsetMs;
  }

  after(ms: number, fn: () => void): () => void {
    return this.#start(ms, fn, true);
  }

  afterUnheld(ms: number, fn: () => void): () => void {
    return this.#start(ms, fn, false);
  }

  #start(ms: number, fn: () => void, held: boolean): () => void {
    const id = this.#sequence++;
    this.#timers.set(id, { dueMs: this.#nowMs + Math.max(0, ms), held, fn });
    return () => this.#timers.delete(id);
  }

  /** How many timers wait that would keep a process alive; zero at the end of a test means nothing leaked. */
  get pending(): number {
    let count = 0;
    for (const timer of this.#timers.values()) if (timer.held) count++;
    return count;
  }

  /** When the next timer is due, or undefined when none waits. */
  get nextDueMs(): number | undefined {
    let next: number | undefined;
    for (const timer of this.#timers.values()) if (next === undefined || timer.dueMs < next) next = timer.dueMs;
    return next;
  }

  /** Moves time on by `ms`, firing what falls due on the way (timers made while firing included). */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      let dueId: number | undefined;
      let dueMs = Number.POSITIVE_INFINITY;
      for (const [id, timer] of this.#timers) {
        if (timer.dueMs <= untilMs && timer.dueMs < dueMs) {
          dueId = id;
          dueMs = timer.dueMs;
        }
      }
      if (dueId === undefined) break;
      const timer = this.#timers.get(dueId)!;
      this.#timers.delete(dueId);
      this.#nowMs = Math.max(this.#nowMs, timer.dueMs);
      timer.fn();
    }
    this.#nowMs = untilMs;
  }
}
