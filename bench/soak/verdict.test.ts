/** The soak's verdict on readings of memory. */
import { expect, test } from '@jest/globals';
import { verdictOf } from './verdict.ts';

const series = (rssMiB: (i: number) => number): { requests: number; rssMiB: number }[] =>
  Array.from({ length: 100 }, (_, i) => ({ requests: (i + 1) * 1_000, rssMiB: rssMiB(i) }));

test('a series that breathes around a level is flat, whatever its start was', () => {
  const verdict = verdictOf(series((i) => (i < 40 ? 60 + i : 100 + (i % 7))));

  expect(verdict.flat).toBe(true);
  expect(verdict.mostMiB).toBe(106);
});

test('a series that climbs to its end is not', () => {
  const verdict = verdictOf(series((i) => 80 + i / 4));

  expect(verdict.flat).toBe(false);
  expect(verdict.growthMiB).toBeCloseTo(6.25, 1);
});

test('too few readings say nothing', () => {
  expect(() => verdictOf(series(() => 1).slice(0, 8))).toThrow(
    'a verdict needs 3 readings in each of the last quarters, there are 2 and 2',
  );
});
