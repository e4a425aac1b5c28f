/** One mesh of our sidecars and real Envoys: mTLS between them both ways, weights, retries, rotation under load, a control plane that restarts. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { startLoad } from '../../cli/demo/load.ts';
import type { Outcome } from '../../cli/demo/load.ts';
import { acknowledged, call, hasEnvoy, startEnvoy, withEnvoy } from '../support/envoy.ts';
import type { RunningEnvoy } from '../support/envoy.ts';
import { clock, eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

const IDS = ['shop-1.default', 'shop-2.default'];
const CLUSTER = 'cluster.outbound|80||shop.default.svc.cluster.local';
let mesh: TestMesh;
let envoy: RunningEnvoy;
let ourOutbound = 0;

function route(rules: object): object {
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'HTTPRoute',
    metadata: { name: 'shop' },
    spec: { parentRefs: [{ group: '', kind: 'Service', name: 'shop' }], rules: [rules] },
  };
}

const split = (v1: number, v2: number): object =>
  route({
    backendRefs: [
      { name: 'shop-v1', port: 80, weight: v1 },
      { name: 'shop-v2', port: 80, weight: v2 },
    ],
  });

beforeAll(async () => {
  if (!hasEnvoy) return;
  mesh = await startMesh({
    resources: [
      { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { mtls: 'STRICT' } },
      service('shop', { app: 'shop' }),
      service('shop-v1', { app: 'shop', version: 'v1' }),
      service('shop-v2', { app: 'shop', version: 'v2' }),
    ],
    instances: [{ name: 'shop-1', service: 'shop', version: 'v1' }],
  });
  ourOutbound = mesh.instances.get('shop-1')!.outboundPort;
  envoy = await startEnvoy(mesh.api, { name: 'shop-2', service: 'shop', version: 'v2' });
  await acknowledged(mesh.api, IDS);
}, 120_000);

afterAll(async () => {
  await envoy?.stop();
  await mesh?.stop();
}, 60_000);

/** Writes the route and waits until every proxy has it. */
async function apply(document: object): Promise<void> {
  const path = '/api/v1/resources/HTTPRoute/default/shop';
  const before = await mesh.api.call(path).catch(() => undefined);
  const answer =
    before === undefined
      ? await mesh.api.call<{ changeId: string }>('/api/v1/resources', { method: 'POST', body: document })
      : await mesh.api.call<{ changeId: string }>(path, { method: 'PUT', body: document, headers: { 'if-match': before.etag! } });
  expect(answer.status).toBeLessThan(300);
  await mesh.settled(2);
  await acknowledged(mesh.api, IDS);
}

const failures = (outcomes: readonly Outcome[]): string[] => outcomes.filter((outcome) => !outcome.ok).map((outcome) => outcome.error);

/** How often each version answered, of `count` requests to `host`. */
async function count(outboundPort: number, host: string, requests: number): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (let sent = 0; sent < requests; sent++) {
    const { status, body } = await call(outboundPort, '/', { host });
    const who = status === 200 ? (JSON.parse(body) as { version: string }).version : `status ${status}: ${body}`;
    found[who] = (found[who] ?? 0) + 1;
  }
  return found;
}

