/** Every rule of the protocol reference has a test that says its number: which ones, by side, is read out of the tests themselves. */
import { globSync, readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';

/** Numbered tests in files whose names match. */
function rulesIn(...patterns: readonly string[]): ReadonlySet<number> {
  const found = new Set<number>();
  for (const pattern of patterns)
    for (const file of globSync(pattern))
      for (const [, number] of readFileSync(file, 'utf8').matchAll(/\brule:? (\d+)\b/g)) found.add(Number(number));
  return found;
}

const upTo = (last: number): number[] => Array.from({ length: last }, (_, index) => index + 1);
const without = (numbers: readonly number[], known: ReadonlySet<number>): number[] => numbers.filter((number) => !known.has(number));

/** Rules that only bind a server, only bind a client, or bind neither of the two cores alone. */
const SERVER_ONLY = [5, 6, 9, 10, 11, 12, 23, 25, 35, 42, 48, 50];
const CLIENT_ONLY = [14, 15, 16, 17, 24, 29, 31, 32, 33, 34, 36, 37, 38, 39, 43, 46, 52];

test('each of the 52 rules has a test with its number', () => {
  expect(without(upTo(52), rulesIn('xds/**/*.test.ts', 'proxy/**/*.test.ts', 'control-plane/**/*.test.ts', 'test/**/*.test.ts'))).toEqual(
    [],
  );
});

test('each rule that binds a server is shown on the server', () => {
  const shown = rulesIn(
    'test/conformance/xds-server-*.test.ts',
    'control-plane/*.test.ts',
    'xds/services.test.ts',
    'xds/stream-hostile.test.ts',
  );
  // 44 is served by nobody here; 46 and 52 are between both ends.
  expect(without(upTo(51), shown).filter((rule) => !CLIENT_ONLY.includes(rule) && rule !== 44)).toEqual([]);
});

test('each rule that binds a client is shown on the client', () => {
  const shown = rulesIn(
    'test/conformance/xds-client-*.test.ts',
    'proxy/*.test.ts',
    'xds/stream-connection.test.ts',
    'xds/session/*.test.ts',
    'xds/services.test.ts',
  );
  expect(without(upTo(52), shown).filter((rule) => !SERVER_ONLY.includes(rule))).toEqual([]);
});
