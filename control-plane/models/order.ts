/** Keyed collections in key order, changed a few entries at a time: the cost of a change is one pass, never a sort of all. */

/** A new map in key order with `changes` applied (undefined removes); the old one itself when there is nothing to do. */
export function patched<V>(old: ReadonlyMap<string, V>, changes: ReadonlyMap<string, V | undefined>): ReadonlyMap<string, V> {
  let moved = false;
  let changed = false;
  for (const [key, value] of changes) {
    const before = old.get(key);
    if (before === value) continue;
    changed = true;
    if ((before === undefined) !== (value === undefined)) moved = true;
  }
  if (!changed) return old;
  if (!moved) {
    const copy = new Map(old);
    for (const [key, value] of changes) if (value !== undefined) copy.set(key, value);
    return copy;
  }
  const added = [...changes]
    .filter(([key, value]) => value !== undefined && !old.has(key))
    .sort(([left], [right]) => (left < right ? -1 : 1));
  const next = new Map<string, V>();
  let at = 0;
  for (const [key, value] of old) {
    for (; at < added.length && added[at]![0] < key; at++) next.set(added[at]![0], added[at]![1]!);
    const wanted = changes.has(key) ? changes.get(key) : value;
    if (wanted !== undefined) next.set(key, wanted);
  }
  for (; at < added.length; at++) next.set(added[at]![0], added[at]![1]!);
  return next;
}

/** Sets of keys by a key of their own: which workloads carry a label, which services select one. Empty sets are dropped. */
export class KeySets {
  readonly #sets = new Map<string, Set<string>>();

  add(key: string, member: string): void {
    const set = this.#sets.get(key);
    if (set === undefined) this.#sets.set(key, new Set([member]));
    else set.add(member);
  }

  delete(key: string, member: string): void {
    const set = this.#sets.get(key);
    if (set === undefined) return;
    set.delete(member);
    if (set.size === 0) this.#sets.delete(key);
  }

  get(key: string): ReadonlySet<string> {
    return this.#sets.get(key) ?? NONE;
  }

  entries(): IterableIterator<[string, Set<string>]> {
    return this.#sets.entries();
  }
}

const NONE: ReadonlySet<string> = new Set();
