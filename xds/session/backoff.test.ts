import { expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import { Backoff } from './backoff.ts';

test('rule 38: the bound doubles from 500 ms to 30 s, and a response begins it anew', () => {
  const backoff = new Backoff({ random: () => 0.999_999 });

  const bounds = Array.from({ length: 9 }, () => Math.round(backoff.nextMs()));
  expect(bounds).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);

  backoff.reset();
  expect(Math.round(backoff.nextMs())).toBe(500);
});

test('rule 38: the jitter is full: delays spread over the whole range down to nothing', () => {
  const random = seededRandom(7);
  const firsts = Array.from({ length: 1000 }, () => new Backoff({ random }).nextMs());

  expect(Math.min(...firsts)).toBeLessThan(10);
  expect(Math.max(...firsts)).toBeGreaterThan(490);
  expect(firsts.reduce((sum, ms) => sum + ms, 0) / 1000).toBeGreaterThan(225);
});
