/** A compiled listener: what a connection meets from the first byte to the filter that serves it. */
import type { ChainChooser } from './chain-match.ts';
import type { PeerTls, Send } from '../service.ts';
import type { DownstreamTlsContext } from '../tls/context.ts';
import type { Listener } from '../../xds/snapshot.ts';
import type { Socket } from 'node:net';

export interface CompiledListener {
  readonly config: Listener;
  /** Index into `chains`, -1 for `defaultChain`. */
  readonly choose: ChainChooser;
  readonly chains: readonly CompiledChain[];
  readonly defaultChain: CompiledChain | undefined;
  /** Undefined = nothing about the first bytes matters: the connection is served at once. */
  readonly inspect: { readonly tls: boolean; readonly http: boolean } | undefined;
}

export interface CompiledChain {
  /** The chain's name, else its match: it finds the chain's successor after a push. */
  readonly key: string;
  /** Undefined = plaintext. */
  readonly tls: DownstreamTlsContext | undefined;
  /** The connection manager's way of a request, undefined for chains that carry no HTTP. */
  readonly send: Send | undefined;
  /** The part of `send` that finds the routes, where these are asked for on demand. */
  readonly routing?: Send | undefined;
  /** Takes the connection over. Must call `connection.over()` once when it ends. */
  readonly serve: ServeConnection;
}

export type ServeConnection = (connection: AcceptedConnection) => void;

/** One accepted connection, after TLS. */
export interface AcceptedConnection {
  readonly id: number;
  readonly socket: Socket;
  readonly tls: PeerTls | undefined;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly listener: string;
  /** The chain that serves connections of this kind now: after a push another than the one that accepted it. Undefined = there is none any more. */
  readonly current: () => CompiledChain | undefined;
  /** Set by `serve`: called when the connection shall end as soon as what is under way is done. */
  drain: (() => void) | undefined;
  /** Set by `serve`: whether something is under way. Unset = always. */
  busy: (() => boolean) | undefined;
  /** Set by `serve`: brings the counts of its bytes up to date, before statistics are read. Unset = they are counted at its end. */
  countBytes?: (() => void) | undefined;
  /** Set by `serve` when it takes over: ends the connection at once. */
  destroy: () => void;
  over(): void;
}
