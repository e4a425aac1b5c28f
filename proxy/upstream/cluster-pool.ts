/** All clusters by name, outliving configuration: pushes change them in place, and what no push names is drained by a sweep. */
import type { Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import { UpstreamCluster } from './cluster.ts';
import type { ClusterDeps } from './cluster.ts';
import { checkAssignment, compileCluster } from './compile-cluster.ts';
import type { CompiledCluster } from './compile-cluster.ts';

/** A place for a cluster of that name. Routes hold it: a cluster that comes later is there for the next request, without a new route. */
export interface ClusterRef {
  readonly name: string;
  current: UpstreamCluster | undefined;
}

export class ClusterPool {
  readonly #deps: ClusterDeps;
  readonly #refs = new Map<string, ClusterRef>();
  /** Places that routes hold for clusters that do not exist; gone with the last route that holds them. */
  readonly #empty = new Map<string, WeakRef<ClusterRef>>();
  /** Clusters that the last push left out; they serve until `sweep`. */
  readonly #left = new Set<string>();

  readonly #find = (name: string): UpstreamCluster | undefined => this.get(name);

  constructor(deps: ClusterDeps) {
    this.#deps = deps;
  }

  /**
   * Takes a push's clusters and assignments (by EDS service name). Everything is checked first: on `ConfigError` nothing has changed. New and
   * changed clusters are in force when it returns; those no longer named go on serving the old routes until `sweep`.
   */
  apply(clusters: ReadonlyMap<string, Cluster>, assignments: ReadonlyMap<string, LoadAssignment>): void {
    const compiled = new Map<string, CompiledCluster>();
    for (const [name, config] of clusters) {
      const known = this.#refs.get(name)?.current;
      compiled.set(name, known !== undefined && isSame(known, config) ? known.compiled : compileCluster(config));
    }
    checkAggregates(clusters);
    for (const [name, assignment] of assignments) checkAssignment(assignment, `endpoints ${JSON.stringify(name)}`);
    for (const [name, one] of compiled) {
      const ref = this.ref(name);
      this.#refs.set(name, ref);
      this.#empty.delete(name);
      if (ref.current === undefined) ref.current = new UpstreamCluster(one, this.#deps, this.#find);
      else ref.current.configure(one);
      const assignment = one.config.type === 'EDS' ? assignments.get(one.config.edsServiceName ?? name) : undefined;
      if (assignment !== undefined) ref.current.assign(assignment);
      this.#left.delete(name);
    }
    for (const name of this.#refs.keys()) if (!compiled.has(name)) this.#left.add(name);
  }

  /** Closes the clusters that the last `apply` did not name. Call it after the new routes are in force. Requests under way finish. */
  sweep(): void {
    for (const name of this.#left) {
      const ref = this.#refs.get(name)!;
      ref.current?.close();
      ref.current = undefined;
      this.#refs.delete(name);
      this.#empty.set(name, new WeakRef(ref));
    }
    this.#left.clear();
    for (const [name, weak] of this.#empty) if (weak.deref() === undefined) this.#empty.delete(name);
  }

  get(name: string): UpstreamCluster | undefined {
    return this.#refs.get(name)?.current;
  }

  ref(name: string): ClusterRef {
    const known = this.#refs.get(name) ?? this.#empty.get(name)?.deref();
    if (known !== undefined) return known;
    const ref: ClusterRef = { name, current: undefined };
    this.#empty.set(name, new WeakRef(ref));
    return ref;
  }

  /** Names of clusters whose endpoints are not known yet. */
  warming(): string[] {
    return [...this.all()].filter((cluster) => !cluster.warm).map((cluster) => cluster.name);
  }

  *all(): IterableIterator<UpstreamCluster> {
    for (const ref of this.#refs.values()) if (ref.current !== undefined) yield ref.current;
  }

  close(): void {
    for (const ref of this.#refs.values()) {
      ref.current?.close();
      ref.current = undefined;
    }
  }
}

/** State of the world brings every cluster anew; most are as they were. */
function isSame(known: UpstreamCluster, config: Cluster): boolean {
  return known.config === config || JSON.stringify(known.config) === JSON.stringify(config);
}

/** An aggregate that contains itself would never end. */
function checkAggregates(clusters: ReadonlyMap<string, Cluster>): void {
  const visit = (name: string, path: readonly string[]): void => {
    if (path.includes(name)) {
      throw new ConfigError(
        `cluster ${JSON.stringify(path[0])}.clusters`,
        `an aggregate must not contain itself: ${[...path, name].join(' > ')}`,
      );
    }
    for (const next of clusters.get(name)?.aggregateClusters ?? []) visit(next, [...path, name]);
  };
  for (const [name, cluster] of clusters) if (cluster.type === 'AGGREGATE') visit(name, []);
}
