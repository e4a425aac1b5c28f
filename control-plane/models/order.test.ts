import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { patched } from './order.ts';

const numbered = (count: number): Map<string, number> =>
  new Map(Array.from({ length: count }, (_, index) => [`key-${String(index).padStart(5, '0')}`, index]));

/** `toEqual` takes a second for all of these. */
const same = (left: unknown, right: unknown): void => expect(JSON.stringify(left) === JSON.stringify(right)).toBe(true);

test('a large map of which some values change gives what a copy would, however often, and keeps the one before as it was', () => {
  const patches = fc.array(fc.array(fc.tuple(fc.nat({ max: 2_100 }), fc.option(fc.nat(), { nil: undefined })), { maxLength: 80 }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(patches, (all) => {
      let map: ReadonlyMap<string, number> = numbered(2_080);
      let model = [...map];
      for (const patch of all) {
        const changes = new Map(patch.map(([at, value]) => [`key-${String(at).padStart(5, '0')}`, value]));
        const before = model;
        const next = patched(map, changes);
        const entries = new Map(model);
        for (const [key, value] of changes) {
          if (value === undefined) entries.delete(key);
          else entries.set(key, value);
        }
        model = [...entries].sort(([left], [right]) => (left < right ? -1 : 1));
        same([...map], before);
        map = next;
        same([...map], model);
        same(
          [...map.keys()],
          model.map(([key]) => key),
        );
        same(
          [...map.values()],
          model.map(([, value]) => value),
        );
        expect(map.size).toBe(model.length);
        for (const key of changes.keys()) expect([map.has(key), map.get(key)]).toEqual([entries.has(key), entries.get(key)]);
        const visited: [string, number][] = [];
        map.forEach((value, key) => visited.push([key, value]));
        same(visited, model);
      }
    }),
    { numRuns: 40 },
  );
});

test('many small changes of values of a large map cost no pass over it', () => {
  let map: ReadonlyMap<string, number> = numbered(50_000);
  const startMs = performance.now();
  for (let round = 0; round < 2_000; round++) map = patched(map, new Map([['key-00007', -round]]));
  const patchedMs = performance.now() - startMs;
  const copyMs = performance.now();
  for (let round = 0; round < 20; round++) map = new Map(map);
  expect(patchedMs / 2_000).toBeLessThan((performance.now() - copyMs) / 20 / 10);
});

test('nothing to do is the map itself', () => {
  const map = numbered(3_000);
  expect(patched(map, new Map([['key-00001', 1]]))).toBe(map);
});
