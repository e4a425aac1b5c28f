/** Dialling: a TCP connection to an endpoint within a time limit, and what is laid over it (TLS) within the same limit. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import type { Address } from '../../xds/snapshot.ts';
import { ProxyError } from '../errors.ts';

/** What a dial ends with. `notAfterMs` is the epoch time at which a certificate of either side ends; undefined on plaintext. */
export type Dialled = (error: ProxyError | undefined, socket: Socket | undefined, notAfterMs?: number) => void;

/** Calls `done` once, with a connected socket or an error. The answer gives the attempt up; `done` is then not called. */
export type Dial = (done: Dialled) => () => void;

/** Lays TLS (or anything else) over a connected socket. Same contract as `Dial`; on failure the raw socket is destroyed by the dialler. */
export type Secure = (raw: Socket, done: Dialled) => () => void;

export interface DialOptions {
  readonly address: Address;
  /** For the connection and what is laid over it together. */
  readonly connectTimeoutMs: number;
  readonly clock: Clock;
  readonly secure?: Secure;
}

const KEEP_ALIVE_PROBE_MS = 60_000;

/** A dialler for one address. Names are tried on all their addresses, IPv6 and IPv4 in turn (happy eyeballs, RFC 8305). */
export function createDial(options: DialOptions): Dial {
  return (done) => new Attempt(options, done).cancel;
}

class Attempt {
  readonly #done: Dialled;
  readonly #raw: Socket;
  readonly #where: string;
  readonly #stopTimer: () => void;
  #cancelSecure: (() => void) | undefined;
  #over = false;
  readonly cancel: () => void;

  constructor(options: DialOptions, done: Dialled) {
    const { address, connectTimeoutMs, clock, secure } = options;
    this.#done = done;
    this.#where = address.pipe === true ? address.host : `${address.host}:${address.port}`;
    this.cancel = () => this.#give();
    this.#stopTimer = clock.after(connectTimeoutMs, () =>
      this.#fail(new ProxyError('connectTimeout', `No connection to ${this.#where} within ${connectTimeoutMs} ms.`)),
    );
    const base = { noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_PROBE_MS };
    this.#raw =
      address.pipe === true ? connect({ path: address.host, ...base }) : connect({ host: address.host, port: address.port, ...base });
    this.#raw.on('error', this.#onError);
    this.#raw.on('close', this.#onClose);
    this.#raw.once('connect', () => {
      if (this.#over) return;
      if (secure === undefined) this.#succeed(this.#raw);
      else
        this.#cancelSecure = secure(this.#raw, (error, socket, notAfterMs) =>
          socket === undefined ? this.#fail(error!) : this.#succeed(socket, notAfterMs),
        );
    });
  }

  readonly #onError = (error: Error): void => this.#fail(new ProxyError('connectFailed', `${this.#where}: ${error.message}`, error));

  readonly #onClose = (): void => this.#fail(new ProxyError('connectFailed', `${this.#where} closed the connection.`));

  #succeed(socket: Socket, notAfterMs?: number): void {
    if (this.#over) {
      socket.destroy();
      return;
    }
    this.#over = true;
    this.#stopTimer();
    this.#done(undefined, socket, notAfterMs);
    // Whoever took the socket listens for its errors by now.
    if (socket === this.#raw) {
      socket.removeListener('error', this.#onError);
      socket.removeListener('close', this.#onClose);
    }
  }

  #fail(error: ProxyError): void {
    if (this.#over) return;
    this.#give();
    this.#done(error, undefined);
  }

  #give(): void {
    if (this.#over) return;
    this.#over = true;
    this.#stopTimer();
    this.#cancelSecure?.();
    this.#raw.destroy();
  }
}
