/** What the control plane remembers across restarts: small JSON records in a few named collections, written one transaction at a time. */
import type { Json } from '../../xds/snapshot.ts';

/** `resources`: what the API wrote. `leases`: registrations. `tokens`: hashes of join tokens. `authority`: keys and roots of the certificate authority. */
export const COLLECTIONS = ['resources', 'leases', 'tokens', 'authority'] as const;
export type Collection = (typeof COLLECTIONS)[number];

export interface StoredRecord {
  readonly key: string;
  readonly value: Json;
}

/** Synchronous and durable: when `put`, `delete` or the outermost `transaction` has returned, a killed process finds the write again. */
export interface Store {
  /** The file, or `memory`; for messages. */
  readonly place: string;
  /** All records of a collection, sorted by key. */
  list(collection: Collection): readonly StoredRecord[];
  /** Stores or replaces a record. Throws `StoreFullError` when disk or bound does not allow it; nothing is changed then. */
  put(collection: Collection, key: string, value: Json): void;
  /** Says whether there was such a record. */
  delete(collection: Collection, key: string): boolean;
  /** All or nothing. May be nested; only the outermost one counts. */
  transaction<T>(work: () => T): T;
  /** Closing twice is fine. */
  close(): void;
}

/** The store cannot take a write: no space, read-only medium, or more than `RECORDS_MAX` records. The API answers 507. */
export class StoreFullError extends Error {
  override readonly name = 'StoreFullError';
}

/** The file is not what we wrote. The message names the file and says what to do; the file has not been touched. */
export class StoreCorruptError extends Error {
  override readonly name = 'StoreCorruptError';
}

export const RECORDS_MAX = 100_000;
export const RECORD_BYTES_MAX = 1_048_576;

/** Refuses values that a store must not grow by. */
export function recordText(collection: Collection, key: string, value: Json): string {
  const text = JSON.stringify(value);
  if (text.length > RECORD_BYTES_MAX)
    throw new StoreFullError(`a record takes at most ${RECORD_BYTES_MAX} characters, ${collection} ${key} has ${text.length}`);
  return text;
}
