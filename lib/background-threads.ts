/** Lets V8's own threads, which compile and collect beside the one that serves, step back where both want the same core. */
import { readFileSync, readdirSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

/** What this needs of the operating system. */
export interface Threads {
  /** Names of the threads of this process by id; undefined where the system does not tell. */
  names(): ReadonlyMap<number, string> | undefined;
  /** The nice value of the thread that serves. */
  ownNice(): number;
  /** Sets a thread's nice value; false = it is gone, or the system does not allow it. */
  setNice(thread: number, nice: number): boolean;
}

/** How Node calls the threads that V8 gets its tasks done in. */
const V8_THREAD = /V8Worker$/;

/** Nice values end here. */
const NICE_MAX = 19;

/**
 * Gives V8's worker threads a nice value that is higher than this thread's own by `steps` (above 0 needs no right) and answers how many have
 * it now. By steps, since the weights that the system gives go by the difference: 10 is a tenth, wherever the process itself stands. On a
 * core of its own each of them runs as before. On Linux only; 0 elsewhere, and where Node does not name its threads (before 24).
 */
export function lowerV8Threads(steps: number, threads: Threads = systemThreads): number {
  const nice = Math.min(NICE_MAX, threads.ownNice() + steps);
  let lowered = 0;
  for (const [id, name] of threads.names() ?? []) if (V8_THREAD.test(name) && threads.setNice(id, nice)) lowered++;
  return lowered;
}

const systemThreads: Threads = {
  names() {
    if (process.platform !== 'linux') return undefined;
    const names = new Map<number, string>();
    for (const id of readdirSync('/proc/self/task')) {
      try {
        names.set(Number(id), readFileSync(`/proc/self/task/${id}/comm`, 'latin1').trim());
      } catch (error) {
        // It ended meanwhile.
        if (!isOneOf(error, ['ENOENT', 'ESRCH'])) throw error;
      }
    }
    return names;
  },
  ownNice: () => getPriority(),
  setNice(thread, nice) {
    try {
      // Linux takes a thread's id where POSIX has a process's.
      setPriority(thread, nice);
      return true;
    } catch (error) {
      if (isOneOf((error as { info?: unknown }).info ?? error, ['ESRCH', 'EACCES', 'EPERM'])) return false;
      throw error;
    }
  },
};

function isOneOf(error: unknown, codes: readonly string[]): boolean {
  return codes.includes(String((error as { code?: unknown }).code));
}