withEnvoy(
  'STRICT mTLS both ways: ours to Envoy, Envoy to ours and Envoy to Envoy, TLS 1.3, by identity, nothing in plaintext',
  async () => {
    for (const outboundPort of [ourOutbound, envoy.outboundPort]) {
      await eventually('both answer', 30_000, async () => {
        const found = await count(outboundPort, 'shop', 20);
        return Object.keys(found).sort().join() === 'v1,v2';
      });
    }

    const fromOurs = JSON.parse((await call(ourOutbound, '/from-ours', { host: 'shop-v2' })).body) as { headers: Record<string, string> };
    expect(fromOurs.headers['x-forwarded-client-cert']).toMatch(/URI=spiffe:\/\/cluster\.local\/ns\/default\/sa\/shop$/);
    const fromEnvoy = JSON.parse((await call(envoy.outboundPort, '/', { host: 'shop-v2' })).body) as { headers: Record<string, string> };
    expect(fromEnvoy.headers['x-forwarded-client-cert']).toMatch(/URI=spiffe:\/\/cluster\.local\/ns\/default\/sa\/shop-2$/);
    expect((await call(envoy.outboundPort, '/', { host: 'shop-v1' })).status).toBe(200);

    expect(await envoy.stat(`${CLUSTER}.ssl.handshake`)).toBeGreaterThan(0);
    expect(await envoy.stat(`${CLUSTER}.ssl.versions.TLSv1.3`)).toBe(await envoy.stat(`${CLUSTER}.ssl.handshake`));
    expect(await envoy.stat(`${CLUSTER}.ssl.fail_verify_san`)).toBe(0);
    expect(await envoy.stat(`listener.127.0.0.1_${envoy.inboundPort}.ssl.versions.TLSv1.3`)).toBeGreaterThan(0);
    for (const inboundPort of [envoy.inboundPort, mesh.instances.get('shop-1')!.inboundPort]) {
      await expect(call(inboundPort, '/', { host: 'shop' })).rejects.toThrow();
    }
  },
  60_000,
);

withEnvoy(
  'an HTTPRoute splits by weight the same way in both, and a change under load fails no request',
  async () => {
    await apply(split(3, 1));
    for (const outboundPort of [ourOutbound, envoy.outboundPort]) {
      const found = await count(outboundPort, 'shop', 300);
      // 300 draws at 3:1; five standard deviations are 37.
      expect(found['v1']! + found['v2']!).toBe(300);
      expect(Math.abs(found['v1']! - 225)).toBeLessThanOrEqual(37);
    }

    const loads = [ourOutbound, envoy.outboundPort].map((outboundPort) =>
      startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 50 }),
    );
    for (const [v1, v2] of [
      [1, 1],
      [1, 0],
      [0, 1],
    ] as const) {
      await apply(split(v1, v2));
    }
    const sofar = loads.map((load) => load.outcomes.length);
    await eventually('requests came after the last change', 20_000, () =>
      loads.every((load, index) => load.outcomes.length > sofar[index]! + 60),
    );
    for (const load of loads) await load.stop();

    for (const load of loads) expect(failures(load.outcomes)).toEqual([]);
    // What was under way when the change was acknowledged still had the old one.
    for (const [index, load] of loads.entries())
      expect(new Set(load.outcomes.slice(sofar[index]! + 20).map((outcome) => outcome.version))).toEqual(new Set(['v2']));
  },
  90_000,
);

withEnvoy(
  'a retry that the route asks for is made by Envoy, on the instance that works',
  async () => {
    await apply(route({ backendRefs: [{ name: 'shop', port: 80 }], retry: { attempts: 2, codes: [503] } }));
    envoy.broken = true;
    try {
      const found = await count(envoy.outboundPort, 'shop', 20);
      expect(found).toEqual({ v1: 20 });
      expect(await envoy.stat(`${CLUSTER}.upstream_rq_retry_success`)).toBeGreaterThan(0);
    } finally {
      envoy.broken = false;
    }
  },
  60_000,
);

