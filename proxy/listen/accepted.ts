/** One accepted connection: whom it is from, which chain it meets now, and who serves it. */
import type { DownstreamConnection, PeerTls } from '../service.ts';
import type { AcceptedConnection, CompiledChain, CompiledListener, Served } from './chain.ts';
import type { Socket } from 'node:net';

/** Whom a connection belongs to. */
export interface ConnectionOwner {
  readonly compiled: CompiledListener;
  connectionOver(connection: Connection): void;
}

let lastConnectionId = 0;

export class Connection implements AcceptedConnection {
  readonly id = ++lastConnectionId;
  socket: Socket;
  readonly openedMs: number;
  tls: PeerTls | undefined = undefined;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly listener: string;
  readonly protocol = 'HTTP/1.1';
  metrics: DownstreamConnection['metrics'] = undefined;
  hooks: DownstreamConnection['hooks'] = undefined;
  served: Served | undefined = undefined;
  isOver = false;
  /** Of a connection between sidecars. */
  readonly isChannel: boolean;
  readonly #owner: ConnectionOwner;
  #chain: CompiledChain | undefined = undefined;
  /** The listener's configuration that `#chain` is of. */
  #seen: CompiledListener;

  constructor(socket: Socket, openedMs: number, owner: ConnectionOwner, isChannel: boolean) {
    this.socket = socket;
    this.openedMs = openedMs;
    this.#owner = owner;
    this.isChannel = isChannel;
    this.#seen = owner.compiled;
    this.listener = owner.compiled.config.name;
    this.remoteAddress = socket.remoteAddress ?? '';
    this.remotePort = socket.remotePort ?? 0;
    this.localAddress = socket.localAddress ?? '';
    this.localPort = socket.localPort ?? 0;
  }

  set chain(chain: CompiledChain) {
    this.#chain = chain;
  }

  current(): CompiledChain | undefined {
    const { compiled } = this.#owner;
    if (compiled !== this.#seen) {
      this.#seen = compiled;
      this.#chain = [...compiled.chains, compiled.defaultChain].find((chain) => chain !== undefined && chain.key === this.#chain?.key);
    }
    return this.#chain;
  }

  destroy(): void {
    if (this.served !== undefined) {
      this.served.destroy();
      return;
    }
    this.socket.destroy();
    this.over();
  }

  over(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#owner.connectionOver(this);
  }
}
