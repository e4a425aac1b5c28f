/** How processes start: the same flags of Node wherever a start is written down, and those flags for who starts without any. */
import { expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CONTROL_PLANE_FLAGS, NODE_FLAGS as FLAGS } from './support/node-flags.ts';

const ROOT = join(import.meta.dirname, '..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** The flags that stand between `node` and what it runs, for each such command in a text. */
function flagsIn(text: string, run: string): string[][] {
  const words = text.replaceAll(/[",[\]]/g, ' ').split(/\s+/);
  return words.flatMap((word, at) => {
    if (!word.endsWith(run)) return [];
    const node = words.lastIndexOf('node', at);
    return [words.slice(node + 1, at).filter((flag) => flag.startsWith('--') && flag !== '--input-type=module')];
  });
}

test('npm scripts and the image start Node with the flags of cli/meshwork.js', () => {
  expect(FLAGS).toContain('--no-parallel-scavenge');
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  for (const script of [scripts['meshwork']!, scripts['demo']!]) expect(flagsIn(script, 'cli/meshwork.js')).toEqual([FLAGS]);
  const image = read('Dockerfile').split(' AS meshwork\n')[1]!;
  expect(flagsIn(image, 'cli/meshwork.js')).toEqual([FLAGS, FLAGS]);
  // The compile cache is filled for these flags only.
  expect(flagsIn(image, '-e')).toEqual([FLAGS]);
});

/** The flags of each process that a start goes through. */
function start(flags: readonly string[], verb = 'version'): string[][] {
  const hook = 'data:text/javascript,console.error(JSON.stringify(process.execArgv))';
  const env = { ...process.env, NODE_OPTIONS: `--import=${hook}` };
  const { status, stderr } = spawnSync(process.execPath, [...flags, join(ROOT, 'cli/meshwork.js'), verb, '--help'], {
    encoding: 'utf8',
    env,
  });
  expect(status).toBe(0);
  return stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as string[]);
}

test('a start without flags begins again with them; one with flags of its own keeps those', () => {
  expect(start([])).toEqual([[], FLAGS]);
  expect(start(['--max-semi-space-size=16'])).toEqual([['--max-semi-space-size=16']]);
});

test('a control plane begins again with flags for a large heap, whether it was started without flags or with those of the npm script', () => {
  expect(CONTROL_PLANE_FLAGS).toContain('--v8-pool-size=2');
  expect(start([], 'control-plane')).toEqual([[], CONTROL_PLANE_FLAGS]);
  expect(start(FLAGS, 'control-plane')).toEqual([FLAGS, CONTROL_PLANE_FLAGS]);
  expect(start(['--max-semi-space-size=16'], 'control-plane')).toEqual([['--max-semi-space-size=16']]);
  expect(start(FLAGS, 'proxy')).toEqual([FLAGS]);
});
