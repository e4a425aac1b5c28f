import { expect, test } from '@jest/globals';
import { setTimeout as delay } from 'node:timers/promises';
import { collectGarbage } from './heap.ts';
import { memo } from './memo.ts';

test.each<[string, object]>([
  ['an object', { name: 'a' }],
  ['an array', ['a']],
  ['a map', new Map([['a', 1]])],
  [
    'an instance',
    new (class {
      readonly name = 'a';
    })(),
  ],
  ['an object without a prototype', Object.create(null) as object],
])('remembers the last value of %s, and nobody sees it there', (_what, key) => {
  const lengths = memo<object, number>();
  const names = memo<object, string>();
  expect(lengths.get(key)).toBeUndefined();
  lengths.set(key, 1);
  lengths.set(key, 2);
  expect(lengths.get(key)).toBe(2);
  expect(names.get(key)).toBeUndefined();
  names.set(key, 'b');
  expect([lengths.get(key), names.get(key)]).toEqual([2, 'b']);
  expect(Reflect.ownKeys(key)).toEqual(Reflect.ownKeys(structuredCloneOf(key)));
});

/** The same without what was remembered. */
function structuredCloneOf(key: object): object {
  if (Array.isArray(key)) return [...(key as unknown[])];
  return key instanceof Map ? new Map(key) : Object.assign(Object.create(null) as object, key);
}

test('each object has its own value, and undefined is one', () => {
  const values = memo<object, string | undefined>();
  const [left, right] = [{}, {}];
  values.set(left, 'left');
  values.set(right, undefined);
  expect([values.get(left), values.get(right), values.get({})]).toEqual(['left', undefined, undefined]);
});

test('a value goes with its object', async () => {
  const values = memo<object, object>();
  let key: object | undefined = {};
  const value = new WeakRef({ large: true });
  values.set(key, value.deref()!);
  await delay(0);
  collectGarbage();
  expect(value.deref()).toBe(values.get(key));
  key = undefined;
  await delay(0);
  collectGarbage();
  expect(value.deref()).toBeUndefined();
});
