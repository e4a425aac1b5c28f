import { expect, test } from '@jest/globals';
import { createServer, connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { ManualClock, systemClock } from './clock.ts';
import { SLICE_MS, inSlices, nextSlice } from './slices.ts';

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

test('of several who have more to do one goes on in a turn, in the order of asking', async () => {
  const clock = systemClock();
  const told: string[] = [];
  const turns = (name: string): void => {
    told.push(name);
    if (told.length < 6) nextSlice(clock, () => turns(name));
    setImmediate(() => told.push('turn'));
  };
  nextSlice(clock, () => turns('a'));
  nextSlice(clock, () => turns('b'));
  while (told.length < 8) await new Promise((resolve) => setImmediate(resolve));
  expect(told.slice(0, 8)).toEqual(['a', 'b', 'turn', 'a', 'turn', 'b', 'turn', 'a']);
});

test('between two slices sockets are read, however long a slice takes', async () => {
  const clock = systemClock();
  const server = createServer((socket) => socket.on('data', () => socket.end('heard')));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  await new Promise((resolve) => client.once('connect', resolve));
  let heard = false;
  client.on('data', () => (heard = true));
  client.write('hello');
  let slices = 0;
  const steps = function* (): Generator<void, void> {
    while (!heard && slices < 100) {
      slices += 1;
      const untilMs = clock.now() + SLICE_MS + 1;
      while (clock.now() < untilMs);
      yield;
    }
  };
  await inSlices(clock, steps());
  server.close();
  expect(slices).toBeLessThan(20);
});
