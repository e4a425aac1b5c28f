/** The demo, as people start it: unattended, one JSON object, nothing left behind. */
import { test, expect } from '@jest/globals';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

/** Processes that were started with this scratch directory in their environment. */
function processesWith(directory: string): string[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        const own = readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`TMPDIR=${directory}`);
        return own ? [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')] : [];
      } catch {
        return []; // It ended meanwhile, or is not ours to read.
      }
    });
}

test('npm run demo -- --headless --json --seconds 20 tells the whole story without a failed request', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'meshwork-demo-test-'));
  const child = spawn('npm', ['run', '--silent', 'demo', '--', '--headless', '--json', '--seconds', '20'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TMPDIR: scratch },
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
  // Node's compile cache is meant to stay; everything of the demo is gone.
  expect(readdirSync(scratch).filter((name) => name !== 'node-compile-cache')).toEqual([]);
  expect(processesWith(scratch)).toEqual([]);
  rmSync(scratch, { recursive: true });
}, 180_000);
