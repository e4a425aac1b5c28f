/** A listening socket and its connections. Its configuration can change under it: new connections meet the new one, those there are stay. */
import { createServer } from 'node:net';
import { unlinkSync } from 'node:fs';
import { Connection } from './accepted.ts';
import { ALWAYS_FIRST } from './chain-match.ts';
import { serveCarrier } from './carried.ts';
import { detect } from './detect.ts';
import { MUX_ALPN } from '../mux/protocol.ts';
import { asSocket } from '../mux/sharing.ts';
import { acceptTls } from '../tls/server.ts';
import { listenerStats } from './listener-stats.ts';
import type { ListenerStats } from './listener-stats.ts';
import type { DescriptorRoom } from '../../lib/descriptors.ts';
import type { ConnectionOwner } from './accepted.ts';
import type { CompiledChain, CompiledListener } from './chain.ts';
import type { Channel } from '../mux/channel.ts';
import type { DownstreamTlsContext } from '../tls/context.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Registry } from '../../lib/metrics.ts';
import type { Address } from '../../xds/snapshot.ts';
import type { AddressInfo, Server, Socket } from 'node:net';

export interface ListenDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  /** Connections that one listener holds at most. */
  readonly connectionsMax: number;
  /** Told of each accepted connection. */
  readonly descriptors?: DescriptorRoom | undefined;
}

/** Connections that the kernel keeps for us while the loop is busy. */
const BACKLOG = 4_096;

/** After this share of the time that a connection's certificates have left it is drained. More than the pool's share: ours retire theirs first. */
const CERTIFICATE_SHARE = 0.9;

/** Opens a listener's socket. Rejects with the system's error when the address cannot be bound. */
export function bindListener(address: Address, compiled: CompiledListener, deps: ListenDeps): Promise<BoundListener> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: false, noDelay: true });
    server.maxConnections = deps.connectionsMax;
    server.once('error', reject);
    const options = address.pipe === true ? { path: address.host } : { host: address.host, port: address.port };
    if (address.pipe === true) removeStaleSocket(address.host);
    server.listen({ ...options, backlog: BACKLOG }, () => {
      server.off('error', reject);
      resolve(new BoundListener(server, address, compiled, deps));
    });
  });
}

export class BoundListener implements ConnectionOwner {
  /** What new connections meet. */
  compiled: CompiledListener;
  readonly configuredAddress: Address;
  draining = false;
  readonly #server: Server;
  readonly #deps: ListenDeps;
  readonly #connections = new Set<Connection>();
  readonly #stats: ListenerStats;
  #closed: Promise<void> | undefined;

