/** Header fields: order and case kept, looked up without it, and no value that breaks out of its line. */
import { expect, test } from '@jest/globals';
import { Headers, lowerName } from './headers.ts';

test('fields keep their order and case and are found by lower-case name', () => {
  const headers = Headers.of({ 'X-A': '1', Accept: '*/*' });
  headers.append('x-a', '2');

  expect(headers.get('x-a')).toBe('1');
  expect(headers.joined('x-a')).toBe('1,2');
  expect(headers.fields).toEqual(['X-A', 'x-a', '1', 'Accept', 'accept', '*/*', 'x-a', 'x-a', '2']);
  expect(headers.size).toBe(3);
});

test('set replaces the first and drops the others, and appends where there was none', () => {
  const headers = Headers.of({ 'X-A': '1', B: '2' });
  headers.append('x-a', '3');

  headers.set('X-a', '4');
  headers.set('C', '5');

  const seen: string[] = [];
  headers.forEach((name, value) => seen.push(`${name}=${value}`));
  expect(seen).toEqual(['X-A=4', 'B=2', 'C=5']);
});

test('a clone is independent, and removing takes all of a name', () => {
  const headers = Headers.of({ a: '1', b: '2' });
  headers.append('A', '3');
  const clone = headers.clone();

  headers.remove('a');

  expect(headers.has('a')).toBe(false);
  expect(clone.joined('a')).toBe('1,3');
});

test.each([
  ['x', 'a\r\nb: c'],
  ['x', 'a\nb'],
  ['x', 'a\0b'],
  ['x', 'a\u010ab'],
  ['x y', 'a'],
  ['x:', 'a'],
  ['', 'a'],
  ['x\r\ny', 'a'],
])('a filter cannot make the field %j: %j', (name, value) => {
  const headers = new Headers();

  expect(() => headers.append(name, value)).toThrow('cannot be a field');
  expect(() => headers.set(name, value)).toThrow('cannot be a field');
  expect(headers.size).toBe(0);
});

test('strangers cannot fill the cache of names', () => {
  for (let i = 0; i < 3_000; i++) expect(lowerName(`X-Stranger-${i}`)).toBe(`x-stranger-${i}`);
});
