import { expect, test } from '@jest/globals';
import type { EncodedResource } from '../xds/session/messages.ts';
import { CLUSTER_TYPE, ROUTE_TYPE } from '../xds/session/type-urls.ts';
import { NodeResourceSet } from './resource-set.ts';

function clusters(versions: Readonly<Record<string, string>>): ReadonlyMap<string, readonly EncodedResource[]> {
  return new Map([
    [
      CLUSTER_TYPE,
      Object.entries(versions).map(([name, version]) => ({ name, version, typeUrl: CLUSTER_TYPE, bytes: Buffer.from(version) })),
    ],
  ]);
}

test('equal content has equal versions whatever the order and the history', () => {
  const one = new NodeResourceSet(clusters({ a: '1', b: '2' }), undefined);
  const other = new NodeResourceSet(clusters({ b: '2', a: '1' }), new NodeResourceSet(clusters({ c: '3' }), undefined));
  expect(other.version(CLUSTER_TYPE)).toBe(one.version(CLUSTER_TYPE));
  expect(new NodeResourceSet(clusters({ a: '12', b: '' }), undefined).version(CLUSTER_TYPE)).not.toBe(one.version(CLUSTER_TYPE));
});

test('what differs from the set before is known by name', () => {
  const first = new NodeResourceSet(clusters({ a: '1', b: '1', c: '1' }), undefined);
  const second = new NodeResourceSet(clusters({ a: '1', b: '2', d: '1' }), first);
  expect(second.changedTypes).toEqual([CLUSTER_TYPE]);
  expect([...second.changedSince(CLUSTER_TYPE, first.version(CLUSTER_TYPE))!].sort()).toEqual(['b', 'c', 'd']);
  expect(second.changedSince(CLUSTER_TYPE, 'older')).toBeUndefined();
  expect([...second.changedSince(CLUSTER_TYPE, second.version(CLUSTER_TYPE))!]).toEqual([]);
  expect(second.changedSince(ROUTE_TYPE, second.version(ROUTE_TYPE))).toEqual([]);
});

test('an unchanged type stays the very same part', () => {
  const first = new NodeResourceSet(clusters({ a: '1' }), undefined);
  const second = new NodeResourceSet(clusters({ a: '1' }), first);
  expect(second.of(CLUSTER_TYPE)).toBe(first.of(CLUSTER_TYPE));
  expect(second.changedTypes).toEqual([]);
});

test('a type whose last resource went is changed once and then empty', () => {
  const first = new NodeResourceSet(clusters({ a: '1' }), undefined);
  const second = new NodeResourceSet(clusters({}), first);
  expect([...second.names(CLUSTER_TYPE)]).toEqual([]);
  expect(second.changedTypes).toEqual([CLUSTER_TYPE]);
  expect(second.version(CLUSTER_TYPE)).not.toBe(first.version(CLUSTER_TYPE));
  expect(new NodeResourceSet(clusters({}), second).changedTypes).toEqual([]);
});
