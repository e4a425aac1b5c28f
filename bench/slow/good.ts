/** The good client, in a process of its own: `node good.ts PORT RATE SECONDS`. A fixed rate over kept connections; latency counts from when a request was due. Prints a line of JSON. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';

const [port, rate, seconds] = process.argv.slice(2).map(Number) as [number, number, number];
const CONNECTIONS = 32;
const PATIENCE_MS = 5_000;
const REQUEST = 'GET /small HTTP/1.1\r\nHost: app.test\r\n\r\n';

interface Good {
  readonly socket: Socket;
  /** When the request that is under way was due; 0 = none is. */
  dueMs: number;
  text: string;
}

const latenciesMs: number[] = [];
/** The same by the second in which the request was due. */
const bySecond: number[][] = [];
const waiting: number[] = [];
const idle: Good[] = [];
let failed = 0;
let underWay = 0;

function send(good: Good, dueMs: number): void {
  good.dueMs = dueMs;
  good.text = '';
  underWay++;
  good.socket.write(REQUEST);
}

function over(good: Good, ok: boolean): void {
  underWay--;
  if (ok) {
    const spentMs = performance.now() - good.dueMs;
    latenciesMs.push(spentMs);
    (bySecond[Math.floor((good.dueMs - startMs) / 1_000)] ??= []).push(spentMs);
  } else failed++;
  good.dueMs = 0;
}

function open(): void {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  const good: Good = { socket, dueMs: 0, text: '' };
  socket.once('connect', () => settle(good));
  socket.on('data', (chunk: Buffer) => {
    if (good.dueMs === 0) return;
    good.text += chunk.toString('latin1');
    const end = good.text.indexOf('\r\n\r\n');
    if (end === -1 || good.text.length < end + 4 + 1024) return;
    over(good, good.text.startsWith('HTTP/1.1 200 '));
    settle(good);
  });
  socket.on('error', () => undefined);
  socket.once('close', () => {
    if (good.dueMs !== 0) over(good, false);
    const at = idle.indexOf(good);
    if (at !== -1) idle.splice(at, 1);
    if (performance.now() < untilMs + PATIENCE_MS) open();
  });
}

/** A connection that has nothing to do takes what is due. */
function settle(good: Good): void {
  const dueMs = waiting.shift();
  if (dueMs === undefined) idle.push(good);
  else send(good, dueMs);
}

const startMs = performance.now() + 200;
const untilMs = startMs + seconds * 1_000;
let due = 0;
for (let i = 0; i < CONNECTIONS; i++) open();

const timer = setInterval(() => {
  const nowMs = performance.now();
  for (; due < rate * seconds && startMs + (due * 1_000) / rate <= nowMs; due++) {
    const dueMs = startMs + (due * 1_000) / rate;
    const good = idle.shift();
    if (good === undefined) waiting.push(dueMs);
    else send(good, dueMs);
  }
  if (due < rate * seconds || (underWay + waiting.length > 0 && nowMs < untilMs + PATIENCE_MS)) return;
  clearInterval(timer);
  const at = (values: readonly number[], share: number): number =>
    values.toSorted((one, other) => one - other)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;
  const result = {
    requests: due,
    failed: failed + underWay + waiting.length,
    p50Ms: at(latenciesMs, 0.5),
    p99Ms: at(latenciesMs, 0.99),
    p999Ms: at(latenciesMs, 0.999),
    maxMs: at(latenciesMs, 1),
    secondsP99Ms: at(
      Object.values(bySecond).map((second) => at(second, 0.99)),
      0.5,
    ),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}, 1);
