/** Which timers keep a process alive, on the machine's clock and on one that is moved by hand. */
import { expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ManualClock } from './clock.ts';

test('a process ends while an unheld timer waits, and not before a held one has fired', () => {
  const module = fileURLToPath(new URL('clock.ts', import.meta.url));
  const script = `
    const { systemClock } = await import(${JSON.stringify(module)});
    const clock = systemClock();
    clock.afterUnheld(600_000, () => console.log('unheld'));
    clock.after(20, () => console.log('held'));
  `;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', timeout: 60_000 });
  expect(out).toBe('held\n');
});

test('a clock moved by hand fires both kinds, and counts those that would hold a process', () => {
  const clock = new ManualClock();
  const fired: string[] = [];
  clock.after(20, () => fired.push('held'));
  clock.afterUnheld(10, () => fired.push('unheld'));
  clock.afterUnheld(10, () => fired.push('cancelled'))();
  expect([clock.pending, clock.nextDueMs]).toEqual([1, 10]);
  clock.advance(15);
  expect(fired).toEqual(['unheld']);
  clock.advance(5);
  expect(fired).toEqual(['unheld', 'held']);
  expect([clock.pending, clock.nextDueMs]).toEqual([0, undefined]);
});
