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
  if (!moved) return replaced(old, changes);
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

/** The same keys with some other values. Every world of a storm would else be a copy of a map of all workloads. */
function replaced<V>(old: ReadonlyMap<string, V>, changes: ReadonlyMap<string, V | undefined>): ReadonlyMap<string, V> {
  const before = old instanceof Overlaid ? (old as Overlaid<V>) : undefined;
  const large = old.size >= OVERLAID_MIN;
  const next = new Map(large ? before?.over : old);
  for (const [key, value] of changes) if (value !== undefined) next.set(key, value);
  if (!large) return next;
  const base = before?.base ?? old;
  if (next.size <= OVER_MAX) return new Overlaid(base, next);
  const whole = new Map(base);
  for (const [key, value] of next) whole.set(key, value);
  return whole;
}

/** Smaller maps are copied. */
const OVERLAID_MIN = 2_048;
/** Beyond this many values beside a map it is made anew. */
const OVER_MAX = 256;

/** A map some of whose values stand beside it: the same keys in the same order. */
class Overlaid<V> implements ReadonlyMap<string, V> {
  readonly base: ReadonlyMap<string, V>;
  readonly over: ReadonlyMap<string, V>;

  constructor(base: ReadonlyMap<string, V>, over: ReadonlyMap<string, V>) {
    this.base = base;
    this.over = over;
  }

  get size(): number {
    return this.base.size;
  }

  get(key: string): V | undefined {
    return this.over.get(key) ?? this.base.get(key);
  }

  has(key: string): boolean {
    return this.base.has(key);
  }

  keys(): MapIterator<string> {
    return this.base.keys();
  }

  *entries(): Generator<[string, V], undefined> {
    for (const [key, value] of this.base) yield [key, this.over.get(key) ?? value];
    return undefined;
  }

  *values(): Generator<V, undefined> {
    for (const [key, value] of this.base) yield this.over.get(key) ?? value;
    return undefined;
  }

  [Symbol.iterator](): Generator<[string, V], undefined> {
    return this.entries();
  }

  forEach(visit: (value: V, key: string, map: ReadonlyMap<string, V>) => void): void {
    for (const [key, value] of this.entries()) visit(value, key, this);
  }
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
