import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { SentTable } from './sent-table.ts';
import type { Sent } from './sent-table.ts';
import { Subscription } from './subscription.ts';
import { testResource, testSet } from './testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE } from './type-urls.ts';

const NAMES = ['a', 'b', 'c', 'd'];
const name = fc.constantFrom(...NAMES);
const step = fc.oneof(
  fc.record({ do: fc.constant('set' as const), name, version: fc.constantFrom('1', '2') }),
  fc.record({ do: fc.constant('delete' as const), name }),
  fc.record({ do: fc.constant('rebase' as const), held: fc.uniqueArray(name), wanted: fc.uniqueArray(name), wildcard: fc.boolean() }),
);

test('it holds what a plain map would, whatever of it is shared', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const table = new SentTable(CLUSTER_TYPE);
      const plain = new Map<string, Sent>();
      for (const one of steps) {
        if (one.do === 'set') {
          table.set(one.name, { version: one.version });
          plain.set(one.name, { version: one.version });
        } else if (one.do === 'delete') {
          table.delete(one.name);
          plain.delete(one.name);
        } else {
          const set = testSet(one.held.map((held) => testResource(CLUSTER_TYPE, held)));
          const scope = { wildcard: one.wildcard, names: new Set(one.wanted) };
          table.rebase(set, scope);
          plain.clear();
          for (const held of one.held) if (one.wildcard || scope.names.has(held)) plain.set(held, set.get(CLUSTER_TYPE, held)!);
          expect(table.isAllOf(set, scope)).toBe(true);
        }
        expect(new Map(table.entries())).toEqual(plain);
        for (const each of NAMES) expect(table.get(each)?.version).toBe(plain.get(each)?.version);
      }
    }),
  );
});

test('streams that ask for the same names hold one list, and a stream that asks for more makes its own', () => {
  const all: ReadonlySet<string> = new Set(NAMES);
  const [first, second] = [NAMES, NAMES.toReversed()].map((names) => {
    const subscription = new Subscription(ENDPOINT_TYPE, 10, { leftChars: 10_000, strangeChars: 0 });
    subscription.adjust(names, [], true);
    subscription.share(all);
    return subscription;
  });
  expect(first!.names).toBe(all);
  expect(second!.names).toBe(all);
  const before = first!.scope;
  first!.adjust(['e'], ['a'], false);
  expect([...first!.names].sort()).toEqual(['b', 'c', 'd', 'e']);
  expect([...before.names].sort()).toEqual(NAMES);
  expect(second!.names).toBe(all);
  expect(all.size).toBe(NAMES.length);
  first!.share(all);
  expect(first!.names).not.toBe(all);
});
