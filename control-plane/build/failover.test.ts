import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseResources } from '../kinds/parse.ts';
import { createEncoder } from '../encode.ts';
import { nodeOf, overTheWire, worldOf } from '../testing.ts';
import type { Node, World } from '../world.ts';
import { outboundEndpoints } from './endpoints.ts';
import { build } from './index.ts';

const ENDPOINTS = 'type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment';

function place(text: string): Node['locality'] {
  const [region = '', zone = '', subZone = ''] = text.split('/');
  return { region, zone, subZone };
}

/** `shop` has an instance in each of these places, `plain` has the same without a policy. */
function worldAt(places: readonly string[], loadBalancing: string, more: readonly string[] = []): World {
  const service = (name: string): string =>
    `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { selector: { app: shop }, ports: [{ name: http, port: 80, targetPort: 8080 }] } }`;
  const workloads = places.map((text, index) => {
    const { region, zone, subZone } = place(text);
    return `{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: w${index}, labels: { app: shop } },
      spec: { address: 10.0.0.${index + 1}, locality: { region: "${region}", zone: "${zone}", subZone: "${subZone}" }${more[index] ?? ''} } }`;
  });
  const policy = `{ apiVersion: meshwork.dev/v1alpha1, kind: BackendPolicy, metadata: { name: shop }, spec: { targetRefs: [{ kind: Service, name: shop }], loadBalancing: ${loadBalancing} } }`;
  return worldOf([service('shop'), service('plain'), ...workloads, policy].join('\n---\n'));
}

/** Place -> priority, as it arrives at a node there. */
function seenFrom(world: World, from: string, flavour: Node['flavour'] = 'sidecar', service = 'shop'): Record<string, number> {
  const { endpoints } = overTheWire(build(world, nodeOf(world, undefined, { flavour, locality: place(from) })));
  const { localities } = endpoints.find(({ clusterName }) => clusterName === `outbound|80||${service}.default.svc.cluster.local`)!;
  return Object.fromEntries(
    localities.map(({ locality, priority }) => [
      `${locality.region}/${locality.zone}${locality.subZone && `/${locality.subZone}`}`,
      priority,
    ]),
  );
}

const PLACES = ['eu/eu-1', 'eu/eu-1/rack-2', 'eu/eu-2', 'us/us-1', 'asia/asia-1'];

test.each(['sidecar', 'envoy', 'grpc'] as const)('%s: the own zone first, then the region, then all others, without gaps', (flavour) => {
  const world = worldAt(PLACES, '{ localityFailover: true }');

  expect(seenFrom(world, 'eu/eu-1/rack-1', flavour)).toEqual({
    'eu/eu-1': 0,
    'eu/eu-1/rack-2': 0,
    'eu/eu-2': 1,
    'us/us-1': 2,
    'asia/asia-1': 2,
  });
  expect(seenFrom(world, 'us/us-9', flavour)).toEqual({
    'eu/eu-1': 1,
    'eu/eu-1/rack-2': 1,
    'eu/eu-2': 1,
    'us/us-1': 0,
    'asia/asia-1': 1,
  });
  // Another region may use the same name for a zone.
  expect(new Set(Object.values(seenFrom(world, 'us/eu-1', flavour)))).toEqual(new Set([0, 1]));
});

test('without the field, and for a caller that says nothing of where it is, all are alike', () => {
  expect(new Set(Object.values(seenFrom(worldAt(PLACES, '{}'), 'eu/eu-1')))).toEqual(new Set([0]));
  expect(new Set(Object.values(seenFrom(worldAt(PLACES, '{ localityFailover: false }'), 'eu/eu-1')))).toEqual(new Set([0]));
  const world = worldAt(PLACES, '{ localityFailover: true }');
  expect(new Set(Object.values(seenFrom(world, '')))).toEqual(new Set([0]));
  expect(new Set(Object.values(seenFrom(world, 'eu/eu-1', 'sidecar', 'plain')))).toEqual(new Set([0]));
});

test('localityPriority orders places for every caller, wherever it is; those not named come last', () => {
  const world = worldAt(PLACES, '{ localityPriority: [us, eu/eu-2] }');

  for (const from of ['', 'asia/asia-1', 'eu/eu-2'])
    expect(seenFrom(world, from)).toEqual({ 'us/us-1': 0, 'eu/eu-2': 1, 'eu/eu-1': 2, 'eu/eu-1/rack-2': 2, 'asia/asia-1': 2 });
});

