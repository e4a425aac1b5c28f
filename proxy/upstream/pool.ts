/** The pool of HTTP/1.1 connections to one endpoint: newest first, bounded by the cluster's limits, with one safe retry for the keep-alive race. */
import type { Socket } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import { ProxyError } from '../errors.ts';
import { ClientConnection, DEFAULT_CLIENT_LIMITS } from '../http1/client.ts';
import type { ClientLimits, ClientOwner } from '../http1/client.ts';
import { sweepOf } from '../http1/sweep.ts';
import type { Sweep, Swept } from '../http1/sweep.ts';
import { promised } from '../promised.ts';
import type { ProxyRequest, ProxyResponse, Reply } from '../service.ts';
import type { ConnectionEnd } from './connection-events.ts';
import type { Dial } from './dial.ts';
import { PlainExchange } from './exchange.ts';
import type { PoolExchange } from './exchange.ts';

/** The cluster's circuit breaker as pools see it: `try…` counts one if there is room, `release…` takes it back. */
export interface PoolLimits {
  tryConnection(): boolean;
  releaseConnection(): void;
  tryPending(): boolean;
  releasePending(): void;
}

/** Everything is allowed. */
export const NO_LIMITS: PoolLimits = {
  tryConnection: () => true,
  releaseConnection: () => undefined,
  tryPending: () => true,
  releasePending: () => undefined,
};

/** Counters of an endpoint, called on the way; each is a few additions and must not throw. */
export interface PoolEvents {
  connectionOpened?(connectMs: number): void;
  connectionClosed?(end: ConnectionEnd): void;
  connectFailed?(error: ProxyError): void;
  /** A request waits for a connection, and one waited in vain because none could be made. */
  requestWaits?(): void;
  waitFailed?(): void;
  /** A connection is closed since it was idle for too long, or has taken all the requests that it may. */
  idleTimeout?(): void;
  requestsUsedUp?(): void;
  /** Bytes since the last call for the same connection. */
  bytesMoved?(received: number, sent: number): void;
  /** A request got its connection; not again when it is repeated. */
  requestStarted?(): void;
  /** A request was sent again because a reused connection died before it answered. */
  raceRetried?(): void;
}

export interface PoolOptions {
  readonly dial: Dial;
  /** The pool will not dial any more. */
  readonly drained?: () => void;
  readonly clock: Clock;
  readonly limits?: PoolLimits;
  readonly events?: PoolEvents;
  readonly client?: Partial<ClientLimits>;
  /** Longest wait of a connection for its next request, whatever the peer says. Default 1 h; 0 = no limit of our own. */
  readonly idleTimeoutMs?: number;
  /** The same for a peer that sends no `Keep-Alive: timeout`. Default 3 s: below what servers in the wild close at. Longer for peers that are ours. */
  readonly silentPeerIdleMs?: number;
}

export interface Pool {
  /** Sends on a waiting connection or a new one; the exchange hears the outcome. */
  start(exchange: PoolExchange): void;
  /** The same with a promise. Rejects with `ProxyError`. */
  send(request: ProxyRequest): Promise<ProxyResponse>;
  /** Takes no more requests (`draining`); idle connections close now, the others after their exchange. */
  drain(): void;
  /** Cuts everything at once. */
  destroy(): void;
  /** Tells the events about bytes that went since they were last told. Those of a connection that ends are told by themselves. */
  countBytes(): void;
  readonly active: number;
  readonly idle: number;
  readonly connecting: number;
  readonly pending: number;
}

export function createPool(options: PoolOptions): Pool {
  return new EndpointPool(options);
}

const DEFAULT_IDLE_MS = 3_600_000;
const SILENT_PEER_IDLE_MS = 3_000;
/**
 * Connections that are being made at one time, per endpoint. A handshake costs more than a hundred requests; without a bound a burst on a cold pool
 * dials once per waiting request, which keeps the processor from answering the requests that would have freed a connection.
 */
const DIALS_MAX = 8;
/** A connection takes requests for this share of the time that its certificates have left, so that the rest finishes before TLS ends it. */
const CERTIFICATE_SHARE = 0.8;
/** Below the peer's announced time-out by this much, so that its FIN cannot cross our request. */
const PEER_MARGIN_MS = 1_000;

