/** Every resource that the sources have given: decoded, with its version and its last refusal, static ones and those of xDS side by side. */
import { EMPTY_SNAPSHOT } from '../xds/snapshot.ts';
import type { Cluster, JsonObject, Listener, LoadAssignment, RouteConfiguration, Secret, Snapshot, VirtualHost } from '../xds/snapshot.ts';

export interface ResourceKinds {
  readonly listeners: Listener;
  readonly routes: RouteConfiguration;
  /** By resource name, `<route configuration>/<host>`. */
  readonly virtualHosts: VirtualHost;
  readonly clusters: Cluster;
  readonly endpoints: LoadAssignment;
  readonly secrets: Secret;
}

export type Kind = keyof ResourceKinds;

export interface StoredResource<T> {
  readonly name: string;
  readonly value: T;
  readonly version: string;
  /** From the bootstrap: xDS cannot replace or remove it. */
  readonly fixed: boolean;
  readonly updatedMs: number;
  /** Redacted JSON with its `@type`, made when a dump asks for it. */
  readonly dump: () => JsonObject;
  /** As it came over xDS; absent for what came from files. */
  readonly wire?: WireForm;
}

export interface WireForm {
  readonly typeUrl: string;
  readonly bytes: Uint8Array;
  /** Nothing outside it, such as a file that it names, is part of its meaning. */
  readonly selfContained: boolean;
}

export interface Refusal {
  readonly version: string;
  readonly message: string;
  readonly atMs: number;
}

/** Refusals of names that have no good version are kept up to this many, so that strangers' names cannot fill memory. */
const REFUSALS_MAX = 1_000;

export class ResourceStore {
  readonly listeners = new Map<string, StoredResource<Listener>>();
  readonly routes = new Map<string, StoredResource<RouteConfiguration>>();
  readonly virtualHosts = new Map<string, StoredResource<VirtualHost>>();
  readonly clusters = new Map<string, StoredResource<Cluster>>();
  readonly endpoints = new Map<string, StoredResource<LoadAssignment>>();
  readonly secrets = new Map<string, StoredResource<Secret>>();
  /** By kind and name: the last version that was refused, until a good one comes. */
  readonly refusals = new Map<string, Refusal>();
  /** Version of the last response per kind. */
  readonly versions: Record<Kind, string> = { listeners: '', routes: '', virtualHosts: '', clusters: '', endpoints: '', secrets: '' };
  #snapshot: Snapshot = EMPTY_SNAPSHOT;
  readonly #dirty = new Set<Kind>();

  /** Takes a good resource. Throws when the name belongs to the bootstrap. */
  put<K extends Kind>(kind: K, resource: StoredResource<ResourceKinds[K]>): void {
    const map = this[kind] as Map<string, StoredResource<ResourceKinds[K]>>;
    if (map.get(resource.name)?.fixed === true && !resource.fixed)
      throw new Error(`${JSON.stringify(resource.name)} is defined in the bootstrap and cannot be replaced`);
    map.set(resource.name, resource);
    this.refusals.delete(`${kind} ${resource.name}`);
    this.#dirty.add(kind);
  }

  /** Forgets a resource; those of the bootstrap stay. */
  remove(kind: Kind, name: string): boolean {
    const map: Map<string, StoredResource<unknown>> = this[kind];
    this.refusals.delete(`${kind} ${name}`);
    if (map.get(name)?.fixed !== false) return false;
    map.delete(name);
    this.#dirty.add(kind);
    return true;
  }

  refuse(kind: Kind, name: string, refusal: Refusal): void {
    if (this.refusals.size < REFUSALS_MAX || this.refusals.has(`${kind} ${name}`)) this.refusals.set(`${kind} ${name}`, refusal);
  }

  /** Everything as one snapshot. Maps of kinds that did not change are the same objects as before. */
  snapshot(): Snapshot {
    for (const kind of this.#dirty) this.values(kind);
    return this.#snapshot;
  }

  /** The resources of one kind, as a snapshot has them. Cheaper than all of it while another kind is being filled. */
  values<K extends Kind>(kind: K): Snapshot[K] {
    if (this.#dirty.delete(kind)) {
      const values = new Map<string, unknown>();
      for (const [name, stored] of this[kind] as ReadonlyMap<string, StoredResource<unknown>>) values.set(name, stored.value);
      this.#snapshot = { ...this.#snapshot, [kind]: values };
    }
    return this.#snapshot[kind];
  }
}
