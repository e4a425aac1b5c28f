import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { WatchValue } from '../lib/watch.ts';
import type { EncodedResource } from '../xds/session/messages.ts';
import type { ResourceSet } from '../xds/session/served-type.ts';
import { CLUSTER_TYPE, ROUTE_TYPE } from '../xds/session/type-urls.ts';
import { createChanges } from './changes.ts';
import type { Changes } from './changes.ts';
import { createMetrics } from './metrics.ts';
import { EMPTY_WORLD } from './models/world-state.ts';
import { createProxies } from './proxies.ts';
import type { Proxies, ProxyStream, StreamType } from './proxies.ts';
import { createPublisher } from './publish.ts';
import type { PublisherDeps } from './publish.ts';
import { NO_SPANS } from './tracing.ts';
import type { EndpointModel, Node, ServiceModel, World } from './world.ts';

const ENDPOINT: EndpointModel = {
  address: '127.0.0.1',
  port: 1,
  targetPort: 1,
  servicePort: 80,
  weight: 1,
  ready: true,
  serving: true,
  terminating: false,
  locality: { region: '', zone: '', subZone: '' },
  labels: {},
  workload: undefined,
  identity: undefined,
};
const SERVICE: ServiceModel = {
  name: 's',
  namespace: 'default',
  labels: {},
  annotations: {},
  ports: [],
  selector: undefined,
  endpoints: [ENDPOINT],
  origin: { source: 'files' },
};

function worldOf(text: string, endpoints: readonly EndpointModel[] = [ENDPOINT]): World {
  return {
    ...EMPTY_WORLD,
    mesh: { ...EMPTY_WORLD.mesh, clusterDomain: text },
    services: new Map([['default/s', { ...SERVICE, endpoints }]]),
  };
}

function resource(typeUrl: string, name: string, version: string): EncodedResource {
  return { name, version, typeUrl, bytes: Buffer.from(version) };
}

/** What a node gets: one cluster that follows the world, one route that does not. */
function encode(world: World, node: Node): ReadonlyMap<string, readonly EncodedResource[]> {
  if (world.mesh.clusterDomain === 'broken') throw new Error('a route points nowhere');
  return new Map([
    [CLUSTER_TYPE, [resource(CLUSTER_TYPE, `of-${node.id}`, world.mesh.clusterDomain)]],
    [ROUTE_TYPE, [resource(ROUTE_TYPE, 'r', 'same')]],
  ]);
}

interface FakeStream extends ProxyStream {
  readonly sets: ResourceSet[];
  state: { settled: boolean; rejection?: StreamType['rejection'] };
}

function stream(id: string): FakeStream {
  const sets: ResourceSet[] = [];
  const fake: FakeStream = {
    sets,
    state: { settled: true },
    mode: 'delta',
    peer: '',
    userAgent: '',
    authentication: 'none',
    node: () => ({ id }) as Node,
    secrets: () => [],
    publish: (set) => {
      sets.push(set);
      fake.state = { settled: false };
    },
    types: () => [
      { typeUrl: CLUSTER_TYPE, sentVersion: '', ackedVersion: '', rejection: fake.state.rejection, settled: fake.state.settled },
    ],
  };
  return fake;
}

function setUp(given: Pick<PublisherDeps, 'prepare' | 'prepareFor'> = {}) {
  const clock = new ManualClock();
  const world = new WatchValue<World>(worldOf('1'));
  const proxies: Proxies = createProxies({ clock, progressed: () => changes.progressed(), converged: () => undefined });
  const changes: Changes = createChanges({ clock, progressOf: (id) => proxies.progressOf(id) });
  const own = { clock, log: silentLog, metrics: createMetrics(), spans: NO_SPANS };
  const publisher = createPublisher({ ...own, world, encode, proxies, changes, ...given });
  const connect = (id: string) => {
    const fake = stream(id);
    const proxy = publisher.connect(id, fake);
    const answer = (rejection?: StreamType['rejection']): void => {
      fake.state = { settled: true, rejection };
      proxies.observe(proxy);
    };
    return { fake, proxy, answer };
  };
  return { clock, world, proxies, changes, publisher, connect };
}

