/** What a client has of one type: a set that all streams share, and the few names in which this stream differs from it. */
import type { EncodedResource } from './messages.ts';
import type { ResourceSet } from './resource-set.ts';

/** What a client has: the resource itself, shared by all streams, or a version alone when only the client told us of it. */
export type Sent = EncodedResource | { readonly version: string; readonly bytes?: undefined };

/** A subscription at one moment. `names` never change. */
export interface Scope {
  readonly wildcard: boolean;
  readonly names: ReadonlySet<string>;
}

const NO_SCOPE: Scope = { wildcard: false, names: new Set() };

export class SentTable {
  readonly #typeUrl: string;
  /** The client has all of this set that is in the scope, but for what `#own` says. */
  #base: ResourceSet | undefined;
  #scope = NO_SCOPE;
  /** Undefined under a name: the client does not have it, whatever the base says. */
  readonly #own = new Map<string, Sent | undefined>();

  constructor(typeUrl: string) {
    this.#typeUrl = typeUrl;
  }

  get(name: string): Sent | undefined {
    const own = this.#own.get(name);
    return own === undefined && !this.#own.has(name) ? this.#shared(name) : own;
  }

  set(name: string, sent: Sent): void {
    this.#own.set(name, sent);
  }

  delete(name: string): void {
    if (this.#shared(name) === undefined) this.#own.delete(name);
    else this.#own.set(name, undefined);
  }

  /** The client has exactly what of `resources` is in the scope: from now on nothing is held for this stream alone. */
  rebase(resources: ResourceSet, scope: Scope): void {
    this.#base = resources;
    this.#scope = scope;
    if (this.#own.size > 0) this.#own.clear();
  }

  /** Whether this is all of `resources` that a subscription asks for, nothing less and nothing else. */
  isAllOf(resources: ResourceSet, { wildcard, names }: Scope): boolean {
    return (
      this.#own.size === 0 &&
      this.#base?.version(this.#typeUrl) === resources.version(this.#typeUrl) &&
      this.#scope.wildcard === wildcard &&
      this.#scope.names === names
    );
  }

  *entries(): Iterable<readonly [name: string, sent: Sent]> {
    for (const name of this.#sharedNames()) {
      const shared = this.#own.has(name) ? undefined : this.#shared(name);
      if (shared !== undefined) yield [name, shared];
    }
    for (const [name, sent] of this.#own) if (sent !== undefined) yield [name, sent];
  }

  #shared(name: string): EncodedResource | undefined {
    return this.#scope.wildcard || this.#scope.names.has(name) ? this.#base?.get(this.#typeUrl, name) : undefined;
  }

  #sharedNames(): Iterable<string> {
    const { wildcard, names } = this.#scope;
    if (!wildcard) return names;
    const all = this.#base?.names(this.#typeUrl) ?? [];
    // Names of a wildcard's stream are aliases, or names of what is in the wildcard anyway.
    return names.size === 0 ? all : new Set([...all, ...names]);
  }
}
