import { expect, test } from '@jest/globals';
import { ManualClock } from './clock.ts';
import { seededRandom } from './random.ts';
import { Wheel, WheelTimer } from './wheel.ts';

class Mark extends WheelTimer {
  readonly fired: number[] = [];
  readonly #clock: ManualClock;
  constructor(clock: ManualClock) {
    super();
    this.#clock = clock;
  }
  expire(): void {
    this.fired.push(this.#clock.now());
  }
}

test('timers fire on the first tick at or after their time, in order, whatever turn they wait for', () => {
  const clock = new ManualClock({ nowMs: 1001 });
  const wheel = new Wheel(clock, { tickMs: 4, slots: 8 });
  const random = seededRandom(7);
  const timers = Array.from({ length: 200 }, () => ({ mark: new Mark(clock), dueMs: 1001 + random() * 500 }));

  for (const { mark, dueMs } of timers) wheel.add(mark, dueMs);
  clock.advance(600);

  for (const { mark, dueMs } of timers) {
    expect(mark.fired).toHaveLength(1);
    expect(mark.fired[0]).toBeGreaterThanOrEqual(dueMs);
    expect(mark.fired[0]! - dueMs).toBeLessThan(8);
  }
  expect(wheel.size).toBe(0);
  expect(clock.nextDueMs).toBeUndefined();
});

test('a timer that was taken back never fires; on an empty wheel the platform timer waits for the next one and is not started again', () => {
  const clock = new ManualClock();
  const wheel = new Wheel(clock);
  const mark = new Mark(clock);

  wheel.add(mark, 100);
  expect(clock.nextDueMs).toBe(100);
  wheel.remove(mark);
  wheel.remove(mark);
  expect(clock.nextDueMs).toBe(100);
  clock.advance(50);
  wheel.add(mark, 150);
  expect(clock.nextDueMs).toBe(100);
  wheel.remove(mark);
  clock.advance(1000);

  expect(mark.fired).toEqual([]);
  expect(clock.nextDueMs).toBeUndefined();

  wheel.add(mark, 1100);
  clock.advance(100);
  expect(mark.fired).toEqual([1100]);
});

test('a timer may put itself back and an earlier one moves the alarm forward', () => {
  const clock = new ManualClock();
  const wheel = new Wheel(clock, { tickMs: 1 });
  const late = new Mark(clock);
  const early = new Mark(clock);
  class Again extends WheelTimer {
    count = 0;
    expire(): void {
      if (++this.count < 3) wheel.add(this, clock.now() + 10);
    }
  }
  const again = new Again();

  wheel.add(late, 50_000);
  wheel.add(early, 5);
  wheel.add(again, 10);
  clock.advance(40);
  expect([early.fired, again.count, late.fired]).toEqual([[5], 3, []]);

  clock.advance(50_000);
  expect(late.fired).toEqual([50_000]);
});

test('one that fires can take back another that is due on the same tick', () => {
  const clock = new ManualClock();
  const wheel = new Wheel(clock);
  const victim = new Mark(clock);
  class Killer extends WheelTimer {
    expire(): void {
      wheel.remove(victim);
    }
  }

  wheel.add(victim, 12);
  wheel.add(new Killer(), 9);
  clock.advance(100);

  expect(victim.fired).toEqual([]);
});
