import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { Doorway } from './doorway.ts';
import type { Beginner } from './doorway.ts';

function crowd(count: number): { begun: number[]; beginners: Beginner[] } {
  const begun: number[] = [];
  return { begun, beginners: Array.from({ length: count }, (_, index) => ({ begin: () => void begun.push(index) })) };
}

test('a few begin at once, the others in order as places become free', () => {
  const clock = new ManualClock();
  const doorway = new Doorway(clock);
  const { begun, beginners } = crowd(40);
  for (const beginner of beginners) doorway.enter(beginner);
  expect(begun).toHaveLength(32);
  doorway.leave(beginners[35]!);
  doorway.leave(beginners[3]!);
  doorway.leave(beginners[3]!);
  doorway.leave(beginners[4]!);
  expect(begun.slice(32)).toEqual([32, 33]);
  for (const beginner of beginners) doorway.leave(beginner);
  expect(begun).toHaveLength(39);
  expect(begun).not.toContain(35);
  expect(clock.pending).toBe(0);
});

test('who sends nothing keeps nobody out', () => {
  const clock = new ManualClock();
  const doorway = new Doorway(clock);
  const { begun, beginners } = crowd(70);
  for (const beginner of beginners) doorway.enter(beginner);
  clock.advance(99);
  expect(begun).toHaveLength(32);
  clock.advance(1);
  expect(begun).toHaveLength(64);
  clock.advance(100);
  expect(begun).toHaveLength(70);
});
