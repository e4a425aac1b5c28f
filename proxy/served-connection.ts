/** One accepted connection that carries HTTP: each request meets the configuration of its moment, and a chain that is gone ends the connection kindly. */
import { ProxyError } from './errors.ts';
import { normalisedPath } from './http1/path.ts';
import { serveHttp1 } from './http1/server.ts';
import type { ErrorCode } from './errors.ts';
import type { HttpConnectionStats } from './filters/http-stats.ts';
import type { Http1Connection, Http1End, Http1Events, Http1Options } from './http1/options.ts';
import type { Http1Settings } from './http1/settings.ts';
import type { AcceptedConnection, Served } from './listen/chain.ts';
import type { ConnectionHooks, ProxyRequest, Reply, Send } from './service.ts';
import type { Clock } from '../lib/clock.ts';

/** What all connections of a chain share. */
export interface ServedDeps {
  readonly clock: Clock;
  readonly settings: Http1Settings;
  readonly counts: HttpConnectionStats;
  /** With which settings the requests of a chain are to be read; undefined for a chain that carries no HTTP. */
  readonly settingsOf: (send: Send) => Http1Settings | undefined;
}

/** It is what the codec is told and tells, and what the listener holds: one object instead of a closure for each of these. */
export class ServedConnection implements Http1Options, Http1Events, ConnectionHooks, Served {
  readonly connection: AcceptedConnection;
  readonly #deps: ServedDeps;
  readonly #first: Send;
  readonly #http1: Http1Connection;
  /** Connections inside tunnels of this one. */
  #inside: Set<Http1Connection> | undefined;
  #last: Send;
  #underWay = 0;
  #received = 0;
  #sent = 0;

  /** Serves from now on. */
  constructor(connection: AcceptedConnection, first: Send, deps: ServedDeps) {
    this.connection = connection;
    this.#deps = deps;
    this.#first = this.#last = first;
    deps.counts.opened(connection.tls !== undefined);
    connection.hooks = connection.served = this;
    this.#http1 = serveHttp1(connection.socket, undefined, this);
  }

  // ---- Http1Options ---------------------------------------------------------------------------------------------------

  get settings(): Http1Settings {
    return this.#deps.settings;
  }

  get clock(): Clock {
    return this.#deps.clock;
  }

  get events(): Http1Events {
    return this;
  }

  send(request: ProxyRequest, reply: Reply): void {
    const send = this.connection.current()?.send;
    if (send === undefined) this.drain();
    else this.#last = send;
    if (this.#last !== this.#first) {
      const now = this.#deps.settingsOf(this.#last);
      if (now !== undefined && readsOtherwise(now, this.settings)) {
        // The connection reads by settings of before a push; policies of after it must see the path in their own form.
        this.drain();
        try {
          if (request.path.startsWith('/')) request.path = normalisedPath(request.path, now);
        } catch (error) {
          reply.failed(ProxyError.from(error));
          return;
        }
      }
    }
    this.#last(request, reply);
  }

  onClose(end: Http1End): void {
    const { connection } = this;
    this.countBytes();
    this.#deps.counts.closed(end, this.clock.now() - connection.openedMs, connection.tls !== undefined);
    connection.over();
  }

  // ---- Http1Events ----------------------------------------------------------------------------------------------------

  requestStarted(): void {
    this.#underWay++;
  }

  requestEnded(): void {
    this.#underWay--;
  }

  rejected(code: ErrorCode): void {
    this.#deps.counts.rejected(code);
  }

  retired(reason: 'idle' | 'age' | 'requests' | 'drain'): void {
    this.#deps.counts.retired(reason);
  }

  answeredEarly(): void {
    this.#deps.counts.answeredEarly();
  }

  tunnelOpened(): () => void {
    return this.#deps.counts.upgraded();
  }

  // ---- ConnectionHooks ------------------------------------------------------------------------------------------------

  servedInside(inside: Http1Connection): void {
    (this.#inside ??= new Set()).add(inside);
  }

  insideOver(inside: Http1Connection): void {
    this.#inside?.delete(inside);
  }

  // ---- Served ---------------------------------------------------------------------------------------------------------

  drain(): void {
    this.#http1.drain();
    if (this.#inside !== undefined) for (const inside of this.#inside) inside.drain();
  }

  busy(): boolean {
    return this.#underWay > 0;
  }

  countBytes(): void {
    const { bytesRead, bytesWritten } = this.connection.socket;
    this.#deps.counts.bytesMoved(bytesRead - this.#received, bytesWritten - this.#sent);
    this.#received = bytesRead;
    this.#sent = bytesWritten;
  }

  destroy(): void {
    this.#http1.destroy();
  }
}

/** Whether requests would come out of the head differently under the two settings. */
function readsOtherwise(now: Http1Settings, then: Http1Settings): boolean {
  return (
    now !== then &&
    (now.normalizePath !== then.normalizePath ||
      now.mergeSlashes !== then.mergeSlashes ||
      now.pathWithEscapedSlashes !== then.pathWithEscapedSlashes ||
      now.headersWithUnderscores !== then.headersWithUnderscores)
  );
}
