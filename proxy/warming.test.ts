import { expect, test } from '@jest/globals';
import { EMPTY_SNAPSHOT } from '../xds/snapshot.ts';
import { warm } from './warming.ts';
import type { Want } from './warming.ts';
import type { Cluster, Listener, LoadAssignment, RouteConfiguration, Secret, Snapshot, VirtualHost } from '../xds/snapshot.ts';

// Only what warming looks at; the rest of a resource does not matter here.
const eds = (name: string, secret?: string): Cluster =>
  ({
    name,
    type: 'EDS',
    tlsMatches: [],
    ...(secret === undefined ? {} : { tls: { certificates: [{ kind: 'sds', name: secret }] } }),
  }) as unknown as Cluster;
const endpoints = (clusterName: string): LoadAssignment => ({ clusterName, localities: [] }) as unknown as LoadAssignment;
const route = (name: string, ...clusters: string[]): RouteConfiguration =>
  ({
    name,
    virtualHosts: [
      { routes: clusters.map((cluster) => ({ action: { kind: 'forward', target: { kind: 'cluster', cluster }, mirrors: [] } })) },
    ],
  }) as unknown as RouteConfiguration;
const host = (cluster: string): VirtualHost => route('', cluster).virtualHosts[0]!;
const listener = (name: string, rdsName: string): Listener =>
  ({ name, filterChains: [{ filters: [{ kind: 'http', http: { rdsName } }] }] }) as unknown as Listener;
const secret = (name: string): Secret => ({ name, content: { kind: 'certificate', chainPem: '', keyPem: '' } });

const byName = <T extends { name?: string; clusterName?: string }>(...items: T[]): Map<string, T> =>
  new Map(items.map((item) => [(item.name ?? item.clusterName)!, item]));

function snapshot(parts: {
  clusters?: Cluster[];
  endpoints?: LoadAssignment[];
  routes?: RouteConfiguration[];
  virtualHosts?: Record<string, VirtualHost>;
  listeners?: Listener[];
  secrets?: Secret[];
}): Snapshot {
  return {
    clusters: byName(...(parts.clusters ?? [])),
    endpoints: byName(...(parts.endpoints ?? [])),
    routes: byName(...(parts.routes ?? [])),
    virtualHosts: new Map(Object.entries(parts.virtualHosts ?? {})),
    listeners: byName(...(parts.listeners ?? [])),
    secrets: byName(...(parts.secrets ?? [])),
  };
}

const NONE: ReadonlySet<Want> = new Set();
const names = (snapshotPart: ReadonlyMap<string, unknown>): string[] => [...snapshotPart.keys()];

test('rule 37: a chain of needs is held back as a whole and told from the bottom', () => {
  const target = snapshot({ clusters: [eds('a')], routes: [route('r', 'a')], listeners: [listener('l', 'r')] });

  const held = warm(target, EMPTY_SNAPSHOT, NONE);

  expect([names(held.snapshot.clusters), names(held.snapshot.routes), names(held.snapshot.listeners)]).toEqual([[], [], []]);
  expect(Object.fromEntries(held.waiting)).toEqual({ 'cluster a': ['endpoints a'], 'route r': ['cluster a'], 'listener l': ['route r'] });
});

test('rule 37: it comes in force when the last need is met', () => {
  const target = snapshot({
    clusters: [eds('a')],
    endpoints: [endpoints('a')],
    routes: [route('r', 'a')],
    listeners: [listener('l', 'r')],
  });

  const warmed = warm(target, EMPTY_SNAPSHOT, NONE);

  expect(names(warmed.snapshot.listeners)).toEqual(['l']);
  expect(warmed.waiting.size).toBe(0);
});

test('rule 35: a changed route keeps its old version until its new cluster is warm', () => {
  const old = route('r', 'a');
  const applied = snapshot({ clusters: [eds('a')], endpoints: [endpoints('a')], routes: [old], listeners: [listener('l', 'r')] });
  const target = { ...applied, clusters: new Map([...applied.clusters, ['b', eds('b')]]), routes: byName(route('r', 'b')) };

  expect(warm(target, applied, NONE).snapshot.routes.get('r')).toBe(old);
  expect(
    warm({ ...target, endpoints: new Map([...applied.endpoints, ['b', endpoints('b')]]) }, applied, NONE).snapshot.routes.get('r'),
  ).toBe(target.routes.get('r'));
});

test('rule 31: a removed cluster stays while a route in force names it, and goes when it was waited for long enough', () => {
  const applied = snapshot({
    clusters: [eds('a')],
    endpoints: [endpoints('a')],
    routes: [route('r', 'a')],
    listeners: [listener('l', 'r')],
  });
  const target = { ...applied, clusters: new Map(), endpoints: new Map() };

  const kept = warm(target, applied, NONE);
  const gone = warm(target, applied, new Set<Want>(['removal a']));

  expect(kept.snapshot.clusters.get('a')).toBe(applied.clusters.get('a'));
  expect(kept.snapshot.endpoints.get('a')).toBe(applied.endpoints.get('a'));
  expect(kept.waiting.get('removal of cluster a')).toEqual(['removal a']);
  expect(names(gone.snapshot.clusters)).toEqual([]);
});

