/** An endpoint as its cluster holds it: the agreed fields, the pool behind it, and what health and outlier detection know. */
import type { Address, Cluster, JsonObject, LbEndpoint, Locality } from '../../xds/snapshot.ts';
import type { Endpoint, Pool } from './endpoint.ts';
import type { PoolExchange } from './exchange.ts';
import { newOutlierState } from './outlier.ts';
import type { OutlierState } from './outlier.ts';
import { slowStartWeight } from './selection.ts';

export class Member implements Endpoint {
  readonly key: string;
  readonly address: Address;
  hostname = '';
  /** What balancers see: the configured weight, less during slow start. */
  weight = 1;
  configuredWeight = 1;
  priority = 0;
  locality: Locality = { region: '', zone: '', subZone: '' };
  metadata: JsonObject = {};
  health: Endpoint['health'] = 'healthy';
  active = 0;
  addedMs: number;
  latencyMs = 0;
  latencyAtMs = 0;
  metrics: Endpoint['metrics'] = undefined;
  /** What the control plane says. */
  announced: LbEndpoint['health'] = 'UNKNOWN';
  /** What active health checks say; false without any. */
  failedCheck = false;
  /** Answers and failures since it appeared, for `/clusters`. */
  requests = 0;
  failures = 0;
  /** Requests that got a connection. */
  started = 0;
  connectionsTotal = 0;
  connectionsActive = 0;
  connectFailures = 0;
  /** Requests whose time was over before it answered. */
  timeouts = 0;
  /** The endpoint is in no assignment any more and only finishes what is under way. */
  removed = false;
  readonly #makePool: (member: Member) => Pool;
  #pool: Pool | undefined = undefined;
  #outlier: OutlierState | undefined = undefined;

  constructor(key: string, address: Address, nowMs: number, makePool: (member: Member) => Pool) {
    this.key = key;
    this.address = address;
    this.addedMs = nowMs;
    this.#makePool = makePool;
  }

  get ejectedUntilMs(): number {
    return this.#outlier?.ejectedUntilMs ?? 0;
  }

  /** What outlier detection knows of it; from the first request on. */
  get outlier(): OutlierState {
    return (this.#outlier ??= newOutlierState());
  }

  /** Outlier detection was taken away: whoever it keeps out is back. */
  pardon(): void {
    if (this.#outlier === undefined) return;
    this.#outlier.ejectedUntilMs = 0;
    this.#outlier.probe = 'none';
  }

  /** Sends one attempt through its pool. */
  start(exchange: PoolExchange): void {
    this.#pool ??= this.#makePool(this);
    this.#pool.start(exchange);
  }

  /** Has the bytes of its connections counted. */
  countBytes(): void {
    this.#pool?.countBytes?.();
  }

  /** Requests that wait for a connection. */
  get pending(): number {
    return this.#pool?.pending ?? 0;
  }

  /** The next request opens new connections; those there are finish their work. For changed TLS or protocol settings, and for removal. */
  renewPool(): void {
    this.#pool?.drain();
    this.#pool = undefined;
  }

  /** Takes what an assignment says about it. Answers whether anything that selection depends on changed. */
  announce(endpoint: LbEndpoint, locality: Locality, priority: number): boolean {
    const changed =
      this.configuredWeight !== endpoint.weight ||
      this.priority !== priority ||
      this.announced !== endpoint.health ||
      !same(this.metadata, endpoint.metadata) ||
      !same(this.locality, locality) ||
      this.removed;
    this.hostname = endpoint.hostname;
    this.configuredWeight = endpoint.weight;
    this.metadata = endpoint.metadata;
    this.announced = endpoint.health;
    this.locality = locality;
    this.priority = priority;
    this.removed = false;
    return changed;
  }

  /** Puts health and weight together. One that becomes healthy starts slowly when the cluster asks for it. */
  settle(nowMs: number, slowStart: Cluster['slowStart']): void {
    const before = this.health;
    this.health = this.#judge();
    if (before === 'unhealthy' && this.health === 'healthy') this.addedMs = nowMs;
    this.weight = slowStart === undefined ? this.configuredWeight : slowStartWeight(this.configuredWeight, nowMs - this.addedMs, slowStart);
  }

  #judge(): Endpoint['health'] {
    if (this.announced === 'DRAINING') return 'draining';
    if (this.announced === 'UNHEALTHY' || this.announced === 'TIMEOUT' || this.failedCheck || this.ejectedUntilMs > 0) return 'unhealthy';
    return this.announced === 'DEGRADED' ? 'degraded' : 'healthy';
  }
}

/** Pushes bring new objects with the old content. */
function same(a: object, b: object): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
