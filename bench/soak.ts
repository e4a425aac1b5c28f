/** Memory over many requests and over many idle connections. `npm run bench:soak`. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { freePorts } from '../cli/ports.ts';
import { saturate } from './load.ts';
import { meshwork } from './peers/meshwork.ts';
import { startNginx } from './peers/nginx.ts';
import type { Measured } from './process.ts';
import { describeMachine } from './report.ts';
import { openFilesMax } from './slow/round.ts';
import { verdictOf } from './soak/verdict.ts';
import type { Reading } from './soak/verdict.ts';

const { values } = parseArgs({
  options: {
    /** 0 leaves the first part out. */
    requests: { type: 'string', default: '10000000' },
    connections: { type: 'string', default: '1000' },
    /** The load ends after this, however many requests it was. */
    seconds: { type: 'string', default: '900' },
    /** Idle connections of the second part; 0 leaves it out. */
    idle: { type: 'string', default: '10000' },
  },
});
const requestsWanted = Number(values.requests);
const idle = Number(values.idle);

const PROXY_CORE = 0;
const LOAD_CORE = Math.min(1, cpus().length - 1);
const PIECE_SECONDS = 10;
const READING_MS = 1_000;
const SETTLE_MS = 3_000;
/** What the two parts are held against. */
const RSS_MIB_MAX = 110;
const KIB_EACH_MAX = 12;

const directory = mkdtempSync(join(tmpdir(), 'meshwork-soak-'));
try {
  await main();
} finally {
  rmSync(directory, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const needed = Math.max(idle, 2 * Number(values.connections)) + 1_000;
  if (openFilesMax() < needed) throw new Error(`this needs ${needed} open files in a process, the limit is ${openFilesMax()} (ulimit -Hn)`);
  const [upstreamPort] = (await freePorts(1)) as [number];
  const upstream = await startNginx(
    { name: 'upstream', core: LOAD_CORE, directory, listenPort: upstreamPort },
    `server { listen 127.0.0.1:${upstreamPort} backlog=4096; location = /1k { return 200 "${'x'.repeat(1024)}"; } }`,
  );
  try {
    const load = requestsWanted === 0 ? undefined : await withProxy(upstreamPort, soak);
    const connections = idle === 0 ? undefined : await withProxy(upstreamPort, holdIdle);
    process.stdout.write(`${JSON.stringify({ machine: describeMachine(), load, idle: connections }, undefined, 2)}\n`);
    const loadGood = load === undefined || (load.failed === 0 && load.verdict.flat && load.verdict.mostMiB <= RSS_MIB_MAX);
    process.exitCode = loadGood && (connections?.kiBEach ?? 0) <= KIB_EACH_MAX ? 0 : 1;
  } finally {
    await upstream.stop();
  }
}

async function withProxy<T>(upstreamPort: number, work: (port: number, proxy: Measured) => Promise<T>): Promise<T> {
  const [listenPort] = (await freePorts(1)) as [number];
  const proxy = await meshwork.start({ name: 'meshwork', hop: { kind: 'plain' }, listenPort, upstreamPort, core: PROXY_CORE, directory });
  try {
    return await work(listenPort, proxy);
  } finally {
    await proxy.stop();
  }
}

/** Saturates the proxy piece by piece, and reads its memory every second. */
async function soak(port: number, proxy: Measured) {
  const url = `http://127.0.0.1:${port}/1k`;
  const readings: Reading[] = [];
  const startMib = proxy.rssMiB();
  let requests = 0;
  let failed = 0;
  let perSecond = 0;
  const startedMs = performance.now();
  const untilMs = startedMs + Number(values.seconds) * 1_000;
  while (requests < requestsWanted && performance.now() < untilMs) {
    const pieceMs = performance.now();
    // Requests within a piece are reckoned by the rate of the last one: wrk counts only at its end.
    const timer = setInterval(
      () => readings.push({ requests: requests + (perSecond * (performance.now() - pieceMs)) / 1_000, rssMiB: proxy.rssMiB() }),
      READING_MS,
    );
    const left = Math.ceil((untilMs - performance.now()) / 1_000);
    const result = await saturate({
      url,
      core: LOAD_CORE,
      connections: Number(values.connections),
      seconds: Math.min(PIECE_SECONDS, Math.max(1, left)),
    });
    clearInterval(timer);
    requests += result.requests;
    failed += result.failed;
    perSecond = result.requestsPerSecond;
    readings.push({ requests, rssMiB: proxy.rssMiB() });
    process.stderr.write(`${requests} requests, ${perSecond.toFixed()}/s, ${proxy.rssMiB().toFixed(1)} MiB\n`);
  }
  const ordered = readings.toSorted((a, b) => a.requests - b.requests);
  return {
    requests,
    failed,
    seconds: (performance.now() - startedMs) / 1_000,
    startMib,
    verdict: verdictOf(ordered),
    thinned: thin(ordered),
  };
}

/** About forty of the readings, for whoever wants to see the curve. */
function thin(readings: readonly Reading[]): string[] {
  const step = Math.ceil(readings.length / 40);
  return readings
    .filter((_, i) => i % step === 0)
    .map(({ requests, rssMiB }) => `${(requests / 1e6).toFixed(2)}M ${rssMiB.toFixed(1)} MiB`);
}

/**
 * What each of many connections costs that has asked once and waits. As many were opened before them: their code is compiled and the heap
 * has no room left from elsewhere, so that the second lot pays for itself alone.
 */
async function holdIdle(port: number, proxy: Measured) {
  const program = fileURLToPath(new URL('soak/idle.ts', import.meta.url));
  const args = ['-c', String(LOAD_CORE), process.execPath, program, String(port), String(idle / 2)];
  const child = spawn('taskset', args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const lines = createInterface({ input: child.stdout });
  const open = async (): Promise<number> => {
    const ready = new Promise<void>((resolve, reject) => {
      lines.once('line', () => resolve());
      child.once('exit', (code) => reject(new Error(`the idle clients ended with code ${code}`)));
    });
    child.stdin.write('\n');
    await ready;
    await delay(SETTLE_MS);
    return proxy.rssMiB();
  };
  try {
    const beforeMiB = proxy.rssMiB();
    const halfMiB = await open();
    const allMiB = await open();
    return { connections: idle, beforeMiB, halfMiB, allMiB, kiBEach: ((allMiB - halfMiB) * 1_024) / (idle / 2) };
  } finally {
    child.stdin.end();
    await exited;
  }
}
