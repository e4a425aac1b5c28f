/** A lazy sidecar among others: it asks for what is used and forgets what is not, and its application notices nothing of either. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createServer } from 'node:http';
import { acknowledged, call, startEnvoy, withEnvoy } from '../support/envoy.ts';
import type { Reply, RunningEnvoy } from '../support/envoy.ts';
import { clock, eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';
import type { AddressInfo } from 'node:net';

const IDLE_S = 5;
const OTHERS = 30;
let mesh: TestMesh;
let envoy: RunningEnvoy | undefined;
let lazy = { outbound: 0, admin: 0, inbound: 0 };
let eager = { outbound: 0, admin: 0 };

const route = (v1: number, v2: number): object => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'HTTPRoute',
  metadata: { name: 'shop' },
  spec: {
    parentRefs: [{ group: '', kind: 'Service', name: 'shop' }],
    rules: [
      {
        filters: [{ type: 'RequestMirror', requestMirror: { backendRef: { name: 'audit', port: 80 } } }],
        backendRefs: [
          { name: 'shop-v1', port: 80, weight: v1 },
          { name: 'shop-v2', port: 80, weight: v2 },
        ],
      },
    ],
  },
});

beforeAll(async () => {
  mesh = await startMesh({
    resources: [
      { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { mtls: 'STRICT' } },
      service('shop', { app: 'shop' }),
      service('shop-v1', { app: 'shop', version: 'v1' }),
      service('shop-v2', { app: 'shop', version: 'v2' }),
      service('audit', { app: 'audit' }),
      service('caller', { app: 'caller' }),
      ...Array.from({ length: OTHERS }, (_, index) => service(`other-${index}`, { app: 'audit' })),
      route(3, 1),
    ],
    instances: [
      { name: 'shop-1', service: 'shop', version: 'v1' },
      { name: 'shop-2', service: 'shop', version: 'v2' },
      { name: 'audit-1', service: 'audit' },
      { name: 'caller-1', service: 'caller', args: ['--lazy', '--lazy-idle-s', String(IDLE_S)] },
      { name: 'eager-1', service: 'eager', application: 'none' },
    ],
  });
  const [one, two] = [mesh.instances.get('caller-1')!, mesh.instances.get('eager-1')!];
  lazy = { outbound: one.outboundPort, admin: one.adminPort, inbound: one.inboundPort };
  eager = { outbound: two.outboundPort, admin: two.adminPort };
  await mesh.settled(6 + OTHERS);
}, 120_000);

afterAll(async () => {
  await envoy?.stop();
  await mesh?.stop();
}, 60_000);

const clustersOf = async (adminPort: number): Promise<string[]> => {
  const { body } = await call(adminPort, '/clusters', {});
  return [...new Set(body.split('\n').map((line) => line.split('::')[0]!))].filter((name) => name.startsWith('outbound|')).sort();
};
const stat = async (name: string): Promise<number> =>
  Number(/: (\d+)/.exec((await call(lazy.admin, `/stats?filter=^${name}$`, {})).body)?.[1] ?? 0);
const at = (host: string): Promise<Reply> => call(lazy.outbound, '/', { host });
const fqdn = (name: string): string => `outbound|80||${name}.default.svc.cluster.local`;

test('the first request to a host is answered, and the proxy holds what was used and nothing else', async () => {
  expect(await clustersOf(lazy.admin)).toEqual([]);
  expect(await clustersOf(eager.admin)).toHaveLength(5 + OTHERS);

  const startMs = clock.now();
  const first = await at('other-1');
  const firstMs = clock.now() - startMs;

  expect([first.status, first.body]).toEqual([200, expect.stringContaining('audit-1')]);
  expect(firstMs).toBeLessThan(2_000);
  expect(await clustersOf(lazy.admin)).toEqual([fqdn('other-1')]);
  // By its other names it is the same host, and asked for no more.
  const asked = await stat('on_demand.asked');
  for (const host of ['other-1:80', 'other-1.default', 'other-1.default.svc', 'OTHER-1.default.svc.cluster.local:80'])
    expect((await at(host)).status).toBe(200);
  expect(await stat('on_demand.asked')).toBe(asked);
});

test('a split by weights and a mirror bring all their clusters, and a changed route those that it names', async () => {
  const versions: Record<string, number> = {};
  for (let i = 0; i < 40; i++) {
    const { status, body } = await at('shop');
    const version = status === 200 ? (JSON.parse(body) as { version: string }).version : String(status);
    versions[version] = (versions[version] ?? 0) + 1;
  }

  expect(Object.keys(versions).sort()).toEqual(['v1', 'v2']);
  expect(versions['v1']).toBeGreaterThan(25);
  expect(await clustersOf(lazy.admin)).toEqual(expect.arrayContaining([fqdn('audit'), fqdn('shop-v1'), fqdn('shop-v2')]));
  await eventually(
    'the mirror got its copies',
    5_000,
    async () => (await stat(`cluster.${'outbound.80..audit'}.*upstream_rq_total`)) > 0 || mirrored(),
  );

  const path = '/api/v1/resources/HTTPRoute/default/shop';
  const before = await mesh.api.call(path);
  await mesh.api.call(path, { method: 'PUT', body: route(0, 1), headers: { 'if-match': before.etag! } });
  await eventually('all goes to v2', 10_000, async () => {
    const found = new Set<string>();
    for (let i = 0; i < 10; i++) found.add((JSON.parse((await at('shop')).body) as { version: string }).version);
    return [...found].join() === 'v2';
  });
  await eventually('v1 is forgotten', 10_000, async () => !(await clustersOf(lazy.admin)).includes(fqdn('shop-v1')));
});

test('what is no service of the mesh is answered as an eager sidecar answers it', async () => {
  const outside = createServer((_request, response) => void response.end('outside'));
  await new Promise<void>((resolve) => void outside.listen(0, '127.0.0.1', resolve));
  try {
    const hosts = [`127.0.0.1:${(outside.address() as AddressInfo).port}`, 'nobody.invalid', 'shop:81', 'shop.elsewhere', 'a b'];
    for (const host of hosts) {
      const [ours, theirs] = [await at(host), await call(eager.outbound, '/', { host })];
      expect([host, ours.status, ours.body]).toEqual([host, theirs.status, theirs.body]);
    }
    expect(await stat('on_demand.unknown')).toBe(4);
    // Known not to exist: not asked for again.
    const asked = await stat('on_demand.asked');
    await at(hosts[0]!);
    expect(await stat('on_demand.asked')).toBe(asked);
  } finally {
    outside.closeAllConnections();
    await new Promise((resolve) => outside.close(resolve));
  }
});

test('what is asked of a lazy instance arrives', async () => {
  const { status, body } = await call(eager.outbound, '/', { host: 'caller' });

  expect([status, body]).toEqual([200, expect.stringContaining('caller-1')]);
});

test('a service that comes to be is used though its name was asked for in vain, and one that goes is gone', async () => {
  expect((await at('late')).status).toBe(503);

  await mesh.api.call('/api/v1/resources', { method: 'POST', body: service('late', { app: 'audit' }) });
  await eventually('the service answers', 10_000, async () => (await at('late')).status === 200);
  await mesh.api.call('/api/v1/resources/Service/default/late', { method: 'DELETE', headers: { 'if-match': '*' } });
  await eventually('it is unknown again', 10_000, async () => (await at('late')).status === 503);
});

test('what is not used for a while is forgotten with its clusters, and comes back with the next request', async () => {
  expect((await at('other-2')).status).toBe(200);
  expect(await clustersOf(lazy.admin)).toContain(fqdn('other-2'));

  const keep = setInterval(() => void at('other-3'), 300);
  try {
    await eventually('only what is used is left', 20_000, async () => (await clustersOf(lazy.admin)).join() === fqdn('other-3'));
  } finally {
    clearInterval(keep);
  }
  expect(await stat('on_demand.hosts')).toBe(1);
  expect(await stat('on_demand.forgotten')).toBeGreaterThan(1);
  expect((await at('other-2')).status).toBe(200);
});

test('forgetting cuts no request that is under way', async () => {
  const application = mesh.instances.get('audit-1')!.applicationPort;
  const behave = (delayMs: number): Promise<Response> =>
    fetch(`http://127.0.0.1:${application}/demo/behaviour`, { method: 'POST', body: JSON.stringify({ delayMs }) });
  await behave(IDLE_S * 1_000 + 3_000);
  const slow = at('other-8');
  await eventually('it is in use', 5_000, async () => (await clustersOf(lazy.admin)).includes(fqdn('other-8')));
  await behave(0);

  await eventually('it is forgotten', 10_000, async () => !(await clustersOf(lazy.admin)).includes(fqdn('other-8')));
  expect((await slow).status).toBe(200);
});

test('while the control plane is away, known hosts go on and an unknown one fails with a clear answer in time', async () => {
  expect((await at('other-4')).status).toBe(200);
  await mesh.killControlPlane();
  const keep = setInterval(() => void at('other-4'), 300);
  try {
    const startMs = clock.now();
    const [unknown, ...known] = await Promise.all([at('other-5'), at('other-4'), at('other-4')]);
    const waitedMs = clock.now() - startMs;

    expect(known.map(({ status }) => status)).toEqual([200, 200]);
    expect(unknown!.status).toBe(503);
    expect(unknown!.body).toMatch(
      /control plane did not say in time which routes this host has\. Host "other-5" was waited for 5000 ms\. The control plane cannot be reached\./,
    );
    expect(waitedMs).toBeGreaterThan(4_500);
    expect(waitedMs).toBeLessThan(8_000);

    await mesh.startControlPlane();
    await eventually('it is asked again', 30_000, async () => (await at('other-5')).status === 200);
    expect((await at('other-4')).status).toBe(200);
    expect(await clustersOf(lazy.admin)).toEqual(expect.arrayContaining([fqdn('other-4'), fqdn('other-5')]));
  } finally {
    clearInterval(keep);
  }
}, 90_000);

withEnvoy(
  'a real Envoy is lazy in the same way',
  async () => {
    envoy = await startEnvoy(mesh.api, { name: 'envoy-1', service: 'caller-too', lazy: true });
    await acknowledged(mesh.api, ['envoy-1.default']);
    const ask = (host: string): Promise<Reply> => call(envoy!.outboundPort, '/', { host });
    await eventually('its listener is open', 30_000, () =>
      ask('other-6').then(
        () => true,
        () => false,
      ),
    );

    expect((await ask('other-6')).status).toBe(200);
    expect((await ask('shop')).status).toBe(200);
    expect(await envoy.admin('/clusters')).toContain(fqdn('other-6'));
    expect(await envoy.admin('/clusters')).not.toContain(fqdn('other-7'));
    // Its filter asks for the cluster of the route alone.
    expect(await envoy.admin('/clusters')).not.toContain(fqdn('audit'));
    expect((await ask('nobody.invalid')).status).toBe(503);
    // A host outside the mesh that becomes a service of it, and is none again.
    expect((await ask('later')).status).toBe(503);
    await mesh.api.call('/api/v1/resources', { method: 'POST', body: service('later', { app: 'audit' }) });
    await eventually('the service answers', 10_000, async () => (await ask('later')).status === 200);
    expect((await ask('later.default')).status).toBe(200);
    await mesh.api.call('/api/v1/resources/Service/default/later', { method: 'DELETE', headers: { 'if-match': '*' } });
    await eventually('it is none again', 10_000, async () => (await ask('later')).status === 503);
    await acknowledged(mesh.api, ['envoy-1.default']);
    // Envoy waits a millisecond for virtual hosts that nobody asked for yet, and says that none came.
    expect(envoy.warnings()).toEqual([expect.stringMatching(/initial fetch timed out for \S*VirtualHost$/)]);
  },
  90_000,
);

async function mirrored(): Promise<boolean> {
  const { body } = await call(lazy.admin, '/clusters', {});
  return /audit\.default[^\n]*::rq_total::[1-9]/.test(body);
}
