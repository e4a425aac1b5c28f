/**
 * Loaded before the control plane by the scale bench: writes a line for each stretch in which the event loop did not come around, and what it
 * went for. Plain JavaScript: Node's TypeScript reader would be in the memory that is measured.
 */
import { appendFileSync, openSync, readSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';

/** Shorter ones are not told. */
const TURN_MS_MIN = 10;
const path = process.env.MESHWORK_BENCH_LONG_TURNS;
// Of the thread that runs JavaScript: nanoseconds on a core, and nanoseconds in which it could have run and had none.
const schedstat = openSync('/proc/thread-self/schedstat', 'r');
const text = Buffer.alloc(96);
const read = () => {
  const [onCoreNs, waitedNs] = text.toString('latin1', 0, readSync(schedstat, text, 0, text.length, 0)).split(' ');
  return { atMs: performance.now(), onCoreMs: Number(onCoreNs) / 1e6, waitedMs: Number(waitedNs) / 1e6 };
};

let collections = [];
const observer = new PerformanceObserver((list) => {
  for (const { startTime, duration, detail } of list.getEntries()) collections.push({ startTime, duration, kind: detail.kind });
});
observer.observe({ entryTypes: ['gc'] });
const told = [];
const hr = Number(process.hrtime.bigint()) / 1e6 - performance.now();

let before = read();
setInterval(() => {
  const now = read();
  const tookMs = now.atMs - before.atMs;
  if (tookMs >= TURN_MS_MIN)
    told.push({ startMs: before.atMs, endMs: now.atMs, ownMs: now.onCoreMs - before.onCoreMs, waitedMs: now.waitedMs - before.waitedMs });
  before = now;
}, 1).unref();

/** Collections are told after the turn that they were in. */
setInterval(() => {
  const untilMs = performance.now() - 200;
  const ready = told.filter(({ endMs }) => endMs < untilMs);
  if (ready.length === 0) return;
  told.splice(0, ready.length);
  const lines = ready.map(({ startMs, endMs, ownMs, waitedMs }) => {
    const within = collections.filter((one) => one.startTime < endMs && one.startTime + one.duration > startMs);
    const gc = within.map((one) => `${KINDS[one.kind] ?? one.kind}:${one.duration.toFixed(1)}`);
    const round = (ms) => Math.round(ms * 10) / 10;
    return `${JSON.stringify({ atMs: round(startMs), hrMs: round(startMs + hr), ms: round(endMs - startMs), ownMs: round(ownMs), waitedMs: round(waitedMs), gc: gc.join(' ') })}\n`;
  });
  appendFileSync(path, lines.join(''));
  collections = collections.filter((one) => one.startTime > untilMs - 5_000);
}, 100).unref();

const KINDS = { 1: 'scavenge', 4: 'mark-compact', 8: 'incremental', 16: 'weak' };
