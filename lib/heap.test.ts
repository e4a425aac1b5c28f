import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

/**
 * How many times larger the heap is than what a full collection left, when the next one ends that comes of itself: in a process of its own, which
 * allocates slowly, since what is kept while V8 marks comes on top.
 */
function growth(percent: number): number {
  const heap = JSON.stringify(fileURLToPath(new URL('heap.ts', import.meta.url)));
  const script = `
    import { GCProfiler } from 'node:v8';
    import { collectGarbage, limitHeapGrowth } from ${heap};
    const kept = [];
    const keep = (count) => { for (let i = 0; i < count; i++) kept.push({ a: i, b: [i], c: 'x' + i }); };
    keep(200_000);
    limitHeapGrowth(${percent});
    collectGarbage();
    const left = process.memoryUsage().heapUsed;
    const profiler = new GCProfiler();
    profiler.start();
    while (process.memoryUsage().heapUsed < 5 * left) {
      keep(1_000);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const full = profiler.stop().statistics.find(({ gcType }) => gcType === 'MarkSweepCompact');
    if (full === undefined) throw new Error('no full collection up to five times of what was left');
    console.log(full.beforeGC.heapStatistics.usedHeapSize / left);
  `;
  return Number(
    execFileSync(process.execPath, ['--input-type=module', '--eval', script], {
      encoding: 'utf8',
      timeout: 60_000,
    }),
  );
}

test('the heap grows by about the percentage that it was given before it is collected', () => {
  const tenth = growth(10);
  const threefold = growth(200);
  expect(tenth).toBeGreaterThan(1);
  expect(tenth).toBeLessThan(1.8);
  expect(threefold).toBeGreaterThan(2.2);
});
