/** A raw-socket harness for HTTP/1.1: a recording upstream, a proxy of codec and pool alone, and a client that writes bytes as they are. */
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { systemClock } from '../../lib/clock.ts';
import type { Clock } from '../../lib/clock.ts';
import { serveHttp1 } from '../../proxy/http1/server.ts';
import { calledBack } from '../../proxy/promised.ts';
import type { Http1Connection, Http1Options } from '../../proxy/http1/options.ts';
import { DEFAULT_SETTINGS } from '../../proxy/http1/settings.ts';
import type { Http1Settings } from '../../proxy/http1/settings.ts';
import type { DownstreamConnection, ProxyRequest, Send, Service } from '../../proxy/service.ts';
import { createDial } from '../../proxy/upstream/dial.ts';
import { createPool } from '../../proxy/upstream/pool.ts';
import type { Pool, PoolOptions } from '../../proxy/upstream/pool.ts';

export interface Listening {
  readonly port: number;
  close(): Promise<void>;
}

/** Listens on a free port of 127.0.0.1; `close` cuts what is open. */
export async function listen(onSocket: (socket: Socket) => void): Promise<Listening & { readonly sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  return { port: (server.address() as AddressInfo).port, close, sockets };
}

/** What the upstream got. */
export interface Received {
  readonly head: string;
  readonly body: string;
}

export interface Upstream extends Listening {
  /** Every byte of every connection, in order of arrival, as latin1. */
  bytes: string;
  readonly requests: Received[];
  readonly sockets: Set<Socket>;
  /** Connections that were opened to it. */
  connections: number;
}

/** What to answer a request with; undefined = nothing (yet). May write to the socket itself. */
export type Answer = (request: Received, socket: Socket) => string | Buffer | undefined;

const OK: Answer = (request) => {
  const target = request.head.split(' ')[1] ?? '';
  return request.head.startsWith('HEAD ')
    ? `HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n`
    : `HTTP/1.1 200 OK\r\nContent-Length: ${target.length}\r\n\r\n${target}`;
};

/** An upstream that records bytes and answers each whole request. It reads only what the proxy writes: canonical messages. */
export async function startUpstream(answer: Answer = OK): Promise<Upstream> {
  const requests: Received[] = [];
  const server = await listen((socket) => {
    let buffered = '';
    upstream.connections++;
    socket.on('end', () => socket.end());
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1');
      upstream.bytes += text;
      buffered += text;
      for (;;) {
        const taken = takeRequest(buffered);
        if (taken === undefined) return;
        buffered = buffered.slice(taken.size);
        requests.push(taken);
        const response = answer(taken, socket);
        if (response !== undefined) socket.write(response);
      }
    });
  });
  const upstream: Upstream = { bytes: '', requests, connections: 0, sockets: server.sockets, port: server.port, close: server.close };
  return upstream;
}

function takeRequest(text: string): (Received & { size: number }) | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end === -1) return undefined;
  const head = text.slice(0, end + 4);
  let at = end + 4;
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(head);
  if (length !== null) {
    at += Number(length[1]);
    return at > text.length ? undefined : { head, body: text.slice(end + 4, at), size: at };
  }
  if (!/\r\ntransfer-encoding: chunked\r\n/i.test(head)) return { head, body: '', size: at };
  const from = at;
  for (;;) {
    const eol = text.indexOf('\r\n', at);
    if (eol === -1) return undefined;
    const size = Number.parseInt(text.slice(at, eol), 16);
    at = eol + 2;
    if (size === 0) {
      const last = text.startsWith('\r\n', at) ? at + 2 : text.indexOf('\r\n\r\n', at) + 4;
      return last < at + 2 || last > text.length ? undefined : { head, body: text.slice(from, last), size: last };
    }
    at += size + 2;
    if (at > text.length) return undefined;
  }
}

export interface Proxy extends Listening {
  readonly pool: Pool;
  readonly rejected: string[];
  readonly served: Set<Http1Connection>;
  readonly requests: ProxyRequest[];
}

export interface ProxyOptions {
  readonly settings?: Partial<Http1Settings>;
  readonly pool?: Partial<PoolOptions>;
  readonly clock?: Clock;
  /** Wraps the pool. */
  readonly service?: (next: Service) => Service;
  /** In place of service and pool. */
  readonly send?: Send;
  readonly connectTimeoutMs?: number;
}

