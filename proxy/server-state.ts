/** How far the proxy is: from the first step of the start to the last connection, and the statistics that tools wait for. */
import { firstExpiryMs } from './certificates.ts';
import type { AdminContext, ServerState } from './admin/endpoint.ts';
import type { ListenerSet } from './listen/listener-set.ts';
import type { ResourceStore } from './resource-store.ts';
import type { RuntimeHolder } from './runtime.ts';
import type { RuntimeLayers } from './runtime-layers.ts';
import { countRuntime, serverStats } from './server-stats.ts';
import type { ServerStats } from './server-stats.ts';
import type { ClusterPool } from './upstream/cluster-pool.ts';
import type { Clock } from '../lib/clock.ts';
import type { Listener } from '../xds/snapshot.ts';
import type { Registry } from '../lib/metrics.ts';

const STATE_NUMBERS: Readonly<Record<ServerState, number>> = { LIVE: 0, DRAINING: 1, PRE_INITIALIZING: 2, INITIALIZING: 3 };

export interface StateDeps {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly store: ResourceStore;
  readonly runtime: RuntimeHolder;
  readonly clusters: ClusterPool;
  readonly listeners: Pick<ListenerSet, 'connections' | 'draining' | 'countBytes'>;
  readonly layers: RuntimeLayers;
  /** First answers of the control plane that the start still waits for, in words. */
  readonly awaited: () => readonly string[];
}

/** STRICT_DNS clusters get this long for their first answer before the start goes on without. */
const DNS_WAIT_MS = 5_000;
const LOOK_MS = 50;
const DAY_MS = 86_400_000;
/** What Envoy says where no certificate is. */
const NO_EXPIRY_DAYS = 2 ** 32 - 1;
/** Envoy changes nothing but the filter chains of a listener in place. */
const NO_CHAINS = { filterChains: undefined, defaultFilterChain: undefined } as const;

export class ServerStatus {
  readonly startedMs: number;
  /** Resolves when the proxy is LIVE for the first time. */
  readonly ready: Promise<void>;
  healthCheckFailed = false;
  /** When the configuration in force was written to disk, while it is one from disk; 0 = it is the control plane's. */
  staleSavedMs = 0;
  #draining = false;
  #live = false;
  readonly #deps: StateDeps;
  readonly #resolveReady: () => void;
  readonly #dnsUntilMs: number;
  #cancelLook: () => void = () => undefined;
  readonly #stats: ServerStats;
  #listeners = new Map<string, Listener>();
  #clusters = new Map<string, unknown>();

  constructor(deps: StateDeps) {
    this.#deps = deps;
    this.startedMs = deps.clock.wallMs();
    let resolveReady = (): void => undefined;
    this.ready = new Promise((resolve) => {
      resolveReady = resolve;
    });
    this.#resolveReady = resolveReady;
    this.#stats = serverStats(deps.registry);
    this.#stats.concurrency.set(1);
    this.#stats.runtimeLoads.inc();
    this.#dnsUntilMs = deps.clock.now() + DNS_WAIT_MS;
    this.#look();
    this.refresh();
  }

