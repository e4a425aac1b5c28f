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

test('many members are swept in parts, each once in the time of a sweep, those that join included', () => {
  const clock = new ManualClock();
  const sweep = sweepOf(clock);
  let swept = 0;
  const members = Array.from({ length: 1_000 }, () => ({ sweep: (): void => void swept++ }));
  for (const member of members) sweep.add(member);
  // The first wait was chosen when there was one member.
  clock.advance(SWEEP_MS);
  swept = 0;

  const parts: number[] = [];
  for (let i = 0; i < 10; i++) {
    const before = swept;
    clock.advance(SWEEP_MS / 10);
    parts.push(swept - before);
  }

  expect(swept).toBeGreaterThanOrEqual(900);
  expect(swept).toBeLessThanOrEqual(1_000);
  expect(Math.max(...parts)).toBeLessThanOrEqual(100);
  for (const member of members) sweep.remove(member);
  expect(clock.pending).toBe(0);
});

test('when all members fall due together and each takes long, a part gives way to other work, and none is forgotten', () => {
  let nowMs = 0;
  let waitedMs = 0;
  const timers: (() => void)[] = [];
  const after = (ms: number, fn: () => void) => {
    timers.push(() => {
      nowMs += ms;
      waitedMs = ms;
      fn();
    });
    return () => undefined;
  };
  const clock = { now: () => nowMs, wallMs: () => 0, after, afterUnheld: after };
  const sweep = sweepOf(clock);
  const swept = new Set<number>();
  let most = 0;
  Array.from({ length: 640 }, (_, i) => i).forEach((i) =>
    sweep.add({
      sweep: () => {
        nowMs += 1;
        swept.add(i);
      },
    }),
  );

  for (let i = 0; i < 200; i++) {
    const startMs = nowMs;
    timers.shift()!();
    // The wait before a part is that of a part or a rest; what is beyond it was sweeping.
    if (i > 0) most = Math.max(most, nowMs - startMs - waitedMs);
  }

  expect(swept.size).toBe(640);
  expect(most).toBeLessThanOrEqual(4);
});

test('one clock has one sweep', () => {
  const clock = new ManualClock();

  expect(sweepOf(clock)).toBe(sweepOf(clock));
  expect(sweepOf(new ManualClock())).not.toBe(sweepOf(clock));
});
