/**
 * Loaded into the control plane by the scale bench: writes a line for each stretch in which the event loop did not come around, and what it
 * went for. Plain JavaScript: Node's TypeScript reader would be in the memory that is measured.
 */
import { appendFileSync, openSync, readSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';

/** Shorter ones are not told. */
const TOLD_MS_MIN = 10;
/** Collections are told by Node after the turn that they were in. */
const LATE_MS = 200;
const WRITE_MS = 100;
const KINDS = { 1: 'scavenge', 4: 'mark-compact', 8: 'incremental', 16: 'weak' };
const path = process.env.MESHWORK_BENCH_LONG_TURNS;

// Of the thread that runs JavaScript: nanoseconds on a core, and nanoseconds in which it could have run and had none.
const schedstat = openSync('/proc/thread-self/schedstat', 'r');
const text = Buffer.alloc(96);
function look() {
  const [onCoreNs, waitedNs] = text.toString('latin1', 0, readSync(schedstat, text, 0, text.length, 0)).split(' ');
  return { atMs: performance.now(), onCoreMs: Number(onCoreNs) / 1e6, waitedMs: Number(waitedNs) / 1e6 };
}

let collections = [];
const observer = new PerformanceObserver((list) => {
  for (const { startTime, duration, detail } of list.getEntries())
    collections.push({ atMs: startTime, ms: duration, kind: KINDS[detail.kind] });
});
observer.observe({ entryTypes: ['gc'] });

let before = look();
let turns = [];
setInterval(() => {
  const now = look();
  const ms = now.atMs - before.atMs;
  if (ms >= TOLD_MS_MIN)
    turns.push({ atMs: before.atMs, ms, ownMs: now.onCoreMs - before.onCoreMs, waitedMs: now.waitedMs - before.waitedMs });
  before = now;
}, 1).unref();

const rounded = (ms) => Math.round(ms * 10) / 10;

setInterval(() => {
  const untilMs = performance.now() - LATE_MS;
  const ready = turns.filter(({ atMs, ms }) => atMs + ms < untilMs);
  turns = turns.slice(ready.length);
  const lines = ready.map(({ atMs, ms, ownMs, waitedMs }) => {
    const within = collections.filter((one) => one.atMs < atMs + ms && one.atMs + one.ms > atMs);
    const gc = within.map((one) => `${one.kind} ${rounded(one.ms)}`).join(', ');
    return `${JSON.stringify({ atMs: rounded(atMs), ms: rounded(ms), ownMs: rounded(ownMs), waitedMs: rounded(waitedMs), gc })}\n`;
  });
  if (lines.length > 0) appendFileSync(path, lines.join(''));
  const oldest = turns[0]?.atMs ?? untilMs;
  collections = collections.filter((one) => one.atMs + one.ms > oldest - LATE_MS);
}, WRITE_MS).unref();
