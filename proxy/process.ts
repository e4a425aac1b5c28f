/**
 * What a proxy does that has its process to itself: it gives memory back once it is ready, a minute later, when first requests have been
 * served, and then every ten minutes; and V8's own threads step back when the code that is hot has been compiled.
 */
import { lowerV8Threads } from '../lib/background-threads.ts';
import { collectGarbage, limitHeapGrowth } from '../lib/heap.ts';
import { residentMemoryRelease } from '../lib/resident.ts';
import type { Clock } from '../lib/clock.ts';

/** Under load some requests outlive the young generation; they are collected each ten seconds or so instead of each forty. */
const HEAP_GROWTH_PERCENT = 40;
const FIRST_MS = 60_000;
const EVERY_MS = 600_000;
/** While requests are new their code is being compiled, which should not wait. */
const COMPILED_MS = 30_000;
/** Steps of nice: a weight of a tenth of the thread that serves. Marking a heap takes 50 to 100 ms of a core: beside it every other request waits as long. */
const THREADS_NICE_STEPS = 10;

export interface ProcessDeps {
  readonly clock: Clock;
  /** Collects the whole heap. Default: V8's collection of last resort, and a limit to what the heap grows by from there. */
  readonly collect?: () => void;
  /** Gives back pages that are not in use. Default: what the system offers, which may be nothing. */
  readonly release?: () => void;
  /** Lets V8's threads step back. Default: a nice value, where the system has such. */
  readonly lowerThreads?: () => void;
}

/**
 * Starts all that. Much of a proxy's memory when it is ready is what the start left behind; later requests bring other
 * pages of the binary in, and those of the compiler of hot code are not used for long.
 */
export function tendProcess(proxy: { readonly ready: Promise<void>; readonly done: Promise<number> }, deps: ProcessDeps): void {
  let ended = false;
  let cancel = (): void => undefined;
  let cancelLower = (): void => undefined;
  void proxy.done.then(() => {
    ended = true;
    cancel();
    cancelLower();
  });
  void proxy.ready.then(() => {
    if (ended) return;
    (deps.collect ?? collect)();
    cancelLower = deps.clock.after(COMPILED_MS, deps.lowerThreads ?? (() => void lowerV8Threads(THREADS_NICE_STEPS)));
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
