/** The demo's processes: started with their output kept, and all gone when the demo is. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../../lib/clock.ts';

const MESHWORK = fileURLToPath(new URL('../meshwork.js', import.meta.url));
const STOP_GRACE_MS = 8_000;
const TAIL_CHARS_MAX = 2_000;

export interface Member {
  readonly name: string;
  readonly process: ChildProcess;
  /** First line that it wrote to standard output. */
  readonly firstLine: Promise<string>;
}

/** Processes and a scratch directory that share one end. */
export interface Fleet {
  readonly directory: string;
  start(name: string, args: readonly string[], env?: Readonly<Record<string, string>>): Member;
  /** Resolves with a sentence when a member ends before `stop` was called. */
  readonly failed: Promise<string>;
  /** Ends every member (SIGTERM, then SIGKILL) and removes the directory. */
  stop(): Promise<void>;
  /** The end of a member's log, for messages. */
  logTail(name: string): string;
}

export function createFleet(clock: Clock): Fleet {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-demo-'));
  const members: Member[] = [];
  let stopping = false;
  let fail: (sentence: string) => void = () => undefined;
  const failed = new Promise<string>((resolve) => (fail = resolve));
  const logPath = (name: string): string => join(directory, `${name}.log`);
  /** The last words of each member, kept here since files are written later. */
  const tails = new Map<string, string>();
  const keep = (name: string, chunk: Buffer): void =>
    void tails.set(name, ((tails.get(name) ?? '') + chunk.toString()).slice(-TAIL_CHARS_MAX));
  const logTail = (name: string): string => (tails.get(name) ?? '').trimEnd();
  // The last line of defence: whatever ends this process ends the others too. (They also end by themselves when the channel to it closes.)
  const killAll = (): void => members.forEach((member) => member.process.kill('SIGKILL'));
  process.on('exit', killAll);

  const start = (name: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Member => {
    const child = spawn(process.execPath, [...process.execArgv, MESHWORK, ...args], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, ...env },
    });
    const log = createWriteStream(logPath(name), { flags: 'a' });
    log.on('error', (error) => fail(`${logPath(name)}: ${error.message}`));
    let firstLine = '';
    const line = new Promise<string>((resolve, reject) => {
      child.stdout!.on('data', (chunk: Buffer) => {
        if (!firstLine.includes('\n')) {
          firstLine += chunk.toString();
          if (firstLine.includes('\n')) resolve(firstLine.slice(0, firstLine.indexOf('\n')));
        }
        keep(name, chunk);
        log.write(chunk);
      });
      child.once('close', () => reject(new Error(`${name} ended before it was ready:\n${logTail(name)}`)));
    });
    line.catch(() => undefined);
    child.stderr!.on('data', (chunk: Buffer) => {
      keep(name, chunk);
      log.write(chunk);
    });
    child.on('error', (error) => fail(`${name} could not be started: ${error.message}`));
    child.on('close', (code, signal) => {
      log.end();
      if (!stopping) fail(`${name} ended with ${signal ?? `code ${String(code)}`}:\n${logTail(name)}`);
    });
    const member: Member = { name, process: child, firstLine: line };
    members.push(member);
    return member;
  };

  const stop = async (): Promise<void> => {
    stopping = true;
    await Promise.all(members.map((member) => endProcess(member.process, clock)));
    process.off('exit', killAll);
    rmSync(directory, { recursive: true, force: true });
  };
  return { directory, start, failed, stop, logTail };
}

function endProcess(child: ChildProcess, clock: Clock): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const cancel = clock.after(STOP_GRACE_MS, () => child.kill('SIGKILL'));
    child.once('exit', () => {
      cancel();
      resolve();
    });
    child.kill('SIGTERM');
  });
}
