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
  expect(begun).toHaveLength(16);
  doorway.leave(beginners[35]!);
  doorway.leave(beginners[3]!);
  doorway.leave(beginners[3]!);
  doorway.leave(beginners[4]!);
  expect(begun.slice(16)).toEqual([16, 17]);
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
  expect(begun).toHaveLength(16);
  clock.advance(1);
  expect(begun).toHaveLength(32);
  clock.advance(100);
  expect(begun).toHaveLength(48);
});

test('who has begun keeps its place until it has sent nothing for a while', () => {
  const clock = new ManualClock();
  const doorway = new Doorway(clock);
  const { begun, beginners } = crowd(17);
  for (const beginner of beginners) doorway.enter(beginner);
  for (let request = 0; request < 10; request++) {
    clock.advance(29);
    for (const beginner of beginners.slice(0, 16)) doorway.taken(beginner);
  }
  expect(begun).toHaveLength(16);
  clock.advance(30);
  expect(begun).toHaveLength(17);
  doorway.taken(beginners[0]!);
  expect(clock.pending).toBe(1);
});