/** A proxy that is nothing but the codec on both sides and a pool. */
export async function startProxy(upstreamPort: number, options: ProxyOptions = {}): Promise<Proxy> {
  const clock = options.clock ?? systemClock();
  const dial = createDial({
    address: { host: '127.0.0.1', port: upstreamPort },
    connectTimeoutMs: options.connectTimeoutMs ?? 1_000,
    clock,
  });
  const pool = createPool({ dial, clock, ...options.pool });
  const rejected: string[] = [];
  const requests: ProxyRequest[] = [];
  const served = new Set<Http1Connection>();
  const send: Service = (request) => {
    requests.push(request);
    return pool.send(request);
  };
  const service = options.service?.(send) ?? send;
  const settings = { ...DEFAULT_SETTINGS, ...options.settings };
  const server = await listen((socket) => {
    const serving: Http1Options = {
      connection: downstream(socket),
      send: options.send ?? calledBack(service),
      settings,
      clock,
      events: { rejected: (code) => rejected.push(code) },
      onClose: () => served.delete(connection),
    };
    const connection = serveHttp1(socket, undefined, serving);
    served.add(connection);
  });
  const close = async (): Promise<void> => {
    for (const client of clients) client.destroy();
    clients.clear();
    await server.close();
    pool.destroy();
  };
  return { port: server.port, close, pool, rejected, served, requests };
}

let nextId = 1;

export function downstream(socket: Socket): DownstreamConnection {
  return {
    id: nextId++,
    remoteAddress: socket.remoteAddress ?? '127.0.0.1',
    remotePort: socket.remotePort ?? 0,
    localAddress: socket.localAddress ?? '127.0.0.1',
    localPort: socket.localPort ?? 0,
    listener: 'test',
    protocol: 'HTTP/1.1',
    tls: undefined,
  };
}

export interface Conversation {
  /** All that came back, as latin1. */
  readonly text: string;
  /** The peer ended or cut the connection. */
  readonly closed: boolean;
  /** It was cut with a reset. */
  readonly reset: boolean;
}

export interface TalkOptions {
  /** Stop as soon as this answers true for what came so far. */
  readonly until?: (text: string) => boolean;
  /** Stop then at the latest. Default 2 s. */
  readonly withinMs?: number;
  /** End our side after writing. */
  readonly end?: boolean;
}

/** Writes the parts, one turn of the event loop apart, and collects what comes back until the peer closes. */
export function talk(port: number, parts: readonly (string | Buffer)[], options: TalkOptions = {}): Promise<Conversation> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    let text = '';
    let reset = false;
    let over = false;
    const finish = (closed: boolean): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      socket.destroy();
      resolve({ text, closed, reset });
    };
    const timer = setTimeout(() => finish(false), options.withinMs ?? 2_000);
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (options.until?.(text) === true) finish(false);
    });
    socket.on('end', () => finish(true));
    socket.on('error', () => (reset = true));
    socket.on('close', () => finish(true));
    const send = (i: number): void => {
      if (over || socket.destroyed) return;
      if (i === parts.length) {
        if (options.end === true) socket.end();
        return;
      }
      socket.write(typeof parts[i] === 'string' ? Buffer.from(parts[i], 'latin1') : parts[i]!);
      setImmediate(send, i + 1);
    };
    socket.once('connect', () => send(0));
  });
}

/** Cuts a text into `count` parts of about the same size. */
export function cut(text: string, count: number): string[] {
  const size = Math.max(1, Math.ceil(text.length / count));
  const parts: string[] = [];
  for (let i = 0; i < text.length; i += size) parts.push(text.slice(i, i + size));
  return parts;
}

/** Statuses of the responses in a text, assuming that bodies do not contain status lines. */
export function statuses(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => Number(match[1]));
}

/** Destroyed when the proxy closes. */
const clients = new Set<Socket>();

/** A client that stays, with what it got so far. */
export class Client {
  readonly socket: Socket;
  text = '';
  closed = false;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    clients.add(this.socket);
    this.socket.on('data', (chunk: Buffer) => (this.text += chunk.toString('latin1')));
    this.socket.on('error', () => undefined);
    this.socket.on('end', () => (this.closed = true));
    this.socket.on('close', () => (this.closed = true));
  }

  write(text: string): void {
    this.socket.write(text, 'latin1');
  }
}

/** Waits for a condition over turns of the event loop; fails after 3 s. */
export async function until(what: string, condition: () => boolean, withinMs = 3_000): Promise<void> {
  for (const started = performance.now(); !condition();) {
    if (performance.now() - started > withinMs) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
