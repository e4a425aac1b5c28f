/** One round of slow clients beside good ones: the good alone, then with attackers; every process pinned, measured and ended. */
import { execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { cpus } from 'node:os';
import { freePorts } from '../../cli/ports.ts';
import { meshwork } from '../peers/meshwork.ts';
import type { Peer } from '../peers/peer.ts';
import { startPinned } from '../process.ts';

export type SlowKind = 'heads' | 'bodies' | 'readers' | 'mixed';

export interface SlowOptions {
  readonly kind: SlowKind;
  readonly attackers: number;
  /** Good requests a second. */
  readonly rate: number;
  /** How long the good are measured, alone and then beside the attackers. */
  readonly aloneSeconds: number;
  readonly besideSeconds: number;
  /** Scratch directory. */
  readonly directory: string;
  /** Whom they go through; ours by default. */
  readonly peer?: Peer;
}

export interface GoodResult {
  readonly requests: number;
  readonly failed: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  /** The median of each second's own p99: what a second is like in which nothing else happens on the machine. */
  readonly secondsP99Ms: number;
}

export interface SlowResult {
  readonly kind: SlowKind;
  readonly alone: GoodResult;
  readonly beside: GoodResult;
  readonly attackers: { readonly connected: number; readonly opened: number; readonly sentAway: number };
  /** p99 beside the attackers by p99 alone. */
  readonly ratio: number;
  /** The proxy's share of its core while attacked, and its memory then. */
  readonly cpuShare: number;
  readonly rssMiB: number;
}

/** Differences below this are the machine's, not the attackers'. */
export const FLOOR_MS = 2;

/** Every good request answered, and p99 at most `factor` times what it was, or within the floor of it. */
export function holds(result: SlowResult, factor = 2, floorMs = FLOOR_MS): boolean {
  const { alone, beside } = result;
  return alone.failed === 0 && beside.failed === 0 && beside.p99Ms <= Math.max(factor * alone.p99Ms, alone.p99Ms + floorMs);
}

const PROXY_CORE = 0;
const LOAD_CORE = Math.min(1, cpus().length - 1);
const program = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Files that a process may have open; Node takes the soft limit up to the hard one by itself. */
export function openFilesMax(): number {
  return Number(/Max open files\s+\d+\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 0);
}

/** Runs one round. Throws when this machine does not let a process have as many connections. */
export async function slowRound(options: SlowOptions): Promise<SlowResult> {
  // The proxy has up to two for each attacker.
  const needed = 2 * options.attackers + 1_000;
  if (openFilesMax() < needed)
    throw new Error(
      `${options.attackers} slow clients need ${needed} open files in a process, the limit is ${openFilesMax()} (ulimit -Hn)`,
    );
  const [appPort, port] = (await freePorts(2)) as [number, number];
  const command = [process.execPath, program('app.ts'), String(appPort)];
  const app = await startPinned({ name: 'app', core: LOAD_CORE, command, ports: [appPort] });
  try {
    const peer = options.peer ?? meshwork;
    const proxy = await peer.start({
      name: peer.name,
      hop: { kind: 'plain' },
      listenPort: port,
      upstreamPort: appPort,
      core: PROXY_CORE,
      directory: options.directory,
    });
    try {
      await good(port, options.rate, 4);
      const alone = await good(port, options.rate, options.aloneSeconds);
      const attack = await startAttackers(port, options);
      try {
        const cpuBefore = proxy.cpuUs();
        const startedMs = performance.now();
        const beside = await good(port, options.rate, options.besideSeconds);
        const cpuShare = (proxy.cpuUs() - cpuBefore) / 1_000 / (performance.now() - startedMs);
        const rssMiB = proxy.rssMiB();
        return { kind: options.kind, alone, beside, attackers: await attack.end(), ratio: beside.p99Ms / alone.p99Ms, cpuShare, rssMiB };
      } finally {
        attack.kill();
      }
    } finally {
      await proxy.stop();
    }
  } finally {
    await app.stop();
  }
}

function good(port: number, rate: number, seconds: number): Promise<GoodResult> {
  const args = ['-c', String(LOAD_CORE), process.execPath, program('good.ts'), String(port), String(rate), String(seconds)];
  return new Promise((resolve, reject) => {
    execFile('taskset', args, { timeout: (seconds + 30) * 1_000 }, (error, stdout) => {
      if (error !== null) reject(new Error(`the good client: ${error.message}`));
      else resolve(JSON.parse(stdout) as GoodResult);
    });
  });
}

interface Attack {
  /** Ends the clients and answers what became of them. */
  end(): Promise<SlowResult['attackers']>;
  kill(): void;
}

function startAttackers(port: number, options: SlowOptions): Promise<Attack> {
  // In life they are other machines: here they must not keep the good client and the application from the core that they share.
  const nice = ['nice', '-n', '19'];
  const words = [process.execPath, program('attackers.ts'), String(port), String(options.attackers), options.kind];
  const args = ['-c', String(LOAD_CORE), ...nice, ...words];
  const child = spawn('taskset', args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines: string[] = [];
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const attack: Attack = {
    end: async () => {
      child.stdin.end();
      await exited;
      return JSON.parse(lines.at(-1)!) as SlowResult['attackers'];
    },
    kill: () => void child.kill('SIGKILL'),
  };
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the attackers ended with code ${code}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      lines.push(line);
      if (line === 'ready') resolve(attack);
    });
  });
}
