/** Metrics of the process itself, under the names that Node programs have: Node's usual ones, of which none blocks the event loop that it measures. */
import { readdir } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Gauge, collectDefaultMetrics } from 'prom-client';
import type { Registry } from 'prom-client';

/** Each scrape would make a list of every socket: tens of milliseconds of the event loop with a thousand proxies. */
const COSTLY = ['handles', 'requests', 'resources'].flatMap((what) => [`nodejs_active_${what}`, `nodejs_active_${what}_total`]);
const LAGS = ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99'] as const;
/** The usual monitor is a timer that wakes the process and is in each number itself; it is not read here, and this seldom runs. */
const UNUSED_MONITOR_MS = 600_000;

/** Adds them to `registry`. */
export function collectProcessMetrics(registry: Registry): void {
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: UNUSED_MONITOR_MS });
  const replaced = ['process_open_fds', ...LAGS.map(lagName)];
  for (const name of [...COSTLY, ...replaced]) registry.removeSingleMetric(name);
  collectLoopDelay(registry);
  if (process.platform === 'linux') collectOpenFiles(registry);
}

/** How long turns of the event loop were, without the time in which there was nothing to do: what comes in waits for as long at most. Since the last scrape. */
function collectLoopDelay(registry: Registry): void {
  const delay = monitorEventLoopDelay({ samplePerIteration: true });
  delay.enable();
  const gauges = LAGS.map(
    (lag, index) =>
      new Gauge({
        name: lagName(lag),
        help: `Length of a turn of the event loop, waiting left out, since the last scrape: ${lag}.`,
        registers: [registry],
        ...(index === 0 ? { collect: () => read() } : {}),
      }),
  );
  // All of one moment, so the first one reads for all.
  const read = (): void => {
    const values = [delay.min, delay.max, delay.mean, delay.stddev, delay.percentile(50), delay.percentile(90), delay.percentile(99)];
    for (const [index, gauge] of gauges.entries()) gauge.set(delay.count === 0 ? 0 : values[index]! / 1e9);
    delay.reset();
  };
}

function lagName(lag: (typeof LAGS)[number]): string {
  return `nodejs_eventloop_lag_${lag}_seconds`;
}

/** Read by another thread: with a thousand connections the list takes milliseconds. */
function collectOpenFiles(registry: Registry): void {
  const gauge = new Gauge({
    name: 'process_open_fds',
    help: 'Number of open file descriptors.',
    registers: [registry],
    collect: async () => {
      const open = await readdir('/proc/self/fd');
      // Without the one that the list was read through.
      gauge.set(open.length - 1);
    },
  });
}
