/** How far the proxy is: from the first step of the start to the last connection, and the statistics that tools wait for. */
import type { AdminContext, ServerState } from './admin/endpoint.ts';
import type { ResourceStore } from './resource-store.ts';
import type { RuntimeHolder } from './runtime.ts';
import type { ClusterPool } from './upstream/cluster-pool.ts';
import type { Clock } from '../lib/clock.ts';
import type { Counter, Gauge, Registry } from '../lib/metrics.ts';

const STATE_NUMBERS: Readonly<Record<ServerState, number>> = { LIVE: 0, DRAINING: 1, PRE_INITIALIZING: 2, INITIALIZING: 3 };

export interface StateDeps {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly store: ResourceStore;
  readonly runtime: RuntimeHolder;
  readonly clusters: ClusterPool;
  /** First answers of the control plane that the start still waits for, in words. */
  readonly awaited: () => readonly string[];
}

/** STRICT_DNS clusters get this long for their first answer before the start goes on without. */
const DNS_WAIT_MS = 5_000;
const LOOK_MS = 50;

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
  readonly #gauges: ReturnType<typeof serverGauges>;
  #listeners = new Set<string>();
  #clusters = new Map<string, unknown>();

  constructor(deps: StateDeps) {
    this.#deps = deps;
    this.startedMs = deps.clock.wallMs();
    let resolveReady = (): void => undefined;
    this.ready = new Promise((resolve) => {
      resolveReady = resolve;
    });
    this.#resolveReady = resolveReady;
    this.#gauges = serverGauges(deps.registry);
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
    this.#gauges.workersStarted.set(1);
    this.refresh();
    this.#resolveReady();
  }

  /** The configuration in force is one from disk, of that time; 0 = no longer. */
  stale(savedMs: number): void {
    this.staleSavedMs = savedMs;
    this.#gauges.stale.set(savedMs > 0 ? 1 : 0);
  }

  drain(): void {
    this.#draining = true;
    this.refresh();
  }

  close(): void {
    this.#cancelLook();
  }

  /** Counts what a swap added, changed and removed. */
  applied(): void {
    const { runtime, store } = this.#deps;
    const gauges = this.#gauges;
    const { listeners, clusters } = runtime.current.snapshot;
    for (const name of listeners.keys()) {
      if (this.#listeners.has(name)) continue;
      gauges.listenerAdded.inc();
      gauges.listenerCreated.inc();
    }
    for (const name of this.#listeners) if (!listeners.has(name)) gauges.listenerRemoved.inc();
    for (const [name, cluster] of clusters) {
      const known = this.#clusters.get(name);
      if (known === undefined) gauges.clusterAdded.inc();
      else if (known !== cluster) gauges.clusterModified.inc();
    }
    for (const name of this.#clusters.keys()) if (!clusters.has(name)) gauges.clusterRemoved.inc();
    this.#listeners = new Set(listeners.keys());
    this.#clusters = new Map(clusters);
    gauges.listenersActive.set(listeners.size);
    gauges.listenersWarming.set([...store.listeners.keys()].filter((name) => !listeners.has(name)).length);
    gauges.clustersActive.set(clusters.size);
    gauges.clustersWarming.set([...store.clusters.keys()].filter((name) => !clusters.has(name)).length);
    this.check();
  }

  /** Brings the gauges that follow the clock up to date. */
  refresh(): void {
    this.#gauges.state.set(STATE_NUMBERS[this.state]);
    this.#gauges.live.set(this.state === 'LIVE' ? 1 : 0);
    this.#gauges.uptimeSeconds.set(Math.floor((this.#deps.clock.wallMs() - this.startedMs) / 1000));
    const { heapUsed, heapTotal, rss } = process.memoryUsage();
    this.#gauges.memoryAllocated.set(heapUsed);
    this.#gauges.memoryHeap.set(heapTotal);
    this.#gauges.memoryPhysical.set(rss);
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

function serverGauges(
  registry: Registry,
): Readonly<
  Record<
    | 'state'
    | 'live'
    | 'stale'
    | 'uptimeSeconds'
    | 'memoryAllocated'
    | 'memoryHeap'
    | 'memoryPhysical'
    | 'workersStarted'
    | 'listenersActive'
    | 'listenersWarming'
    | 'clustersActive'
    | 'clustersWarming',
    Gauge
  > &
    Record<'listenerAdded' | 'listenerRemoved' | 'listenerCreated' | 'clusterAdded' | 'clusterModified' | 'clusterRemoved', Counter>
> {
  const name = (dotted: string): [string, Record<string, string>, { dotted: string }] => [
    `envoy_${dotted.replaceAll('.', '_')}`,
    {},
    { dotted },
  ];
  const gauge = (dotted: string): Gauge => registry.gauge(...name(dotted));
  const counter = (dotted: string): Counter => registry.counter(...name(dotted));
  return {
    state: gauge('server.state'),
    live: gauge('server.live'),
    stale: gauge('server.config_stale'),
    uptimeSeconds: gauge('server.uptime'),
    memoryAllocated: gauge('server.memory_allocated'),
    memoryHeap: gauge('server.memory_heap_size'),
    memoryPhysical: gauge('server.memory_physical_size'),
    workersStarted: gauge('listener_manager.workers_started'),
    listenersActive: gauge('listener_manager.total_listeners_active'),
    listenersWarming: gauge('listener_manager.total_listeners_warming'),
    clustersActive: gauge('cluster_manager.active_clusters'),
    clustersWarming: gauge('cluster_manager.warming_clusters'),
    listenerAdded: counter('listener_manager.listener_added'),
    listenerRemoved: counter('listener_manager.listener_removed'),
    listenerCreated: counter('listener_manager.listener_create_success'),
    clusterAdded: counter('cluster_manager.cluster_added'),
    clusterModified: counter('cluster_manager.cluster_modified'),
    clusterRemoved: counter('cluster_manager.cluster_removed'),
  };
}
