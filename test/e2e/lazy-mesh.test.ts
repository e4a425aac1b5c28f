/** A lazy sidecar among others: it asks for what is used and forgets what is not, and its application notices nothing of either. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { acknowledged, call, hasEnvoy, startEnvoy, withEnvoy } from '../support/envoy.ts';
import type { Reply, RunningEnvoy } from '../support/envoy.ts';
import { clock, eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

const IDLE_S = 3;
const OTHERS = 30;
let mesh: TestMesh;
let envoy: RunningEnvoy;
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
  await eventually('the mirror got its copies', 5_000, async () => (await stat(`cluster.${'outbound.80..audit'}.*upstream_rq_total`)) > 0 || mirrored());

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

async function mirrored(): Promise<boolean> {
  const { body } = await call(lazy.admin, '/clusters', {});
  return /audit\.default[^\n]*::rq_total::[1-9]/.test(body);
}
