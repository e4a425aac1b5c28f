/** What is in force, and its swap: from the resources that were received to the configuration that serves, in one step and never half. */
import { ConfigError } from './errors.ts';
import { warm } from './warming.ts';
import { EMPTY_SNAPSHOT } from '../xds/snapshot.ts';
import type { CompiledListener } from './listen/chain.ts';
import type { ListenerSet, PreparedListeners } from './listen/listener-set.ts';
import type { ResourceStore } from './resource-store.ts';
import type { ClusterPool } from './upstream/cluster-pool.ts';
import type { Want } from './warming.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { LoadAssignment, Snapshot } from '../xds/snapshot.ts';

/** One compiled snapshot. */
export interface Runtime {
  readonly snapshot: Snapshot;
  readonly listeners: ReadonlyMap<string, CompiledListener>;
}

export type Compile = (snapshot: Snapshot, clusters: ClusterPool, previous: Runtime) => Runtime;

export const EMPTY_RUNTIME: Runtime = { snapshot: EMPTY_SNAPSHOT, listeners: new Map() };

export interface RuntimeDeps {
  readonly store: ResourceStore;
  readonly clusters: ClusterPool;
  readonly listeners: ListenerSet;
  readonly compile: Compile;
  readonly clock: Clock;
  readonly log: Log;
  /** How long a resource may be held back for what it needs. Default 15 s, Envoy's initial_fetch_timeout. */
  readonly waitMs?: number;
  /** Told after each swap, with how many listeners it could not put in force. */
  readonly onApplied?: (problems: number) => void;
}

/** A resource that could not be put in force. An empty name means all of them. */
export interface ApplyProblem {
  readonly name: string;
  readonly message: string;
}

const WAIT_MS = 15_000;

export class RuntimeHolder {
  /** The one assignment by which a configuration reaches new connections and requests. */
  current: Runtime = EMPTY_RUNTIME;
  /** What is held back, and what for. */
  waiting: ReadonlyMap<string, readonly Want[]> = new Map();
  readonly #deps: RuntimeDeps;
  readonly #givenUp = new Set<Want>();
  readonly #timers = new Map<Want, () => void>();
  #applying: Promise<readonly ApplyProblem[]> | undefined;
  #closed = false;
  /** What the store said when it was last put in force as a whole. */
  #target: Snapshot = EMPTY_SNAPSHOT;

  constructor(deps: RuntimeDeps) {
    this.#deps = deps;
  }