withEnvoy(
  'rotation under load: Envoy and our sidecar take new certificates by SDS, and no request fails',
  async () => {
    await apply(split(1, 1));
    await mesh.api.call('/api/v1/resources', {
      method: 'POST',
      body: {
        apiVersion: 'meshwork.dev/v1alpha1',
        kind: 'BackendPolicy',
        metadata: { name: 'fresh' },
        // So that handshakes go on all the time.
        spec: {
          targetRefs: ['shop-v1', 'shop-v2'].map((name) => ({ kind: 'Service', name })),
          connection: { maxRequestsPerConnection: 5 },
        },
      },
    });
    await acknowledged(mesh.api, IDS);
    const serial = async (): Promise<string> => {
      const { certificates } = JSON.parse(await envoy.admin('/certs')) as { certificates: { cert_chain: { serial_number: string }[] }[] };
      return certificates
        .flatMap((entry) => entry.cert_chain.map((certificate) => certificate.serial_number))
        .sort()
        .join();
    };
    const loads = [ourOutbound, envoy.outboundPort].map((outboundPort) =>
      startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 50 }),
    );
    const handshakes = await envoy.stat(`listener.127.0.0.1_${envoy.inboundPort}.ssl.handshake`);

    for (let round = 0; round < 3; round++) {
      const before = await serial();
      const answer = await mesh.api.call<{ rotated: number }>('/api/v1/certificates/rotate', { method: 'POST' });
      expect(answer.body.rotated).toBe(2);
      await eventually('Envoy has a new certificate', 20_000, async () => (await serial()) !== before);
      const sofar = loads.map((load) => load.outcomes.length);
      await eventually('requests came with it', 20_000, () => loads.every((load, index) => load.outcomes.length > sofar[index]! + 50));
    }
    for (const load of loads) await load.stop();

    for (const load of loads) expect(failures(load.outcomes)).toEqual([]);
    expect(await envoy.stat(`listener.127.0.0.1_${envoy.inboundPort}.ssl.handshake`)).toBeGreaterThan(handshakes + 10);
  },
  120_000,
);

withEnvoy(
  'the control plane is killed and comes back under load: Envoy goes on with what it has and reconnects with its lease credential',
  async () => {
    const load = startLoad({ clock, outboundPort: envoy.outboundPort, host: 'shop', requestsPerSecond: 50 });
    await mesh.killControlPlane();
    await eventually('Envoy has noticed', 20_000, async () => (await envoy.stat('control_plane.connected_state')) === 0);
    const sofar = load.outcomes.length;
    await eventually('requests came meanwhile', 20_000, () => load.outcomes.length > sofar + 50);
    await mesh.startControlPlane();
    await acknowledged(mesh.api, IDS);
    await apply(split(0, 1));
    await load.stop();

    expect(failures(load.outcomes)).toEqual([]);
    expect(await count(envoy.outboundPort, 'shop', 10)).toEqual({ v2: 10 });
    const { body } = await mesh.api.call<{ authentication: string; flavour: string }>('/api/v1/proxies/shop-2.default');
    expect(body).toMatchObject({ authentication: 'lease', flavour: 'envoy' });
  },
  120_000,
);

withEnvoy(
  'Envoy reports its load to the control plane, by its lease credential',
  async () => {
    await eventually('a report came', 30_000, async () => {
      await count(envoy.outboundPort, 'shop-v2', 5);
      const { load } = (await mesh.api.call<{ load: readonly { node: string; cluster: string; succeeded: number }[] }>('/api/v1/load'))
        .body;
      const cluster = 'outbound|80||shop-v2.default.svc.cluster.local';
      return load.some((entry) => entry.node === 'shop-2.default' && entry.cluster === cluster && entry.succeeded > 0);
    });
  },
  60_000,
);

withEnvoy(
  'Envoy found nothing to warn of in what it was sent',
  () => {
    const expected =
      /gRPC config stream|StreamAggregatedResources|DeltaAggregatedResources|upstream connect error|remote reset|connection termination/i;
    expect(envoy.warnings().filter((line) => !expected.test(line))).toEqual([]);
    return Promise.resolve();
  },
  10_000,
);

test('there is an Envoy, or this file says that there is none', () => {
  if (!hasEnvoy) process.stderr.write('test/e2e/envoy-mesh.test.ts: no ENVOY and no envoy on PATH, so real Envoys were not tried.\n');
  expect(typeof hasEnvoy).toBe('boolean');
});
