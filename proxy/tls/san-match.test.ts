import { Buffer } from 'node:buffer';
import { expect, test } from '@jest/globals';
import { dnsSan, uriSan } from '../../certs/certificate.ts';
import type { San } from '../../certs/certificate.ts';
import { ipBytes } from '../../certs/ip.ts';
import type { SanMatch } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import { compileSanMatches, compileStringMatch, namesServer } from './san-match.ts';

const ip = (address: string): San => ({ type: 'IP_ADDRESS', bytes: ipBytes(address) });
const matches = (match: SanMatch, ...sans: San[]): boolean => compileSanMatches([match], 'x')!(sans);
const exact = (type: SanMatch['type'], value: string): SanMatch => ({ type, match: { kind: 'exact', value, ignoreCase: false } });

test.each([
  ['exact', 'abc', true],
  ['exact', 'abcd', false],
  ['prefix', 'ab', true],
  ['prefix', 'bc', false],
  ['suffix', 'bc', true],
  ['suffix', 'ab', false],
  ['contains', 'b', true],
  ['contains', 'x', false],
] as const)('%s %s on abc is %s', (kind, value, expected) => {
  expect(compileStringMatch({ kind, value, ignoreCase: false }, 'x')('abc')).toBe(expected);
  expect(compileStringMatch({ kind, value: value.toUpperCase(), ignoreCase: true }, 'x')('aBc')).toBe(expected);
  expect(compileStringMatch({ kind, value: value.toUpperCase(), ignoreCase: false }, 'x')('abc')).toBe(false);
});

test('a pattern matches the whole name, and one that is not RE2 is an error with its place', () => {
  expect(compileStringMatch({ kind: 'regex', value: 'a+' }, 'x')('aaa')).toBe(true);
  expect(compileStringMatch({ kind: 'regex', value: 'a+' }, 'x')('aab')).toBe(false);
  expect(() => compileSanMatches([exact('URI', 'a'), { type: 'URI', match: { kind: 'regex', value: '(?=a)' } }], 'cluster c')).toThrow(
    ConfigError,
  );
  expect(() => compileSanMatches([exact('URI', 'a'), { type: 'URI', match: { kind: 'regex', value: '(?=a)' } }], 'cluster c')).toThrow(
    /^cluster c\[1\]: /,
  );
});

test('no matcher at all is no test, and one of several is enough', () => {
  expect(compileSanMatches([], 'x')).toBeUndefined();
  const either = compileSanMatches([exact('URI', 'spiffe://a/b'), exact('DNS', 'c.test')], 'x')!;

  expect([either([uriSan('spiffe://a/b')]), either([dnsSan('d.test'), dnsSan('c.test')]), either([dnsSan('d.test')]), either([])]).toEqual([
    true,
    true,
    false,
    false,
  ]);
});

test('a matcher looks at names of its own type only', () => {
  expect(matches(exact('URI', 'a.test'), dnsSan('a.test'))).toBe(false);
  expect(matches(exact('DNS', 'a.test'), uriSan('a.test'))).toBe(false);
  expect(matches(exact('ANY', 'a.test'), dnsSan('a.test'))).toBe(true);
  expect(matches(exact('EMAIL', 'a@b.test'), { type: 'EMAIL', bytes: Buffer.from('a@b.test') })).toBe(true);
  expect(matches(exact('ANY', 'a.test'), { type: 'OTHER', bytes: Buffer.from('a.test') })).toBe(false);
});

test.each(['spiffe://a/b\0', 'spiffe://a/b\n', 'spiffe://a/b ', 'spiffe://a/b\u00e9'])(
  'a name with a byte that is no printable ASCII fits nothing, not even a prefix',
  (text) => {
    const san: San = { type: 'URI', bytes: Buffer.from(text, 'latin1') };

    expect(matches({ type: 'URI', match: { kind: 'prefix', value: 'spiffe://a/b', ignoreCase: false } }, san)).toBe(false);
    expect(matches({ type: 'ANY', match: { kind: 'regex', value: '.*' } }, san)).toBe(false);
    expect(matches(exact('URI', text), san)).toBe(false);
  },
);

test.each([
  ['*.example.test', 'a.example.test', true],
  ['*.example.test', 'A.Example.TEST', true],
  ['*.example.test', 'a.b.example.test', false],
  ['*.example.test', 'example.test', false],
  ['*.example.test', '.example.test', false],
  ['*.test', 'a.test', false],
  ['a*.example.test', 'ab.example.test', false],
  ['a.example.test', 'a.example.test', true],
  ['a.example.test', 'b.example.test', false],
])('a certificate for %s names %s: %s', (pattern, name, expected) => {
  expect(namesServer([dnsSan(pattern)], name)).toBe(expected);
  expect(matches(exact('DNS', name), dnsSan(pattern))).toBe(expected);
});

test('addresses are compared as bytes, however they are written', () => {
  expect(matches(exact('IP_ADDRESS', '127.0.0.1'), ip('127.0.0.1'))).toBe(true);
  expect(matches(exact('IP_ADDRESS', 'FD00:0::1'), ip('fd00::1'))).toBe(true);
  expect(matches({ type: 'IP_ADDRESS', match: { kind: 'prefix', value: '10.1.', ignoreCase: false } }, ip('10.1.2.3'))).toBe(true);
  expect(matches({ type: 'IP_ADDRESS', match: { kind: 'exact', value: 'nonsense', ignoreCase: false } }, ip('10.1.2.3'))).toBe(false);
  expect(namesServer([ip('::ffff:10.0.0.1')], '::ffff:a00:1')).toBe(true);
  expect(namesServer([ip('10.0.0.1')], '10.0.0.2')).toBe(false);
});
