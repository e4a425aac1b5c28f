import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { seededRandom } from '../../lib/random.ts';
import { createCatalog } from '../catalog.ts';
import { createMemoryStore } from '../store/memory.ts';
import type { Store } from '../store/store.ts';
import type { Resource } from '../world.ts';
import { createRegistrations } from './registrations.ts';
import type { RegistrationRequest } from './registrations.ts';
import { createPushedSource } from './state.ts';

const REQUEST: RegistrationRequest = {
  service: 'reviews',
  namespace: 'default',
  address: '127.0.0.1',
  ports: { http: 9080 },
  labels: { version: 'v1' },
  weight: 1,
  serviceAccount: 'reviews',
  ready: true,
  ttlMs: 10_000,
  sidecar: { inboundPort: 20006, outboundPort: 20001, bindAddress: '127.0.0.1', adminPort: 20000 },
};

function setUp(store: Store = createMemoryStore()) {
  const clock = new ManualClock();
  const names: string[] = [];
  const taken: string[] = [];
  const registrations = createRegistrations({
    clock,
    random: seededRandom(7),
    log: silentLog,
    store,
    change: (resources) => {
      names.push(...resources);
      return { id: `c${names.length}`, taken: () => taken.push(...resources) };
    },
  });
  return { clock, registrations, names, taken, store };
}

const kinds = (resources: readonly Resource[]): string[] => resources.map((resource) => `${resource.kind} ${resource.metadata.name}`);

test('a workload that registers is there with its service until its lease ends', () => {
  const { clock, registrations, names } = setUp();
  const { registration, secret } = registrations.register(REQUEST);
  expect(kinds(registrations.state().resources)).toEqual(['Service reviews', `Workload ${registration.name}`]);
  clock.advance(8000);
  expect(registrations.heartbeat(registration.id, secret, {})).toEqual({ ttlMs: 10_000 });
  clock.advance(9999);
  expect(registrations.list()).toHaveLength(1);
  clock.advance(1);
  expect(registrations.state().resources).toEqual([]);
  expect(names).toEqual([`Workload default/${registration.name}`, `Workload default/${registration.name}`]);
  expect(() => registrations.heartbeat(registration.id, secret, {})).toThrow(/register again/);
  expect(clock.pending).toBe(0);
});

test('only the holder of the secret may renew or end a lease', () => {
  const { registrations } = setUp();
  const { registration, secret } = registrations.register(REQUEST);
  expect(() => registrations.heartbeat(registration.id, 'guess', {})).toThrow(/secret/);
  expect(() => registrations.remove(registration.id, '')).toThrow(/secret/);
  expect(() => registrations.holder(registration.id, `${secret}x`)).toThrow(/secret/);
  registrations.remove(registration.id, secret);
  expect(registrations.list()).toEqual([]);
});

test('a name that is in use is refused, and two of one service get names of their own', () => {
  const { registrations } = setUp();
  registrations.register({ ...REQUEST, name: 'one' });
  expect(() => registrations.register({ ...REQUEST, name: 'one' })).toThrow(/registered already/);
  const names = [1, 2, 3].map(() => registrations.register(REQUEST).registration.name);
  expect(new Set(names).size).toBe(3);
});

test('leases survive a restart, with time to come back before anything is removed', () => {
  const first = setUp();
  const { registration, secret } = first.registrations.register(REQUEST);
  const before = JSON.stringify(first.registrations.state());
  first.registrations.close();
  const second = setUp(first.store);
  expect(JSON.stringify(second.registrations.state())).toBe(before);
  second.clock.advance(44_000);
  expect(second.registrations.heartbeat(registration.id, secret, {})).toEqual({ ttlMs: 10_000 });
  second.clock.advance(10_000);
  expect(second.registrations.list()).toEqual([]);
  expect(second.store.list('leases')).toEqual([]);
});

test('the store never holds a lease secret', () => {
  const { registrations, store } = setUp();
  const { secret } = registrations.register(REQUEST);
  expect(JSON.stringify(store.list('leases'))).not.toContain(secret);
});

test('a heartbeat can take the workload out of balancing', () => {
  const { registrations } = setUp();
  const { registration, secret } = registrations.register(REQUEST);
  registrations.heartbeat(registration.id, secret, { draining: true });
  expect(registrations.state().resources.at(-1)!.spec['draining']).toBe(true);
});

test('a service that a file defines takes the place of the one that was made, and its selector finds the workload', async () => {
  const { registrations, taken } = setUp();
  const { registration } = registrations.register(REQUEST);
  const files = createPushedSource('files', { resources: [], problems: [] });
  const catalog = createCatalog([files, registrations.source], { log: silentLog });
  const running = new AbortController();
  const followed = catalog.run(running.signal);
  const stop = catalog.world.subscribe((world) => registrations.world(world));
  await catalog.ready;
  expect(catalog.world.current.services.get('default/reviews')!.endpoints).toHaveLength(1);
  expect(taken).toContain(`Workload default/${registration.name}`);
  const service: Resource = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'reviews', namespace: 'default', labels: {}, annotations: {} },
    spec: { selector: { tier: 'backend' }, ports: [{ name: 'web', port: 8080, targetPort: 'http' }] },
    origin: { source: 'files', file: 'a.yaml', line: 1, column: 1 },
  };
  files.set({ resources: [service], problems: [] });
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(kinds(registrations.state().resources)).toEqual([`Workload ${registration.name}`]);
  const model = catalog.world.current.services.get('default/reviews')!;
  expect(model.endpoints.map((endpoint) => [endpoint.servicePort, endpoint.targetPort, endpoint.port])).toEqual([[8080, 9080, 20006]]);
  expect(catalog.world.current.problems).toEqual([]);
  files.set({ resources: [], problems: [] });
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(kinds(registrations.state().resources)).toEqual(['Service reviews', `Workload ${registration.name}`]);
  stop();
  running.abort();
  await followed;
});

test('a control plane that stood still blames nobody: leases run on from when it woke', () => {
  const { clock, registrations } = setUp();
  const now = clock.now.bind(clock);
  let asleepMs = 0;
  clock.now = () => now() + asleepMs;
  const { registration, secret } = registrations.register(REQUEST);
  asleepMs = 60_000;
  clock.advance(10_000);
  expect(registrations.list()).toHaveLength(1);
  expect(registrations.heartbeat(registration.id, secret, {})).toEqual({ ttlMs: 10_000 });
  clock.advance(10_000);
  expect(registrations.list()).toEqual([]);
});

test('what would be no valid Workload is refused with field and rule', () => {
  const { registrations } = setUp();
  expect(() => registrations.register({ ...REQUEST, labels: { version: 'a;b c' } })).toThrow(/metadata\.labels\.version.*label value/);
  expect(() => registrations.register({ ...REQUEST, ports: { http: 99_999 } })).toThrow(/spec\.ports\.http/);
  expect(registrations.list()).toEqual([]);
});

test('a store that takes no write does not keep a lease from ending, nor one that is refused from being unknown', () => {
  const store = createMemoryStore();
  const { clock, registrations } = setUp(store);
  registrations.register(REQUEST);
  store.delete = () => {
    throw new Error('disk full');
  };
  clock.advance(10_000);
  expect(registrations.list()).toEqual([]);
  store.put = () => {
    throw new Error('disk full');
  };
  expect(() => registrations.register(REQUEST)).toThrow('disk full');
  expect(registrations.list()).toEqual([]);
});
