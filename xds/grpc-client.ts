/** Keeps one discovery session connected: targets in order, backoff with full jitter, pings, and state of the world where delta is unknown. */
import { status } from '@grpc/grpc-js';
import type { ChannelCredentials, Client, ServiceError } from '@grpc/grpc-js';
import type { Clock } from '../lib/clock.ts';
import type { Random } from '../lib/random.ts';
import { Backoff } from './session/backoff.ts';
import { ClientSession } from './session/client.ts';
import type { ClientEvent, ClientUpdate, Problem } from './session/client.ts';
import type { Mode, NodeInfo } from './session/messages.ts';
import { ClientStream, closeChannel, openChannel, whenReady } from './grpc-client-stream.ts';
import type { StreamEvents } from './grpc-client-stream.ts';
import { KEEPALIVE_TIME_MS } from './grpc-options.ts';

export interface ConnectDiscoveryOptions {
  /** `127.0.0.1:15010`, `dns:///name:port`, `unix:/path`; tried in order, the next one only when one fails before its first response (A71). */
  readonly targets: readonly string[];
  /** Asked for every connection, so that a renewed certificate is used by the next one. */
  readonly credentials: () => ChannelCredentials;
  /**
   * Name for SNI and for the check of the server's certificate. SNI takes no IP address, so without it a target that is one is asked for
   * as `control-plane.invalid`: credentials that check by SPIFFE id do not mind, those that check names refuse.
   */
  readonly serverName?: string;
  /** Asked for every stream: tokens and the like. */
  readonly metadata?: () => Readonly<Record<string, string>>;
  readonly mode: Mode;
  readonly node: NodeInfo;
  readonly clock: Clock;
  readonly random: Random;
  /** Answer with `client.settle(update, problems)`; nothing more is read before that. */
  readonly onUpdate: (update: ClientUpdate) => void;
  readonly onEvent?: (event: ClientEvent) => void;
  readonly onConnection?: (connection: DiscoveryConnection) => void;
  readonly missingMs?: number;
  /** A connection that is not there after this long is given up; default 10,000. */
  readonly connectMsMax?: number;
  readonly backoff?: { readonly baseMs?: number; readonly capMs?: number };
  /** While a later target serves, the first one is tried this often, and taken back when it answers (A71); default 60,000. */
  readonly returnMs?: number;
  /** Pings: default 10,000 and 8,000. A server that finds them too many gets half as many from then on. */
  readonly keepaliveTimeMs?: number;
  readonly keepaliveTimeoutMs?: number;
}

/** `synced` begins with the first response; `waiting` is the pause before the next attempt. */
export interface DiscoveryConnection {
  readonly state: 'connecting' | 'connected' | 'synced' | 'waiting' | 'closed';
  readonly target: string;
  readonly mode: Mode;
  /** Why the last stream ended; empty before the first failure. */
  readonly error: string;
}

export interface DiscoveryClient {
  readonly connection: DiscoveryConnection;
  readonly session: ClientSession;
  subscribe(typeUrl: string, names: Iterable<string>): void;
  unsubscribe(typeUrl: string, names: Iterable<string>): readonly string[];
  settle(update: ClientUpdate, problems?: readonly Problem[]): void;
  close(): void;
}

/** Starts connecting at once and goes on until closed. Throws for targets that are none, never for a control plane that is away. */
export function connectDiscovery(options: ConnectDiscoveryOptions): DiscoveryClient {
  if (options.targets.length === 0) throw new Error('cannot connect to a control plane: at least one target is needed, received none');
  for (const target of options.targets) checkTarget(target);
  return new Connector(options);
}

/** What grpc-js makes of an ENHANCE_YOUR_CALM: servers in Go allow a ping in 15 s (Istiod) or in five minutes (by default). */
const PINGED_TOO_OFTEN = 'Bandwidth exhausted or memory limit exceeded';
const PING_MS_MAX = 640_000;

/** gRPC itself takes nearly any text for a DNS name and then fails for ever. */
const TARGET = /^(?:unix:.+|(?:(?:dns:(?:\/\/[^/]*\/)?)|ipv4:|ipv6:)?(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5})$/;

function checkTarget(target: string): void {
  if (TARGET.test(target)) return;
  throw new Error(
    `cannot connect to a control plane: a target is written host:port, dns:///host:port or unix:/path, received ${JSON.stringify(target)}`,
  );
}

class Connector implements DiscoveryClient {
  readonly session: ClientSession;
  connection: DiscoveryConnection;
  readonly #options: ConnectDiscoveryOptions;
  readonly #backoff: Backoff;
  /** Targets that answered UNIMPLEMENTED to delta. */
  readonly #withoutDelta = new Set<string>();
  /** Ping intervals that targets have brought about. */
  readonly #pingMs = new Map<string, number>();
  #index = 0;
  #stream: ClientStream | undefined;
  #cancelWait: (() => void) | undefined;
  #stopProbe: (() => void) | undefined;
  #closed = false;

