/** A compiled listener: what a connection meets from the first byte to the filter that serves it. */
import type { ChainChooser } from './chain-match.ts';
import type { DownstreamConnection, Send } from '../service.ts';
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
export interface AcceptedConnection extends DownstreamConnection {
  readonly socket: Socket;
  /** Clock reading when it was accepted. */
  readonly openedMs: number;
  /** The chain that serves connections of this kind now: after a push another than the one that accepted it. Undefined = there is none any more. */
  current(): CompiledChain | undefined;
  /** Set by `serve` when it takes over. */
  served: Served | undefined;
  /** Ends the connection at once. */
  destroy(): void;
  over(): void;
}

/** Whoever serves a connection, for its listener. */
export interface Served {
  /** Ends the connection at once. */
  destroy(): void;
  /** The connection shall end as soon as what is under way is done. Absent = it ends when it does. */
  drain?(): void;
  /** Whether something is under way. Absent = always. */
  busy?(): boolean;
  /** Brings the counts of its bytes up to date, before statistics are read. Absent = they are counted at its end. */
  countBytes?(): void;
}
