/** Bodies far larger than memory go through two sidecars, up and down, past a slow reader, and the sidecars stay small. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { createHash } from 'node:crypto';
import { request } from 'node:http';
import { fileURLToPath } from 'node:url';
import { sleep } from '../../lib/clock.ts';
import { clock, rssMiB, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

const GIB = 2 ** 30;
const GROWTH_MIB_MAX = 32;
const APP = fileURLToPath(new URL('../support/bytes-app.ts', import.meta.url));

let mesh: TestMesh;
let outboundPort = 0;
let sidecars: number[] = [];

beforeAll(async () => {
  mesh = await startMesh({
    resources: [service('bytes', { app: 'bytes' })],
    instances: [
      { name: 'bytes-1', service: 'bytes', application: APP },
      { name: 'caller-1', service: 'caller', application: 'none' },
    ],
  });
  await mesh.settled(1);
  outboundPort = mesh.instances.get('caller-1')!.outboundPort;
  sidecars = [...mesh.instances.values()].map((instance) => instance.member.process.pid!);
  // Buffers and code that any first large body brings in are not growth.
  await download(GIB / 16, 0);
  await upload(GIB / 16);
}, 120_000);

afterAll(() => mesh?.stop(), 30_000);

/** Reads `bytes` bytes, resting `restMs` after each 8 MiB. */
function download(bytes: number, restMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port: outboundPort, path: `/down/${bytes}`, headers: { host: 'bytes' } }, (reply) => {
      let got = 0;
      let rested = 0;
      reply.on('data', (chunk: Buffer) => {
        got += chunk.length;
        if (restMs > 0 && got - rested >= 8 * 2 ** 20) {
          rested = got;
          reply.pause();
          void sleep(clock, restMs).then(() => reply.resume());
        }
      });
      reply.on('end', () => resolve(got));
      reply.on('error', reject);
    });
    call.on('error', reject);
    call.end();
  });
}

async function upload(bytes: number): Promise<{ bytes: number; sha256: string; expected: string }> {
  const chunk = Buffer.alloc(64 * 1024, 'upload');
  const hash = createHash('sha256');
  const answer = await new Promise<string>((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port: outboundPort, path: '/up', method: 'POST', headers: { host: 'bytes' } }, (reply) => {
      let text = '';
      reply.on('data', (part: Buffer) => (text += part.toString()));
      reply.on('end', () => resolve(text));
    });
    call.on('error', reject);
    let left = bytes;
    const send = (): void => {
      while (left > 0) {
        left -= chunk.length;
        hash.update(chunk);
        if (!call.write(chunk)) {
          call.once('drain', send);
          return;
        }
      }
      call.end();
    };
    send();
  });
  return { ...(JSON.parse(answer) as { bytes: number; sha256: string }), expected: hash.digest('hex') };
}

/** Runs `work` and answers how much the largest sidecar grew at any moment meanwhile. */
async function growthDuring(work: () => Promise<unknown>): Promise<number> {
  const before = sidecars.map(rssMiB);
  let growth = 0;
  const watching = new AbortController();
  const watch = (async () => {
    while (!watching.signal.aborted) {
      sidecars.forEach((pid, index) => (growth = Math.max(growth, rssMiB(pid) - before[index]!)));
      await sleep(clock, 100, watching.signal);
    }
  })();
  await work();
  watching.abort();
  await watch;
  return growth;
}

test('1 GiB down past a slow reader: every byte arrives, and each sidecar grows by less than 32 MiB', async () => {
  let got = 0;

  const growth = await growthDuring(async () => {
    got = await download(GIB, 20);
  });

  expect(got).toBe(GIB);
  expect(growth).toBeLessThan(GROWTH_MIB_MAX);
}, 180_000);

test('1 GiB up: every byte arrives unchanged, and each sidecar grows by less than 32 MiB', async () => {
  let answer: Awaited<ReturnType<typeof upload>> | undefined;

  const growth = await growthDuring(async () => {
    answer = await upload(GIB);
  });

  expect(answer?.bytes).toBe(GIB);
  expect(answer?.sha256).toBe(answer?.expected);
  expect(growth).toBeLessThan(GROWTH_MIB_MAX);
}, 180_000);
