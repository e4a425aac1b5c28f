/** The processes of the scale bench: the control plane as people start it, and fleets of simulated proxies. */
import { fork, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { FleetCommand, FleetLook } from './fleet.ts';

const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.js', import.meta.url));
const FLEET = fileURLToPath(new URL('fleet.ts', import.meta.url));
const LONG_TURNS = fileURLToPath(new URL('long-turns.mjs', import.meta.url));

/** A stretch of 10 ms or more in which the event loop did not come around. */
export interface LongTurn {
  /** Since the start of the process. */
  readonly atMs: number;
  readonly ms: number;
  /** Of its thread: on a core, and ready to run without one. The rest it waited for V8's other threads, or for a disk. */
  readonly ownMs: number;
  readonly waitedMs: number;
  /** Collections in it, as `scavenge 2.1, mark-compact 20.4`. */
  readonly gc: string;
}

export interface ControlPlaneProcess {
  readonly xdsPort: number;
  readonly api: string;
  readonly metrics: string;
  readonly pid: number;
  /** From the start of the process to its line on stdout. */
  readonly readyMs: number;
  /** Long turns since the last time of asking, begun before `untilMs` of the process; those of the last 300 ms may be missing. The first one, in which the program is loaded, is left out. */
  longTurns(untilMs?: number): readonly LongTurn[];
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export interface Ports {
  readonly xds: number;
  readonly xdsTls: number;
  readonly api: number;
  readonly metrics: number;
}

/** Node's flags of the npm script `meshwork`. */
export function scriptFlags(): string[] {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { scripts } = JSON.parse(text) as { scripts: { meshwork: string } };
  return scripts.meshwork.split(' ').filter((word) => word.startsWith('-'));
}

/** `meshwork control-plane` on loopback. Resolves when it is ready; rejects with what it printed when it ends before. */
export function startControlPlane(options: {
  files: string;
  dataDir: string;
  /** Where its long turns are written to. */
  longTurns?: string;
  ports: Ports;
  nodeFlags: readonly string[];
}): Promise<ControlPlaneProcess> {
  const { ports } = options;
  const startedMs = performance.now();
  const addresses = [
    ['--xds', ports.xds],
    ['--xds-tls', ports.xdsTls],
    ['--api', ports.api],
    ['--metrics', ports.metrics],
  ].flatMap(([option, port]) => [String(option), `127.0.0.1:${port}`]);
  const args = [
    ...scriptFlags(),
    ...options.nodeFlags,
    MESHWORK,
    'control-plane',
    '-f',
    options.files,
    '--data-dir',
    options.dataDir,
    '-o',
    'json',
    '--log-level',
    'error',
  ];
  // Not among the flags: with flags of its own it would not begin again with those of a control plane.
  const traced =
    options.longTurns === undefined ? {} : { NODE_OPTIONS: `--import=${LONG_TURNS}`, MESHWORK_BENCH_LONG_TURNS: options.longTurns };
  const env = { ...process.env, ...traced };
  const child = spawn(process.execPath, [...args, ...addresses], { stdio: ['ignore', 'pipe', 'pipe'], env });
  let seen = 1;
  return new Promise((resolve, reject) => {
    let output = '';
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-8_000);
    };
    child.stderr.on('data', keep);
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the control plane ended with ${code}:\n${output}`)));
    child.stdout.on('data', (chunk: Buffer) => {
      keep(chunk);
      if (!output.includes('"ready":true')) return;
      resolve({
        xdsPort: ports.xds,
        api: `http://127.0.0.1:${ports.api}`,
        metrics: `http://127.0.0.1:${ports.metrics}/metrics`,
        pid: child.pid!,
        readyMs: performance.now() - startedMs,
        longTurns: (untilMs = Number.POSITIVE_INFINITY) => {
          const all = options.longTurns === undefined ? [] : readLongTurns(options.longTurns);
          const fresh = all.slice(seen).filter(({ atMs }) => atMs < untilMs);
          seen += fresh.length;
          return fresh;
        },
        stop: (signal = 'SIGTERM') => ended(child, signal),
      });
    });
  });
}

function readLongTurns(path: string): readonly LongTurn[] {
  if (!existsSync(path)) return [];
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as LongTurn);
}

export interface Fleet {
  tell<T>(command: FleetCommand): Promise<T>;
  look(): Promise<FleetLook>;
  end(): Promise<void>;
}

export function startFleet(): Fleet {
  // In life the proxies are on other machines. Here they get what the control plane leaves of the processors, and not what a nice value would
  // still give to their ten threads that compute. Not from within: that would be of one thread, and V8's others are there already.
  const execArgv = ['--idle', '0', process.execPath];
  const child = fork(FLEET, [], { execPath: 'chrt', execArgv, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  let queue: Promise<unknown> = Promise.resolve();
  const ask = (command: FleetCommand): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const gone = (): void => reject(new Error('a fleet has ended early'));
      child.once('exit', gone);
      child.once('message', (message: { answer?: unknown; error?: string }) => {
        child.off('exit', gone);
        if (message.error === undefined) resolve(message.answer);
        else reject(new Error(message.error));
      });
      child.send(command);
    });
  const tell = <T>(command: FleetCommand): Promise<T> => {
    const answer = queue.then(() => ask(command));
    queue = answer.catch(() => undefined);
    return answer as Promise<T>;
  };
  return {
    tell,
    look: () => tell<FleetLook>({ do: 'look' }),
    end: async () => {
      if (child.exitCode !== null) return;
      const exit = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await exit;
    },
  };
}

/** Resident memory now and at its highest, in MiB. */
export function memoryOf(pid: number): { readonly rssMiB: number; readonly peakMiB: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return { rssMiB: kib('VmRSS') / 1024, peakMiB: kib('VmHWM') / 1024 };
}

/** User and system CPU of a process so far, in milliseconds (100 ticks a second on Linux). */
export function cpuMsOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  const patience = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await exit;
  clearTimeout(patience);
}
