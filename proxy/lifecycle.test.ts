import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import { createRegistry } from '../lib/metrics.ts';
import { Lifecycle } from './lifecycle.ts';
import type { Parts } from './assemble.ts';

test('M4: a series that was let go leaves within ten minutes of its last change, one that is held stays', () => {
  const clock = new ManualClock();
  const registry = createRegistry();
  const gone = registry.counter('gone', {}, { pinned: false });
  registry.counter('held').inc();
  new Lifecycle({ clock, registry } as unknown as Parts);
  const names = (): string[] => [...registry.families()].map(({ name }) => name);
  const minutes = (count: number): void => {
    for (let i = 0; i < count * 60; i++) clock.advance(1_000);
  };

  gone.inc();
  minutes(5);
  gone.inc();
  minutes(8);
  expect(names()).toEqual(['gone', 'held']);
  minutes(2);
  expect(names()).toEqual(['held']);
});
