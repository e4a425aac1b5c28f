/** Envoy's statistics of a cluster: all of them are read from its first moment, each handle is made when something is counted. */
import type { Counter, Histogram, Registry } from '../../lib/metrics.ts';
import { blockScope, scopeType } from '../../lib/metrics-scope.ts';
import type { BlockScope } from '../../lib/metrics-scope.ts';
import { tlsStats } from '../tls/tls-stats.ts';
import type { TlsStats } from '../tls/tls-stats.ts';
import { connectionEvents } from './connection-events.ts';

const STATUS_MAX = 599;

/** Written without handles, for every cluster from its first moment. */
const MEMBERSHIP = {
  updates: ['counter', 'update_success'],
  membershipChange: ['counter', 'membership_change'],
  membershipTotal: ['gauge', 'membership_total'],
  membershipHealthy: ['gauge', 'membership_healthy'],
  membershipDegraded: ['gauge', 'membership_degraded'],
  membershipExcluded: ['gauge', 'membership_excluded'],
} as const;

/** By the names of the getters below. */
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
  updateAttempts: ['counter', 'update_attempt'],
  updateFailures: ['counter', 'update_failure'],
  updatesWithoutChange: ['counter', 'update_no_rebuild'],
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

/** What connection-events.ts writes. */
const CONNECTIONS = [
  ['counter', 'upstream_cx_total'],
  ['counter', 'upstream_cx_http1_total'],
  ['gauge', 'upstream_cx_active'],
  ['counter', 'upstream_cx_connect_fail'],
  ['counter', 'upstream_cx_connect_timeout'],
  ['counter', 'upstream_cx_connect_attempts_exceeded'],
  ['counter', 'upstream_cx_destroy'],
  ['counter', 'upstream_cx_destroy_local'],
  ['counter', 'upstream_cx_destroy_remote'],
  ['counter', 'upstream_cx_destroy_with_active_rq'],
  ['counter', 'upstream_cx_destroy_local_with_active_rq'],
  ['counter', 'upstream_cx_destroy_remote_with_active_rq'],
  ['counter', 'upstream_cx_idle_timeout'],
  ['counter', 'upstream_cx_max_requests'],
  ['counter', 'upstream_cx_protocol_error'],
  ['counter', 'upstream_cx_rx_bytes_total'],
  ['counter', 'upstream_cx_tx_bytes_total'],
  ['counter', 'upstream_rq_pending_total'],
  ['counter', 'upstream_rq_pending_failure_eject'],
  ['histogram', 'upstream_cx_connect_ms'],
  ['histogram', 'upstream_cx_length_ms'],
] as const;

const GETTERS = { ...MEMBERSHIP, ...NAMED };
const SERIES = scopeType('cluster', [...Object.values(GETTERS), ...BREAKERS, ...CONNECTIONS], Object.keys(MEMBERSHIP).length);
const AT = Object.fromEntries(Object.keys(GETTERS).map((name, index) => [name, index])) as {
  readonly [Name in keyof typeof GETTERS]: number;
};

export class ClusterStats {
  readonly scope: BlockScope;
  #classes: (Counter | undefined)[] | undefined = undefined;
  #codes: (Counter | undefined)[] | undefined = undefined;
  #connections: ReturnType<typeof connectionEvents> | undefined = undefined;
  #tls: TlsStats | undefined = undefined;

  /** `name` is the cluster's alternative stat name when it has one. */
  constructor(registry: Registry, name: string) {
    this.scope = blockScope(registry, 'cluster', `cluster.${name.replaceAll(':', '_')}`, { envoy_cluster_name: name }, SERIES);
  }

  /** What the pools of its endpoints tell. */
  get connections(): ReturnType<typeof connectionEvents> {
    return (this.#connections ??= connectionEvents(this.scope, true));
  }

  /** What handshakes with its endpoints tell; from the first one on. */
  get tls(): TlsStats {
    return (this.#tls ??= tlsStats(this.scope, false));
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

  /** An assignment came from outside, or a name was resolved; `changed`: it is another one than before. */
  updated(changed: boolean): void {
    this.scope.add(AT.updates, 1);
    if (!changed) this.scope.add(AT.updatesWithoutChange, 1);
  }

  /** A name is asked for. */
  updateAttempted(): void {
    this.scope.add(AT.updateAttempts, 1);
  }

  /** A name could not be resolved. */
  updateFailed(): void {
    this.scope.add(AT.updateFailures, 1);
  }

  /** Endpoints joined or left in so many priorities: Envoy counts each. */
  membershipChanged(priorities: number): void {
    this.scope.add(AT.membershipChange, priorities);
  }

  /** A TCP connection got no endpoint in all its attempts. */
  connectAttemptsExceeded(): void {
    this.scope.counter('upstream_cx_connect_attempts_exceeded').inc();
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

  /** Counts an answer, or the error in its place: in all, by code and by class. */
  answered(status: number): void {
    this.rqCompleted.inc();
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

  /** An attempt that was counted is tried again. Envoy counts the answers that the retries replaced apart from those that went on, under `retry.`. */
  retried(status: number, answered: boolean): void {
    this.rqCompleted.add(-1);
    const digit = (status / 100) | 0;
    this.#classes?.[digit]?.add(-1);
    this.#codes?.[status]?.add(-1);
    if (!answered) return;
    this.scope.counter('retry.upstream_rq_completed').inc();
    this.scope.counter('retry.upstream_rq_xx', { envoy_response_code_class: String(digit) }, `retry.upstream_rq_${digit}xx`).inc();
    this.scope.counter('retry.upstream_rq', { envoy_response_code: String(status) }, `retry.upstream_rq_${status}`).inc();
  }

  ejected(cause: string): void {
    this.ejectionsTotal.inc();
    this.scope.counter(`outlier_detection.ejections_enforced_${cause}`).inc();
  }

  detected(cause: string): void {
    this.scope.counter(`outlier_detection.ejections_detected_${cause}`).inc();
  }
}
