/** TLS settings for tests: resources and secrets out of an authority or a forged certificate, and a server and client that shake hands on loopback. */
import type { Buffer } from 'node:buffer';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import type { DownstreamTls, SanMatch, Secret, UpstreamTls } from '../../xds/snapshot.ts';
import type { ProxyError } from '../errors.ts';
import type { PeerTls } from '../service.ts';
import { connectTls } from './client.ts';
import type { ConnectTlsOptions } from './client.ts';
import type { DownstreamTlsContext } from './context.ts';
import type { TlsError } from './peer.ts';
import { acceptTls } from './server.ts';

export const pairSecret = (name: string, chainPem: string, keyPem: string): Secret => ({
  name,
  content: { kind: 'certificate', chainPem, keyPem },
});

export const rootsSecret = (rootsPem: string, matchSubjectAltNames: readonly SanMatch[] = []): Secret => ({
  name: 'ROOTCA',
  content: { kind: 'validation', rootsPem, matchSubjectAltNames, trustUnverified: false },
});

export const uriIs = (value: string): SanMatch => ({ type: 'URI', match: { kind: 'exact', value, ignoreCase: false } });

/** STRICT mTLS with the given secrets in the resource itself; an absent pair is a side without a certificate. */
export function downstreamTls(pair: Secret, roots: Secret, overrides: Partial<DownstreamTls> = {}): DownstreamTls {
  return { ...common([pair], roots), requireClientCertificate: true, ...overrides };
}

export function upstreamTls(pair: Secret | undefined, roots: Secret, overrides: Partial<UpstreamTls> = {}): UpstreamTls {
  return { ...common(pair === undefined ? [] : [pair], roots), sni: 'reviews.default.svc', autoHostSni: false, ...overrides };
}

function common(pairs: readonly Secret[], roots: Secret) {
  return {
    certificates: pairs.map((secret) => ({ kind: 'inline' as const, secret })),
    validation: { kind: 'inline' as const, secret: roots },
    matchSubjectAltNames: [],
    alpn: ['http/1.1'],
    minVersion: 'TLSv1_3' as const,
    maxVersion: 'TLSv1_3' as const,
  };
}

export interface Accepted {
  readonly error: TlsError | undefined;
  readonly socket: TLSSocket | undefined;
  readonly peer: PeerTls | undefined;
}

/** A server on loopback that peeks at the first bytes, as a listener does, and echoes what comes after the handshake. */
export interface TestServer {
  readonly port: number;
  readonly server: Server;
  /** Context of the next handshakes. */
  context: DownstreamTlsContext;
  /** The next handshake that ended, in order. */
  accepted(): Promise<Accepted>;
  /** Connections that came, handshakes that began, and handshakes that ended so far. */
  readonly connections: number;
  readonly begun: number;
  readonly count: number;
  /** Sockets that are open now. */
  readonly open: ReadonlySet<Socket>;
  close(): Promise<void>;
}

export async function startServer(context: DownstreamTlsContext, options: { readonly peek?: boolean } = {}): Promise<TestServer> {
  const ended: Accepted[] = [];
  const waiting: ((accepted: Accepted) => void)[] = [];
  const open = new Set<Socket>();
  let connections = 0;
  let begun = 0;
  let count = 0;
  const accept = (socket: Socket, head: Buffer | undefined): void => {
    begun++;
    acceptTls(socket, head, self.context, (error, secure, peer) => {
      secure?.on('data', (chunk) => secure.write(chunk));
      count++;
      const waiter = waiting.shift();
      if (waiter === undefined) ended.push({ error, socket: secure, peer });
      else waiter({ error, socket: secure, peer });
    });
  };
  const server = createServer((socket) => {
    connections++;
    open.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => open.delete(socket));
    if (options.peek === false) {
      accept(socket, undefined);
      return;
    }
    socket.once('data', (head: Buffer) => {
      socket.pause();
      accept(socket, head);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const self = {
    port: (server.address() as AddressInfo).port,
    server,
    context,
    accepted: () => new Promise<Accepted>((resolve) => (ended.length > 0 ? resolve(ended.shift()!) : waiting.push(resolve))),
    get connections() {
      return connections;
    },
    get begun() {
      return begun;
    },
    get count() {
      return count;
    },
    open,
    async close() {
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
  return self;
}

export interface Connected {
  readonly error: ProxyError | undefined;
  readonly socket: TLSSocket | undefined;
  readonly peer: PeerTls | undefined;
}

export function dial(options: ConnectTlsOptions): Promise<Connected> {
  return new Promise((resolve) => {
    connectTls({ host: '127.0.0.1', ...options }, (error, socket, peer) => resolve({ error, socket, peer }));
  });
}

/** Waits for what other sockets do, and gives up after a few seconds. */
export async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns > 4000) throw new Error('what the test waits for did not happen');
    await sleep(1);
  }
}

/** Writes and waits for the echo. Rejects when the connection ends first. */
export function echo(socket: TLSSocket, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let got = '';
    const onData = (chunk: Buffer): void => {
      got += chunk.toString();
      if (got.length < text.length) return;
      socket.removeListener('data', onData);
      socket.removeListener('close', onClose);
      resolve(got);
    };
    const onClose = (): void => reject(new Error('the connection was closed'));
    socket.on('data', onData);
    socket.once('close', onClose);
    socket.write(text);
  });
}
