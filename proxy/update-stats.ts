/** Envoy's counters of configuration updates, which tools poll: `cluster_manager.cds.update_success`, `listener_manager.lds.update_rejected` … */
import type { Kind } from './resource-store.ts';
import type { Counter, Gauge, Registry } from '../lib/metrics.ts';

export interface UpdateCounters {
  readonly attempt: Counter;
  readonly success: Counter;
  /** Epoch milliseconds of the last success. */
  readonly time: Gauge;
  readonly rejected: Counter;
  /** What came could not be read at all. */
  readonly failure: Counter;
}

/** The same handles for the same registry. */
export function updateStats(registry: Registry): {
  of(kind: Kind): UpdateCounters;
  readonly connected: Gauge;
  /** Resources with fields that are not known, taken all the same. */
  readonly unknownFields: Counter;
} {
  const prefixes: Record<Kind, string> = {
    clusters: 'cluster_manager.cds',
    listeners: 'listener_manager.lds',
    routes: 'rds',
    virtualHosts: 'vhds',
    endpoints: 'eds',
    secrets: 'sds',
  };
  const named = (kind: Kind, name: string): [string, Record<string, string>, { dotted: string }] => [
    `envoy_${prefixes[kind].replaceAll('.', '_')}_${name}`,
    {},
    { dotted: `${prefixes[kind]}.${name}` },
  ];
  const counter = (kind: Kind, name: string): Counter => registry.counter(...named(kind, name));
  const kinds = Object.keys(prefixes) as Kind[];
  const all = new Map(
    kinds.map((kind) => [
      kind,
      {
        attempt: counter(kind, 'update_attempt'),
        success: counter(kind, 'update_success'),
        time: registry.gauge(...named(kind, 'update_time')),
        rejected: counter(kind, 'update_rejected'),
        failure: counter(kind, 'update_failure'),
      },
    ]),
  );
  return {
    of: (kind) => all.get(kind)!,
    unknownFields: registry.counter('envoy_server_dynamic_unknown_fields', {}, { dotted: 'server.dynamic_unknown_fields' }),
    connected: registry.gauge('envoy_control_plane_connected_state', {}, { dotted: 'control_plane.connected_state' }),
  };
}
