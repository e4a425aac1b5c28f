/** Envoy's statistics of the process: `server.*`, `listener_manager.*`, `cluster_manager.*` and `runtime.*`. */
import type { RuntimeLayers } from './runtime-layers.ts';
import type { Counter, Gauge, Histogram, Registry } from '../lib/metrics.ts';

const name = (dotted: string): [string, Record<string, string>, { dotted: string }] => [
  `envoy_${dotted.replaceAll('.', '_')}`,
  {},
  { dotted },
];

const GAUGES = {
  state: 'server.state',
  live: 'server.live',
  stale: 'server.config_stale',
  uptimeSeconds: 'server.uptime',
  concurrency: 'server.concurrency',
  connections: 'server.total_connections',
  parentConnections: 'server.parent_connections',
  hotRestartEpoch: 'server.hot_restart_epoch',
  daysToExpiry: 'server.days_until_first_cert_expiring',
  memoryAllocated: 'server.memory_allocated',
  memoryHeap: 'server.memory_heap_size',
  memoryPhysical: 'server.memory_physical_size',
  workersStarted: 'listener_manager.workers_started',
  listenersActive: 'listener_manager.total_listeners_active',
  listenersWarming: 'listener_manager.total_listeners_warming',
  listenersDraining: 'listener_manager.total_listeners_draining',
  clustersActive: 'cluster_manager.active_clusters',
  clustersWarming: 'cluster_manager.warming_clusters',
  runtimeKeys: 'runtime.num_keys',
  runtimeLayers: 'runtime.num_layers',
  runtimeOverrides: 'runtime.admin_overrides_active',
} as const;

const COUNTERS = {
  unknownStatic: 'server.static_unknown_fields',
  unknownDynamic: 'server.dynamic_unknown_fields',
  listenerAdded: 'listener_manager.listener_added',
  listenerModified: 'listener_manager.listener_modified',
  listenerRemoved: 'listener_manager.listener_removed',
  listenerStopped: 'listener_manager.listener_stopped',
  listenerCreated: 'listener_manager.listener_create_success',
  listenerFailed: 'listener_manager.listener_create_failure',
  listenerUpdatedInPlace: 'listener_manager.listener_in_place_updated',
  clusterAdded: 'cluster_manager.cluster_added',
  clusterModified: 'cluster_manager.cluster_modified',
  clusterRemoved: 'cluster_manager.cluster_removed',
  runtimeLoads: 'runtime.load_success',
  runtimeFailures: 'runtime.load_error',
} as const;

export type ServerStats = Readonly<Record<keyof typeof GAUGES, Gauge> & Record<keyof typeof COUNTERS, Counter>> & {
  readonly startMs: Histogram;
};

/** The same handles for the same registry. */
export function serverStats(registry: Registry): ServerStats {
  const all = <K extends string, T>(names: Readonly<Record<K, string>>, make: (dotted: string) => T): Record<K, T> =>
    Object.fromEntries(Object.entries<string>(names).map(([key, dotted]) => [key, make(dotted)])) as Record<K, T>;
  return {
    ...all(GAUGES, (dotted) => registry.gauge(...name(dotted))),
    ...all(COUNTERS, (dotted) => registry.counter(...name(dotted))),
    startMs: registry.histogram(...name('server.initialization_time_ms')),
  };
}

/** What the layers hold now. */
export function countRuntime(stats: ServerStats, layers: RuntimeLayers): void {
  stats.runtimeKeys.set(layers.entries().length);
  stats.runtimeLayers.set(layers.names.length);
  stats.runtimeOverrides.set(layers.overrides > 0 ? 1 : 0);
}
