/** Threads of V8 step back; the others, and those that are gone, are left alone. */
import { expect, test } from '@jest/globals';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { execFileSync } from 'node:child_process';
import { lowerV8Threads } from './background-threads.ts';

test('threads of V8 get the nice value, and what could not be set is not counted', () => {
  const set: [number, number][] = [];
  const lowered = lowerV8Threads(10, {
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
    [2, 10],
    [4, 10],
  ]);
  expect(lowered).toBe(1);
});

test('a system that tells no threads has none to lower', () => {
  expect(lowerV8Threads(10, { names: () => undefined, setNice: () => true })).toBe(0);
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
  expect(readdirSync('/proc/self/task').length).toBeGreaterThan(1);
  expect(lowered).toBeGreaterThan(0);
  expect(main).toBe(base);
  expect(nices.filter(([, nice]) => nice === 7)).toHaveLength(lowered);
  expect(nices.filter(([name]) => name.endsWith('V8Worker')).every(([, nice]) => nice === 7)).toBe(true);
});
