/** Circuit breakers: how many connections, pending requests, requests and retries a cluster may have at once, per priority (Envoy's thresholds). */
import type { Gauge, Counter } from '../../lib/metrics.ts';
import type { Scope } from '../../lib/metrics-scope.ts';
import type { CircuitBreakers, Cluster } from '../../xds/snapshot.ts';

/** One of the four resources. `tryTake` counts up or refuses; whoever took gives back exactly once. */
class Limit {
  active = 0;
  #max: number;
  readonly #open: Gauge;
  readonly #overflow: Counter;
  readonly #gauge: Gauge | undefined;

  constructor(max: number, open: Gauge, overflow: Counter, gauge?: Gauge) {
    this.#max = max;
    this.#open = open;
    this.#overflow = overflow;
    this.#gauge = gauge;
  }

  get max(): number {
    return this.#max;
  }

  tryTake(): boolean {
    if (this.active >= this.#max) {
      this.#overflow.inc();
      return false;
    }
    this.active++;
    this.#gauge?.inc();
    if (this.active >= this.#max) this.#open.set(1);
    return true;
  }

  give(): void {
    if (this.active === this.#max) this.#open.set(0);
    this.active--;
    this.#gauge?.dec();
  }

  /** A push changed the maximum; what is under way stays. */
  resize(max: number): void {
    this.#max = max;
    this.#open.set(this.active >= max ? 1 : 0);
  }
}

/** The breakers of one cluster by priority, each made for its first request: most clusters of a large mesh never have one. */
export class PriorityLimits {
  #config: Cluster['circuitBreakers'];
  readonly #scope: Scope;
  #default: Limits | undefined = undefined;
  #high: Limits | undefined = undefined;

  constructor(config: Cluster['circuitBreakers'], scope: Scope) {
    this.#config = config;
    this.#scope = scope;
  }

  get DEFAULT(): Limits {
    return (this.#default ??= new Limits(this.#config.default, this.#scope, 'default'));
  }

  get HIGH(): Limits {
    return (this.#high ??= new Limits(this.#config.high, this.#scope, 'high'));
  }

  /** Requests under way at any priority. */
  get active(): number {
    return (this.#default?.requests.active ?? 0) + (this.#high?.requests.active ?? 0);
  }

  /** A maximum of 0 is told by the gauges at once; others wait for the first request. */
  apply(config: Cluster['circuitBreakers']): void {
    this.#config = config;
    if (this.#default !== undefined || allowsNothing(config.default)) this.DEFAULT.apply(config.default);
    if (this.#high !== undefined || allowsNothing(config.high)) this.HIGH.apply(config.high);
  }
}

function allowsNothing(config: CircuitBreakers): boolean {
  return [
    config.maxConnections,
    config.maxPendingRequests,
    config.maxRequests,
    config.retryBudget?.minRetryConcurrency ?? config.maxRetries,
  ].includes(0);
}

/** The breakers of one cluster at one priority; it is what pools take as `PoolLimits`. The counts live as long as the cluster; `apply` only changes the maxima. */
export class Limits {
  /** Connections: taken by the pool before it dials, given back when the connection is closed. */
  readonly connections: Limit;
  /** Requests that wait for a connection: taken and given back by the pool. */
  readonly pending: Limit;
  /** Requests under way, from pick to the end of the answer. */
  readonly requests: Limit;
  #config: CircuitBreakers;
  #retries = 0;
  readonly #retryOpen: Gauge;
  readonly #retryOverflow: Counter;

  constructor(config: CircuitBreakers, scope: Scope, priority: 'default' | 'high') {
    const open = (name: string): Gauge => scope.gauge(`circuit_breakers.${priority}.${name}`);
    this.#config = config;
    this.connections = new Limit(config.maxConnections, open('cx_open'), scope.counter('upstream_cx_overflow'));
    this.pending = new Limit(
      config.maxPendingRequests,
      open('rq_pending_open'),
      scope.counter('upstream_rq_pending_overflow'),
      scope.gauge('upstream_rq_pending_active'),
    );
    // Envoy counts a refused request under the same name as a refused wait.
    this.requests = new Limit(
      config.maxRequests,
      open('rq_open'),
      scope.counter('upstream_rq_pending_overflow'),
      scope.gauge('upstream_rq_active'),
    );
    this.#retryOpen = open('rq_retry_open');
    this.#retryOverflow = scope.counter('upstream_rq_retry_overflow');
  }

  apply(config: CircuitBreakers): void {
    this.#config = config;
    this.connections.resize(config.maxConnections);
    this.pending.resize(config.maxPendingRequests);
    this.requests.resize(config.maxRequests);
    this.#retryOpen.set(this.#retries >= this.retriesMax ? 1 : 0);
  }

  get retries(): number {
    return this.#retries;
  }

  tryConnection(): boolean {
    return this.connections.tryTake();
  }

  releaseConnection(): void {
    this.connections.give();
  }

  tryPending(): boolean {
    return this.pending.tryTake();
  }

  releasePending(): void {
    this.pending.give();
  }

  /** The budget's share of what is under way (requests that wait for a connection included), never below its minimum; else the fixed number. */
  get retriesMax(): number {
    const budget = this.#config.retryBudget;
    if (budget === undefined) return this.#config.maxRetries;
    return Math.max(budget.minRetryConcurrency, Math.floor((budget.budgetPercent / 100) * this.requests.active));
  }

  tryRetry(): boolean {
    if (this.#retries >= this.retriesMax) {
      this.#retryOverflow.inc();
      return false;
    }
    this.#retries++;
    if (this.#retries >= this.retriesMax) this.#retryOpen.set(1);
    return true;
  }

  giveRetry(): void {
    this.#retries--;
    if (this.#retries < this.retriesMax) this.#retryOpen.set(0);
  }
}
