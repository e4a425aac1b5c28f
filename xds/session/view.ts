/** What of the accepted resources is in force: nothing before what it points at, and nothing gone while something points at it. */
import type { Clock } from '../../lib/clock.ts';
import { pushRank } from './type-urls.ts';

/** A resource by type and name. */
export interface ResourceKey {
  readonly typeUrl: string;
  readonly name: string;
}

/** A change of what is in force; `value` undefined = gone. */
export interface ViewChange<T> extends ResourceKey {
  readonly value: T | undefined;
}

export interface ViewOptions<T> {
  readonly clock: Clock;
  /** What must be in force before `value` may be. */
  readonly references: (typeUrl: string, value: T) => Iterable<ResourceKey>;
  /** Called with every batch of changes that came into force together, in an order that is never torn. */
  readonly onChange: (changes: readonly ViewChange<T>[]) => void;
  /** Longest that something is held back; then it comes into force although something it points at is missing. Default 15,000. */
  readonly holdMsMax?: number;
}

interface Entry<T> extends ResourceKey {
  active: T | undefined;
  /** Same as `active` unless held. */
  wanted: T | undefined;
  heldSinceMs: number;
  /** How many entries in force point at this one. */
  referrers: number;
}

/** Make-before-break on the receiving side: right whatever order the types arrive in, after reconnects too. */
export class ConsistentView<T> {
  readonly #options: ViewOptions<T>;
  readonly #entries = new Map<string, Entry<T>>();
  readonly #held = new Set<Entry<T>>();
  #cancelTimer: (() => void) | undefined;

  constructor(options: ViewOptions<T>) {
    this.#options = options;
  }

  /** Takes what was accepted. What can come into force does so before this returns. */
  apply(typeUrl: string, upserts: Iterable<readonly [name: string, value: T]>, removals: Iterable<string>): void {
    for (const [name, value] of upserts) this.#want(typeUrl, name, value);
    for (const name of removals) if (this.#entries.has(keyOf(typeUrl, name))) this.#want(typeUrl, name, undefined);
    this.#promote(false);
  }

  get(typeUrl: string, name: string): T | undefined {
    return this.#entries.get(keyOf(typeUrl, name))?.active;
  }

  /** Names in force, of one type. */
  *names(typeUrl: string): Iterable<string> {
    for (const entry of this.#entries.values()) if (entry.typeUrl === typeUrl && entry.active !== undefined) yield entry.name;
  }

  /** What waits, and for what: for a status page. */
  held(): { key: ResourceKey; removal: boolean; missing: ResourceKey[] }[] {
    return [...this.#held].map((entry) => ({
      key: { typeUrl: entry.typeUrl, name: entry.name },
      removal: entry.wanted === undefined,
      missing:
        entry.wanted === undefined ? [] : [...this.#options.references(entry.typeUrl, entry.wanted)].filter((key) => !this.#isActive(key)),
    }));
  }

  close(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #want(typeUrl: string, name: string, value: T | undefined): void {
    const entry = this.#entry({ typeUrl, name });
    entry.wanted = value;
    if (value === entry.active) {
      this.#held.delete(entry);
      this.#dropEmpty(entry);
      return;
    }
    if (!this.#held.has(entry)) entry.heldSinceMs = this.#options.clock.now();
    this.#held.add(entry);
  }

  /** Goes round until nothing moves: additions from what is pointed at to what points, then removals the other way. */
  #promote(late: boolean): void {
    const changes: ViewChange<T>[] = [];
    const dueMs = this.#options.clock.now() - (this.#options.holdMsMax ?? 15_000);
    for (let moved = true; moved;) {
      moved = false;
      for (const entry of [...this.#held].sort((a, b) => pushRank(a.typeUrl) - pushRank(b.typeUrl))) {
        const forced = late && entry.heldSinceMs <= dueMs;
        if (!forced && !this.#ready(entry)) continue;
        this.#activate(entry);
        changes.push({ typeUrl: entry.typeUrl, name: entry.name, value: entry.active });
        moved = true;
      }
    }
    this.#arm();
    if (changes.length > 0) this.#options.onChange(changes);
  }

  #ready(entry: Entry<T>): boolean {
    if (entry.wanted === undefined) return entry.referrers === 0;
    for (const key of this.#options.references(entry.typeUrl, entry.wanted)) if (!this.#isActive(key)) return false;
    return true;
  }

  #activate(entry: Entry<T>): void {
    const before = entry.active;
    entry.active = entry.wanted;
    this.#held.delete(entry);
    if (entry.active !== undefined)
      for (const key of this.#options.references(entry.typeUrl, entry.active)) this.#entry(key).referrers += 1;
    if (before !== undefined) {
      for (const key of this.#options.references(entry.typeUrl, before)) {
        const target = this.#entry(key);
        target.referrers -= 1;
        this.#dropEmpty(target);
      }
    }
    this.#dropEmpty(entry);
  }

  #isActive(key: ResourceKey): boolean {
    return this.#entries.get(keyOf(key.typeUrl, key.name))?.active !== undefined;
  }

  #entry(key: ResourceKey): Entry<T> {
    const id = keyOf(key.typeUrl, key.name);
    let entry = this.#entries.get(id);
    if (entry === undefined) {
      entry = { typeUrl: key.typeUrl, name: key.name, active: undefined, wanted: undefined, heldSinceMs: 0, referrers: 0 };
      this.#entries.set(id, entry);
    }
    return entry;
  }

  #dropEmpty(entry: Entry<T>): void {
    if (entry.active === undefined && entry.wanted === undefined && entry.referrers === 0)
      this.#entries.delete(keyOf(entry.typeUrl, entry.name));
  }

  #arm(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    let sinceMs = Number.POSITIVE_INFINITY;
    for (const entry of this.#held) sinceMs = Math.min(sinceMs, entry.heldSinceMs);
    if (sinceMs === Number.POSITIVE_INFINITY) return;
    const dueMs = sinceMs + (this.#options.holdMsMax ?? 15_000);
    this.#cancelTimer = this.#options.clock.after(dueMs - this.#options.clock.now(), () => {
      this.#cancelTimer = undefined;
      this.#promote(true);
    });
  }
}

function keyOf(typeUrl: string, name: string): string {
  return `${typeUrl} ${name}`;
}
