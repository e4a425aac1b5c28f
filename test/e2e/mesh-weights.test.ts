/** A weight changed through the API and in a file reaches every sidecar, says so, and no request fails meanwhile. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../lib/clock.ts';
import { splitOf, startLoad } from '../../cli/demo/load.ts';
import type { Outcome } from '../../cli/demo/load.ts';
import { clock, eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

interface Change {
  readonly id: string;
  readonly source: string;
  readonly proxies: readonly { readonly id: string; readonly state: string }[];
}

const route = (name: string, v1: number, v2: number): object => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'HTTPRoute',
  metadata: { name, namespace: 'default' },
  spec: {
    parentRefs: [{ group: '', kind: 'Service', name, port: 80 }],
    rules: [
      {
        backendRefs: [
          { name: 'shop-v1', port: 80, weight: v1 },
          { name: 'shop-v2', port: 80, weight: v2 },
        ],
      },
    ],
  },
});

let mesh: TestMesh;
let outboundPort = 0;

beforeAll(async () => {
  mesh = await startMesh({
    files: { 'store.yaml': `${JSON.stringify(service('store', { app: 'shop' }))}\n---\n${JSON.stringify(route('store', 70, 30))}\n` },
    resources: [
      service('shop', { app: 'shop' }),
      service('shop-v1', { app: 'shop', version: 'v1' }),
      service('shop-v2', { app: 'shop', version: 'v2' }),
      route('shop', 90, 10),
    ],
    instances: [
      { name: 'shop-1', service: 'shop', version: 'v1' },
      { name: 'shop-2', service: 'shop', version: 'v2' },
      { name: 'caller-1', service: 'caller', application: 'none' },
    ],
  });
  await mesh.settled(6);
  outboundPort = mesh.instances.get('caller-1')!.outboundPort;
}, 120_000);

afterAll(() => mesh?.stop(), 30_000);

/** Sends `count` requests at 500 a second. */
async function send(host: string, count: number): Promise<readonly Outcome[]> {
  const load = startLoad({ clock, outboundPort, host, requestsPerSecond: 500 });
  await eventually(`${count} answers`, 120_000, () => load.outcomes.length >= count);
  await load.stop();
  return load.outcomes.slice(0, count);
}

const failures = (outcomes: readonly Outcome[]): string[] => outcomes.filter((outcome) => !outcome.ok).map((outcome) => outcome.error);

function expectShare(outcomes: readonly Outcome[], v2Percent: number): void {
  const split = splitOf(outcomes);
  expect(failures(outcomes)).toEqual([]);
  expect(Math.abs((100 * split.v2) / outcomes.length - v2Percent)).toBeLessThanOrEqual(1.5);
}

test('W1 W6: a weight written through the API is acknowledged by every proxy, holds over 10,000 requests, and no request fails during the change', async () => {
  const during = startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 200 });
  await sleep(clock, 500);
  const path = '/api/v1/resources/HTTPRoute/default/shop';
  const { etag } = await mesh.api.call(path);

  const written = await mesh.api.call<{ changeId: string }>(path, {
    method: 'PUT',
    body: route('shop', 60, 40),
    headers: { 'if-match': etag! },
  });
  const change = (await mesh.api.call<Change>(`/api/v1/changes/${written.body.changeId}?wait=5s`)).body;

  expect(change.proxies.map((proxy) => proxy.state)).toEqual(['acked', 'acked', 'acked']);
  expectShare(await send('shop', 10_000), 40);
  await during.stop();
  expect(failures(during.outcomes)).toEqual([]);
}, 120_000);

test('W1 W6: a weight edited in a YAML file does the same, and its change can be found', async () => {
  expectShare(await send('store', 2_000), 30);
  const during = startLoad({ clock, outboundPort, host: 'store', requestsPerSecond: 200 });

  writeFileSync(
    join(mesh.files, 'store.yaml'),
    `${JSON.stringify(service('store', { app: 'shop' }))}\n---\n${JSON.stringify(route('store', 20, 80))}\n`,
  );
  let change: Change | undefined;
  await eventually('a change of the files', 5_000, async () => {
    const { changes } = (await mesh.api.call<{ changes: readonly Change[] }>('/api/v1/changes')).body;
    change = changes.find((entry) => entry.source === 'files' && entry.id !== undefined && JSON.stringify(entry).includes('store'));
    return change !== undefined;
  });
  const applied = (await mesh.api.call<Change>(`/api/v1/changes/${change!.id}?wait=5s`)).body;

  expect(applied.proxies.map((proxy) => proxy.state)).toEqual(['acked', 'acked', 'acked']);
  await sleep(clock, 300);
  expectShare(await send('store', 10_000), 80);
  await during.stop();
  expect(failures(during.outcomes)).toEqual([]);
}, 120_000);

test('W4: a route whose weights are all zero is refused, and the last good one stays', async () => {
  const path = '/api/v1/resources/HTTPRoute/default/shop';
  const { etag } = await mesh.api.call(path);

  await expect(mesh.api.call(path, { method: 'PUT', body: route('shop', 0, 0), headers: { 'if-match': etag! } })).rejects.toThrow(/weight/);

  expect((await mesh.api.call(path)).etag).toBe(etag);
});
