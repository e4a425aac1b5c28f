import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { createMemoryStore } from '../store/memory.ts';
import { RECORD_BYTES_MAX, StoreFullError } from '../store/store.ts';
import type { Store } from '../store/store.ts';
import type { Resource } from '../world.ts';
import { createApiSource } from './api.ts';
import type { ApiSource } from './api.ts';

function service(name: string, note = ''): Resource {
  const metadata = { name, namespace: 'default', labels: {}, annotations: {} };
  return { apiVersion: 'v1', kind: 'Service', metadata, spec: { note }, origin: { source: 'api' } };
}

const TOO_LARGE = 'x'.repeat(RECORD_BYTES_MAX);

interface Started {
  readonly clock: ManualClock;
  readonly api: ApiSource;
  readonly store: Store;
  readonly transactions: () => number;
}

function start(): Started {
  const memory = createMemoryStore();
  let transactions = 0;
  const store: Store = {
    ...memory,
    transaction: (work) => {
      transactions++;
      return memory.transaction(work);
    },
  };
  let changes = 0;
  const change = (): { id: string; taken: () => void } => ({ id: String(++changes), taken: () => undefined });
  const clock = new ManualClock();
  return { clock, api: createApiSource({ clock, store, change }), store, transactions: () => transactions };
}

test('writes of one turn are one transaction, each with a change of its own', async () => {
  const { api, store, transactions } = start();
  const ids = await Promise.all(['b', 'a', 'c'].map((name) => api.write([{ put: service(name) }])));
  expect(ids).toEqual(['1', '2', '3']);
  expect(transactions()).toBe(1);
  expect(api.list().map((resource) => resource.metadata.name)).toEqual(['a', 'b', 'c']);
  expect(store.list('resources').map(({ key }) => key)).toEqual(['Service/default/a', 'Service/default/b', 'Service/default/c']);
});

test('conditions are checked against what the turn will store, readers see what is stored', async () => {
  const { api } = start();
  await api.write([{ put: service('a') }]);
  const writing = api.write([{ delete: 'Service/default/a' }, { put: service('b') }]);
  expect(api.upcoming('Service/default/a')).toBeUndefined();
  expect(api.upcoming('Service/default/b')).toBeDefined();
  expect(api.get('Service/default/a')).toBeDefined();
  expect(api.get('Service/default/b')).toBeUndefined();
  await writing;
  expect(api.get('Service/default/a')).toBeUndefined();
  expect(api.get('Service/default/b')).toBeDefined();
});

test('a write that the store refuses fails alone, with those that built on it', async () => {
  const { api, store } = start();
  const results = await Promise.allSettled([
    api.write([{ put: service('fine') }]),
    api.write([{ put: service('half') }, { put: service('large', TOO_LARGE) }]),
    api.write([{ put: service('half', 'again') }]),
    api.write([{ put: service('other') }]),
  ]);
  expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
  expect((results[1] as PromiseRejectedResult).reason).toBeInstanceOf(StoreFullError);
  expect(store.list('resources').map(({ key }) => key)).toEqual(['Service/default/fine', 'Service/default/other']);
  expect(api.list().map((resource) => resource.metadata.name)).toEqual(['fine', 'other']);
  await expect(api.write([{ put: service('large', TOO_LARGE) }])).rejects.toBeInstanceOf(StoreFullError);
});

test('who waits for the catalog goes on when it has taken in what was written, also where writes are handed over a while later', async () => {
  const { clock, api } = start();
  await api.caughtUp();
  const stop = new AbortController();
  const taken: string[][] = [];
  const watching = (async () => {
    for await (const { resources } of api.source.watch(stop.signal)) taken.push(resources.map((resource) => resource.metadata.name));
  })();
  await api.caughtUp();
  expect(taken).toEqual([[]]);

  await api.write([{ put: service('a') }]);
  let caughtUp = false;
  const waiting = api.caughtUp().then(() => (caughtUp = true));
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  expect([caughtUp, taken.length]).toEqual([false, 1]);
  clock.advance(20);
  await waiting;
  expect(taken).toEqual([[], ['a']]);

  stop.abort();
  await watching;
  await api.caughtUp();
});
