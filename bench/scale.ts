/** The scale bench: one control plane, many simulated proxies, services and endpoints; what a change, a storm, a restart and the memory cost. `npm run bench:scale`. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { freePorts } from '../cli/ports.ts';
import { describeMachine } from './report.ts';
import { ApiClient } from './scale/client.ts';
import type { FleetLook } from './scale/fleet.ts';
import { apiInstance, apiInstancePath, clusterOf, writeMesh } from './scale/mesh.ts';
import type { MeshSize } from './scale/mesh.ts';
import { cpuMsOf, memoryOf, startControlPlane, startFleet } from './scale/processes.ts';
import type { ControlPlaneProcess, Fleet, LongTurn, Ports } from './scale/processes.ts';

const { values } = parseArgs({
  options: {
    proxies: { type: 'string', default: '1000' },
    services: { type: 'string', default: '1000' },
    endpoints: { type: 'string', default: '10000' },
    /** Changes one after the other. */
    changes: { type: 'string', default: '20' },
    /** The storm: changes a second, and for how long. */
    rate: { type: 'string', default: '1000' },
    seconds: { type: 'string', default: '5' },
    /** How many services the storm's changes are spread over. */
    'storm-services': { type: 'string', default: '50' },
    /** How the files of the mesh look: `json` or `block`. */
    files: { type: 'string', default: 'json' },
    /** Flags for the control plane's node, separated by spaces: `--cpu-prof --cpu-prof-dir=/tmp/prof`. */
    'node-flags': { type: 'string', default: '' },
    /** What the API writes is kept here; every write waits for this disk. */
    'data-dir': { type: 'string', default: existsSync('/dev/shm') ? '/dev/shm' : tmpdir() },
    phases: { type: 'string', default: 'changes,storm,restart' },
    out: { type: 'string' },
  },
});
const PROXIES = Number(values.proxies);
const SIZE: MeshSize = { services: Number(values.services), endpoints: Number(values.endpoints) };
const STORM_SERVICES = Math.min(SIZE.services, Number(values['storm-services']));
const FLEETS = 2;
const PATIENCE_MS = 120_000;
/** Long turns are written with a delay. */
const LONG_TURNS_LATE_MS = 400;
const nodeFlags = values['node-flags'].split(' ').filter((flag) => flag !== '');

const dataDir = mkdtempSync(join(values['data-dir'], 'meshwork-scale-data-'));
const directory = mkdtempSync(join(tmpdir(), 'meshwork-scale-'));
const fleets: Fleet[] = [];
let controlPlane: ControlPlaneProcess | undefined;
let api: ApiClient | undefined;
const report: Record<string, unknown> = {
  machine: describeMachine(),
  proxies: PROXIES,
  services: SIZE.services,
  endpoints: SIZE.endpoints,
};
// A run that is ended early takes its processes with it.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void cleanUp().then(() => process.exit(1)));
try {
  await main();
} finally {
  await cleanUp();
}

