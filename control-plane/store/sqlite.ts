/** The store in `--data-dir`: one SQLite file with a write-ahead log, a checksum per record, and no start on a file that is not whole. */
import { createHash } from 'node:crypto';
import { accessSync, chmodSync, closeSync, constants, existsSync, fsyncSync, mkdirSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Json } from '../../xds/snapshot.ts';
import type { Store } from './store.ts';
import { RECORDS_MAX, StoreCorruptError, StoreFullError, recordText } from './store.ts';

export const STORE_FILE = 'meshwork.db';
/** "MESH" in the file's application id, so that another program's database is not taken for ours. */
const APPLICATION_ID = 0x4d455348;
const SCHEMA_VERSION = 1;
/** The file takes no write that would make it larger; what is there stays readable. */
const BYTES_MAX = 1_073_741_824;
/** SQLite's default. */
const PAGE_BYTES = 4096;
const SCHEMA = `
  CREATE TABLE records (
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (collection, key)
  ) STRICT;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

interface Row {
  readonly collection: string;
  readonly key: string;
  readonly value: string;
  readonly checksum: string;
}

/**
 * Opens (or makes) the store in a directory. A directory that is made gets mode 0700; one that is there keeps its mode; the file has 0600 in both.
 * Throws StoreCorruptError when the file is damaged, from another program or from a newer version, and when another control plane has it open;
 * the check reads only, so a damaged file keeps every byte.
 */
export function openSqliteStore(directory: string, options: { readonly bytesMax?: number } = {}): Store {
  prepareDirectory(directory);
  const file = join(directory, STORE_FILE);
  const fresh = !existsSync(file) || statSync(file).size === 0;
  if (fresh && existsSync(`${file}-wal`) && statSync(`${file}-wal`).size > 0)
    throw refused(file, 'the file is empty or missing but its write-ahead log is not');
  if (!fresh) verify(file);
  return openVerified(directory, file, fresh, options.bytesMax ?? BYTES_MAX);
}

function prepareDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new Error(`the data directory ${directory} cannot be used: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function openVerified(directory: string, file: string, fresh: boolean, bytesMax: number): Store {
  // The log and the shared memory file that SQLite makes take over this file's mode.
  closeSync(openSync(file, 'a', 0o600));
  chmodSync(file, 0o600);
  const database = guarded(file, () => {
    const opened = new DatabaseSync(file);
    opened.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;');
    if (fresh) opened.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT;`);
    else opened.exec('BEGIN IMMEDIATE; COMMIT;');
    opened.exec(`PRAGMA max_page_count = ${Math.ceil(bytesMax / PAGE_BYTES)}`);
    return opened;
  });
  syncDirectory(directory);
  return storeOver(database, file);
}

function storeOver(database: DatabaseSync, file: string): Store {
  const listing = database.prepare('SELECT key, value FROM records WHERE collection = ? ORDER BY key');
  const counting = database.prepare('SELECT count(*) AS count FROM records WHERE collection = ?');
  const storing = database.prepare(
    'INSERT INTO records (collection, key, value, checksum) VALUES (?, ?, ?, ?) ' +
      'ON CONFLICT DO UPDATE SET value = excluded.value, checksum = excluded.checksum',
  );
  const finding = database.prepare('SELECT 1 FROM records WHERE collection = ? AND key = ?');
  const deleting = database.prepare('DELETE FROM records WHERE collection = ? AND key = ?');
  /** Records of a collection; counted when they are needed and not known. Counting at each new record would be a pass over all of them. */
  const counts = new Map<string, number>();
  const countOf = (collection: string): number => {
    const count = counts.get(collection) ?? Number(counting.get(collection)?.['count'] ?? 0);
    counts.set(collection, count);
    return count;
  };
  let depth = 0;
  let open = true;
  const writing = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw asWriteError(file, error);
    }
  };
  return {
    place: file,
    list: (collection) =>
      (listing.all(collection) as unknown as Row[]).map((row) => ({ key: row.key, value: JSON.parse(row.value) as Json })),
    put(collection, key, value) {
      const text = recordText(collection, key, value);
      const isNew = finding.get(collection, key) === undefined;
      if (isNew && countOf(collection) >= RECORDS_MAX) throw new StoreFullError(`${collection} takes at most ${RECORDS_MAX} records`);
      writing(() => storing.run(collection, key, text, checksum(collection, key, text)));
      if (isNew) counts.set(collection, countOf(collection) + 1);
    },
    delete(collection, key) {
      const deleted = writing(() => deleting.run(collection, key).changes > 0);
      const count = counts.get(collection);
      if (deleted && count !== undefined) counts.set(collection, count - 1);
      return deleted;
    },
    transaction(work) {
      if (depth > 0) return work();
      depth++;
      writing(() => database.exec('BEGIN IMMEDIATE'));
      try {
        const result = work();
        writing(() => database.exec('COMMIT'));
        return result;
      } catch (error) {
        counts.clear();
        if (database.isTransaction) database.exec('ROLLBACK');
        throw error;
      } finally {
        depth--;
      }
    },
    close() {
      if (open) database.close();
      open = false;
    },
  };
}

/** Reads the whole file without writing a byte: header, page structure, version, every checksum. */
function verify(file: string): void {
  const head = Buffer.alloc(16);
  const handle = openSync(file, 'r');
  try {
    readSync(handle, head, 0, 16, 0);
  } finally {
    closeSync(handle);
  }
  if (head.toString('latin1') !== 'SQLite format 3\0') throw refused(file, 'it is not a SQLite database');
  guarded(file, () => {
    const database = new DatabaseSync(file, { readOnly: true });
    try {
      checkContents(file, database);
    } finally {
      database.close();
    }
  });
}

function checkContents(file: string, database: DatabaseSync): void {
  const pragma = (name: string): unknown => Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
  if (pragma('application_id') !== APPLICATION_ID) throw refused(file, 'another program wrote it');
  const version = Number(pragma('user_version'));
  if (version !== SCHEMA_VERSION)
    throw refused(
      file,
      `its schema has version ${version}, this program knows version ${SCHEMA_VERSION}`,
      'start the version of Meshwork that wrote it',
    );
  const whole = pragma('integrity_check');
  if (whole !== 'ok') throw refused(file, `SQLite's integrity check says "${String(whole)}"`);
  for (const row of database.prepare('SELECT collection, key, value, checksum FROM records').iterate() as Iterable<unknown>) {
    const { collection, key, value, checksum: stored } = row as Row;
    if (checksum(collection, key, value) !== stored)
      throw refused(file, `the checksum of the record ${collection} ${JSON.stringify(key)} does not match`);
  }
}

/** Turns SQLite's own errors while opening into a refusal that says what to do. */
function guarded<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof StoreCorruptError) throw error;
    if (sqliteCode(error) === SQLITE_BUSY)
      throw new StoreCorruptError(
        `${file} is in use: another control plane runs with this data directory. Stop it, or name another --data-dir.`,
      );
    throw refused(file, error instanceof Error ? error.message : String(error));
  }
}

const RESTORE = 'put a backup in its place, or move it (with its -wal and -shm files) away to start empty';

function refused(file: string, reason: string, remedy = RESTORE): StoreCorruptError {
  return new StoreCorruptError(`the store ${file} is refused: ${reason}. It was left as it is; ${remedy}.`);
}

// Result codes of SQLite (sqlite.org/rescode.html); the low byte is the primary code.
const SQLITE_BUSY = 5;
const SQLITE_READONLY = 8;
const SQLITE_IOERR = 10;
const SQLITE_FULL = 13;

function asWriteError(file: string, error: unknown): unknown {
  const code = sqliteCode(error);
  if (code === SQLITE_FULL || code === SQLITE_READONLY || code === SQLITE_IOERR)
    return new StoreFullError(`${file} takes no write: ${(error as Error).message}`);
  return error;
}

function sqliteCode(error: unknown): number {
  const code = (error as { errcode?: unknown }).errcode;
  return typeof code === 'number' ? code & 0xff : -1;
}

function checksum(collection: string, key: string, text: string): string {
  return createHash('sha256').update(`${collection}\0${key}\0${text}`).digest('base64url');
}

function syncDirectory(directory: string): void {
  const handle = openSync(directory, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
