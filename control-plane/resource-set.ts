/** What one proxy may get, encoded: an immutable set whose versions are hashes of its content, and what differs from the set before. */
import { createHash } from 'node:crypto';
import type { EncodedResource } from '../xds/session/messages.ts';
import { PUSH_ORDER } from '../xds/session/type-urls.ts';
import type { ResourceSet } from '../xds/session/served-type.ts';

interface TypeSet {
  readonly version: string;
  readonly byName: ReadonlyMap<string, EncodedResource>;
  readonly names: ReadonlySet<string>;
  /** Version of the same type in the set before, and the names that differ from it. */
  readonly before: string | undefined;
  readonly changed: readonly string[];
}

/** Resources of one type that are looked up by name alone, and nobody lists. `version` differs where an answer may. */
export interface NamedResources {
  readonly typeUrl: string;
  readonly version: string;
  get(name: string): EncodedResource | undefined;
}

const NO_RESOURCES: readonly EncodedResource[] = [];

const NOTHING: TypeSet = { version: 'empty', byName: new Map(), names: new Set(), before: undefined, changed: [] };

/** Equal content gives equal versions, in this process and in the next one: a proxy that comes back with its versions gets nothing. */
export class NodeResourceSet implements ResourceSet {
  readonly #types: ReadonlyMap<string, TypeSet>;
  readonly #named: NamedResources | undefined;
  /** Types whose content differs from the set before. */
  readonly changedTypes: readonly string[];

  /** `previous` = the set that the same proxy had; its parts are used again where nothing differs. */
  constructor(resources: ReadonlyMap<string, readonly EncodedResource[]>, previous: NodeResourceSet | undefined, named?: NamedResources) {
    const types = new Map<string, TypeSet>();
    const changedTypes: string[] = [];
    const take = (typeUrl: string): void => {
      const before = previous?.of(typeUrl) ?? NOTHING;
      const next = sharedTypeSet(resources.get(typeUrl) ?? NO_RESOURCES, before);
      types.set(typeUrl, next);
      if (next !== before && next.version !== before.version) changedTypes.push(typeUrl);
    };
    for (const typeUrl of PUSH_ORDER) take(typeUrl);
    for (const typeUrl of resources.keys()) if (!types.has(typeUrl)) take(typeUrl);
    if (named !== undefined && named.version !== previous?.version(named.typeUrl)) changedTypes.push(named.typeUrl);
    this.#types = types;
    this.#named = named;
    this.changedTypes = changedTypes;
  }

  version(typeUrl: string): string {
    return this.#named?.typeUrl === typeUrl ? this.#named.version : this.of(typeUrl).version;
  }

  get(typeUrl: string, name: string): EncodedResource | undefined {
    return this.#named?.typeUrl === typeUrl ? this.#named.get(name) : this.of(typeUrl).byName.get(name);
  }

  names(typeUrl: string): Iterable<string> {
    return this.of(typeUrl).names;
  }

  nameSet(typeUrl: string): ReadonlySet<string> | undefined {
    return this.#named?.typeUrl === typeUrl ? undefined : this.of(typeUrl).names;
  }

  changedSince(typeUrl: string, version: string): Iterable<string> | undefined {
    // Whoever asks for these by name has few of them, and looks at all.
    if (this.#named?.typeUrl === typeUrl) return this.#named.version === version ? [] : undefined;
    const type = this.of(typeUrl);
    if (type.version === version) return [];
    return type.before === version ? type.changed : undefined;
  }

  of(typeUrl: string): TypeSet {
    return this.#types.get(typeUrl) ?? NOTHING;
  }
}

/** List -> set before -> what came of them: proxies that had the same and get the same share one set, and one comparison. */
const made = new WeakMap<readonly EncodedResource[], WeakMap<TypeSet, TypeSet>>();

/** Makes a list's set for those who have nothing yet, so that their first set takes what is there. */
export function prepareSet(resources: readonly EncodedResource[]): void {
  sharedTypeSet(resources, NOTHING);
}

function sharedTypeSet(resources: readonly EncodedResource[], before: TypeSet): TypeSet {
  let ofList = made.get(resources);
  if (ofList === undefined) {
    ofList = new WeakMap();
    made.set(resources, ofList);
  }
  let set = ofList.get(before);
  if (set === undefined) {
    set = typeSet(resources, before);
    ofList.set(before, set);
  }
  return set;
}

function typeSet(resources: readonly EncodedResource[], before: TypeSet): TypeSet {
  // Most of the time nothing differs, and then nothing is allocated.
  if (
    resources.length === before.byName.size &&
    resources.every((resource) => before.byName.get(resource.name)?.version === resource.version)
  )
    return before;
  const sorted = [...resources].sort((left, right) => (left.name < right.name ? -1 : 1));
  const byName = new Map(sorted.map((resource) => [resource.name, resource]));
  const changed: string[] = [];
  for (const [name, resource] of byName) if (before.byName.get(name)?.version !== resource.version) changed.push(name);
  for (const name of before.byName.keys()) if (!byName.has(name)) changed.push(name);
  const hash = createHash('sha256');
  for (const [name, resource] of byName) hash.update(`${name.length}:${name}${resource.version}\n`);
  const sameNames = byName.size === before.names.size && [...byName.keys()].every((name) => before.names.has(name));
  const names = sameNames ? before.names : new Set(byName.keys());
  return { version: hash.digest('base64url').slice(0, 22), byName, names, before: before.version, changed };
}
