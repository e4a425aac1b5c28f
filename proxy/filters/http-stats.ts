/** Envoy's statistics of one HTTP connection manager: `http.<stat_prefix>.downstream_*`. */
import { envoyScope } from '../../lib/metrics-scope.ts';
import type { Observer } from './observe.ts';
import type { Counter, Gauge, Registry } from '../../lib/metrics.ts';

export interface HttpStats {
  readonly observer: Observer;
  readonly connections: Counter;
  readonly connectionsActive: Gauge;
  readonly upgradesActive: Gauge;
  /** A counter by its name below the prefix. */
  readonly counter: (name: string) => Counter;
}

/** The same handles for the same prefix: several chains of one prefix count together. */
export function httpStats(registry: Registry, statPrefix: string): HttpStats {
  const scope = envoyScope(registry, 'http', `http.${statPrefix}`, { envoy_http_conn_manager_prefix: statPrefix });
  const total = scope.counter('downstream_rq_total');
  const completed = scope.counter('downstream_rq_completed');
  const active = scope.gauge('downstream_rq_active');
  const timeMs = scope.histogram('downstream_rq_time');
  const reset = scope.counter('downstream_rq_rx_reset');
  const byClass = [1, 2, 3, 4, 5].map((digit) =>
    scope.counter('downstream_rq_xx', { envoy_response_code_class: String(digit) }, `downstream_rq_${digit}xx`),
  );
  const http1 = scope.counter('downstream_rq_http1_total');
  return {
    connections: scope.counter('downstream_cx_total'),
    connectionsActive: scope.gauge('downstream_cx_active'),
    upgradesActive: scope.gauge('downstream_cx_upgrades_active'),
    counter: (name) => scope.counter(name),
    observer: {
      started: () => {
        total.inc();
        http1.inc();
        active.inc();
      },
      done: ({ request, response, durationMs }) => {
        active.dec();
        timeMs.record(durationMs);
        if (response === undefined) {
          reset.inc();
          return;
        }
        // Envoy leaves answers to health checks out of these, so that an error rate is about real requests.
        if (request.info.filterState?.get('healthCheck') === true) return;
        completed.inc();
        byClass[Math.floor(response.status / 100) - 1]?.inc();
      },
    },
  };
}