  get state(): ServerState {
    if (this.#draining || this.healthCheckFailed) return 'DRAINING';
    return this.#live ? 'LIVE' : 'INITIALIZING';
  }

  get isLive(): boolean {
    return this.#live;
  }

  /** What the start waits for. */
  unready(): ReturnType<AdminContext['unready']> {
    if (this.#live) return [];
    const awaited = this.#deps.awaited();
    const waiting = [...this.#deps.runtime.waiting].map(([name, targets]) => ({ name, targets }));
    const cold = this.#deps.clock.now() >= this.#dnsUntilMs ? [] : this.#coldClusters();
    return [
      ...(awaited.length === 0 ? [] : [{ name: 'control plane', targets: awaited }]),
      ...waiting,
      ...(cold.length === 0 ? [] : [{ name: 'clusters', targets: cold }]),
    ];
  }

  /** Looks whether the start is complete. */
  check(): void {
    if (this.#live || this.unready().length > 0) return;
    this.#live = true;
    this.#cancelLook();
    this.#stats.workersStarted.set(1);
    this.#stats.startMs.record(this.#deps.clock.wallMs() - this.startedMs);
    this.refresh();
    this.#resolveReady();
  }

  /** The configuration in force is one from disk, of that time; 0 = no longer. */
  stale(savedMs: number): void {
    this.staleSavedMs = savedMs;
    this.#stats.stale.set(savedMs > 0 ? 1 : 0);
  }

  drain(): void {
    this.#draining = true;
    this.refresh();
  }

  close(): void {
    this.#cancelLook();
  }

  /** Counts what a swap added, changed and removed; so many listeners could not be put in force. */
  applied(problems: number): void {
    const { runtime, store } = this.#deps;
    const stats = this.#stats;
    stats.listenerFailed.add(problems);
    const { listeners, clusters } = runtime.current.snapshot;
    for (const [name, listener] of listeners) this.#listenerApplied(this.#listeners.get(name), listener);
    for (const name of this.#listeners.keys()) if (!listeners.has(name)) stats.listenerRemoved.inc();
    for (const [name, cluster] of clusters) {
      const known = this.#clusters.get(name);
      if (known === undefined) stats.clusterAdded.inc();
      else if (known !== cluster) stats.clusterModified.inc();
    }
    for (const name of this.#clusters.keys()) if (!clusters.has(name)) stats.clusterRemoved.inc();
    this.#listeners = new Map(listeners);
    this.#clusters = new Map(clusters);
    stats.listenersActive.set(listeners.size);
    stats.listenersWarming.set([...store.listeners.keys()].filter((name) => !listeners.has(name)).length);
    stats.clustersActive.set(clusters.size);
    stats.clustersWarming.set([...store.clusters.keys()].filter((name) => !clusters.has(name)).length);
    this.check();
  }

  #listenerApplied(known: Listener | undefined, listener: Listener): void {
    const stats = this.#stats;
    if (known === listener) return;
    stats.listenerCreated.inc();
    if (known === undefined) stats.listenerAdded.inc();
    else {
      stats.listenerModified.inc();
      if (JSON.stringify({ ...known, ...NO_CHAINS }) === JSON.stringify({ ...listener, ...NO_CHAINS })) stats.listenerUpdatedInPlace.inc();
    }
  }

  /** Listeners that no longer accept because somebody asked for that. */
  listenersStopped(count: number): void {
    this.#stats.listenerStopped.add(count);
  }

  /** Messages of the bootstrap with fields that are not known and were let pass. */
  unknownFields(count: number): void {
    this.#stats.unknownStatic.add(count);
  }

  /** The admin port changed a runtime value. */
  runtimeModified(): void {
    this.#stats.runtimeLoads.inc();
    this.refresh();
  }

  /** Brings the statistics that follow the clock, and those that are read from sockets, up to date. */
  refresh(): void {
    const { clock, listeners, clusters, layers } = this.#deps;
    listeners.countBytes();
    for (const cluster of clusters.all()) cluster.countBytes();
    this.#stats.connections.set(listeners.connections);
    this.#stats.listenersDraining.set(listeners.draining);
    const leftMs = firstExpiryMs(this.#deps.runtime.current.snapshot) - clock.wallMs();
    this.#stats.daysToExpiry.set(leftMs === Number.POSITIVE_INFINITY ? NO_EXPIRY_DAYS : Math.max(0, Math.floor(leftMs / DAY_MS)));
    countRuntime(this.#stats, layers);
    this.#stats.state.set(STATE_NUMBERS[this.state]);
    this.#stats.live.set(this.state === 'LIVE' ? 1 : 0);
    this.#stats.uptimeSeconds.set(Math.floor((this.#deps.clock.wallMs() - this.startedMs) / 1000));
    const { heapUsed, heapTotal, rss } = process.memoryUsage();
    this.#stats.memoryAllocated.set(heapUsed);
    this.#stats.memoryHeap.set(heapTotal);
    this.#stats.memoryPhysical.set(rss);
  }

  /** Clusters tell nobody when their first DNS answer is there, so the start looks now and then. */
  #look(): void {
    this.#cancelLook = this.#deps.clock.after(LOOK_MS, () => {
      this.#look();
      this.check();
    });
  }

  #coldClusters(): string[] {
    return [...this.#deps.clusters.all()]
      .filter((cluster) => !cluster.warm && cluster.config.type !== 'EDS')
      .map((cluster) => cluster.name);
  }
}
