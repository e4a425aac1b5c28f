/** Sweeps: one timer for all members, none when there are none. */
import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { SWEEP_MS, sweepOf } from './sweep.ts';

test('members hear the time at each sweep, and the timer goes with the last of them', () => {
  const clock = new ManualClock();
  const sweep = sweepOf(clock);
  const heard: number[] = [];
  const member = { sweep: (nowMs: number) => void heard.push(nowMs) };

  sweep.add(member);
  clock.advance(SWEEP_MS * 3);
  sweep.remove(member);
  clock.advance(SWEEP_MS * 3);

  expect(heard).toEqual([SWEEP_MS, SWEEP_MS * 2, SWEEP_MS * 3]);
  expect(clock.pending).toBe(0);
});

test('a member may take itself off while it is swept', () => {
  const clock = new ManualClock();
  const sweep = sweepOf(clock);
  let swept = 0;
  const member = {
    sweep: (): void => {
      swept++;
      sweep.remove(member);
    },
  };

  sweep.add(member);
  clock.advance(SWEEP_MS * 5);

  expect(swept).toBe(1);
  expect(clock.pending).toBe(0);
});

test('one clock has one sweep', () => {
  const clock = new ManualClock();

  expect(sweepOf(clock)).toBe(sweepOf(clock));
  expect(sweepOf(new ManualClock())).not.toBe(sweepOf(clock));
});
