/** The demo, as people start it: unattended, one JSON object, nothing left behind. */
import { test, expect } from '@jest/globals';
import { execFileSync, spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Report {
  readonly requests: number;
  readonly failed: number;
  readonly mtlsEdges: number;
  readonly split: { readonly v1: number; readonly v2: number };
  readonly weights: { readonly v1: number; readonly v2: number };
  readonly ejected: readonly string[];
  readonly rotations: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly proxies: readonly { readonly id: string; readonly acked: number; readonly rejected: number }[];
  readonly errors: readonly string[];
}

const scratch = (): string[] =>
  readdirSync(tmpdir()).filter((name) => name.startsWith('meshwork-demo-') || name.startsWith('meshwork-run-'));
const processes = (marker: string): string[] =>
  execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(marker));

test('npm run demo -- --headless --json --seconds 20 tells the whole story without a failed request', async () => {
  const before = scratch();
  const child = spawn('npm', ['run', '--silent', 'demo', '--', '--headless', '--json', '--seconds', '20'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  if (code !== 0) throw new Error(`the demo ended with ${String(code)}:\n${stdout}\n${stderr}`);
  const report = JSON.parse(stdout) as Report;

  expect(report.errors).toEqual([]);
  expect(report.failed).toBe(0);
  expect(report.requests).toBeGreaterThan(300);
  expect(report.mtlsEdges).toBeGreaterThanOrEqual(3);
  expect(Math.abs((100 * report.split.v2) / (report.split.v1 + report.split.v2) - report.weights.v2)).toBeLessThanOrEqual(3);
  expect(report.ejected).toEqual(['ratings-2']);
  expect(report.rotations).toBe(1);
  expect(report.p50Ms).toBeGreaterThan(0);
  expect(report.p99Ms).toBeGreaterThanOrEqual(report.p50Ms);
  expect(report.proxies).toHaveLength(7);
  expect(report.proxies.every((proxy) => proxy.acked > 0 && proxy.rejected === 0)).toBe(true);
  expect(scratch()).toEqual(before);
  expect(processes('cli/demo/app.ts')).toEqual([]);
}, 180_000);
