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
  expect(begun).toHaveLength(8);
  doorway.leave(beginners[35]!);
  doorway.leave(beginners[3]!);
  doorway.leave(beginners[3]!);
  doorway.leave(beginners[4]!);
  expect(begun.slice(8)).toEqual([8, 9]);
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
  clock.advance(24);
  expect(begun).toHaveLength(8);
  clock.advance(1);
  expect(begun).toHaveLength(16);
  clock.advance(25);
  expect(begun).toHaveLength(24);
});

test('who has begun keeps its place until it has sent nothing for a while', () => {
  const clock = new ManualClock();
  const doorway = new Doorway(clock);
  const { begun, beginners } = crowd(9);
  for (const beginner of beginners) doorway.enter(beginner);
  for (let request = 0; request < 10; request++) {
    clock.advance(19);
    for (const beginner of beginners.slice(0, 8)) doorway.taken(beginner);
  }
  expect(begun).toHaveLength(8);
  clock.advance(20);
  expect(begun).toHaveLength(9);
  doorway.taken(beginners[0]!);
  expect(clock.pending).toBe(1);
});

test('who asks on and on gives its place to others all the same', () => {
  const clock = new ManualClock();
  const doorway = new Doorway(clock);
  const { begun, beginners } = crowd(9);
  for (const beginner of beginners) doorway.enter(beginner);
  for (let request = 0; request < 20; request++) {
    expect(begun).toHaveLength(8);
    clock.advance(10);
    for (const beginner of beginners.slice(0, 8)) doorway.taken(beginner);
  }
  clock.advance(1);
  expect(begun).toHaveLength(9);
});
