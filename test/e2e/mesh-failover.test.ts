/** Failover by locality (acceptance rule W15) as callers see it: our sidecar, and a real Envoy where there is one, in one zone with four of six instances. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { acknowledged, call, hasEnvoy, startEnvoy } from '../support/envoy.ts';
import type { RunningEnvoy } from '../support/envoy.ts';
import { eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

const NEAR = { region: 'eu', zone: 'eu-1' };
const FAR = { region: 'us', zone: 'us-1' };
const PLACES = [NEAR, NEAR, NEAR, NEAR, FAR, FAR];

interface Instance {
  readonly name: string;
  readonly place: typeof NEAR;
  readonly port: number;
  server: Server;
}

let mesh: TestMesh;
let envoy: RunningEnvoy | undefined;
const instances: Instance[] = [];

function serve(place: typeof NEAR, port = 0): Promise<Server> {
  const server = createServer((_request, response) => response.end(place.zone));
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

function stop(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}

async function put(kind: string, name: string, spec: object, labels = {}): Promise<void> {
  const body = { apiVersion: 'meshwork.dev/v1alpha1', kind, metadata: { name, labels }, spec };
  const path = `/api/v1/resources/${kind}/default/${name}`;
  const before = await mesh.api.call(path).catch(() => undefined);
  if (before === undefined) await mesh.api.call('/api/v1/resources', { method: 'POST', body });
  else await mesh.api.call(path, { method: 'PUT', body, headers: { 'if-match': before.etag! } });
}

const putInstance = ({ name, place, port }: Instance, healthy = true): Promise<void> =>
  put('Workload', name, { address: '127.0.0.1', ports: { http: port }, locality: place, healthy }, { app: 'shop' });

/** So many of the near instances are well, and all proxies know it. */
async function wellNear(count: number): Promise<void> {
  for (const [index, instance] of instances.slice(0, 4).entries()) await putInstance(instance, index < count);
  await proxiesKnow();
}

async function proxiesKnow(): Promise<void> {
  const [newest] = (await mesh.api.call<{ changes: readonly { id: string }[] }>('/api/v1/changes')).body.changes;
  await mesh.api.call(`/api/v1/changes/${newest!.id}?wait=10s`);
  await acknowledged(mesh.api, envoy === undefined ? ['caller.default'] : ['caller.default', 'envoy.default']);
}

async function answers(outboundPort: number, requests: number): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (let sent = 0; sent < requests; sent++) {
    const { status, body } = await call(outboundPort, '/', { host: 'shop' });
    const who = status === 200 ? body : `status ${status}`;
    found[who] = (found[who] ?? 0) + 1;
  }
  return found;
}

beforeAll(async () => {
  mesh = await startMesh({
    resources: [service('shop', { app: 'shop' })],
    instances: [{ name: 'caller', service: 'caller', application: 'none', args: ['--locality', 'eu/eu-1'] }],
  });
  for (const [index, place] of PLACES.entries()) {
    const server = await serve(place);
    instances.push({ name: `shop-${index}`, place, port: (server.address() as AddressInfo).port, server });
  }
  for (const instance of instances) await putInstance(instance);
  await put('BackendPolicy', 'shop', {
    targetRefs: [{ kind: 'Service', name: 'shop' }],
    loadBalancing: { localityFailover: true },
    outlierDetection: { maxEjectionPercent: 100, consecutive5xx: 1, interval: '1s', baseEjectionTime: '1s' },
  });
  if (hasEnvoy) envoy = await startEnvoy(mesh.api, { name: 'envoy', service: 'caller', locality: NEAR });
  await wellNear(4);
}, 120_000);

afterAll(async () => {
  await envoy?.stop();
  await mesh?.stop();
  for (const { server } of instances) await stop(server);
}, 60_000);

describe.each([
  ['our sidecar', (): number | undefined => mesh.instances.get('caller')!.outboundPort],
  ['Envoy', (): number | undefined => envoy?.outboundPort],
])('%s', (who, portOf) => {
  /** Declared in any case, since whether there is an Envoy is known here already. */
  const check = who === 'Envoy' && !hasEnvoy ? test.skip : test;

  check(
    'W15: the near instances get all while 72 % of them are well, and their share of it below that',
    async () => {
      const port = portOf()!;
      await wellNear(4);
      expect(await answers(port, 100)).toEqual({ 'eu-1': 100 });
      await wellNear(3);
      expect(await answers(port, 100)).toEqual({ 'eu-1': 100 });

      await wellNear(2);
      const half = await answers(port, 600);
      // 1.4 × 50 % of 600 draws; five standard deviations are 56.
      expect(half['eu-1']! + half['us-1']!).toBe(600);
      expect(Math.abs(half['eu-1']! - 420)).toBeLessThanOrEqual(56);

      await wellNear(0);
      expect(await answers(port, 100)).toEqual({ 'us-1': 100 });
      await wellNear(4);
      expect(await answers(port, 100)).toEqual({ 'eu-1': 100 });
    },
    60_000,
  );

  check(
    'a zone that is gone without a word is found out by ejections, and taken back when it answers again',
    async () => {
      const port = portOf()!;
      for (const instance of instances.slice(0, 4)) await stop(instance.server);
      await eventually('all goes far', 30_000, async () => (await answers(port, 20))['us-1'] === 20);

      for (const instance of instances.slice(0, 4)) instance.server = await serve(instance.place, instance.port);
      await eventually('all goes near again', 30_000, async () => (await answers(port, 50))['eu-1'] === 50);
    },
    90_000,
  );

  check(
    'instances that are taken away hand over to the far ones, and get all back when they return',
    async () => {
      const port = portOf()!;
      for (const { name } of instances.slice(0, 4)) {
        const path = `/api/v1/resources/Workload/default/${name}`;
        const { etag } = await mesh.api.call(path);
        await mesh.api.call(path, { method: 'DELETE', headers: { 'if-match': etag! } });
      }
      await proxiesKnow();
      expect(await answers(port, 50)).toEqual({ 'us-1': 50 });

      await wellNear(4);
      await eventually('all goes near again', 10_000, async () => (await answers(port, 50))['eu-1'] === 50);
    },
    60_000,
  );
});

test('localityPriority turns the order round for every caller', async () => {
  await put('BackendPolicy', 'shop', { targetRefs: [{ kind: 'Service', name: 'shop' }], loadBalancing: { localityPriority: ['us'] } });
  await proxiesKnow();

  for (const port of [mesh.instances.get('caller')!.outboundPort, envoy?.outboundPort])
    if (port !== undefined) expect(await answers(port, 50)).toEqual({ 'us-1': 50 });
}, 60_000);