  constructor(options: ConnectDiscoveryOptions) {
    const { mode, clock, node, onUpdate, onEvent, missingMs } = options;
    this.#options = options;
    this.#backoff = new Backoff({ random: options.random, ...options.backoff });
    this.connection = { state: 'connecting', target: options.targets[0]!, mode, error: '' };
    this.session = new ClientSession({
      mode,
      clock,
      node,
      onUpdate,
      onWork: () => this.#stream?.flush(),
      ...(onEvent === undefined ? {} : { onEvent }),
      ...(missingMs === undefined ? {} : { missingMs }),
    });
    this.#attempt();
  }

  subscribe(typeUrl: string, names: Iterable<string>): void {
    this.session.subscribe(typeUrl, names);
  }

  unsubscribe(typeUrl: string, names: Iterable<string>): readonly string[] {
    return this.session.unsubscribe(typeUrl, names);
  }

  settle(update: ClientUpdate, problems: readonly Problem[] = []): void {
    this.session.settle(update, problems);
    this.#stream?.readOn();
  }

  close(): void {
    this.#closed = true;
    this.#cancelWait?.();
    this.#stopProbe?.();
    this.#stream?.close();
    this.#stream = undefined;
    this.session.close();
    this.#state({ state: 'closed' });
  }

  #attempt(): void {
    if (this.#closed) return;
    const target = this.#options.targets[this.#index]!;
    const mode = this.#options.mode === 'delta' && this.#withoutDelta.has(target) ? 'sotw' : this.#options.mode;
    this.#state({ state: 'connecting', target, mode });
    const events: StreamEvents = {
      connected: () => this.#state({ state: 'connected' }),
      response: () => {
        this.#backoff.reset();
        if (this.connection.state === 'synced') return;
        this.#state({ state: 'synced', error: '' });
        if (this.#index > 0) this.#stopProbe = this.#probeFirst();
      },
      ended: (error, responses) => this.#ended(target, mode, error, responses),
    };
    try {
      const pingMs = this.#pingMs.get(target);
      const options = pingMs === undefined ? this.#options : { ...this.#options, keepaliveTimeMs: pingMs };
      this.#stream = new ClientStream(target, mode, this.session, options, events);
    } catch (error) {
      // Credentials that cannot be read now may be there at the next attempt.
      events.ended(error instanceof Error ? error : new Error(String(error)), 0);
    }
  }

  #ended(target: string, mode: Mode, error: ServiceError | Error | undefined, responses: number): void {
    this.#stream = undefined;
    this.#stopProbe?.();
    this.#stopProbe = undefined;
    if (this.#closed) return;
    const message = error?.message ?? 'the control plane ended the stream';
    if (mode === 'delta' && responses === 0 && error !== undefined && 'code' in error && error.code === status.UNIMPLEMENTED) {
      this.#withoutDelta.add(target);
      this.#state({ state: 'waiting', error: message });
      this.#wait(0);
      return;
    }
    if (error !== undefined && 'code' in error && error.details === PINGED_TOO_OFTEN) {
      const pingMs = this.#pingMs.get(target) ?? this.#options.keepaliveTimeMs ?? KEEPALIVE_TIME_MS;
      this.#pingMs.set(target, Math.min(PING_MS_MAX, pingMs * 2));
    }
    // A target that served starts the list anew; one that gave nothing passes on to the next, and the backoff counts whole rounds.
    this.#index = responses > 0 ? 0 : (this.#index + 1) % this.#options.targets.length;
    this.#state({ state: 'waiting', error: message });
    this.#wait(this.#index === 0 ? this.#backoff.nextMs() : 0);
  }

  /** Tries the first target now and then beside the stream that serves, and ends that stream when it is there again. */
  #probeFirst(): () => void {
    const { clock, targets, returnMs = 60_000 } = this.#options;
    let client: Client | undefined;
    let cancel: () => void;
    const probe = (): void => {
      if (client !== undefined) closeChannel(client);
      cancel = clock.after(returnMs, probe);
      try {
        client = openChannel(targets[0]!, this.#options);
      } catch {
        // Credentials that cannot be read now may be there at the next try, and the stream that serves is not in danger.
        client = undefined;
        return;
      }
      whenReady(client.getChannel(), back);
    };
    const stop = (): void => {
      cancel();
      if (client !== undefined) closeChannel(client);
      client = undefined;
    };
    const back = (): void => {
      if (client === undefined) return;
      stop();
      this.#stream?.close(new Error(`the first target, ${targets[0]}, is there again`));
    };
    cancel = clock.after(returnMs, probe);
    return stop;
  }

  #wait(ms: number): void {
    this.#cancelWait = this.#options.clock.after(ms, () => this.#attempt());
  }

  #state(change: Partial<DiscoveryConnection>): void {
    this.connection = { ...this.connection, ...change };
    this.#options.onConnection?.(this.connection);
  }
}
