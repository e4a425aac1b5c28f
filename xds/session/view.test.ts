import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE } from './type-urls.ts';
import { ConsistentView } from './view.ts';

/** Values are the names that they point at: a route at clusters, a listener at routes. */
function makeView() {
  const clock = new ManualClock();
  const batches: string[][] = [];
  const view = new ConsistentView<readonly string[]>({
    clock,
    references: (typeUrl, names) => names.map((name) => ({ typeUrl: typeUrl === LISTENER_TYPE ? ROUTE_TYPE : CLUSTER_TYPE, name })),
    onChange: (changes) => batches.push(changes.map(({ name, value }) => (value === undefined ? `-${name}` : name))),
    holdMsMax: 15_000,
  });
  return { clock, batches, view };
}

test('a listener and its route come into force with the cluster that they need, as one batch in the right order', () => {
  const { batches, view } = makeView();

  view.apply(LISTENER_TYPE, [['l', ['r']]], []);
  view.apply(ROUTE_TYPE, [['r', ['c']]], []);
  expect(batches).toEqual([]);
  expect(view.held().map(({ key, missing }) => [key.name, missing.map((one) => one.name)])).toEqual([
    ['l', ['r']],
    ['r', ['c']],
  ]);

  view.apply(CLUSTER_TYPE, [['c', []]], []);
  expect(batches).toEqual([['c', 'r', 'l']]);
  expect(view.held()).toEqual([]);
});

test('a removed cluster stays in force until the route leaves it, also when the new route waits for another', () => {
  const { batches, view } = makeView();
  view.apply(CLUSTER_TYPE, [['old', []]], []);
  view.apply(ROUTE_TYPE, [['r', ['old']]], []);
  batches.length = 0;

  view.apply(CLUSTER_TYPE, [], ['old']);
  view.apply(ROUTE_TYPE, [['r', ['new']]], []);
  expect(batches).toEqual([]);
  expect(view.get(ROUTE_TYPE, 'r')).toEqual(['old']);

  view.apply(CLUSTER_TYPE, [['new', []]], []);
  expect(batches).toEqual([['new', 'r', '-old']]);
});

test('a removal that is taken back before it came into force changes nothing', () => {
  const { batches, view } = makeView();
  const cluster: string[] = [];
  view.apply(CLUSTER_TYPE, [['c', cluster]], []);
  view.apply(ROUTE_TYPE, [['r', ['c']]], []);
  batches.length = 0;

  view.apply(CLUSTER_TYPE, [], ['c']);
  view.apply(CLUSTER_TYPE, [['c', cluster]], []);
  view.apply(ROUTE_TYPE, [], ['r']);

  expect(batches).toEqual([['-r']]);
  expect([...view.names(CLUSTER_TYPE)]).toEqual(['c']);
});

test('what waits for something that never comes is in force after the hold', () => {
  const { clock, batches, view } = makeView();
  view.apply(ROUTE_TYPE, [['r', ['ghost']]], []);

  clock.advance(14_999);
  expect(batches).toEqual([]);
  clock.advance(1);
  expect(batches).toEqual([['r']]);

  view.apply(CLUSTER_TYPE, [['ghost', []]], []);
  view.apply(CLUSTER_TYPE, [], ['ghost']);
  expect([...view.names(CLUSTER_TYPE)]).toEqual(['ghost']);
  view.apply(ROUTE_TYPE, [], ['r']);
  expect([...view.names(CLUSTER_TYPE)]).toEqual([]);
  expect(clock.pending).toBe(0);
});
