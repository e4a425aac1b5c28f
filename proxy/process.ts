/**
 * What a proxy does that has its process to itself: it gives memory back once it is ready, 20 s later, when first requests have been served, and
 * then more seldom, at last every 80 s.
 */
import { collectGarbage, limitHeapGrowth } from '../lib/heap.ts';
import { residentMemoryRelease } from '../lib/resident.ts';
import type { Clock } from '../lib/clock.ts';

/** Connections come and go, and under load some requests outlive the young generation. What they leave is collected each ten seconds or so, and not each forty. */
const HEAP_GROWTH_PERCENT = 25;
/** Until then: with 5,000 clusters V8 by itself waits for 270 MiB at times, and for 230 at others. It costs a tenth of the time until the proxy is ready. */
const LOADING_GROWTH_PERCENT = 50;
/** Pages are given back after this time, and then more seldom: code that is rarely used comes back in, and so does what `malloc` keeps. */
const FIRST_MS = 20_000;
const EVERY_MS_MAX = 80_000;

export interface ProcessDeps {
  readonly clock: Clock;
  /** Bounds what the heap grows by between collections, in percent. Default: V8's own setting. */
  readonly limitGrowth?: (percent: number) => void;
  /** Collects the whole heap. Default: V8's collection of last resort, and a limit to what the heap grows by from there. */
  readonly collect?: () => void;
  /** Gives back pages that are not in use. Default: what the system offers, which may be nothing. */
  readonly release?: () => void;
}

/**
 * Starts all that. Much of a proxy's memory when it is ready is what the start left behind; later requests bring other
 * pages of the binary in, and those of the compiler of hot code are not used for long.
 */
export function tendProcess(proxy: { readonly ready: Promise<void>; readonly done: Promise<number> }, deps: ProcessDeps): void {
  (deps.limitGrowth ?? limitHeapGrowth)(LOADING_GROWTH_PERCENT);
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
        releaseIn(Math.min(EVERY_MS_MAX, 2 * ms));
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
