import { afterEach, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { createMemoryStore } from './memory.ts';
import { STORE_FILE, openSqliteStore } from './sqlite.ts';
import { RECORDS_MAX, StoreCorruptError, StoreFullError } from './store.ts';

const directories: string[] = [];
function directory(): string {
  const made = mkdtempSync(join(tmpdir(), 'meshwork-store-'));
  directories.push(made);
  return join(made, 'data');
}
afterEach(() => {
  for (const made of directories.splice(0)) rmSync(made, { recursive: true, force: true });
});

test('a collection takes 100,000 records, whatever was rolled back or deleted before', () => {
  const store = openSqliteStore(directory());
  store.put('resources', 'first', 1);
  expect(() =>
    store.transaction(() => {
      for (let record = 0; record < 500; record++) store.put('resources', `rolled-back-${record}`, record);
      throw new Error('not this');
    }),
  ).toThrow('not this');
  store.transaction(() => {
    for (let record = 1; record < RECORDS_MAX; record++) store.put('resources', `record-${record}`, record);
  });
  expect(() => store.put('resources', 'one-more', 1)).toThrow(StoreFullError);
  store.put('resources', 'first', 2);
  store.put('leases', 'one-more', 1);
  expect(store.delete('resources', 'first')).toBe(true);
  expect(store.delete('resources', 'first')).toBe(false);
  store.put('resources', 'one-more', 1);
  expect(() => store.put('resources', 'and-more', 1)).toThrow(StoreFullError);
  store.close();
}, 60_000);

test('what was written is there after a reopen, sorted by key', () => {
  const where = directory();
  const first = openSqliteStore(where);
  first.put('resources', 'b', { n: 2 });
  first.put('resources', 'a', { n: 1 });
  first.put('resources', 'b', { n: 3 });
  first.put('leases', 'a', null);
  expect(first.delete('leases', 'a')).toBe(true);
  expect(first.delete('leases', 'a')).toBe(false);
  first.close();
  first.close();
  const second = openSqliteStore(where);
  expect(second.list('resources')).toEqual([
    { key: 'a', value: { n: 1 } },
    { key: 'b', value: { n: 3 } },
  ]);
  expect(second.list('leases')).toEqual([]);
  second.close();
});

test('the directory is for the owner alone, and so is the file', () => {
  const where = directory();
  const store = openSqliteStore(where);
  store.put('authority', 'key', 'secret');
  expect(statSync(where).mode & 0o777).toBe(0o700);
  expect(statSync(join(where, STORE_FILE)).mode & 0o777).toBe(0o600);
  expect(statSync(join(where, `${STORE_FILE}-wal`)).mode & 0o777).toBe(0o600);
  store.close();
});

test('a directory that is there keeps its mode, and the file in it is still for the owner alone', () => {
  const where = directory();
  mkdirSync(where, { mode: 0o755 });
  const store = openSqliteStore(where);
  expect(statSync(where).mode & 0o777).toBe(0o755);
  expect(statSync(join(where, STORE_FILE)).mode & 0o777).toBe(0o600);
  store.close();
});

test('a full store refuses writes, keeps what it has, and takes writes again once there is room', () => {
  const store = openSqliteStore(directory(), { bytesMax: 200_000 });
  let written = 0;
  const fill = (): void => {
    for (; written < 1000; written++) store.put('resources', `key-${written}`, 'x'.repeat(1000));
  };
  expect(fill).toThrow(StoreFullError);
  expect(written).toBeGreaterThan(50);
  expect(store.list('resources')).toHaveLength(written);
  expect(() =>
    store.transaction(() => {
      store.put('resources', 'key-0', 'changed');
      store.put('leases', 'big', 'x'.repeat(500_000));
    }),
  ).toThrow(StoreFullError);
  expect(store.list('resources')[0]!.value).toBe('x'.repeat(1000));
  for (let n = 0; n < written; n++) store.delete('resources', `key-${n}`);
  store.put('resources', 'again', 1);
  expect(store.list('resources')).toEqual([{ key: 'again', value: 1 }]);
  store.close();
});

test('a path that is no directory is named', () => {
  const where = directory();
  writeFileSync(where, '');
  expect(() => openSqliteStore(where)).toThrow(where);
});

for (const [name, make] of [
  ['memory', () => createMemoryStore()],
  ['sqlite', () => openSqliteStore(directory())],
] as const) {
  test(`a transaction that throws leaves nothing behind (${name})`, () => {
    const store = make();
    store.put('resources', 'a', 1);
    expect(() =>
      store.transaction(() => {
        store.put('resources', 'a', 2);
        store.transaction(() => store.put('resources', 'b', 2));
        throw new Error('no');
      }),
    ).toThrow('no');
    expect(store.list('resources')).toEqual([{ key: 'a', value: 1 }]);
    store.transaction(() => store.put('resources', 'c', 3));
    expect(store.list('resources')).toHaveLength(2);
    store.close();
  });

  test(`a record above the size bound is refused (${name})`, () => {
    const store = make();
    expect(() => store.put('resources', 'a', 'x'.repeat(1_048_577))).toThrow(StoreFullError);
    expect(store.list('resources')).toEqual([]);
    store.close();
  });
}

test('a second control plane on the same directory is refused', () => {
  const where = directory();
  const store = openSqliteStore(where);
  store.put('resources', 'a', 1);
  expect(() => openSqliteStore(where)).toThrow(/in use: another control plane/);
  store.close();
  openSqliteStore(where).close();
});

function filled(): { where: string; file: string } {
  const where = directory();
  const store = openSqliteStore(where);
  for (let n = 0; n < 200; n++) store.put('resources', `key-${n}`, { n, text: 'x'.repeat(100) });
  store.close();
  return { where, file: join(where, STORE_FILE) };
}

const damages: readonly (readonly [string, (file: string) => void])[] = [
  ['a text file', (file) => writeFileSync(file, 'not a database at all, sorry')],
  ['half of the file', (file) => truncateSync(file, statSync(file).size / 2)],
  [
    'a flipped byte in a record',
    (file) => {
      const bytes = readFileSync(file);
      const at = bytes.indexOf('"n":150');
      bytes[at + 4] = '9'.charCodeAt(0);
      writeFileSync(file, bytes);
    },
  ],
  [
    'zeros in the middle',
    (file) => {
      const bytes = readFileSync(file);
      bytes.fill(0, 8192, 12288);
      writeFileSync(file, bytes);
    },
  ],
  [
    'a newer schema',
    (file) => {
      const database = new DatabaseSync(file);
      database.exec('PRAGMA user_version = 99');
      database.close();
    },
  ],
  [
    "another program's database",
    (file) => {
      const database = new DatabaseSync(file);
      database.exec('PRAGMA application_id = 7');
      database.close();
    },
  ],
];

for (const [name, damage] of damages) {
  test(`${name} is refused with the file's name, and keeps every byte`, () => {
    const { where, file } = filled();
    damage(file);
    const before = readFileSync(file);
    expect(() => openSqliteStore(where)).toThrow(StoreCorruptError);
    expect(() => openSqliteStore(where)).toThrow(file);
    expect(readFileSync(file).equals(before)).toBe(true);
  });
}

test('every byte flipped or cut off is either harmless or refused, never read as something else', () => {
  const { where, file } = filled();
  const good = readFileSync(file);
  const expected = (() => {
    const store = openSqliteStore(where);
    const list = store.list('resources');
    store.close();
    return JSON.stringify(list);
  })();
  let refused = 0;
  for (let at = 0; at < good.length; at += 97) {
    const bytes = Buffer.from(good);
    bytes[at] = bytes[at]! ^ 0x41;
    rmSync(`${file}-wal`, { force: true });
    rmSync(`${file}-shm`, { force: true });
    writeFileSync(file, bytes);
    try {
      const store = openSqliteStore(where);
      expect(JSON.stringify(store.list('resources'))).toBe(expected);
      store.close();
    } catch (error) {
      if (!(error instanceof StoreCorruptError)) throw error;
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(100);
}, 60_000);

test('a process killed in a write loop loses nothing that it was told is stored', async () => {
  const where = directory();
  const module = new URL('./sqlite.ts', import.meta.url).href;
  const script = `const { openSqliteStore } = await import(${JSON.stringify(module)});
    const store = openSqliteStore(${JSON.stringify(where)});
    for (let n = 0; ; n++) { store.put('resources', 'counter', n); store.put('resources', 'k' + (n % 50), { n }); process.stdout.write(n + '\\n'); }`;
  let told = -1;
  for (let round = 0; round < 5; round++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    let lines = 0;
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject);
      child.stdout.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        lines = text.split('\n').length - 1;
        if (lines > 40 + round * 13) child.kill('SIGKILL');
      });
      child.on('close', () => resolve());
    });
    const lastLine = text.slice(0, text.lastIndexOf('\n')).split('\n').at(-1)!;
    told = Number(lastLine);
    const store = openSqliteStore(where);
    const counter = store.list('resources').find((record) => record.key === 'counter')?.value as number;
    expect(counter).toBeGreaterThanOrEqual(told);
    store.close();
  }
  expect(told).toBeGreaterThan(0);
}, 60_000);
