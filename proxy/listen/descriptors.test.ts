/** Room for descriptors: made ahead of need, in the background, and never at the cost of the last ones. */
import { expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { DescriptorRoom, descriptorRoom } from './descriptors.ts';
import type { DescriptorDisk } from './descriptors.ts';

/** Hands out descriptors from `next` on, one for each call of `step`. */
function fakeDisk(next: number, failAt = Number.POSITIVE_INFINITY): DescriptorDisk & { readonly held: Set<number>; step(): boolean } {
  const waiting: ((error: Error | null, descriptor: number) => void)[] = [];
  const held = new Set<number>();
  return {
    held,
    open: (done) => void waiting.push(done),
    close: (descriptor) => void held.delete(descriptor),
    step: () => {
      const done = waiting.shift();
      if (done === undefined) return false;
      if (next >= failAt) done(new Error('EMFILE'), -1);
      else {
        held.add(next);
        done(null, next++);
      }
      return true;
    },
  };
}

test('nothing is opened while more than half of the room is free', () => {
  const disk = fakeDisk(100);
  const room = new DescriptorRoom(256, 20_000, disk);

  room.used(127);

  expect(disk.step()).toBe(false);
});

test('at half, files are opened one after the other until the room is doubled, and all are closed', () => {
  const disk = fakeDisk(129);
  const room = new DescriptorRoom(256, 20_000, disk);
  room.used(128);
  room.used(129);

  let opened = 0;
  while (disk.step()) opened++;

  expect(opened).toBe(256 - 129 + 1);
  expect(disk.held.size).toBe(0);
  expect(room.room).toBe(512);
});

test('the last descriptors of the process are left alone', () => {
  const disk = fakeDisk(512);
  const room = new DescriptorRoom(1_024, 2_000, disk);

  room.used(600);

  expect(disk.step()).toBe(false);
});

test('where there are none to be had, it gives up and gives back', () => {
  const disk = fakeDisk(200, 230);
  const room = new DescriptorRoom(256, 20_000, disk);
  room.used(200);
  while (disk.step());
  room.used(10_000);

  expect(disk.held.size).toBe(0);
  expect(disk.step()).toBe(false);
});

const onLinux = process.platform === 'linux' ? test : test.skip;

onLinux('the kernel’s table of this process is really doubled', async () => {
  const sizeNow = (): number => Number(/^FDSize:\s+(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
  const room = descriptorRoom()!;
  const before = room.room;
  expect(before).toBe(sizeNow());

  room.used(before / 2);
  for (let i = 0; i < 1_000 && room.room === before; i++) await new Promise((resolve) => setTimeout(resolve, 5));

  expect(room.room).toBe(before * 2);
  expect(sizeNow()).toBe(before * 2);
});
