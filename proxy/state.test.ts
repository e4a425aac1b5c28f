import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { decodeState, encodeState, readState, STATE_BYTES_MAX, STATE_FILE, writeState } from './state.ts';
import type { SavedState } from './state.ts';

const made: string[] = [];
afterEach(() => {
  for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true });
});

function directory(): string {
  made.push(mkdtempSync(join(tmpdir(), 'meshwork-state-')));
  return join(made.at(-1)!, 'state');
}

const STATE: SavedState = {
  node: 'web-1',
  savedMs: 1_700_000_000_000,
  resources: [{ kind: 'clusters', name: 'a"\n', version: '7', typeUrl: 'type/Cluster', bytes: Buffer.from([0, 255, 10]) }],
};

test('a state comes back as it was written, for this user alone, and nothing else stays in the directory', async () => {
  const where = directory();

  await writeState(where, { ...STATE, savedMs: 1 });
  await writeState(where, STATE);

  expect(await readState(where, 'web-1')).toEqual(STATE);
  expect(statSync(join(where, STATE_FILE)).mode & 0o777).toBe(0o600);
  expect(statSync(where).mode & 0o777).toBe(0o700);
  expect(readdirSync(where)).toEqual([STATE_FILE]);
});

test('without a file there is no state', async () => {
  expect(await readState(directory(), 'web-1')).toBeUndefined();
});

test('a byte that changed anywhere is found', () => {
  const text = encodeState(STATE);
  for (let at = 0; at < text.length - 1; at++) {
    const bent = text.slice(0, at) + (text[at] === 'x' ? 'y' : 'x') + text.slice(at + 1);
    expect(() => decodeState(bent, 'web-1')).toThrow(/checksum|must begin with/);
  }
});

test.each([
  ['another node', () => encodeState({ ...STATE, node: 'other' }), /belongs to node "other", and this is "web-1"/],
  ['an empty file', () => '', /must begin with meshwork-state-1/],
  ['half a file', () => encodeState(STATE).slice(0, 120), /checksum/],
  [
    'an unknown kind',
    () => encodeState({ ...STATE, resources: [{ ...STATE.resources[0]!, kind: 'spells' as never }] }),
    /no kind "spells"/,
  ],
])('a file with %s is refused with the rule', (_what, text, message) => {
  expect(() => decodeState(text(), 'web-1')).toThrow(message);
});

test('a file that others may write, a link, and one that is too large are refused', async () => {
  const where = directory();
  await writeState(where, STATE);
  const file = join(where, STATE_FILE);

  chmodSync(file, 0o620);
  await expect(readState(where, 'web-1')).rejects.toThrow(/others may write it: its mode is 620/);
  chmodSync(file, 0o600);
  truncateSync(file, STATE_BYTES_MAX + 1);
  await expect(readState(where, 'web-1')).rejects.toThrow(/at most/);
  const elsewhere = join(where, 'elsewhere');
  writeFileSync(elsewhere, encodeState(STATE), { mode: 0o600 });
  rmSync(file);
  symlinkSync(elsewhere, file);
  await expect(readState(where, 'web-1')).rejects.toThrow(/ELOOP/);
  expect(readFileSync(elsewhere, 'utf8')).toContain('web-1');
});
