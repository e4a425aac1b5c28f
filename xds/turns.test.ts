import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { Turns } from './turns.ts';

test('tasks are done in slices of five milliseconds, in order, each once', () => {
  let spentMs = 0;
  const later: (() => void)[] = [];
  const after = (_ms: number, fn: () => void): (() => void) => {
    later.push(fn);
    return () => undefined;
  };
  const turns = new Turns({ now: () => spentMs, wallMs: () => 0, after, afterUnheld: after });
  const done: number[] = [];
  const tasks = Array.from({ length: 10 }, (_, index) => ({
    turn: () => {
      spentMs += 2;
      done.push(index);
    },
  }));
  for (const task of [...tasks, ...tasks]) turns.ask(task);

  const seen: number[] = [];
  for (let next = later.shift(); next !== undefined; next = later.shift()) {
    next();
    seen.push(done.length);
  }
  expect(seen).toEqual([3, 6, 9, 10]);
  expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(turns.waiting).toBe(0);
});

test('a task that asks again in its turn comes after the others, and a forgotten one not at all', () => {
  const clock = new ManualClock();
  const turns = new Turns(clock);
  const done: string[] = [];
  const forgotten = { turn: () => done.push('forgotten') };
  const again = {
    turn: () => {
      done.push('again');
      if (done.length < 3) turns.ask(again);
    },
  };
  turns.ask(again);
  turns.ask(forgotten);
  turns.ask({ turn: () => done.push('other') });
  turns.forget(forgotten);

  clock.advance(0);
  clock.advance(0);
  expect(done).toEqual(['again', 'other', 'again']);
});
