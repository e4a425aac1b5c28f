import { expect, test } from '@jest/globals';
import { readdirSync } from 'node:fs';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { collectProcessMetrics } from './process-metrics.ts';

async function scrape(registry: Registry): Promise<(name: string) => number> {
  const text = await registry.metrics();
  return (name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
}

test('the longest turn of the event loop is told once, without the time in which there was nothing to do', async () => {
  const registry = new Registry();
  collectProcessMetrics(registry);
  await turn();
  await scrape(registry);
  const untilMs = performance.now() + 40;
  while (performance.now() < untilMs);
  await delay(150);
  const busy = (await scrape(registry))('nodejs_eventloop_lag_max_seconds');
  expect(busy).toBeGreaterThanOrEqual(0.04);
  expect(busy).toBeLessThan(0.14);
  await delay(150);
  expect((await scrape(registry))('nodejs_eventloop_lag_max_seconds')).toBeLessThan(0.04);
});

test('each kind of lag is there once, what lists every socket is not, and open files are counted', async () => {
  const registry = new Registry();
  collectProcessMetrics(registry);
  await turn();
  const value = await scrape(registry);
  for (const lag of ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99'])
    expect(value(`nodejs_eventloop_lag_${lag}_seconds`)).toBeGreaterThanOrEqual(0);
  expect(value('nodejs_active_handles_total')).toBeNaN();
  if (process.platform === 'linux') expect(Math.abs(value('process_open_fds') - readdirSync('/proc/self/fd').length)).toBeLessThan(10);
});
