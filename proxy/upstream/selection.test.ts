import { expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import type { LocalityEndpoints } from '../../xds/snapshot.ts';
import { roundRobin } from '../balancers/round-robin.ts';
import type { Endpoint } from './endpoint.ts';
import { fakeEndpoint, fakeRequest } from './fakes.ts';
import { select, slowStartWeight } from './selection.ts';

const zone = (name: string) => ({ region: 'r', zone: name, subZone: '' });

function pick(endpoints: readonly Endpoint[], options: { panic?: number; localities?: readonly LocalityEndpoints[]; picks?: number } = {}) {
  const selection = select({
    endpoints,
    cluster: { panicThresholdPercent: options.panic ?? 50, localityWeighted: options.localities !== undefined },
    localities: options.localities ?? [],
    overprovisioningFactor: 140,
    balancer: roundRobin.compile({}, 'lb'),
    random: seededRandom(8),
  });
  const counts: Record<string, number> = {};
  for (let i = 0; i < (options.picks ?? 1000); i++) {
    const key = selection.picker(fakeRequest())?.key ?? 'nobody';
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return { ...selection, counts };
}

/** `count` endpoints of a priority, the first `healthy` of them well. */
function level(priority: number, count: number, healthy: number): Endpoint[] {
  return Array.from({ length: count }, (_, i) =>
    fakeEndpoint(`p${priority}-${i}:80`, { priority, health: i < healthy ? 'healthy' : 'unhealthy' }),
  );
}

const sharesOf = (counts: Record<string, number>, prefix: string): number =>
  Object.entries(counts).reduce((sum, [key, count]) => sum + (key.startsWith(prefix) ? count : 0), 0) /
  Object.values(counts).reduce((sum, count) => sum + count, 0);

test('W15 the near priority takes everything while 72 % of it are well, and spills over in proportion below that', () => {
  expect(sharesOf(pick([...level(0, 100, 72), ...level(1, 10, 10)]).counts, 'p0')).toBe(1);

  const half = pick([...level(0, 100, 50), ...level(1, 10, 10)], { picks: 20_000 });
  expect(Math.abs(sharesOf(half.counts, 'p0') - 0.7)).toBeLessThan(0.02);
  expect(half.panic).toBe(false);
});

test('W15 all levels ill together are scaled up to the whole', () => {
  const { counts, panic } = pick([...level(0, 100, 20), ...level(1, 100, 20)], { panic: 10, picks: 20_000 });
  expect(panic).toBe(false);
  expect(Math.abs(sharesOf(counts, 'p0') - 0.5)).toBeLessThan(0.02);
});

test('B9 below the panic threshold a priority uses all its endpoints, at or above it only the healthy ones', () => {
  const calm = pick(level(0, 10, 5));
  expect([calm.panic, Object.keys(calm.counts).length, calm.reachable]).toEqual([false, 5, 5]);

  const panicking = pick(level(0, 10, 4));
  expect([panicking.panic, Object.keys(panicking.counts).length]).toEqual([true, 10]);

  expect(pick(level(0, 10, 0), { panic: 0 }).counts).toEqual({ nobody: 1000 });
});

test('panic in one priority is no reason while the others can carry everything', () => {
  const { counts, panic } = pick([...level(0, 10, 1), ...level(1, 10, 10)], { picks: 20_000 });
  expect(panic).toBe(false);
  expect(Object.keys(counts).filter((key) => key.startsWith('p0'))).toEqual(['p0-0:80']);
  expect(Math.abs(sharesOf(counts, 'p0') - 0.14)).toBeLessThan(0.02);
});

test('degraded endpoints get only what the healthy ones cannot take', () => {
  const endpoints = level(0, 10, 5).map((endpoint, i) => fakeEndpoint(endpoint.key, { health: i < 5 ? 'healthy' : 'degraded' }));
  const { counts } = pick(endpoints, { picks: 20_000 });
  const degraded = endpoints.slice(5).reduce((sum, endpoint) => sum + (counts[endpoint.key] ?? 0), 0);
  expect(Math.abs(degraded / 20_000 - 0.3)).toBeLessThan(0.02);
});

test('W5 a locality is chosen by its weight and the endpoint in it by its own: the shares multiply', () => {
  const locality = (name: string, weight: number | undefined) => ({
    locality: zone(name),
    priority: 0,
    endpoints: [],
    ...(weight === undefined ? {} : { weight }),
  });
  const endpoints = [
    fakeEndpoint('a1:80', { locality: zone('a'), weight: 1 }),
    fakeEndpoint('a2:80', { locality: zone('a'), weight: 3 }),
    fakeEndpoint('b1:80', { locality: zone('b'), weight: 7 }),
    fakeEndpoint('c1:80', { locality: zone('c'), weight: 1 }),
  ];
  const { counts } = pick(endpoints, { localities: [locality('a', 3), locality('b', 1), locality('c', undefined)], picks: 1600 });
  expect(counts).toEqual({ 'a1:80': 300, 'a2:80': 900, 'b1:80': 400 });
});

test('W5 a locality of which a part is missing gets less, once overprovisioning no longer covers it', () => {
  const endpoints = [
    ...Array.from({ length: 10 }, (_, i) => fakeEndpoint(`a${i}:80`, { locality: zone('a'), health: i < 5 ? 'healthy' : 'unhealthy' })),
    ...Array.from({ length: 10 }, (_, i) => fakeEndpoint(`b${i}:80`, { locality: zone('b') })),
  ];
  const localities = ['a', 'b'].map((name) => ({ locality: zone(name), priority: 0, weight: 1, endpoints: [] }));
  expect(Math.abs(sharesOf(pick(endpoints, { localities, picks: 17_000 }).counts, 'a') - 0.7 / 1.7)).toBeLessThan(0.01);
});

test('W12 the weight in slow start grows with age, never below the minimum', () => {
  const slowStart = { windowMs: 1000, aggression: 1, minWeightPercent: 10 };
  expect([0, 50, 250, 999, 1000].map((ageMs) => slowStartWeight(10, ageMs, slowStart))).toEqual([1, 1, 2.5, 9.99, 10]);
  expect(slowStartWeight(10, 250, { ...slowStart, aggression: 2 })).toBe(5);
});
