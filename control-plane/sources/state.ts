/** A source whose state is set by calls: holds the newest state for whoever watches and knows when it has been taken in. */
import type { Clock } from '../../lib/clock.ts';
import { sleep } from '../../lib/clock.ts';
import type { Source, SourceState } from '../world.ts';

export interface PushedSource extends Source {
  /** Replaces the state, or says how to make it when it is taken. `taken` is called once the watcher has finished with this state or a newer one; at once when nobody watches. */
  set(state: SourceState | (() => SourceState), taken?: () => void): void;
  /** Resolves once the watcher has finished with the newest state; at once when nobody watches. */
  caughtUp(): Promise<void>;
}

/** Under a storm of writes a world is made this often, and not for each; a write after a quiet moment does not wait. */
const PACE_MS = 20;

/**
 * Newest wins: states set while the watcher is busy are skipped, their `taken` calls are not. One watcher at a time. With a clock, states
 * that follow each other closely are handed over 20 ms apart.
 */
export function createPushedSource(name: string, initial: SourceState, clock?: Clock): PushedSource {
  let current: SourceState | (() => SourceState) = initial;
  let tookMs = Number.NEGATIVE_INFINITY;
  let version = 1;
  let seen = 0;
  let finished = 0;
  let waiting: { version: number; taken: () => void }[] = [];
  let wake = (): void => undefined;
  let watched = false;
  return {
    name,
    set(state, taken) {
      current = state;
      version++;
      if (taken !== undefined) {
        if (watched) waiting.push({ version, taken });
        else taken();
      }
      wake();
    },
    caughtUp: () =>
      new Promise((resolve) => {
        if (watched && finished < version) waiting.push({ version, taken: resolve });
        else resolve();
      }),
    async *watch(signal) {
      watched = true;
      seen = 0;
      finished = 0;
      const stop = (): void => wake();
      signal.addEventListener('abort', stop, { once: true });
      try {
        while (!signal.aborted) {
          if (seen === version) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
            continue;
          }
          // Writes of one turn of the event loop are one state: under many of them a world a turn is made, and not one each.
          await new Promise((resolve) => setImmediate(resolve));
          if (clock !== undefined) {
            const waitMs = tookMs + PACE_MS - clock.now();
            if (waitMs > 0) await sleep(clock, waitMs, signal);
            tookMs = clock.now();
          }
          if (signal.aborted) break;
          seen = version;
          yield typeof current === 'function' ? current() : current;
          // The watcher asks again, so it has finished with what it got.
          finished = seen;
          const done = waiting.filter((entry) => entry.version <= seen);
          waiting = waiting.filter((entry) => entry.version > seen);
          for (const entry of done) entry.taken();
        }
      } finally {
        watched = false;
        signal.removeEventListener('abort', stop);
        for (const entry of waiting.splice(0)) entry.taken();
      }
    },
  };
}
