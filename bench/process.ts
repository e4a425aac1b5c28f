/** Child processes of a bench: pinned to a core, measured by the operating system's own accounting, ended by their id. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

const TICKS_PER_SECOND = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
const START_TIMEOUT_MS = 15_000;

export interface Measured {
  readonly name: string;
  /** CPU of the process and all its descendants so far, user and system, in microseconds. */
  cpuUs(): number;
  /** Resident memory of the process and its descendants, in MiB. */
  rssMiB(): number;
  stop(): Promise<void>;
}

/** Starts a command on one core. Its output is kept for the message if it ends too early. */
export async function startPinned(options: {
  name: string;
  core: number;
  command: readonly string[];
  ports: readonly number[];
  cwd?: string;
  env?: Readonly<Record<string, string>>;
}): Promise<Measured> {
  const child = spawn('taskset', ['-c', String(options.core), ...options.command], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
  });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-4_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.on('error', (error) => (output += error.message));
  for (const port of options.ports) await untilOpen(options.name, port, child, () => output);
  return {
    name: options.name,
    cpuUs: () => sum(tree(child.pid!), cpuUsOf),
    rssMiB: () => sum(tree(child.pid!), rssMiBOf),
    stop: () => end(child),
  };
}

async function untilOpen(name: string, port: number, child: ChildProcess, output: () => string): Promise<void> {
  const untilMs = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < untilMs) {
    if (child.exitCode !== null) throw new Error(`${name} ended with code ${child.exitCode}:\n${output()}`);
    if (await canConnect(port)) return;
    await delay(50);
  }
  await end(child);
  throw new Error(`${name} did not open port ${port}:\n${output()}`);
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const pids = tree(child.pid!);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const graceful = await Promise.race([ended.then(() => true), delay(3_000, false, { ref: false })]);
  if (!graceful) for (const pid of pids) killQuietly(pid);
  await ended;
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    // It ended between the listing and the signal.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** The process and all its descendants. */
function tree(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const parent = statOf(Number(entry))?.[1];
    if (parent !== undefined) children.set(Number(parent), [...(children.get(Number(parent)) ?? []), Number(entry)]);
  }
  const found: number[] = [];
  const visit = (pid: number): void => {
    found.push(pid);
    for (const child of children.get(pid) ?? []) visit(child);
  };
  visit(root);
  return found;
}

/** Fields of /proc/PID/stat after the command name: state, ppid, … */
function statOf(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return undefined; // It ended meanwhile.
  }
}

function cpuUsOf(pid: number): number {
  const fields = statOf(pid);
  return fields === undefined ? 0 : ((Number(fields[11]) + Number(fields[12])) * 1e6) / TICKS_PER_SECOND;
}

function rssMiBOf(pid: number): number {
  const fields = statOf(pid);
  return fields === undefined ? 0 : (Number(fields[21]) * 4096) / 2 ** 20;
}

function sum(pids: readonly number[], of: (pid: number) => number): number {
  return pids.reduce((total, pid) => total + of(pid), 0);
}
