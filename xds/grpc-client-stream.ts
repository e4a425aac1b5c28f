/** One connection of a discovery client and the one stream on it, read and written with back-pressure. */
import { isIP } from 'node:net';
import { Client, connectivityState, Metadata } from '@grpc/grpc-js';
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import type { ConnectDiscoveryOptions } from './grpc-client.ts';
import { discoveryChannelOptions } from './grpc-options.ts';
import { discoveryMethods } from './resources/services.ts';
import type { DiscoveryMethod } from './resources/services.ts';
import type { ClientSession } from './session/client.ts';
import type { DiscoveryRequest, DiscoveryResponse, Mode } from './session/messages.ts';

export interface StreamEvents {
  connected(): void;
  response(): void;
  ended(error: ServiceError | Error | undefined, responses: number): void;
}

/** One connection and the one stream on it. */
export class ClientStream {
  readonly #client: Client;
  readonly #call: ClientDuplexStream<DiscoveryRequest, DiscoveryResponse>;
  readonly #session: ClientSession;
  readonly #events: StreamEvents;
  #cancelConnect: (() => void) | undefined;
  #responses = 0;
  #writing = false;
  #ready = false;
  #ended = false;

  constructor(target: string, mode: Mode, session: ClientSession, options: ConnectDiscoveryOptions, events: StreamEvents) {
    this.#session = session;
    this.#events = events;
    this.#client = openChannel(target, options);
    const { path, requestSerialize, responseDeserialize } = aggregated(mode).definition;
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(options.metadata?.() ?? {})) metadata.set(name, value);
    this.#call = this.#client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
    this.#call.on('data', (response: DiscoveryResponse) => this.#receive(response));
    this.#call.on('error', (error: ServiceError) => this.#end(error));
    this.#call.on('end', () => this.#end(undefined));
    const connectMs = options.connectMsMax ?? 10_000;
    this.#cancelConnect = options.clock.after(connectMs, () => this.#end(new Error(`no connection to ${target} within ${connectMs} ms`)));
    this.#awaitReady(mode);
  }

  flush(): void {
    if (!this.#ready || this.#writing || this.#ended) return;
    const request = this.#session.next();
    if (request === undefined) return;
    this.#writing = true;
    this.#call.write(request, () => {
      this.#writing = false;
      this.flush();
    });
  }

  /** The owner has settled: the next response may come. */
  readOn(): void {
    if (!this.#session.busy && !this.#ended) this.#call.resume();
  }

  close(reason?: Error): void {
    this.#end(reason);
  }

  /** Timers for missing resources run only while connected, so the session hears of the stream when its channel is ready. */
  #awaitReady(mode: Mode): void {
    whenReady(this.#client.getChannel(), () => {
      if (this.#ended) return;
      this.#cancelConnect?.();
      this.#ready = true;
      this.#session.connected(mode);
      this.#events.connected();
      this.flush();
    });
  }

  #receive(response: DiscoveryResponse): void {
    if (this.#ended) return;
    this.#responses += 1;
    this.#events.response();
    this.#session.receive(response);
    if (this.#session.busy) this.#call.pause();
  }

  #end(error: ServiceError | Error | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#cancelConnect?.();
    if (this.#ready) this.#session.disconnected();
    this.#call.cancel();
    closeChannel(this.#client);
    this.#events.ended(error, this.#responses);
  }
}

type ChannelNeeds = Pick<ConnectDiscoveryOptions, 'credentials' | 'serverName' | 'keepaliveTimeMs' | 'keepaliveTimeoutMs'>;

/** A connection to `target` of its own, by the options of the client. Throws what `credentials` throws. */
export function openChannel(target: string, options: ChannelNeeds): Client {
  const serverName = options.serverName ?? (isAddress(target) ? UNNAMED : undefined);
  const named = serverName === undefined ? {} : { 'grpc.ssl_target_name_override': serverName };
  return new Client(target, options.credentials(), { ...discoveryChannelOptions(options), ...named });
}

interface Subchannel {
  readonly backoffTimeout?: { stop(): void };
}

/** Where grpc-js keeps the connections of a channel that has a pool of its own. */
interface ChannelInside {
  readonly internalChannel?: {
    readonly subchannelPool?: { readonly pool?: Readonly<Record<string, readonly { readonly subchannel: Subchannel }[]>> };
  };
}

/**
 * Closes what `openChannel` opened. grpc-js (1.14) by itself goes on with what was refused a second ago though its channel is closed, and keeps the
 * connection when it gets one: after an outage each attempt would have left one.
 */
export function closeChannel(client: Client): void {
  const pool = (client.getChannel() as ChannelInside).internalChannel?.subchannelPool?.pool;
  const subchannels = Object.values(pool ?? {}).flat();
  client.close();
  for (const { subchannel } of subchannels) subchannel.backoffTimeout?.stop();
}

/** Calls `ready` once, or never when the channel is closed before. */
export function whenReady(channel: ReturnType<Client['getChannel']>, ready: () => void): void {
  const look = (): void => {
    let state = channel.getConnectivityState(false);
    // Asked to connect, a channel that is closed would do so, and nobody could close it again.
    if (state === connectivityState.SHUTDOWN) return;
    if (state === connectivityState.IDLE) state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) ready();
    else channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, look);
  };
  look();
}

function aggregated(mode: Mode): DiscoveryMethod {
  return discoveryMethods().find((method) => method.typeUrl === undefined && method.mode === mode)!;
}

/** Reserved for names that nobody has (RFC 6761). */
const UNNAMED = 'control-plane.invalid';

/** `127.0.0.1:15012` or `[::1]:15012`, as against names, URIs and paths. */
function isAddress(target: string): boolean {
  return isIP(target.slice(0, target.lastIndexOf(':')).replace(/^\[|\]$/g, '')) !== 0;
}
