import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { tendProcess } from './process.ts';

interface Kept {
  readonly clock: ManualClock;
  readonly calls: string[];
  readonly becomeReady: () => void;
  readonly end: () => void;
}

function keep(): Kept {
  const clock = new ManualClock();
  const calls: string[] = [];
  const ready = Promise.withResolvers<void>();
  const done = Promise.withResolvers<number>();
  tendProcess(
    { ready: ready.promise, done: done.promise },
    {
      clock,
      limitGrowth: (percent) => calls.push(`grow by ${percent} %`),
      collect: () => calls.push('collect'),
      release: () => calls.push(`release at ${clock.now() / 1_000}`),
    },
  );
  return { clock, calls, becomeReady: () => ready.resolve(), end: () => done.resolve(0) };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a proxy’s heap grows in smaller steps from the start; when it is ready it collects and then gives back; it gives back after 20 s, 40 s later and then every 80 s, until it ends', async () => {
  const { clock, calls, becomeReady, end } = keep();
  expect(calls).toEqual(['grow by 50 %']);
  becomeReady();
  await turn();
  expect(calls.slice(1)).toEqual(['collect', 'release at 0']);
  clock.advance(310_000);
  const seconds = [60, 140, 220, 300];
  expect(calls.slice(3)).toEqual(['release at 20', ...seconds.map((at) => `release at ${at}`)]);
  end();
  await turn();
  expect(clock.pending).toBe(0);
});

test('a proxy that ended before it was ready collects nothing', async () => {
  const { clock, calls, becomeReady, end } = keep();
  end();
  await turn();
  becomeReady();
  await turn();
  expect(calls).toEqual(['grow by 50 %']);
  expect(clock.pending).toBe(0);
});
