/** Envoy's statistics of a cluster's connections and of the requests that wait for one: what pools and tunnels tell on their way. */
import type { ProxyError } from '../errors.ts';
import type { Scope } from '../../lib/metrics-scope.ts';
import type { PoolEvents } from './pool.ts';

/** How a connection ended. */
export interface ConnectionEnd {
  /** Who ended it: this side, the peer, or this side because of what the peer sent. */
  readonly by: 'local' | 'remote' | 'protocol';
  /** A request was under way. */
  readonly busy: boolean;
  readonly ageMs: number;
}

/** The counts of one cluster; the same handles for the same scope. `http`: its connections speak HTTP/1.1. */
export function connectionEvents(scope: Scope, http = false): Required<Omit<PoolEvents, 'requestStarted' | 'raceRetried'>> {
  const counter = (name: string): { inc(): void } => scope.counter(`upstream_cx_${name}`);
  const total = counter('total');
  const http1 = http ? counter('http1_total') : undefined;
  const active = scope.gauge('upstream_cx_active');
  const destroyed = counter('destroy');
  const destroyedBy = { local: counter('destroy_local'), remote: counter('destroy_remote') };
  const destroyedBusy = counter('destroy_with_active_rq');
  const destroyedBusyBy = { local: counter('destroy_local_with_active_rq'), remote: counter('destroy_remote_with_active_rq') };
  const [failed, timedOut, idle] = [counter('connect_fail'), counter('connect_timeout'), counter('idle_timeout')];
  const [maxRequests, protocol] = [counter('max_requests'), counter('protocol_error')];
  const [received, sent] = [scope.counter('upstream_cx_rx_bytes_total'), scope.counter('upstream_cx_tx_bytes_total')];
  const [connectMs, lengthMs] = [scope.histogram('upstream_cx_connect_ms'), scope.histogram('upstream_cx_length_ms')];
  const pending = scope.counter('upstream_rq_pending_total');
  const pendingFailed = scope.counter('upstream_rq_pending_failure_eject');
  const begun = (): void => {
    total.inc();
    http1?.inc();
  };
  return {
    connectionOpened: (tookMs) => {
      begun();
      active.inc();
      connectMs.record(tookMs);
    },
    connectionClosed: ({ by, busy, ageMs }) => {
      const side = by === 'remote' ? 'remote' : 'local';
      active.dec();
      destroyed.inc();
      destroyedBy[side].inc();
      if (by === 'protocol') protocol.inc();
      if (busy) {
        destroyedBusy.inc();
        destroyedBusyBy[side].inc();
      }
      lengthMs.record(ageMs);
    },
    // Envoy counts a connection from its first packet on: one that failed was opened and destroyed.
    connectFailed: (error: ProxyError) => {
      begun();
      destroyed.inc();
      const late = error.code === 'connectTimeout';
      (late ? destroyedBy.local : destroyedBy.remote).inc();
      (late ? timedOut : failed).inc();
    },
    requestWaits: () => pending.inc(),
    waitFailed: () => pendingFailed.inc(),
    idleTimeout: () => idle.inc(),
    requestsUsedUp: () => maxRequests.inc(),
    bytesMoved: (bytesReceived, bytesSent) => {
      received.add(bytesReceived);
      sent.add(bytesSent);
    },
  };
}
