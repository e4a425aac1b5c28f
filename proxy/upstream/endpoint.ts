/** One address that requests can be sent to, with the state that outlives configuration. */
import type { Address, JsonObject, Locality } from '../../xds/snapshot.ts';
import type { BoundMetrics } from '../filters/istio-metrics.ts';
import type { PoolExchange } from './exchange.ts';

/** Held in the cluster by key, kept across pushes. Counters are numbers on this object: the hot path touches nothing else. */
export interface Endpoint {
  /** `host:port`. */
  readonly key: string;
  readonly address: Address;
  hostname: string;
  weight: number;
  priority: number;
  locality: Locality;
  metadata: JsonObject;
  /** What the control plane, health checks and outlier detection say; the picker was built from it. */
  health: 'healthy' | 'degraded' | 'unhealthy' | 'draining';
  /** Clock reading until which outlier detection keeps it out; 0 = not ejected. */
  ejectedUntilMs: number;
  /** Requests under way, read by least request. */
  active: number;
  /** When it became a healthy member, for slow start. */
  readonly addedMs: number;
  /** Peak-sensitive moving average of the time to the response head; 0 or absent = nothing measured yet. Kept for balancers that ask for it. */
  latencyMs?: number;
  /** Clock reading of the last measurement. */
  latencyAtMs?: number;
  /** The metrics filter's own: what it bound to this endpoint. */
  metrics?: BoundMetrics | undefined;
}

/** An endpoint's connections. One pool per endpoint and cluster; the cluster makes it, uses it and drains it. */
export interface Pool {
  /** Takes or opens a connection, writes the request, tells the exchange when the response head is there. */
  start(exchange: PoolExchange): void;
  /** No new requests will come: close idle connections now and busy ones as they finish. */
  drain(): void;
  /** Brings the byte counts of its connections up to date, before statistics are read. */
  countBytes?(): void;
  /** Requests that wait for a connection. */
  readonly pending?: number;
}
