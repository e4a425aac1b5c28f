/** Path normalisation, row by row and as the settings say. */
import { expect, test } from '@jest/globals';
import { normalisedPath, redirectWanted } from './path.ts';
import type { PathSettings } from './path.ts';

const ALL: PathSettings = { normalizePath: true, mergeSlashes: true, pathWithEscapedSlashes: 'REJECT_REQUEST' };

test.each([
  ['/', '/'],
  ['/a/b?c=/../d', '/a/b?c=/../d'],
  ['/a/../b', '/b'],
  ['/a/./b/.', '/a/b/'],
  ['/a/b/..', '/a/'],
  ['/..', '/'],
  ['/../../a', '/a'],
  ['//a///b', '/a/b'],
  ['/a/%2e%2E/b', '/b'],
  ['/%41%7e%2d', '/A~-'],
  ['/a%20b%C3%A9', '/a%20b%C3%A9'],
  ['/a%252e/b', '/a%252e/b'],
  ['/.hidden/..x/...', '/.hidden/..x/...'],
  ['/a//../b', '/a/b'],
])('%s becomes %s', (path, normal) => {
  expect(normalisedPath(path, ALL)).toBe(normal);
});

test.each(['/%', '/%2', '/%zz', '/%00', '/a?%0', '/a?b=%00', '/a%2Fb', '/a%5cb', '/a/..;/b', '/.;x/b'])('%s is refused', (path) => {
  expect(() => normalisedPath(path, ALL)).toThrow('not valid HTTP');
});

test('each setting does its own part and no other', () => {
  expect(normalisedPath('/a/../b//c', { ...ALL, normalizePath: false })).toBe('/a/../b/c');
  expect(normalisedPath('/a/../b//c', { ...ALL, mergeSlashes: false })).toBe('/b//c');
  expect(normalisedPath('/%61', { ...ALL, normalizePath: false })).toBe('/%61');
});

test('escaped slashes are kept, or unescaped before dot segments go, or unescaped with a redirect', () => {
  expect(normalisedPath('/a%2fb', { ...ALL, pathWithEscapedSlashes: 'KEEP_UNCHANGED' })).toBe('/a%2fb');
  expect(normalisedPath('/a%2f..%5cb', { ...ALL, pathWithEscapedSlashes: 'UNESCAPE_AND_FORWARD' })).toBe('/b');
  expect(redirectWanted).toBe(false);
  expect(normalisedPath('/a%2fb', { ...ALL, pathWithEscapedSlashes: 'UNESCAPE_AND_REDIRECT' })).toBe('/a/b');
  expect(redirectWanted).toBe(true);
  normalisedPath('/x', ALL);
  expect(redirectWanted).toBe(false);
});