test('a new proxy gets the newest world at once, and an unchanged world is never handed over again', async () => {
  const { clock, world, connect } = setUp();
  const { fake } = connect('a');
  expect(fake.sets.map((set) => set.version(CLUSTER_TYPE))).toHaveLength(1);
  world.set(worldOf('1'));
  clock.advance(1000);
  await Promise.resolve();
  expect(fake.sets).toHaveLength(1);
});

test('changes are collected until 100 ms were quiet, and for a second at most', async () => {
  const { clock, world, connect } = setUp();
  const { fake } = connect('a');
  world.set(worldOf('2'));
  clock.advance(99);
  expect(fake.sets).toHaveLength(1);
  clock.advance(1);
  expect(fake.sets).toHaveLength(2);
  await Promise.resolve();
  for (let step = 0; step < 30; step++) {
    world.set(worldOf(`step ${step}`));
    clock.advance(50);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  expect(fake.sets).toHaveLength(3);
});

test('an endpoint that goes is published at once, even when something else changes right after it', async () => {
  const { clock, world, connect } = setUp();
  const { fake } = connect('a');
  world.set(worldOf('2', []));
  world.set(worldOf('3', []));
  clock.advance(0);
  expect(fake.sets).toHaveLength(2);
});

test('an endpoint that comes waits with the rest', () => {
  const { clock, world, connect } = setUp();
  const { fake } = connect('a');
  world.set(worldOf('2', [ENDPOINT, { ...ENDPOINT, port: 2 }]));
  clock.advance(50);
  expect(fake.sets).toHaveLength(1);
  clock.advance(50);
  expect(fake.sets).toHaveLength(2);
});

test('a change is acknowledged by the answer to the publish that holds it, not by an earlier one', async () => {
  const { clock, world, changes, publisher, connect } = setUp();
  const { answer } = connect('a');
  const id = changes.begin('api', []);
  world.set(worldOf('2'));
  changes.included(id, publisher.current);
  answer();
  expect(changes.get(id)!.done).toBe(false);
  clock.advance(100);
  await publisher.settled();
  expect(changes.get(id)!.proxies).toMatchObject([{ id: 'a', state: 'pending', types: ['CDS'] }]);
  answer();
  expect(changes.get(id)).toMatchObject({ done: true, proxies: [{ state: 'acked' }] });
});

test('a proxy that connects between the write and its publish is followed too', async () => {
  const { clock, world, changes, publisher, connect } = setUp();
  const id = changes.begin('api', []);
  world.set(worldOf('2'));
  changes.included(id, publisher.current);
  const { fake, answer } = connect('late');
  expect(fake.sets[0]!.get(CLUSTER_TYPE, 'of-late')!.version).toBe('2');
  clock.advance(100);
  await publisher.settled();
  expect(fake.sets).toHaveLength(1);
  expect(changes.get(id)!.proxies).toMatchObject([{ id: 'late', state: 'pending' }]);
  answer();
  expect(changes.get(id)!.done).toBe(true);
});

test('what cannot be built leaves every proxy as it is, and counts as a refusal', async () => {
  const { clock, world, changes, proxies, publisher, connect } = setUp();
  const { fake, answer } = connect('a');
  answer();
  const id = changes.begin('api', []);
  world.set(worldOf('broken'));
  changes.included(id, publisher.current);
  clock.advance(100);
  await publisher.settled();
  expect(fake.sets).toHaveLength(1);
  expect(changes.get(id)!.proxies).toMatchObject([{ state: 'rejected', types: ['build'], message: 'a route points nowhere' }]);
  expect(proxies.get('a')).toMatchObject({ state: 'rejected', message: 'a route points nowhere' });
  world.set(worldOf('1'));
  clock.advance(100);
  await publisher.settled();
  expect(proxies.get('a')!.state).toBe('acked');
});

test('a rejection stays with its publish: the next good one clears it', async () => {
  const { clock, world, changes, proxies, publisher, connect } = setUp();
  const { answer } = connect('a');
  answer();
  const write = async (text: string): Promise<string> => {
    const id = changes.begin('api', []);
    world.set(worldOf(text));
    changes.included(id, publisher.current);
    clock.advance(100);
    await publisher.settled();
    return id;
  };
  const bad = await write('2');
  answer({ version: 'x', message: 'cluster of-a: no' });
  expect(changes.get(bad)!.proxies[0]!.state).toBe('rejected');
  expect(proxies.get('a')!.types['CDS']).toMatchObject({ state: 'rejected', rejected: { resource: 'of-a' } });
  const good = await write('3');
  expect(changes.get(good)!.proxies[0]!.state).toBe('pending');
  answer();
  expect(changes.get(good)!.proxies[0]!.state).toBe('acked');
});

test('a proxy that left is remembered as not connected', () => {
  const { proxies, connect } = setUp();
  const { proxy } = connect('a');
  proxies.remove(proxy);
  expect(proxies.get('a')).toMatchObject({ connected: false });
  connect('a');
  expect(proxies.get('a')).toMatchObject({ connected: true });
  expect([...proxies.views()]).toHaveLength(1);
});

test('a connection that broke unnoticed does not hold a change up once its proxy is back', async () => {
  const { clock, world, changes, publisher, connect } = setUp();
  const { answer: answerOld } = connect('a');
  answerOld();
  const id = changes.begin('api', []);
  world.set(worldOf('2'));
  changes.included(id, publisher.current);
  clock.advance(100);
  await publisher.settled();
  const { answer } = connect('a');
  expect(changes.get(id)!.proxies[0]!.state).toBe('pending');
  answer();
  expect(changes.get(id)!.proxies[0]!.state).toBe('acked');
});

/** Lets promises and what waits for a turn of the event loop go on. */
async function settle(clock: ManualClock): Promise<void> {
  for (let turns = 0; turns < 50; turns++) {
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(0);
  }
}

test('a round publishes the world that was prepared for it; what comes meanwhile has the next round', async () => {
  const prepared: string[] = [];
  const { clock, world, connect } = setUp({
    *prepare({ mesh }) {
      prepared.push(mesh.clusterDomain);
      yield;
      // As somebody does who has a turn between two slices.
      if (mesh.clusterDomain === '2') world.set(worldOf('3'));
    },
  });
  const { fake } = connect('a');
  const versions = (): (string | undefined)[] => fake.sets.map((set) => set.get(CLUSTER_TYPE, 'of-a')?.version);
  world.set(worldOf('2'));
  clock.advance(100);
  await settle(clock);
  expect([prepared, versions()]).toEqual([['2'], ['1', '2']]);

  clock.advance(100);
  await settle(clock);
  expect([prepared, versions()]).toEqual([
    ['2', '3'],
    ['1', '2', '3'],
  ]);
});

test('the gate lets a proxy in when what its like will share was made, a slice at a time, and also when that failed', async () => {
  const steps: string[] = [];
  const { clock, publisher } = setUp({
    *prepareFor(_world, { id }) {
      if (id === 'broken') throw new Error('a route points nowhere');
      for (const step of ['routes', 'clusters']) {
        steps.push(`${id} ${step}`);
        clock.advance(10);
        yield;
      }
    },
  });
  const passes = (id: string): Promise<void> => publisher.turn(() => ({ id }) as Node).then(() => void steps.push(`${id} in`));
  const all = Promise.all([passes('a'), passes('broken'), passes('b')]);
  await Promise.resolve();
  expect(steps).toEqual([]);
  await settle(clock);
  await all;
  expect(steps).toEqual(['a routes', 'a clusters', 'a in', 'broken in', 'b routes', 'b clusters', 'b in']);
});
