import { expect, test } from '@jest/globals';
import { ManualClock } from './clock.ts';
import { SLICE_MS, inSlices } from './slices.ts';

test('steps are taken at once while they are cheap, and wait for a turn after each slice', async () => {
  const clock = new ManualClock();
  const taken: number[] = [];
  const steps = function* (): Generator<void, string> {
    for (let step = 0; step < 6; step++) {
      taken.push(step);
      clock.advance(SLICE_MS / 2);
      yield;
    }
    return 'all';
  };
  const done = inSlices(clock, steps());
  expect(taken).toEqual([0, 1]);
  clock.advance(0);
  await Promise.resolve();
  expect(taken).toEqual([0, 1, 2, 3]);
  clock.advance(0);
  await Promise.resolve();
  expect(taken).toEqual([0, 1, 2, 3, 4, 5]);
  clock.advance(0);
  await expect(done).resolves.toBe('all');
});

test('what a step throws is the rejection', async () => {
  const steps = function* (): Generator<void, void> {
    yield;
    throw new Error('broken');
  };
  await expect(inSlices(new ManualClock(), steps())).rejects.toThrow('broken');
});
