/** Envoy's statistics of a cluster: all of them are read from its first moment, each handle is made when something is counted. */
import type { Counter, Histogram, Registry } from '../../lib/metrics.ts';
import { blockScope, scopeType } from '../../lib/metrics-scope.ts';
import type { BlockScope } from '../../lib/metrics-scope.ts';

const STATUS_MAX = 599;

/** By the names of the getters below; membership is written without handles. */
const NAMED = {
  rqTotal: ['counter', 'upstream_rq_total'],
  rqCompleted: ['counter', 'upstream_rq_completed'],
  rqTime: ['histogram', 'upstream_rq_time'],
  rqRetry: ['counter', 'upstream_rq_retry'],
  rqRetrySuccess: ['counter', 'upstream_rq_retry_success'],
  rqRetryLimitExceeded: ['counter', 'upstream_rq_retry_limit_exceeded'],
  rqRetryBackoffExponential: ['counter', 'upstream_rq_retry_backoff_exponential'],
  rqRetryBackoffRatelimited: ['counter', 'upstream_rq_retry_backoff_ratelimited'],
  rqTimeout: ['counter', 'upstream_rq_timeout'],
  rqPerTryTimeout: ['counter', 'upstream_rq_per_try_timeout'],
  rqRxReset: ['counter', 'upstream_rq_rx_reset'],
  rqTxReset: ['counter', 'upstream_rq_tx_reset'],
  rqCancelled: ['counter', 'upstream_rq_cancelled'],
  noneHealthy: ['counter', 'upstream_cx_none_healthy'],
  panic: ['counter', 'lb_healthy_panic'],
  dropped: ['counter', 'upstream_rq_drop_overload'],
  updates: ['counter', 'update_success'],
  membershipChange: ['counter', 'membership_change'],
  membershipTotal: ['gauge', 'membership_total'],
  membershipHealthy: ['gauge', 'membership_healthy'],
  membershipDegraded: ['gauge', 'membership_degraded'],
  membershipExcluded: ['gauge', 'membership_excluded'],
  ejectionsActive: ['gauge', 'outlier_detection.ejections_active'],
  ejectionsTotal: ['counter', 'outlier_detection.ejections_enforced_total'],
  ejectionsOverflow: ['counter', 'outlier_detection.ejections_overflow'],
} as const;

/** What limits.ts writes. */
const BREAKERS = [
  ['gauge', 'circuit_breakers.default.cx_open'],
  ['counter', 'upstream_cx_overflow'],
  ['gauge', 'circuit_breakers.default.rq_pending_open'],
  ['counter', 'upstream_rq_pending_overflow'],
  ['gauge', 'upstream_rq_pending_active'],
  ['gauge', 'circuit_breakers.default.rq_open'],
  ['gauge', 'upstream_rq_active'],
  ['gauge', 'circuit_breakers.default.rq_retry_open'],
  ['counter', 'upstream_rq_retry_overflow'],
  ['gauge', 'circuit_breakers.high.cx_open'],
  ['gauge', 'circuit_breakers.high.rq_pending_open'],
  ['gauge', 'circuit_breakers.high.rq_open'],
  ['gauge', 'circuit_breakers.high.rq_retry_open'],
] as const;

const SERIES = scopeType('cluster', [...Object.values(NAMED), ...BREAKERS]);
const AT = Object.fromEntries(Object.keys(NAMED).map((name, index) => [name, index])) as { readonly [Name in keyof typeof NAMED]: number };

export class ClusterStats {
  readonly scope: BlockScope;
  #classes: (Counter | undefined)[] | undefined = undefined;
  #codes: (Counter | undefined)[] | undefined = undefined;

  /** `name` is the cluster's alternative stat name when it has one. */
  constructor(registry: Registry, name: string) {
    this.scope = blockScope(registry, 'cluster', `cluster.${name.replaceAll(':', '_')}`, { envoy_cluster_name: name }, SERIES);
  }

  get rqTotal(): Counter {
    return this.scope.at(AT.rqTotal) as Counter;
  }

  get rqCompleted(): Counter {
    return this.scope.at(AT.rqCompleted) as Counter;
  }

  get rqTime(): Histogram {
    return this.scope.at(AT.rqTime) as Histogram;
  }

  get rqRetry(): Counter {
    return this.scope.at(AT.rqRetry) as Counter;
  }

  get rqRetrySuccess(): Counter {
    return this.scope.at(AT.rqRetrySuccess) as Counter;
  }

  get rqRetryLimitExceeded(): Counter {
    return this.scope.at(AT.rqRetryLimitExceeded) as Counter;
  }

  get rqRetryBackoffExponential(): Counter {
    return this.scope.at(AT.rqRetryBackoffExponential) as Counter;
  }

  get rqRetryBackoffRatelimited(): Counter {
    return this.scope.at(AT.rqRetryBackoffRatelimited) as Counter;
  }

  get rqTimeout(): Counter {
    return this.scope.at(AT.rqTimeout) as Counter;
  }

  get rqPerTryTimeout(): Counter {
    return this.scope.at(AT.rqPerTryTimeout) as Counter;
  }

  get rqRxReset(): Counter {
    return this.scope.at(AT.rqRxReset) as Counter;
  }

  get rqTxReset(): Counter {
    return this.scope.at(AT.rqTxReset) as Counter;
  }

  get rqCancelled(): Counter {
    return this.scope.at(AT.rqCancelled) as Counter;
  }

  get noneHealthy(): Counter {
    return this.scope.at(AT.noneHealthy) as Counter;
  }

  get panic(): Counter {
    return this.scope.at(AT.panic) as Counter;
  }

  get dropped(): Counter {
    return this.scope.at(AT.dropped) as Counter;
  }

  get ejectionsTotal(): Counter {
    return this.scope.at(AT.ejectionsTotal) as Counter;
  }

  get ejectionsOverflow(): Counter {
    return this.scope.at(AT.ejectionsOverflow) as Counter;
  }

  /** An assignment came from outside, or from DNS. */
  updated(): void {
    this.scope.add(AT.updates, 1);
  }

  /** Endpoints joined or left. */
  membershipChanged(): void {
    this.scope.add(AT.membershipChange, 1);
  }

  /** How many endpoints there are, and how many of them are healthy and so on. */
  membership(total: number, healthy: number, degraded: number, excluded: number, ejected: number): void {
    const { scope } = this;
    scope.set(AT.membershipTotal, total);
    scope.set(AT.membershipHealthy, healthy);
    scope.set(AT.membershipDegraded, degraded);
    scope.set(AT.membershipExcluded, excluded);
    scope.set(AT.ejectionsActive, ejected);
  }

  /** Counts an answer by code and class. */
  answered(status: number): void {
    if (status < 100 || status > STATUS_MAX) return;
    const digit = (status / 100) | 0;
    this.#classes ??= [];
    this.#codes ??= [];
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
