import { expect, test } from '@jest/globals';
import { Pace } from './pace.ts';
import { DEFAULT_SETTINGS } from './settings.ts';

test('a connection is not cut while a slow reader still takes the end of its last answer', () => {
  const pace = new Pace({ ...DEFAULT_SETTINGS, streamIdleTimeoutMs: 60_000 }, 0);

  expect(pace.isLastOver(999, 1_000, 0)).toBe(false);
  expect(pace.isLastOver(1_000, 1_000, 40_000)).toBe(false);
  expect(pace.isLastOver(50_000, 1_000, 30_000)).toBe(false);
  expect(pace.isLastOver(109_000, 1_000, 30_000)).toBe(false);
  expect(pace.isLastOver(110_000, 1_000, 30_000)).toBe(true);
});

test('it is cut once nothing waits any more', () => {
  const pace = new Pace({ ...DEFAULT_SETTINGS, streamIdleTimeoutMs: 60_000 }, 0);

  expect(pace.isLastOver(5_000, 1_000, 10)).toBe(false);
  expect(pace.isLastOver(5_200, 1_000, 0)).toBe(true);
});

test('a body of known length may be slow for a while, not for ever; one of unknown length may', () => {
  const pace = new Pace({ ...DEFAULT_SETTINGS, bodyBytesPerSecondMin: 100 }, 0);

  expect(pace.isBodySlow(19_999, 0, 5_000, 0)).toBe(false);
  expect(pace.isBodySlow(20_000, 0, 5_000, 1_999)).toBe(true);
  expect(pace.isBodySlow(20_000, 0, 5_000, 2_000)).toBe(false);
  expect(pace.isBodySlow(20_000, 0, undefined, 0)).toBe(false);
  pace.readingResumes(20_000, 1_999);
  expect(pace.isBodySlow(30_000, 0, 5_000, 1_999)).toBe(false);
});
