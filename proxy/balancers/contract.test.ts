import { expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import { xxHash64BigInt } from '../../lib/xxhash64.ts';
import { fakeEndpoint, fakeInfo, fakeRequest } from '../upstream/fakes.ts';
import { BALANCERS } from './index.ts';
import type { BalancerKind } from './kind.ts';

const KINDS = Object.entries(BALANCERS) as [string, BalancerKind][];
const keyed = (i: number) => fakeRequest({ info: fakeInfo({ hash: xxHash64BigInt(`user-${i}`) }) });

/** Counts picks by key over requests with different hashes. */
function shares(kind: BalancerKind, weights: Readonly<Record<string, number>>, picks: number): Record<string, number> {
  const endpoints = Object.keys(weights).map((key) => fakeEndpoint(key, { weight: weights[key]! }));
  const picker = kind.compile({}, 'lb')(endpoints, seededRandom(11));
  const counts: Record<string, number> = {};
  for (let i = 0; i < picks; i++) {
    const key = picker(keyed(i))!.key;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

test.each(KINDS)('%s answers undefined when there is nobody', (_name, kind) => {
  expect(kind.compile({}, 'lb')([], seededRandom(1))(keyed(0))).toBeUndefined();
});

test.each(KINDS)('%s always answers the only endpoint', (_name, kind) => {
  expect(shares(kind, { 'a:1': 7 }, 100)).toEqual({ 'a:1': 100 });
});

test.each(KINDS)('%s gives equal endpoints nearly equal shares', (_name, kind) => {
  const counts = shares(kind, { 'a:1': 1, 'b:1': 1, 'c:1': 1, 'd:1': 1 }, 8000);
  for (const key of ['a:1', 'b:1', 'c:1', 'd:1']) expect(Math.abs(counts[key]! / 2000 - 1)).toBeLessThan(0.15);
});

test.each(KINDS)('W3 %s never picks an endpoint of weight 0', (_name, kind) => {
  const counts = shares(kind, { 'a:1': 0, 'b:1': 1, 'c:1': 3, 'd:1': 0 }, 4000);
  expect(Object.keys(counts).sort()).toEqual(['b:1', 'c:1']);
});

test.each(KINDS)('%s gives more weight the larger share', (_name, kind) => {
  const counts = shares(kind, { 'a:1': 1, 'b:1': 3 }, 4000);
  expect(counts['b:1']! / counts['a:1']!).toBeGreaterThan(2);
});

test.each(KINDS)('%s works without a hash and with a thousand endpoints', (_name, kind) => {
  const endpoints = Array.from({ length: 1000 }, (_, i) => fakeEndpoint(`10.0.${i >> 8}.${i & 255}:80`, { weight: 1 + (i % 3) }));
  const picker = kind.compile({}, 'lb')(endpoints, seededRandom(5));
  const seen = new Set<string>();
  for (let i = 0; i < 10_000; i++) seen.add(picker(fakeRequest())!.key);
  expect(seen.size).toBeGreaterThan(endpoints.length / 4);
});