test('rule 34: clusters wait for secrets too, and what was given up is gone without', () => {
  const target = snapshot({ clusters: [eds('a', 'cert')], endpoints: [endpoints('a')] });

  expect(warm(target, EMPTY_SNAPSHOT, NONE).waiting.get('cluster a')).toEqual(['secret cert']);
  expect(names(warm(target, EMPTY_SNAPSHOT, new Set<Want>(['secret cert'])).snapshot.clusters)).toEqual(['a']);
});

test('rule 33: a route that its listener still needs stays after it was removed', () => {
  const applied = snapshot({
    clusters: [eds('a')],
    endpoints: [endpoints('a')],
    routes: [route('r', 'a')],
    listeners: [listener('l', 'r')],
  });

  expect(names(warm({ ...applied, routes: new Map() }, applied, NONE).snapshot.routes)).toEqual(['r']);
});

test('secrets that did not change are the same map, so that nothing is built anew', () => {
  const applied = snapshot({ secrets: [secret('s')] });

  expect(warm({ ...applied, secrets: new Map(applied.secrets) }, applied, NONE).snapshot.secrets).toBe(applied.secrets);
  expect(warm({ ...applied, secrets: byName(secret('s')) }, applied, NONE).snapshot.secrets).not.toBe(applied.secrets);
  expect(names(warm({ ...applied, secrets: new Map() }, applied, NONE).snapshot.secrets)).toEqual([]);
});

test('rule 32: a cluster is in force only with its endpoints; one that is changed keeps its old form until the new one is warm', () => {
  const old = eds('a');
  const applied = snapshot({ clusters: [old], endpoints: [endpoints('a')] });
  const changed: Cluster = { ...eds('a'), edsServiceName: 'other' };

  const held = warm(snapshot({ clusters: [changed], endpoints: [endpoints('a')] }), applied, NONE);
  expect(held.snapshot.clusters.get('a')).toBe(old);
  expect(held.waiting.get('cluster a')).toEqual(['endpoints other']);
  // Changed again while it warms: it goes on warming.
  const again = warm(snapshot({ clusters: [{ ...changed, altStatName: 'x' }], endpoints: [endpoints('a')] }), held.snapshot, NONE);
  expect(again.snapshot.clusters.get('a')).toBe(old);

  const warmed = warm(snapshot({ clusters: [changed], endpoints: [endpoints('a'), endpoints('other')] }), held.snapshot, NONE);
  expect(warmed.snapshot.clusters.get('a')).toBe(changed);
});

test('rule 33: a listener waits for its route, takes one that is there already, and may be replaced while it waits', () => {
  const first = warm(snapshot({ listeners: [listener('l', 'r')] }), EMPTY_SNAPSHOT, NONE);
  expect(first.waiting.get('listener l')).toEqual(['route r']);

  const other = listener('l', 's');
  const replaced = warm(snapshot({ listeners: [other], routes: [route('s')] }), first.snapshot, NONE);
  expect(replaced.snapshot.listeners.get('l')).toBe(other);
  expect(replaced.waiting.size).toBe(0);
});

test('rule 34: two clusters that wait for one secret are both in force when it comes', () => {
  const clusters = [eds('a', 'shared'), eds('b', 'shared')];
  const target = { clusters, endpoints: [endpoints('a'), endpoints('b')] };

  const held = warm(snapshot(target), EMPTY_SNAPSHOT, NONE);
  expect(Object.fromEntries(held.waiting)).toEqual({ 'cluster a': ['secret shared'], 'cluster b': ['secret shared'] });

  expect(names(warm(snapshot({ ...target, secrets: [secret('shared')] }), held.snapshot, NONE).snapshot.clusters)).toEqual(['a', 'b']);
});

test('a virtual host waits for its own clusters and holds up no other; a cluster stays for as long as one in force names it', () => {
  const [ready, waits] = [host('a'), host('b')];
  const target = snapshot({ clusters: [eds('a'), eds('b')], endpoints: [endpoints('a')], virtualHosts: { 'r/a': ready, 'r/b': waits } });
  const warmed = warm(target, EMPTY_SNAPSHOT, NONE);

  expect([...warmed.snapshot.virtualHosts]).toEqual([['r/a', ready]]);
  expect(warmed.waiting.get('virtual host r/b')).toEqual(['cluster b']);
  const moved = snapshot({ clusters: [eds('b')], virtualHosts: { 'r/a': host('b') } });
  const next = warm(moved, warmed.snapshot, NONE).snapshot;
  expect([...next.virtualHosts]).toEqual([['r/a', ready]]);
  expect(names(next.clusters)).toEqual(['a']);
});
