import { expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { unchangedMappings } from './resident.ts';

const SMAPS = `00400000-0082e000 r--p 00000000 fe:00 131 /usr/bin/node
Size:               4280 kB
Rss:                4280 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
0082e000-03489000 r-xp 0042e000 fe:00 131 /usr/bin/node
Rss:               27152 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
072a7000-072dc000 r--p 06ea7000 fe:00 131 /usr/bin/node
Rss:                  56 kB
Anonymous:            56 kB
VmFlags: rd mr mw me
072dc000-07308000 rw-p 06edc000 fe:00 131 /usr/bin/node
Rss:                 172 kB
Anonymous:             0 kB
VmFlags: rd wr mr mw me
1f2c1000-20000000 rw-p 00000000 00:00 0 [heap]
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 00:00 0 
Anonymous:             0 kB
7f1000000000-7f1000004000 r--s 00000000 fe:00 77 /usr/share/shared
Anonymous:             0 kB
7ffff7a00000-7ffff7a28000 r-xp 00028000 fe:00 99 /opt/a lib/libc.so.6 (deleted)
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`;

test('only private mappings of a file that nobody can write and nobody has changed are given back', () => {
  expect(unchangedMappings(SMAPS)).toEqual([
    { address: 0x400000n, bytes: 0x42e000n },
    { address: 0x82e000n, bytes: 0x2c5b000n },
    { address: 0x7ffff7a00000n, bytes: 0x28000n },
  ]);
});

/** Releases twice and works in between; what it prints has the memory before and after. */
const PROGRAM = `
import { createHash } from 'node:crypto';
import { residentMemoryRelease } from ${JSON.stringify(fileURLToPath(new URL('resident.ts', import.meta.url)))};
const release = residentMemoryRelease();
const work = () => createHash('sha256').update(JSON.stringify([...'abc'].sort().map((c) => c.localeCompare('b')))).digest('hex');
const readings = [];
const first = work();
for (let i = 0; i < 2; i++) {
  const before = process.memoryUsage.rss();
  release?.();
  readings.push([before, process.memoryUsage.rss()].map((bytes) => bytes / 2 ** 20));
  if (work() !== first) throw new Error('works differently afterwards');
}
process.stdout.write(JSON.stringify({ offered: release !== undefined, readings }));
`;

function run(...flags: string[]): { offered: boolean; readings: [number, number][] } {
  // What it says on standard error fails the test: a warning there would be one at each start of a proxy.
  const args = [...flags, '--input-type=module', '-e', `process.stderr.write = (text) => { throw new Error(text); };${PROGRAM}`];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } })) as ReturnType<
    typeof run
  >;
}

const [major, minor] = process.versions.node.split('.').map(Number) as [number, number];
const linuxTest = process.platform === 'linux' && (major > 26 || (major === 26 && minor >= 1)) ? test : test.skip;

linuxTest('a process gives back what its start has read of the binary, and goes on as before', () => {
  const { offered, readings } = run();

  expect(offered).toBe(true);
  const [before, after] = readings[0]!;
  expect(before - after).toBeGreaterThan(10);
});

test.each([
  ['without node:ffi', '--no-experimental-ffi'],
  ['under the permission model', '--permission', '--allow-fs-read=*'],
])('it is not offered %s, and nothing is said about it', (_, ...flags) => {
  if (major < 26) return;
  expect(run(...flags).offered).toBe(false);
});
