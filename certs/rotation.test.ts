import { expect, test } from '@jest/globals';
import { expiryState, renewAtMs, renewalDelayMs, rootStep } from './rotation.ts';
import { seededRandom } from '../lib/random.ts';

const leaf = { notBeforeMs: 0, notAfterMs: 1_000_000 };

test('S3 a leaf is renewed at half of its life, give or take one percent', () => {
  const random = seededRandom(1);
  const moments = Array.from({ length: 10_000 }, () => renewAtMs(leaf, random));

  expect(Math.min(...moments)).toBeGreaterThanOrEqual(490_000);
  expect(Math.max(...moments)).toBeLessThan(510_000);
  expect(Math.max(...moments) - Math.min(...moments)).toBeGreaterThan(19_000);
  expect([renewAtMs(leaf, () => 0), renewAtMs(leaf, () => 0.5)]).toEqual([490_000, 500_000]);
});

test('the wait for a renewal counts from now and is never negative', () => {
  expect(renewalDelayMs(leaf, 100_000, () => 0.5)).toBe(400_000);
  expect(renewalDelayMs(leaf, 600_000, () => 0.5)).toBe(0);
});

test('a certificate is renewed, then urgent, then expired', () => {
  expect([0, 509_999, 510_001, 750_000, 750_001, 999_999, 1_000_000].map((nowMs) => expiryState(leaf, nowMs))).toEqual([
    'fine',
    'fine',
    'renewalDue',
    'renewalDue',
    'urgent',
    'urgent',
    'expired',
  ]);
});

test('a short root changes at five sixths, a long one a week before its end', () => {
  const dayMs = 86_400_000;
  const long = { notBeforeMs: 0, notAfterMs: 3650 * dayMs };
  const short = { notBeforeMs: 0, notAfterMs: 6 * dayMs };

  expect([0, 2.9, 3, 4.9, 5].map((days) => rootStep(short, days * dayMs))).toEqual(['none', 'none', 'prepare', 'prepare', 'activate']);
  expect([1824, 1825, 3642, 3643].map((days) => rootStep(long, days * dayMs))).toEqual(['none', 'prepare', 'prepare', 'activate']);
});
