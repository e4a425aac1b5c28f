/** When a sidecar gives memory back: once it is ready, a minute later, when first requests have been served, and then every ten minutes. */
import { collectGarbage, limitHeapGrowth } from '../lib/heap.ts';
import { residentMemoryRelease } from '../lib/resident.ts';
import type { Clock } from '../lib/clock.ts';

/** Under load some requests outlive the young generation; they are collected each ten seconds or so instead of each forty. */
const HEAP_GROWTH_PERCENT = 40;
const FIRST_MS = 60_000;
const EVERY_MS = 600_000;

export interface MemoryDeps {
  readonly clock: Clock;
  /** Collects the whole heap. Default: V8's collection of last resort, and a limit to what the heap grows by from there. */
  readonly collect?: () => void;
  /** Gives back pages that are not in use. Default: what the system offers, which may be nothing. */
  readonly release?: () => void;
}

/**
 * For a proxy that has its process to itself. Much of its memory when it is ready is what the start left behind; later requests bring other
 * pages of the binary in, and those of the compiler of hot code are not used for long.
 */
export function keepMemorySmall(proxy: { readonly ready: Promise<void>; readonly done: Promise<number> }, deps: MemoryDeps): void {
  let ended = false;
  let cancel = (): void => undefined;
  void proxy.done.then(() => {
    ended = true;
    cancel();
  });
  void proxy.ready.then(() => {
    if (ended) return;
    (deps.collect ?? collect)();
    const release = deps.release ?? residentMemoryRelease();
    if (release === undefined) return;
    const releaseIn = (ms: number): void => {
      cancel = deps.clock.after(ms, () => {
        release();
        releaseIn(EVERY_MS);
      });
    };
    release();
    releaseIn(FIRST_MS);
  });
}

function collect(): void {
  // Before the collection, since that is when V8 reckons the next limit.
  limitHeapGrowth(HEAP_GROWTH_PERCENT);
  collectGarbage();
}
