import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { createChanges } from './changes.ts';
import type { ProxyProgress, TypeProgress } from './changes.ts';

function setUp() {
  const clock = new ManualClock();
  const progress = new Map<string, ProxyProgress>();
  const changes = createChanges({ clock, progressOf: (id) => progress.get(id) });
  const at = (id: string, types: Record<string, TypeProgress>, connected = true): void => {
    progress.set(id, { connected, types: new Map(Object.entries(types)) });
    changes.progressed();
  };
  return { clock, changes, at };
}

test('a change is pending until each proxy that it concerns has acknowledged the publish that holds it', () => {
  const { changes, at } = setUp();
  at('a', { CDS: { ackedThrough: 1 } });
  at('b', { CDS: { ackedThrough: 1 } });
  const id = changes.begin('api', ['HTTPRoute default/x']);
  expect(changes.get(id)).toMatchObject({ done: false, proxies: [] });
  changes.included(id, 2);
  changes.published(
    2,
    new Map([
      ['a', ['CDS']],
      ['b', ['CDS']],
      ['c', []],
    ]),
  );
  expect(changes.get(id)!.proxies.map((proxy) => [proxy.id, proxy.state])).toEqual([
    ['a', 'pending'],
    ['b', 'pending'],
    ['c', 'acked'],
  ]);
  at('a', { CDS: { ackedThrough: 2 } });
  expect(changes.get(id)!.done).toBe(false);
  at('b', { CDS: { ackedThrough: 3 } });
  expect(changes.get(id)).toMatchObject({ done: true, source: 'api', resources: ['HTTPRoute default/x'] });
});

test('an acknowledgement of an older publish does not count for a newer change', () => {
  const { changes, at } = setUp();
  const id = changes.begin('api', []);
  changes.included(id, 5);
  changes.published(5, new Map([['a', ['RDS']]]));
  at('a', { RDS: { ackedThrough: 4 } });
  expect(changes.get(id)!.proxies[0]!.state).toBe('pending');
});

test('a change that a coalesced, later publish holds is followed from there', () => {
  const { changes, at } = setUp();
  const id = changes.begin('files', []);
  changes.included(id, 2);
  changes.published(4, new Map([['a', ['EDS']]]));
  at('a', { EDS: { ackedThrough: 4 } });
  expect(changes.get(id)!.done).toBe(true);
});

test('a rejection of an older publish is not held against a newer change', () => {
  const { changes, at } = setUp();
  const id = changes.begin('api', []);
  changes.included(id, 3);
  changes.published(3, new Map([['a', ['LDS']]]));
  at('a', { LDS: { ackedThrough: 1, rejected: { publish: 2, message: 'old' } } });
  expect(changes.get(id)!.proxies[0]!.state).toBe('pending');
  at('a', { LDS: { ackedThrough: 1, rejected: { publish: 3, message: 'Listener x: no' } } });
  expect(changes.get(id)!.proxies[0]).toMatchObject({ state: 'rejected', message: 'Listener x: no' });
});

test('waiting ends when all have acknowledged, when one rejects, or when time is up', async () => {
  const { clock, changes, at } = setUp();
  const ids = [0, 1, 2].map(() => changes.begin('api', []));
  for (const [index, id] of ids.entries()) changes.included(id, index + 2);
  changes.published(2, new Map([['a', ['CDS']]]));
  at('a', { CDS: { ackedThrough: 1 } });
  const first = changes.wait(ids[0]!, 5000);
  at('a', { CDS: { ackedThrough: 2 } });
  clock.advance(10);
  expect((await first)!.done).toBe(true);
  changes.published(3, new Map([['a', ['CDS']]]));
  const second = changes.wait(ids[1]!, 5000);
  at('a', { CDS: { ackedThrough: 2, rejected: { publish: 3, message: 'no' } } });
  clock.advance(10);
  expect((await second)!.proxies[0]!.state).toBe('rejected');
  const third = changes.wait(ids[2]!, 5000);
  clock.advance(5000);
  expect((await third)!.done).toBe(false);
  expect(clock.pending).toBe(0);
  expect(await changes.wait('nonsense', 5000)).toBeUndefined();
});

test('a disconnected proxy stays pending and does not hold the change up', () => {
  const { changes, at } = setUp();
  const id = changes.begin('api', []);
  changes.included(id, 2);
  changes.published(2, new Map([['a', ['CDS']]]));
  at('a', {}, false);
  expect(changes.get(id)).toMatchObject({ done: true, proxies: [{ state: 'pending', message: expect.stringContaining('not connected') }] });
});

test('a change that changes nothing in the world is done at once', () => {
  const { changes } = setUp();
  changes.published(7, new Map());
  const id = changes.begin('api', []);
  changes.included(id, 7);
  expect(changes.get(id)).toMatchObject({ done: true, proxies: [] });
});

test('the last thousand changes are kept, the latest first', () => {
  const { changes } = setUp();
  const ids = Array.from({ length: 1005 }, () => changes.begin('api', []));
  expect(changes.list(3).map((change) => change.id)).toEqual(ids.slice(-3).reverse());
  expect(changes.list(2000)).toHaveLength(1000);
  expect(changes.get(ids[0]!)).toBeUndefined();
});