test('both together: near first, and the list orders what is far', () => {
  const world = worldAt(PLACES, '{ localityFailover: true, localityPriority: [asia, eu] }');

  expect(seenFrom(world, 'us/us-1')).toEqual({ 'us/us-1': 0, 'asia/asia-1': 1, 'eu/eu-1': 2, 'eu/eu-1/rack-2': 2, 'eu/eu-2': 2 });
  expect(seenFrom(world, 'eu/eu-2')).toEqual({ 'eu/eu-2': 0, 'eu/eu-1': 1, 'eu/eu-1/rack-2': 1, 'asia/asia-1': 2, 'us/us-1': 3 });
});

test('a zone without a region, as an EndpointSlice names it, counts by itself', () => {
  const world = worldAt(['/eu-1', '/eu-2'], '{ localityFailover: true }');

  expect(seenFrom(world, 'eu/eu-1')).toEqual({ '/eu-1': 0, '/eu-2': 1 });
  expect(seenFrom(worldAt(['/a', '/b'], '{ localityPriority: [/b] }'), '')).toEqual({ '/b': 0, '/a': 1 });
});

test('an instance that is ill keeps its priority for those who weigh health, and leaves no gap for gRPC, who is not told of it', () => {
  const world = worldAt(['eu/eu-1', 'eu/eu-2', 'us/us-1'], '{ localityFailover: true }', [', healthy: false', '', '']);

  expect(seenFrom(world, 'eu/eu-1', 'envoy')).toEqual({ 'eu/eu-1': 0, 'eu/eu-2': 1, 'us/us-1': 2 });
  expect(seenFrom(world, 'eu/eu-1', 'grpc')).toEqual({ 'eu/eu-2': 0, 'us/us-1': 1 });
});

test('endpoints are built and encoded once per view of the places, however many places callers claim', () => {
  const world = worldAt(PLACES, '{ localityFailover: true }');
  const lists = new Set(Array.from({ length: 500 }, (_, index) => outboundEndpoints(world, place(`made-up-${index}/z${index}`))));
  expect(lists.size).toBe(1);
  expect(outboundEndpoints(world, place('eu/eu-1/a'))).toBe(outboundEndpoints(world, place('eu/eu-1/b')));

  const { encode } = createEncoder(build);
  const encoded = (from: string) => encode(world, nodeOf(world, undefined, { locality: place(from) })).get(ENDPOINTS)!;
  expect(encoded('eu/eu-1/a')).toBe(encoded('eu/eu-1/b'));
  const [near, far] = [encoded('eu/eu-1'), encoded('us/us-1')];
  const bytes = (list: typeof near, name: string) => list.find((resource) => resource.name.includes(name))!.bytes;
  expect(bytes(near, '||shop.')).not.toEqual(bytes(far, '||shop.'));
  // A service without the policy is the same object for all.
  expect(bytes(near, '||plain.')).toBe(bytes(far, '||plain.'));
});

test('priorities of every world and caller start at 0 and have no gap', () => {
  const part = fc.constantFrom('', 'a', 'b', 'c');
  const anyPlace = fc.tuple(part, part, part).map((parts) => parts.join('/'));
  const entry = fc.constantFrom('a', 'b', 'a/b', '/c', 'b/a/c');
  fc.assert(
    fc.property(
      fc.uniqueArray(anyPlace, { minLength: 1, maxLength: 6 }),
      anyPlace,
      fc.boolean(),
      fc.uniqueArray(entry, { minLength: 1, maxLength: 3 }),
      fc.constantFrom('sidecar' as const, 'grpc' as const),
      (places, from, byCaller, order, flavour) => {
        const world = worldAt(places, JSON.stringify({ localityFailover: byCaller, localityPriority: order }));
        const used = [...new Set(Object.values(seenFrom(world, from, flavour)))].sort((left, right) => left - right);
        expect(used).toEqual(used.map((_, index) => index));
      },
    ),
    { numRuns: 200, seed: 15 },
  );
});

test.each([
  ['[]', 'localityPriority'],
  ['[eu, eu]', 'must not name a place twice, received'],
  ['["a b"]', 'must be a place: region, region/zone or region/zone/subZone, without white space'],
  ['["eu/"]', 'must be a place'],
  ['[a/b/c/d]', 'must be a place'],
  ['[""]', 'must not be empty'],
])('localityPriority %s is refused with the rule', (list, rule) => {
  const { problems } = parseResources(
    `{ apiVersion: meshwork.dev/v1alpha1, kind: BackendPolicy, metadata: { name: a }, spec: { targetRefs: [{ kind: Service, name: a }], loadBalancing: { localityPriority: ${list} } } }`,
    { source: 'files' },
  );

  expect(problems).toHaveLength(1);
  expect(`${problems[0]!.field} ${problems[0]!.message}`).toContain(rule);
});