async function cleanUp(): Promise<void> {
  for (const fleet of fleets) await fleet.end();
  await api?.close();
  await controlPlane?.stop();
  for (const path of [directory, dataDir]) rmSync(path, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const files = join(directory, 'mesh');
  mkdirSync(files);
  writeMesh(files, SIZE, values.files === 'block' ? 'block' : 'json');
  const [xds, xdsTls, apiPort, metrics] = (await freePorts(4)) as [number, number, number, number];
  const ports: Ports = { xds, xdsTls, api: apiPort, metrics };
  let starts = 0;
  const start = async (): Promise<void> => {
    const longTurns = join(directory, `long-turns-${starts++}`);
    controlPlane = await startControlPlane({ files, dataDir, ports, nodeFlags, longTurns });
    api = new ApiClient(controlPlane);
  };
  await start();
  for (let from = 0; from < SIZE.services; from += 500) {
    const services = Array.from({ length: Math.min(500, SIZE.services - from) }, (_, index) => from + index);
    await api!.create(services.map((service) => apiInstance(service, 1)));
  }
  await delay(1_500);
  note('start', { readyMs: Math.round(controlPlane!.readyMs), ...(await loop()), ...sizes() });
  await firstPush(ports);
  if (values.phases.includes('changes')) await oneByOne();
  if (values.phases.includes('storm')) await storm();
  if (values.phases.includes('restart')) await restart(start);
  if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(report, null, 2)}\n`);
}

function note(phase: string, measured: Record<string, unknown>): void {
  report[phase] = measured;
  process.stdout.write(`${phase}: ${JSON.stringify(measured)}\n`);
}

/** How long the event loop was away since the last time of asking: the longest turn, and the longest by what its thread used itself. */
async function loop(untilMs?: number): Promise<{ loopDelayMsMax: number; loopOwnMsMax: number; loopLongest: Omit<LongTurn, 'atMs'>[] }> {
  const loopDelayMsMax = await api!.loopDelayMsMax();
  await delay(LONG_TURNS_LATE_MS);
  const turns = controlPlane!.longTurns(untilMs);
  const longest = turns.toSorted((left, right) => right.ownMs - left.ownMs).slice(0, 3);
  return {
    loopDelayMsMax,
    loopOwnMsMax: Math.round(longest[0]?.ownMs ?? 0),
    loopLongest: longest.map(({ ms, ownMs, waitedMs, gc }) => ({ ms, ownMs, waitedMs, gc })),
  };
}

function sizes(): { rssMiB: number; peakMiB: number } {
  const { rssMiB, peakMiB } = memoryOf(controlPlane!.pid);
  return { rssMiB: Math.round(rssMiB), peakMiB: Math.round(peakMiB) };
}

/** Everything to everyone who has nothing. */
async function firstPush(ports: Ports): Promise<void> {
  const startMs = performance.now();
  const cpuMs = cpuMsOf(controlPlane!.pid);
  const share = Math.ceil(PROXIES / FLEETS);
  for (let index = 0; index < FLEETS; index++) fleets.push(startFleet());
  await Promise.all(
    fleets.map((fleet, index) => {
      const from = index * share;
      const count = Math.min(share, PROXIES - from);
      return fleet.tell({ do: 'connect', port: ports.xds, from, count, size: SIZE, counted: index === 0 });
    }),
  );
  await until('every proxy has everything', async () => (await looks()).complete === PROXIES);
  const tookMs = Math.round(performance.now() - startMs);
  await until('every proxy has acknowledged everything', async () => (await api!.settled()) === PROXIES, 250);
  const usedMs = cpuMsOf(controlPlane!.pid) - cpuMs;
  const { bytesIn } = await looks();
  note('firstPush', { tookMs, cpuMs: usedMs, bytesPerProxy: bytesIn, ...(await loop()), ...sizes() });
}

/** One endpoint changes, everybody acknowledges, the next one. */
async function oneByOne(): Promise<void> {
  const ackedMs: number[] = [];
  const arrivedMs: number[] = [];
  const before = await looks();
  const cpuMs = cpuMsOf(controlPlane!.pid);
  const count = Number(values.changes);
  for (let change = 0; change < count; change++) {
    const service = (change * 7) % SIZE.services;
    const startMs = performance.now();
    const wallMs = Date.now();
    const id = await api!.put(apiInstancePath(service), apiInstance(service, 2 + change));
    const concerned = await api!.acked(id);
    if (concerned !== PROXIES) throw new Error(`the change concerned ${concerned} proxies, not ${PROXIES}`);
    ackedMs.push(performance.now() - startMs);
    for (const fleet of fleets)
      arrivedMs.push(...(await fleet.tell<number[]>({ do: 'times', cluster: clusterOf(service) })).map((atMs) => atMs - wallMs));
  }
  const cpuMsPerChange = Math.round((cpuMsOf(controlPlane!.pid) - cpuMs) / count);
  const after = await looks();
  note('changes', {
    count,
    ackedByAllMs: spread(ackedMs),
    arrivedMs: spread(arrivedMs),
    cpuMsPerChange,
    bytesInPerChangeAndProxy: Math.round((after.bytesIn - before.bytesIn) / count),
    bytesOutPerChangeAndProxy: Math.round((after.bytesOut - before.bytesOut) / count),
    ...(await loop()),
    ...sizes(),
  });
}

/** Many changes a second, all over the mesh; in the end everybody must have the last one of each. */
async function storm(): Promise<void> {
  const rate = Number(values.rate);
  const total = rate * Number(values.seconds);
  const before = await looks();
  const cpuMs = cpuMsOf(controlPlane!.pid);
  const startMs = performance.now();
  const last = new Map<number, number>();
  let sent = 0;
  let open = 0;
  let lastId = '';
  while (sent < total || open > 0) {
    const due = Math.min(total, Math.floor(((performance.now() - startMs) / 1_000) * rate));
    for (; sent < due && open < 32; sent++) {
      const service = sent % STORM_SERVICES;
      const weight = 1_000 + sent;
      last.set(service, weight);
      open++;
      void api!.put(apiInstancePath(service), apiInstance(service, weight)).then((id) => {
        open--;
        lastId = id;
      });
    }
    await delay(1);
  }
  const sentMs = performance.now() - startMs;
  await api!.acked(lastId);
  await until('every proxy has acknowledged everything', async () => (await api!.settled()) === PROXIES, 250);
  const settledMs = performance.now() - startMs - sentMs;
  const wrong = await disagreeing(last);
  if (wrong.length > 0)
    throw new Error(`after the storm ${wrong.length} services are not what was written last: ${wrong.slice(0, 3).join('; ')}`);
  const usedMs = cpuMsOf(controlPlane!.pid) - cpuMs;
  const after = await looks();
  note('storm', {
    changes: total,
    services: STORM_SERVICES,
    perSecond: Math.round((total / sentMs) * 1_000),
    settledMsAfterLast: Math.round(settledMs),
    pushesPerProxy: Math.round((after.updates - before.updates) / PROXIES),
    lost: wrong.length,
    cpuMs: usedMs,
    ...(await loop()),
    ...sizes(),
  });
}

async function disagreeing(last: ReadonlyMap<number, number>): Promise<string[]> {
  const wrong: string[] = [];
  if (PROXIES === 0) return wrong;
  for (const fleet of fleets) {
    const held = await fleet.tell<Record<string, number[]>>({ do: 'weights' });
    for (const [service, weight] of last) {
      const has = held[clusterOf(service)] ?? [];
      if (has.length !== 1 || has[0] !== weight) wrong.push(`${clusterOf(service)} is ${has.join(', ')}, not ${weight}`);
    }
  }
  return wrong;
}

/** The control plane ends and comes back; everybody returns with what they have. */
async function restart(start: () => Promise<void>): Promise<void> {
  const before = await looks();
  const startMs = performance.now();
  await api!.close();
  await controlPlane!.stop();
  const stoppedMs = performance.now() - startMs;
  await start();
  const readyMs = performance.now() - startMs;
  const untilReady = await loop(controlPlane!.readyMs);
  await until('every proxy is back', async () => (await api!.metrics()).proxies === PROXIES, 250);
  const backMs = performance.now() - startMs - readyMs;
  await until('every proxy has acknowledged everything', async () => (await api!.settled()) === PROXIES, 250);
  const after = await looks();
  note('restart', {
    stoppedMs: Math.round(stoppedMs),
    readyMs: Math.round(readyMs - stoppedMs),
    allBackMsAfterReady: Math.round(backMs),
    allBackMs: Math.round(readyMs + backMs),
    resourcesResent: after.updates - before.updates,
    cpuMs: cpuMsOf(controlPlane!.pid),
    untilReady,
    ...(await loop()),
    ...sizes(),
  });
}

async function looks(): Promise<FleetLook> {
  const all = await Promise.all(fleets.map((fleet) => fleet.look()));
  const sum = (of: (look: FleetLook) => number): number => all.reduce((total, one) => total + of(one), 0);
  return {
    complete: sum((one) => one.complete),
    streams: sum((one) => one.streams),
    bytesIn: sum((one) => one.bytesIn),
    bytesOut: sum((one) => one.bytesOut),
    updates: sum((one) => one.updates),
    rssMiB: sum((one) => one.rssMiB),
  };
}

async function until(what: string, isSo: () => Promise<boolean>, everyMs = 100): Promise<void> {
  const untilMs = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > untilMs) throw new Error(`not within ${PATIENCE_MS / 1_000} s: ${what}; ${JSON.stringify(await looks())}`);
    await delay(everyMs);
  }
}

function spread(samples: readonly number[]): { p50: number; p99: number; max: number } {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (share: number): number => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0);
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}