class EndpointPool implements Pool, ClientOwner, Swept {
  readonly #options: PoolOptions;
  readonly #limits: PoolLimits;
  readonly #client: ClientLimits;
  readonly #sweep: Sweep;
  readonly #idleMs: number;
  readonly #silentIdleMs: number;
  readonly #idle: ClientConnection[] = [];
  readonly #all = new Map<ClientConnection, boolean>();
  readonly #dials = new Set<() => void>();
  readonly #queue = new Set<PoolExchange>();
  #draining = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#limits = options.limits ?? NO_LIMITS;
    this.#client = { ...DEFAULT_CLIENT_LIMITS, ...options.client };
    this.#sweep = sweepOf(options.clock);
    this.#idleMs = options.idleTimeoutMs === 0 ? Number.POSITIVE_INFINITY : (options.idleTimeoutMs ?? DEFAULT_IDLE_MS);
    this.#silentIdleMs = Math.min(this.#idleMs, options.silentPeerIdleMs ?? SILENT_PEER_IDLE_MS);
  }

  get active(): number {
    return this.#all.size - this.#idle.length;
  }

  get idle(): number {
    return this.#idle.length;
  }

  get connecting(): number {
    return this.#dials.size;
  }

  get pending(): number {
    return this.#queue.size;
  }

  send(request: ProxyRequest): Promise<ProxyResponse> {
    return promised(this.#plain, request);
  }

  readonly #plain = (request: ProxyRequest, reply: Reply): void => this.start(new PlainExchange(request, reply));

  start(exchange: PoolExchange): void {
    if (this.#draining) {
      exchange.over(new ProxyError('draining'));
      return;
    }
    exchange.repeat = this.#repeat;
    const connection = this.#takeIdle();
    if (connection === undefined) this.#wait(exchange);
    else this.#begin(connection, exchange);
  }

  /** Once more, and only on a fresh connection: other idle ones are likely as dead as the first. */
  readonly #repeat = (exchange: PoolExchange): void => {
    this.#options.events?.raceRetried?.();
    this.#wait(exchange);
  };

  drain(): void {
    this.#draining = true;
    for (const connection of this.#idle.splice(0)) connection.destroy();
    this.#options.drained?.();
  }

  destroy(): void {
    this.#draining = true;
    for (const cancel of this.#dials) cancel();
    this.#dials.clear();
    for (const exchange of this.#queue) this.#leaveQueue(exchange, new ProxyError('draining'));
    for (const connection of this.#all.keys()) connection.destroy();
    this.#options.drained?.();
    this.#sweep.remove(this);
  }

  countBytes(): void {
    for (const connection of this.#all.keys()) this.#countBytes(connection);
  }

  #countBytes(connection: ClientConnection): void {
    const { bytesRead, bytesWritten } = connection.socket;
    this.#options.events?.bytesMoved?.(bytesRead - connection.receivedCounted, bytesWritten - connection.sentCounted);
    connection.receivedCounted = bytesRead;
    connection.sentCounted = bytesWritten;
  }

  // ---- ClientOwner ----------------------------------------------------------------------------------------------------

  connectionIdle(connection: ClientConnection): void {
    if (this.#draining || connection.retireAtMs <= this.#sweep.nowMs) {
      connection.destroy();
      return;
    }
    if (this.#queue.size > 0) {
      const exchange = this.#queue.values().next().value!;
      this.#unqueue(exchange);
      this.#begin(connection, exchange);
      return;
    }
    connection.idleSinceMs = this.#sweep.nowMs;
    this.#idle.push(connection);
  }

  connectionClosed(connection: ClientConnection): void {
    const counted = this.#all.get(connection);
    if (counted === undefined) return;
    this.#all.delete(connection);
    const at = this.#idle.lastIndexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
    if (counted) this.#limits.releaseConnection();
    this.#tellClosed(connection);
    this.#connectMore();
    if (this.#all.size === 0) this.#sweep.remove(this);
  }

  #tellClosed(connection: ClientConnection): void {
    const { events, clock } = this.#options;
    if (events === undefined) return;
    this.#countBytes(connection);
    const max = this.#client.maxRequestsPerConnection;
    if (max > 0 && connection.exchanges >= max) events.requestsUsedUp?.();
    events.connectionClosed?.({ by: connection.endedBy, busy: connection.endedBusy, ageMs: clock.now() - connection.openedMs });
  }

  sweep(nowMs: number): void {
    // Oldest first: the list is a stack, so the ones at the bottom have waited longest.
    const idle = this.#idle;
    for (let i = 0; i < idle.length;) {
      const connection = idle[i]!;
      const peerMs = connection.peerIdleTimeoutMs;
      const limitMs = peerMs === 0 ? this.#silentIdleMs : Math.min(this.#idleMs, Math.max(peerMs / 2, peerMs - PEER_MARGIN_MS));
      const silent = nowMs - connection.idleSinceMs >= limitMs;
      if (silent) this.#options.events?.idleTimeout?.();
      if (silent || nowMs >= connection.retireAtMs) connection.destroy();
      else i++;
    }
  }

  #begin(connection: ClientConnection, exchange: PoolExchange): void {
    if (exchange.connection === undefined) this.#options.events?.requestStarted?.();
    exchange.connection = connection;
    connection.start(exchange);
  }

  // ---- waiting and connecting -----------------------------------------------------------------------------------------

  #takeIdle(): ClientConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || (connection.usable && connection.retireAtMs > this.#sweep.nowMs)) return connection;
      connection.destroy();
    }
  }

  #wait(exchange: PoolExchange): void {
    if (!this.#limits.tryPending()) {
      this.#refuse(exchange, new ProxyError('overflow', 'Too many requests wait for a connection.'));
      return;
    }
    exchange.waiting = true;
    this.#options.events?.requestWaits?.();
    this.#queue.add(exchange);
    exchange.request.abort = (error) => this.#leaveQueue(exchange, error);
    this.#connect(exchange);
  }

  #unqueue(exchange: PoolExchange): void {
    this.#queue.delete(exchange);
    exchange.waiting = false;
    this.#limits.releasePending();
  }

  #leaveQueue(exchange: PoolExchange, error: ProxyError): void {
    if (!exchange.waiting) return;
    this.#unqueue(exchange);
    this.#refuse(exchange, error);
  }

  #refuse(exchange: PoolExchange, error: ProxyError): void {
    exchange.request.abort = undefined;
    exchange.over(error);
  }

  /** Dials for `exchange`, or for whoever waits. Past the limit only an endpoint without any connection gets one, as in Envoy: it would wait for ever. */
  #connect(exchange: PoolExchange | undefined): void {
    if (this.#dials.size >= DIALS_MAX) return;
    const counted = this.#limits.tryConnection();
    if (!counted && this.#all.size + this.#dials.size > 0) return;
    // The dialler may answer before it returns.
    const attempt: { over: boolean; cancel?: () => void } = { over: false };
    const startMs = this.#options.clock.now();
    const cancelDial = (): void => {
      if (attempt.over) return;
      attempt.over = true;
      if (counted) this.#limits.releaseConnection();
      attempt.cancel?.();
    };
    attempt.cancel = this.#options.dial((error, socket, notAfterMs) => {
      attempt.over = true;
      this.#dials.delete(cancelDial);
      if (socket === undefined) {
        if (counted) this.#limits.releaseConnection();
        this.#dialFailed(exchange, error ?? new ProxyError('connectFailed'));
      } else this.#dialled(socket, counted, notAfterMs, startMs);
    });
    if (!attempt.over) this.#dials.add(cancelDial);
  }

  #dialled(socket: Socket, counted: boolean, notAfterMs: number | undefined, startMs: number): void {
    const connection = new ClientConnection(socket, this, this.#client);
    const { clock } = this.#options;
    if (notAfterMs !== undefined) connection.retireAtMs = clock.now() + CERTIFICATE_SHARE * (notAfterMs - clock.wallMs());
    if (this.#all.size === 0) this.#sweep.add(this);
    this.#all.set(connection, counted);
    connection.openedMs = clock.now();
    this.#options.events?.connectionOpened?.(connection.openedMs - startMs);
    this.connectionIdle(connection);
    this.#connectMore();
  }

  /** Those who wait beyond what is being dialled for get a connection that becomes idle, or the next dial. */
  #connectMore(): void {
    if (this.#queue.size > this.#dials.size) this.#connect(undefined);
  }

  /** The one that asked for this connection fails with it; when nothing else could serve the others, they do too. */
  #dialFailed(exchange: PoolExchange | undefined, error: ProxyError): void {
    this.#options.events?.connectFailed?.(error);
    // A dial on behalf of all takes the one down that has waited longest, so that a dead endpoint is not dialled for ever.
    const victim = exchange ?? this.#queue.values().next().value;
    if (victim !== undefined) this.#eject(victim, error);
    if (this.#all.size === 0 && this.#dials.size === 0) for (const waiting of this.#queue) this.#eject(waiting, error);
    else this.#connectMore();
  }

  #eject(exchange: PoolExchange, error: ProxyError): void {
    if (exchange.waiting) this.#options.events?.waitFailed?.();
    this.#leaveQueue(exchange, error);
  }
}
