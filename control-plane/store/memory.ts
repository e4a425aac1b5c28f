/** The store of a control plane without `--data-dir`: gone with the process. */
import type { Json } from '../../xds/snapshot.ts';
import type { Collection, Store } from './store.ts';
import { COLLECTIONS, RECORDS_MAX, StoreFullError, recordText } from './store.ts';

/** Keeps records as text, as the file does, so that nobody can change a stored value in place. */
export function createMemoryStore(): Store {
  let tables = new Map<Collection, Map<string, string>>(COLLECTIONS.map((collection) => [collection, new Map()]));
  let depth = 0;
  return {
    place: 'memory',
    list: (collection) =>
      [...tables.get(collection)!]
        .sort(([left], [right]) => (left < right ? -1 : 1))
        .map(([key, text]) => ({ key, value: JSON.parse(text) as Json })),
    put(collection, key, value) {
      const text = recordText(collection, key, value);
      const table = tables.get(collection)!;
      if (!table.has(key) && table.size >= RECORDS_MAX) throw new StoreFullError(`${collection} takes at most ${RECORDS_MAX} records`);
      table.set(key, text);
    },
    delete: (collection, key) => tables.get(collection)!.delete(key),
    transaction(work) {
      const before = depth === 0 ? new Map([...tables].map(([collection, table]) => [collection, new Map(table)])) : undefined;
      depth++;
      try {
        return work();
      } catch (error) {
        if (before !== undefined) tables = before;
        throw error;
      } finally {
        depth--;
      }
    },
    close: () => undefined,
  };
}
