/** Envoy's statistics of a listener: `listener.<address or stat_prefix>.*`, and those of its TLS inspector. */
import { envoyScope } from '../../lib/metrics-scope.ts';
import type { Scope } from '../../lib/metrics-scope.ts';
import { tlsStats } from '../tls/tls-stats.ts';
import type { TlsStats } from '../tls/tls-stats.ts';
import type { Detected } from './detect.ts';
import type { Counter, Gauge, Histogram, Registry } from '../../lib/metrics.ts';
import type { Listener } from '../../xds/snapshot.ts';

/** Its `stat_prefix`, else its first address as it is configured: `127.0.0.1_80`, `[__1]_80`. */
export function listenerStatName({ statPrefix, address }: Pick<Listener, 'statPrefix' | 'address'>): string {
  if (statPrefix !== undefined) return statPrefix.replaceAll(':', '_');
  if (address.pipe === true) return address.host;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`.replaceAll(':', '_');
}

export function listenerScope(registry: Registry, listener: Pick<Listener, 'statPrefix' | 'address'>): Scope {
  const name = listenerStatName(listener);
  return envoyScope(registry, 'listener', `listener.${name}`, { envoy_listener_address: name });
}

export interface ListenerStats {
  readonly total: Counter;
  readonly active: Gauge;
  readonly destroyed: Counter;
  readonly overflow: Counter;
  readonly noChainMatch: Counter;
  readonly inspectionActive: Gauge;
  readonly inspectionTimeouts: Counter;
  readonly inspectionErrors: Counter;
  readonly inspectionClosed: Counter;
  readonly lengthMs: Histogram;
  /** There from the first use: most listeners have no TLS, and no inspector. */
  readonly tls: TlsStats;
  readonly inspected: (seen: Detected) => void;
}

/** The same handles for the same listener. */
export function listenerStats(registry: Registry, listener: Pick<Listener, 'statPrefix' | 'address'>): ListenerStats {
  const scope = listenerScope(registry, listener);
  let tls: TlsStats | undefined;
  let inspector: ReturnType<typeof inspectorStats> | undefined;
  return {
    total: scope.counter('downstream_cx_total'),
    active: scope.gauge('downstream_cx_active'),
    destroyed: scope.counter('downstream_cx_destroy'),
    overflow: scope.counter('downstream_cx_overflow'),
    noChainMatch: scope.counter('no_filter_chain_match'),
    inspectionActive: scope.gauge('downstream_pre_cx_active'),
    inspectionTimeouts: scope.counter('downstream_pre_cx_timeout'),
    inspectionErrors: scope.counter('downstream_listener_filter_error'),
    inspectionClosed: scope.counter('downstream_listener_filter_remote_close'),
    lengthMs: scope.histogram('downstream_cx_length_ms'),
    get tls() {
      return (tls ??= tlsStats(scope, true));
    },
    inspected: (seen) => (inspector ??= inspectorStats(registry))(seen),
  };
}

function inspectorStats(registry: Registry): (seen: Detected) => void {
  const counter = (name: string): Counter => registry.counter(`envoy_tls_inspector_${name}`, {}, { dotted: `tls_inspector.${name}` });
  const [tlsFound, tlsNotFound] = [counter('tls_found'), counter('tls_not_found')];
  const [sniFound, sniNotFound] = [counter('sni_found'), counter('sni_not_found')];
  const [alpnFound, alpnNotFound] = [counter('alpn_found'), counter('alpn_not_found')];
  const malformed = counter('client_hello_too_large');
  return ({ outcome, transportProtocol, serverName, applicationProtocols }) => {
    if (outcome === 'malformed') malformed.inc();
    if (outcome !== 'detected') return;
    if (transportProtocol !== 'tls') {
      tlsNotFound.inc();
      return;
    }
    tlsFound.inc();
    (serverName === '' ? sniNotFound : sniFound).inc();
    (applicationProtocols.length === 0 ? alpnNotFound : alpnFound).inc();
  };
}
