/** Lets V8's own threads, which compile and collect beside the one that serves, step back where both want the same core. */
import { readFileSync, readdirSync } from 'node:fs';
import { setPriority } from 'node:os';

/** What this needs of the operating system. */
export interface Threads {
  /** Names of the threads of this process by id; undefined where the system does not tell. */
  names(): ReadonlyMap<number, string> | undefined;
  /** Sets a thread's nice value; false = it is gone, or the system does not allow it. */
  setNice(thread: number, nice: number): boolean;
}

/** How Node calls the threads that V8 gets its tasks done in. */
const V8_THREAD = /V8Worker$/;

/**
 * Gives V8's worker threads a nice value (0 to 19; above 0 needs no right) and answers how many have it now. On a core of its own each of them
 * runs as before. On Linux only; 0 elsewhere, and where Node does not name its threads (before 24).
 */
export function lowerV8Threads(nice: number, threads: Threads = systemThreads): number {
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