  /**
   * Puts in force what can be: make before break. Answers what could not be (an address that is taken, a configuration that does not
   * compile); the last good configuration stays there. Only opening sockets takes time: without that the answer is there at once.
   */
  apply(): readonly ApplyProblem[] | Promise<readonly ApplyProblem[]> {
    if (this.#closed) return [];
    if (this.#applying !== undefined) {
      return this.#applying.then(() => this.apply());
    }
    const target = this.#deps.store.snapshot();
    if (this.#assignOnly(target)) return [];
    let next: Runtime;
    let prepared: PreparedListeners | Promise<PreparedListeners>;
    try {
      const warmed = warm(target, this.current.snapshot, this.#givenUp);
      this.waiting = warmed.waiting;
      this.#watch();
      next = this.#deps.compile(warmed.snapshot, this.#deps.clusters, this.current);
      prepared = this.#deps.listeners.prepare(next.listeners);
    } catch (error) {
      return [this.#problem(error)];
    }
    if (!(prepared instanceof Promise)) return this.#commit(next, prepared, target);
    this.#applying = prepared
      .then((ready) => this.#commit(next, ready, target))
      .finally(() => {
        this.#applying = undefined;
      });
    return this.#applying;
  }

  /** Compiles anew what is there: something beside the resources has changed. */
  async recompile(): Promise<void> {
    this.#target = EMPTY_SNAPSHOT;
    await this.#applyLater();
  }

  /** A need that will not be met: what waits for it goes on without. */
  giveUp(want: Want): void {
    this.#givenUp.add(want);
  }

  close(): void {
    this.#closed = true;
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
  }

  #commit(next: Runtime, prepared: PreparedListeners, target: Snapshot): readonly ApplyProblem[] {
    if (this.#closed) {
      void prepared.abort();
      return [];
    }
    prepared.commit();
    this.#target = target;
    const listeners = new Map(next.listeners);
    const configs = new Map(next.snapshot.listeners);
    for (const name of prepared.problems.keys()) {
      revert(listeners, this.current.listeners, name);
      revert(configs, this.current.snapshot.listeners, name);
    }
    this.current = { snapshot: { ...next.snapshot, listeners: configs }, listeners };
    this.#deps.clusters.sweep();
    this.#deps.onApplied?.(prepared.problems.size);
    return [...prepared.problems].map(([name, message]) => ({ name, message: `listener ${JSON.stringify(name)}: ${message}` }));
  }

  /**
   * The most frequent change by far, endpoints of clusters that are in force, goes straight to these clusters: its cost follows the change
   * and not the size of the mesh. False = something else changed too.
   */
  #assignOnly(target: Snapshot): boolean {
    const { listeners, routes, virtualHosts, clusters, secrets, endpoints } = this.#target;
    if (this.waiting.size > 0 || target.clusters !== clusters || target.routes !== routes) return false;
    if (
      target.virtualHosts !== virtualHosts ||
      target.listeners !== listeners ||
      target.secrets !== secrets ||
      target.endpoints.size !== endpoints.size
    )
      return false;
    const changed: LoadAssignment[] = [];
    for (const [name, assignment] of target.endpoints) {
      const before = endpoints.get(name);
      if (before === undefined) return false;
      if (before !== assignment) changed.push(assignment);
    }
    const byService = clustersByService(clusters);
    for (const assignment of changed) {
      for (const name of byService.get(assignment.clusterName) ?? []) this.#deps.clusters.get(name)?.assign(assignment);
    }
    this.#target = target;
    this.current = { ...this.current, snapshot: { ...this.current.snapshot, endpoints: target.endpoints } };
    return true;
  }

  #problem(error: unknown): ApplyProblem {
    if (!(error instanceof ConfigError)) this.#deps.log.error('A configuration could not be compiled for an unexpected reason.', { error });
    return { name: '', message: error instanceof Error ? error.message : String(error) };
  }

  /** A timer per need: when it is over, the resource goes in force without. */
  #watch(): void {
    const wants = new Set([...this.waiting.values()].flat());
    for (const [want, cancel] of this.#timers) {
      if (wants.has(want)) continue;
      cancel();
      this.#timers.delete(want);
    }
    for (const want of this.#givenUp) if (!wants.has(want) && !this.#isStillMissing(want)) this.#givenUp.delete(want);
    for (const want of wants) {
      if (this.#timers.has(want)) continue;
      this.#timers.set(
        want,
        this.#deps.clock.after(this.#deps.waitMs ?? WAIT_MS, () => {
          this.#timers.delete(want);
          this.#givenUp.add(want);
          if (!want.startsWith('removal '))
            this.#deps.log.warning('Waited long enough for a resource; what needs it goes on without.', { want });
          void this.#applyLater();
        }),
      );
    }
  }

  async #applyLater(): Promise<void> {
    for (const { message } of await this.apply()) this.#deps.log.error('A configuration could not be applied.', { problem: message });
  }

  #isStillMissing(want: Want): boolean {
    const space = want.indexOf(' ');
    const name = want.slice(space + 1);
    const { store } = this.#deps;
    switch (want.slice(0, space)) {
      case 'cluster':
        return !store.clusters.has(name);
      case 'endpoints':
        return !store.endpoints.has(name);
      case 'route':
        return !store.routes.has(name);
      case 'secret':
        return !store.secrets.has(name);
      default:
        return !store.clusters.has(name);
    }
  }
}

const BY_SERVICE = new WeakMap<Snapshot['clusters'], ReadonlyMap<string, readonly string[]>>();

/** Names of the EDS clusters by the service whose endpoints they use. */
function clustersByService(clusters: Snapshot['clusters']): ReadonlyMap<string, readonly string[]> {
  let found = BY_SERVICE.get(clusters);
  if (found === undefined) {
    const made = new Map<string, string[]>();
    for (const [name, cluster] of clusters) {
      if (cluster.type !== 'EDS') continue;
      const service = cluster.edsServiceName ?? name;
      const names = made.get(service);
      if (names === undefined) made.set(service, [name]);
      else names.push(name);
    }
    found = made;
    BY_SERVICE.set(clusters, found);
  }
  return found;
}

function revert<T>(map: Map<string, T>, old: ReadonlyMap<string, T>, name: string): void {
  const value = old.get(name);
  if (value === undefined) map.delete(name);
  else map.set(name, value);
}
