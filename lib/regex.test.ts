import { expect, test } from '@jest/globals';
import { compileRegex, PATTERN_LENGTH_MAX } from './regex.ts';

test('a pattern matches the whole input or not at all', () => {
  const regex = compileRegex('/v[0-9]+/.*');

  expect(regex.matches('/v12/items')).toBe(true);
  expect(regex.matches('/v12')).toBe(false);
  expect(regex.matches('x/v12/items')).toBe(false);
});

test('groups are substituted by \\1 and a dollar sign stays literal', () => {
  expect(compileRegex('^/service/([^/]+)(/.*)$').replaceAll('/service/foo/v1/api', '\\2/instance/\\1')).toBe('/v1/api/instance/foo');
  expect(compileRegex('one').replaceAll('/xxx/one/yyy/one/zzz', 'two')).toBe('/xxx/two/yyy/two/zzz');
  expect(compileRegex('a').replaceAll('a', '$1\\\\')).toBe('$1\\');
});

test('a pattern beyond RE2, a broken one and an overlong one are refused with the reason', () => {
  expect(() => compileRegex('(?=a)b')).toThrow(/not an RE2 pattern/);
  expect(() => compileRegex('(a')).toThrow(/not an RE2 pattern/);
  expect(() => compileRegex('a'.repeat(PATTERN_LENGTH_MAX + 1))).toThrow(/at most 1024 characters, received 1025/);
});

test('R4 and case 98: a pattern that ruins a backtracking engine takes time linear in a 50 kB path', () => {
  const regex = compileRegex('(a+)+b');
  const time = (length: number): number => {
    const input = 'a'.repeat(length);
    let bestMs = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 5; i++) {
      const startMs = performance.now();
      expect(regex.matches(input)).toBe(false);
      bestMs = Math.min(bestMs, performance.now() - startMs);
    }
    return bestMs;
  };

  // Ten times the input may take ten times as long, and generously more for a noisy machine; backtracking would never end.
  expect(time(50_000)).toBeLessThan(Math.max(1, time(5_000)) * 60);
});
