/** Envoy's statistics of a cluster, each handle bound when the cluster appears. */
import type { Counter, Gauge, Histogram, Registry } from '../../lib/metrics.ts';
import { envoyScope } from '../../lib/metrics-scope.ts';
import type { Scope } from '../../lib/metrics-scope.ts';

const STATUS_MAX = 599;

export class ClusterStats {
  readonly scope: Scope;
  readonly rqTotal: Counter;
  readonly rqCompleted: Counter;
  readonly rqTime: Histogram;
  readonly rqRetry: Counter;
  readonly rqRetrySuccess: Counter;
  readonly rqRetryLimitExceeded: Counter;
  readonly rqRetryBackoffExponential: Counter;
  readonly rqRetryBackoffRatelimited: Counter;
  readonly rqTimeout: Counter;
  readonly rqPerTryTimeout: Counter;
  readonly rqRxReset: Counter;
  readonly rqTxReset: Counter;
  readonly rqCancelled: Counter;
  readonly noneHealthy: Counter;
  readonly panic: Counter;
  readonly dropped: Counter;
  readonly updates: Counter;
  readonly membershipChange: Counter;
  readonly membershipTotal: Gauge;
  readonly membershipHealthy: Gauge;
  readonly membershipDegraded: Gauge;
  readonly membershipExcluded: Gauge;
  readonly ejectionsActive: Gauge;
  readonly ejectionsTotal: Counter;
  readonly ejectionsOverflow: Counter;
  readonly #classes: (Counter | undefined)[] = [];
  readonly #codes: (Counter | undefined)[] = [];

  /** `name` is the cluster's alternative stat name when it has one. */
  constructor(registry: Registry, name: string) {
    const scope = envoyScope(registry, 'cluster', `cluster.${name.replaceAll(':', '_')}`, { envoy_cluster_name: name });
    this.scope = scope;
    this.rqTotal = scope.counter('upstream_rq_total');
    this.rqCompleted = scope.counter('upstream_rq_completed');
    this.rqTime = scope.histogram('upstream_rq_time');
    this.rqRetry = scope.counter('upstream_rq_retry');
    this.rqRetrySuccess = scope.counter('upstream_rq_retry_success');
    this.rqRetryLimitExceeded = scope.counter('upstream_rq_retry_limit_exceeded');
    this.rqRetryBackoffExponential = scope.counter('upstream_rq_retry_backoff_exponential');
    this.rqRetryBackoffRatelimited = scope.counter('upstream_rq_retry_backoff_ratelimited');
    this.rqTimeout = scope.counter('upstream_rq_timeout');
    this.rqPerTryTimeout = scope.counter('upstream_rq_per_try_timeout');
    this.rqRxReset = scope.counter('upstream_rq_rx_reset');
    this.rqTxReset = scope.counter('upstream_rq_tx_reset');
    this.rqCancelled = scope.counter('upstream_rq_cancelled');
    this.noneHealthy = scope.counter('upstream_cx_none_healthy');
    this.panic = scope.counter('lb_healthy_panic');
    this.dropped = scope.counter('upstream_rq_drop_overload');
    this.updates = scope.counter('update_success');
    this.membershipChange = scope.counter('membership_change');
    this.membershipTotal = scope.gauge('membership_total');
    this.membershipHealthy = scope.gauge('membership_healthy');
    this.membershipDegraded = scope.gauge('membership_degraded');
    this.membershipExcluded = scope.gauge('membership_excluded');
    this.ejectionsActive = scope.gauge('outlier_detection.ejections_active');
    this.ejectionsTotal = scope.counter('outlier_detection.ejections_enforced_total');
    this.ejectionsOverflow = scope.counter('outlier_detection.ejections_overflow');
  }

  /** Counts an answer by code and class. */
  answered(status: number): void {
    if (status < 100 || status > STATUS_MAX) return;
    const digit = (status / 100) | 0;
    (this.#classes[digit] ??= this.scope.counter(
      'upstream_rq_xx',
      { envoy_response_code_class: String(digit) },
      `upstream_rq_${digit}xx`,
    )).inc();
    (this.#codes[status] ??= this.scope.counter('upstream_rq', { envoy_response_code: String(status) }, `upstream_rq_${status}`)).inc();
  }

  ejected(cause: string): void {
    this.ejectionsTotal.inc();
    this.scope.counter(`outlier_detection.ejections_enforced_${cause}`).inc();
  }

  detected(cause: string): void {
    this.scope.counter(`outlier_detection.ejections_detected_${cause}`).inc();
  }
}
