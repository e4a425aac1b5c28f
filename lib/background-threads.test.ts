/** Threads of V8 step back; the others, and those that are gone, are left alone. */
import { expect, test } from '@jest/globals';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { execFileSync } from 'node:child_process';
import { lowerV8Threads } from './background-threads.ts';

test.each([
  [0, 10],
  [-20, -10],
  [12, 19],
])('beside a thread with nice %i those of V8 get %i, and what could not be set is not counted', (own, expected) => {
  const set: [number, number][] = [];
  const lowered = lowerV8Threads(10, {
    ownNice: () => own,
    names: () =>
      new Map([
        [1, 'node-MainThread'],
        [2, 'node-V8Worker'],
        [3, 'libuv-worker'],
        [4, 'node-V8Worker'],
      ] as const),
    setNice: (thread, nice) => {
      set.push([thread, nice]);
      return thread !== 4;
    },
  });
  expect(set).toEqual([
    [2, expected],
    [4, expected],
  ]);
  expect(lowered).toBe(1);
});

test('a system that tells no threads has none to lower', () => {
  expect(lowerV8Threads(10, { names: () => undefined, ownNice: () => 0, setNice: () => true })).toBe(0);
});

(process.platform === 'linux' ? test : test.skip)('in a real process the workers step back and the main thread does not', () => {
  const module = fileURLToPath(new URL('background-threads.ts', import.meta.url));
  const script = `
    const { lowerV8Threads } = await import(${JSON.stringify(module)});
    const { readFileSync, readdirSync } = await import('node:fs');
    const lowered = lowerV8Threads(7);
    const niceOf = (id) => Number(readFileSync('/proc/self/task/' + id + '/stat', 'latin1').replace(/^.*\\) /, '').split(' ')[16]);
    const nices = readdirSync('/proc/self/task').map((id) => [readFileSync('/proc/self/task/' + id + '/comm', 'latin1').trim(), niceOf(id)]);
    console.log(JSON.stringify({ lowered, main: niceOf(process.pid), nices }));
  `;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  const { lowered, main, nices } = JSON.parse(out) as { lowered: number; main: number; nices: [string, number][] };
  const base = Number(
    readFileSync('/proc/self/stat', 'latin1')
      .replace(/^.*\) /, '')
      .split(' ')[16],
  );
  const expected = Math.min(19, base + 7);
  expect(readdirSync('/proc/self/task').length).toBeGreaterThan(1);
  expect(lowered).toBeGreaterThan(0);
  expect(main).toBe(base);
  expect(nices.filter(([, nice]) => nice === expected)).toHaveLength(lowered);
  expect(nices.filter(([name]) => name.endsWith('V8Worker')).every(([, nice]) => nice === expected)).toBe(true);
});
