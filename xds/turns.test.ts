import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { Turns } from './turns.ts';

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('tasks are done in slices of five milliseconds, in order, each once', async () => {
  const clock = new ManualClock();
  const turns = new Turns(clock);
  const done: number[] = [];
  const tasks = Array.from({ length: 10 }, (_, index) => ({
    turn: () => {
      clock.advance(2);
      done.push(index);
    },
  }));
  for (const task of [...tasks, ...tasks]) turns.ask(task);

  await nextTurn();
  expect(done).toEqual([0, 1, 2]);
  await nextTurn();
  expect(done).toEqual([0, 1, 2, 3, 4, 5]);
  await nextTurn();
  await nextTurn();
  expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(turns.waiting).toBe(0);
});

test('a task that asks again in its turn comes after the others, and a forgotten one not at all', async () => {
  const turns = new Turns(new ManualClock());
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

  await nextTurn();
  await nextTurn();
  expect(done).toEqual(['again', 'other', 'again']);
});
