/** Every command in the README is run here, or somewhere that is named here. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { clock, eventually } from '../support/mesh.ts';
import { isPortFree } from '../../cli/ports.ts';
import { sleep } from '../../lib/clock.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const COMMANDS = [...README.matchAll(/^```\n([^`]+)^```/gm)].flatMap((block) => block[1]!.trim().split('\n'));

/** Commands that run elsewhere, and where. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'npm ci': 'before any test could run',
  'npm test': 'this run',
  'npm run demo': 'test/e2e/demo.test.ts, without a terminal',
  'npm run demo -- --headless --json --seconds 20': 'test/e2e/demo.test.ts',
};
/** Commands that keep running, in the order of the README. */
const SERVERS = [
  'npm run --silent meshwork -- control-plane',
  'npm run --silent meshwork -- run --service orders --port 3000 -- node examples/compose/app.ts',
];

const running: ChildProcess[] = [];

beforeAll(async () => {
  // The README's commands use the usual ports, so these must be free here.
  for (const port of [15010, 15012, 15014, 15080, 15001, 15006, 15000, 3000])
    expect({ port, free: await isPortFree(port) }).toEqual({ port, free: true });
});

afterAll(async () => {
  for (const child of running.reverse()) {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    process.kill(-child.pid!, 'SIGTERM');
    await ended;
  }
}, 30_000);

function start(command: string): { child: ChildProcess; output: () => string } {
  let output = '';
  // A group of its own: npm does not pass every signal on.
  const child = spawn(command, { cwd: ROOT, shell: true, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const keep = (chunk: Buffer): void => void (output += chunk.toString());
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  running.push(child);
  return { child, output: () => output };
}

function run(command: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, { cwd: ROOT, shell: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    child.once('exit', (code) => resolve({ code, stdout, stderr }));
  });
}

test('the commands of the README work in the order in which they stand there', async () => {
  const seen: string[] = [];
  for (const command of COMMANDS) {
    if (command in ELSEWHERE) continue;
    if (SERVERS.includes(command)) {
      const server = start(command);
      const ready = command.includes('control-plane')
        ? () => server.output().includes('ready')
        : async () => (await run('npm run --silent meshwork -- get endpoints -o json')).stdout.includes('"ready": true');
      await eventually(command, 60_000, ready).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${server.output()}`);
      });
    } else {
      const { code, stdout, stderr } = await run(command);
      expect({ command, code, stderr: code === 0 ? '' : stdout + stderr }).toEqual({ command, code: 0, stderr: '' });
      if (command.includes('get endpoints')) expect(stdout).toContain('orders');
    }
    seen.push(command);
  }
  await sleep(clock, 100);

  expect(seen.length).toBeGreaterThanOrEqual(6);
}, 180_000);

test('what the README says runs elsewhere is still in the README', () => {
  expect(Object.keys(ELSEWHERE).filter((command) => !COMMANDS.includes(command))).toEqual([]);
});