  constructor(server: Server, address: Address, compiled: CompiledListener, deps: ListenDeps) {
    this.#server = server;
    this.#deps = deps;
    this.compiled = compiled;
    this.configuredAddress = address;
    this.#stats = listenerStats(deps.registry, compiled.config);
    server.on('connection', (socket: Socket) => this.#accept(socket));
    server.on('error', (error) => deps.log.error('A listener failed while accepting.', { listener: compiled.config.name, error }));
    server.on('drop', () => this.#stats.overflow.inc());
  }

  /** The address that is really bound: its port differs from the configured one where that was 0. */
  get address(): Address {
    const bound = this.#server.address() as AddressInfo | string | null;
    if (bound === null || typeof bound === 'string') return this.configuredAddress;
    return { host: bound.address, port: bound.port };
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Has the bytes of its connections counted. */
  countBytes(): void {
    for (const connection of this.#connections) connection.served?.countBytes?.();
  }

  /** Connections that would lose something if they were cut now. */
  get active(): number {
    let count = 0;
    for (const connection of this.#connections) if (connection.served?.busy?.() ?? true) count++;
    return count;
  }

  /** Stops accepting and lets connections end with what they are doing. */
  stopAccepting(): Promise<void> {
    this.#closed ??= new Promise((resolve) => this.#server.close(() => resolve()));
    return this.#closed;
  }

  /** Asks every connection to end when its work is done; those accepted from now on too. */
  drain(): void {
    this.draining = true;
    for (const connection of this.#connections) connection.served?.drain?.();
  }

  /** Connections that are accepted from now on stay. */
  undrain(): void {
    this.draining = false;
  }

  /** Ends everything at once. Resolves when nothing is left. */
  async close(): Promise<void> {
    const closed = this.stopAccepting();
    for (const connection of this.#connections) connection.destroy();
    await closed;
  }

  connectionOver(connection: Connection): void {
    this.#connections.delete(connection);
    // Channels are no connections in statistics.
    if (connection.isChannel) return;
    this.#stats.active.dec();
    this.#stats.destroyed.inc();
    this.#stats.lengthMs.record(this.#deps.clock.now() - connection.openedMs);
  }

  #accept(socket: Socket): void {
    this.#stats.total.inc();
    this.#stats.active.inc();
    this.#deps.descriptors?.accepted(socket);
    const connection = new Connection(socket, this.#deps.clock.now(), this, false);
    this.#connections.add(connection);
    const compiled = this.compiled;
    const first = compiled.chains[0];
    if (compiled.inspect === undefined && compiled.choose === ALWAYS_FIRST && first !== undefined && first.tls === undefined) {
      this.#serve(connection, first);
      return;
    }
    this.#inspectAndServe(connection, compiled).catch((error: unknown) => {
      this.#deps.log.debug('A connection was given up before it was served.', { listener: compiled.config.name, error });
      connection.destroy();
    });
  }

  async #inspectAndServe(connection: Connection, compiled: CompiledListener): Promise<void> {
    const { clock } = this.#deps;
    const socket = connection.socket;
    const ignoreError = (): void => undefined;
    socket.on('error', ignoreError);
    let detected = { transportProtocol: 'raw_buffer', serverName: '', applicationProtocols: [] as readonly string[] };
    if (compiled.inspect !== undefined) {
      const stats = this.#stats;
      stats.inspectionActive.inc();
      const seen = await detect(socket, { ...compiled.inspect, timeoutMs: compiled.config.listenerFiltersTimeoutMs, clock });
      stats.inspectionActive.dec();
      if (compiled.inspect.tls) stats.inspected(seen);
      if (seen.outcome === 'closed' || seen.outcome === 'malformed') {
        (seen.outcome === 'closed' ? stats.inspectionClosed : stats.inspectionErrors).inc();
        return connection.destroy();
      }
      if (seen.outcome === 'timeout') {
        stats.inspectionTimeouts.inc();
        if (!compiled.config.continueOnListenerFiltersTimeout) return connection.destroy();
      }
      detected = seen;
    }
    const index = compiled.choose({
      destinationAddress: connection.localAddress,
      destinationPort: connection.localPort,
      sourceAddress: connection.remoteAddress,
      sourcePort: connection.remotePort,
      ...detected,
    });
    const chain = index === -1 ? compiled.defaultChain : compiled.chains[index];
    if (chain === undefined) {
      this.#stats.noChainMatch.inc();
      this.#deps.log.debug('No filter chain matches a connection.', { listener: compiled.config.name, ...detected });
      return connection.destroy();
    }
    if (chain.tls !== undefined && !(await this.#secure(connection, chain.tls))) return undefined;
    connection.socket.off('error', ignoreError);
    return this.#serve(connection, chain);
  }

  /** The handshake. False = it failed, and the connection is gone. */
  #secure(connection: Connection, context: DownstreamTlsContext): Promise<boolean> {
    return new Promise((resolve) => {
      acceptTls(connection.socket, undefined, context, (error, socket, peer) => {
        if (socket === undefined) {
          this.#stats.tls.failed(error!.reason);
          const remote = `${connection.remoteAddress}:${connection.remotePort}`;
          this.#deps.log.info('A TLS handshake failed.', { listener: this.compiled.config.name, remote, error });
          connection.destroy();
        } else {
          connection.socket = socket;
          connection.tls = peer;
          this.#stats.tls.established(socket);
        }
        resolve(!connection.isOver);
      });
    });
  }

  #serve(connection: Connection, chain: CompiledChain): void {
    if (connection.isOver) return;
    connection.chain = chain;
    if (connection.tls?.alpn === MUX_ALPN) this.#serveCarrier(connection);
    else if (!this.#begin(connection, chain)) return;
    if (this.draining) connection.served?.drain?.();
    const notAfterMs = connection.tls?.notAfterMs ?? Number.POSITIVE_INFINITY;
    if (notAfterMs !== Number.POSITIVE_INFINITY) {
      const { clock } = this.#deps;
      // The peer is asked to come back with its new certificate before TLS has to end the connection.
      const cancel = clock.after(CERTIFICATE_SHARE * (notAfterMs - clock.wallMs()), () => connection.served?.drain?.());
      connection.socket.once('close', cancel);
    }
  }

  /** False = the connection could not be served, and is gone. */
  #begin(connection: Connection, chain: CompiledChain): boolean {
    try {
      chain.serve(connection);
      return true;
    } catch (error) {
      // One connection's mishap must not become the process's.
      this.#deps.log.error('A connection could not be served.', { listener: this.compiled.config.name, error });
      connection.destroy();
      return false;
    }
  }

  #serveCarrier(carrier: Connection): void {
    serveCarrier(carrier, {
      clock: this.#deps.clock,
      accept: (channel) => this.#acceptChannel(channel, carrier),
      failed: (error) =>
        this.#deps.log.info('A connection between sidecars was ended.', {
          listener: this.compiled.config.name,
          remote: `${carrier.remoteAddress}:${carrier.remotePort}`,
          error,
        }),
    });
  }

  /** A channel meets what a connection of its carrier's kind would meet now. */
  #acceptChannel(channel: Channel, carrier: Connection): Connection | undefined {
    const chain = carrier.current();
    if (chain === undefined || this.#connections.size >= this.#deps.connectionsMax) {
      if (chain !== undefined) this.#stats.overflow.inc();
      channel.destroy();
      return undefined;
    }
    const connection = new Connection(asSocket(channel), this.#deps.clock.now(), this, true);
    connection.tls = carrier.tls;
    connection.chain = chain;
    this.#connections.add(connection);
    if (!this.#begin(connection, chain)) return undefined;
    if (this.draining) connection.served?.drain?.();
    return connection;
  }
}

/** A socket file that a dead process left behind keeps the address taken. */
function removeStaleSocket(path: string): void {
  if (path.startsWith('@')) return;
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
