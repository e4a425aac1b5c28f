import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

/**
 * How many times larger the heap is than what a full collection left, when the next one comes of itself: in a process of its own, in which it
 * is collected in one go, since what is kept meanwhile would come on top.
 */
function growth(percent: number): number {
  const heap = JSON.stringify(fileURLToPath(new URL('heap.ts', import.meta.url)));
  const script = `
    import { PerformanceObserver, constants } from 'node:perf_hooks';
    import { collectGarbage, limitHeapGrowth } from ${heap};
    const kept = [];
    const keep = (count) => { for (let i = 0; i < count; i++) kept.push({ a: i, b: [i], c: 'x' + i }); };
    keep(200_000);
    limitHeapGrowth(${percent});
    collectGarbage();
    const left = process.memoryUsage().heapUsed;
    let collected = false;
    let most = 0;
    new PerformanceObserver((list) => {
      if (list.getEntries().some((entry) => entry.detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR)) collected = true;
    }).observe({ entryTypes: ['gc'] });
    // The collection before is told too.
    await new Promise((resolve) => setTimeout(resolve, 50));
    collected = false;
    while (!collected) {
      most = process.memoryUsage().heapUsed;
      keep(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    console.log(most / left);
  `;
  return Number(
    execFileSync(process.execPath, ['--single-threaded-gc', '--no-incremental-marking', '--input-type=module', '--eval', script], {
      encoding: 'utf8',
      timeout: 60_000,
    }),
  );
}

test('the heap grows by about the percentage that it was given before it is collected', () => {
  const tenth = growth(10);
  const double = growth(100);
  expect(tenth).toBeGreaterThan(1);
  expect(double).toBeGreaterThan(tenth + 0.3);
  expect(double).toBeLessThan(2.3);
});
