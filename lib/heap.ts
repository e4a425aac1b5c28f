/** Gives memory back that V8 would keep: it collects a heap when it has grown, and what a start leaves behind is not enough to make it look. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Collects everything that nobody holds and returns the pages to the system. Stops the process meanwhile: some 50 ms with a heap of
 * 20 MiB, 300 ms with 80 MiB. V8 sizes the heap by what is left, so it also stays smaller afterwards.
 */
export function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as (options: { type: 'major'; flavor: 'last-resort' }) => void;
  gc({ type: 'major', flavor: 'last-resort' });
}

/**
 * How much the old generation may grow by, in percent of what the last full collection left, before the next one. V8 decides by itself
 * otherwise, and lets it grow to four times as much where collections are short beside the time between them.
 */
export function limitHeapGrowth(percent: number): void {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
}
