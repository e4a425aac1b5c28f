/** Room for descriptors: made ahead of need, in the background, and never at the cost of the last ones. */
import { expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { ManualClock, systemClock } from './clock.ts';
import { DescriptorRoom, descriptorRoom } from './descriptors.ts';
import type { DescriptorDisk } from './descriptors.ts';

const clock = new ManualClock();

/** Hands out descriptors from `next` on, one for each call of `step`. */
function fakeDisk(
  room: number,
  next: number,
  failAt = Number.POSITIVE_INFINITY,
): DescriptorDisk & { readonly held: Set<number>; step(): boolean } {
  const waiting: ((error: Error | null, descriptor: number) => void)[] = [];
  const held = new Set<number>();
  return {
    held,
    open: (done) => void waiting.push(done),
    close: (descriptor, done) => {
      held.delete(descriptor);
      done();
    },
    room: () => room,
    step: () => {
      const done = waiting.shift();
      if (done === undefined) return false;
      if (next >= failAt) done(new Error('EMFILE'), -1);
      else {
        held.add(next);
        if (next >= room) room *= 2;
        done(null, next++);
      }
      return true;
    },
  };
}

test('nothing is opened while more than half of the room is free', () => {
  const disk = fakeDisk(256, 100);
  const room = new DescriptorRoom(20_000, disk, clock);

  room.used(127);

  expect(disk.step()).toBe(false);
});

test('at half, files are opened one after the other until the room is doubled, and all are closed', () => {
  const disk = fakeDisk(256, 129);
  const room = new DescriptorRoom(20_000, disk, clock);
  room.used(128);
  room.used(129);

  let opened = 0;
  while (disk.step()) opened++;

  expect(opened).toBe(256 - 129 + 1);
  clock.advance(10);
  expect(disk.held.size).toBe(0);
  expect(room.room).toBe(512);
});

test('whoever expects more than fits gets it doubled until it fits', () => {
  const disk = fakeDisk(256, 30);
  const room = new DescriptorRoom(20_000, disk, clock);
  room.expect(2_000);
  while (disk.step() || disk.held.size > 0) clock.advance(10);

  expect(room.room).toBe(2_048);
  room.expect(2_000);
  expect(disk.step()).toBe(false);
});

test('what cannot be had is not tried again, however much is expected', () => {
  const disk = fakeDisk(256, 30, 300);
  const room = new DescriptorRoom(20_000, disk, clock);
  room.expect(100_000);
  let opened = 0;
  while (disk.step() || disk.held.size > 0) {
    opened++;
    clock.advance(10);
  }

  expect(opened).toBeLessThan(600);
  expect(disk.held.size).toBe(0);
});

test('the last descriptors of the process are left alone', () => {
  const disk = fakeDisk(1_024, 512);
  const room = new DescriptorRoom(2_000, disk, clock);

  room.used(600);

  expect(disk.step()).toBe(false);
});

test('where there are none to be had, it gives up and gives back', () => {
  const disk = fakeDisk(256, 200, 230);
  const room = new DescriptorRoom(20_000, disk, clock);
  room.used(200);
  while (disk.step());
  room.used(10_000);

  expect(disk.held.size).toBe(0);
  expect(disk.step()).toBe(false);
});

const onLinux = process.platform === 'linux' ? test : test.skip;

onLinux('the kernel’s table of this process is really doubled', async () => {
  const sizeNow = (): number => Number(/^FDSize:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
  const room = descriptorRoom(systemClock())!;
  const before = room.room;
  expect(before).toBe(sizeNow());

  room.used(before / 2);
  for (let i = 0; i < 1_000 && room.room === before; i++) await new Promise((resolve) => setTimeout(resolve, 5));

  expect(room.room).toBe(before * 2);
  expect(sizeNow()).toBe(before * 2);
});
