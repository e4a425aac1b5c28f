/** The HTTP/1.1 codec on TLS sockets, on both sides: the same messages, the same back-pressure, and no broken body that looks whole. */
import { afterEach, expect, test } from '@jest/globals';
import { createHash } from 'node:crypto';
import { createServer as createTcpServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { TLSSocket, connect, createServer } from 'node:tls';
import { systemClock } from '../../lib/clock.ts';
import { ProxyError } from '../../proxy/errors.ts';
import { serveHttp1 } from '../../proxy/http1/server.ts';
import { calledBack } from '../../proxy/promised.ts';
import { DEFAULT_SETTINGS } from '../../proxy/http1/settings.ts';
import { REVIEWS, issued } from '../../proxy/tls/testing-mesh.ts';
import { createDial } from '../../proxy/upstream/dial.ts';
import type { Secure } from '../../proxy/upstream/dial.ts';
import { createPool } from '../../proxy/upstream/pool.ts';
import type { Pool } from '../../proxy/upstream/pool.ts';
import { downstream } from './harness.ts';

const { content } = issued(REVIEWS);
if (content.kind !== 'certificate') throw new Error('the test certificate is none');
const PAIR = { cert: content.chainPem, key: content.keyPem };

const servers: Server[] = [];
const sockets = new Set<Socket>();
let pool: Pool | undefined;

afterEach(async () => {
  pool?.destroy();
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
});

async function listenTls(onSocket: (socket: TLSSocket) => void): Promise<number> {
  const server = createServer({ ...PAIR, allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

/** A proxy with TLS on both sides; answers its port. */
async function startTlsProxy(upstreamPort: number): Promise<number> {
  const clock = systemClock();
  const secure: Secure = (raw, done) => {
    const socket = connect({ socket: raw, rejectUnauthorized: false }, () => done(undefined, socket));
    socket.on('error', (error) => done(new ProxyError('tlsFailed', error.message), undefined));
    return () => socket.destroy();
  };
  const dial = createDial({ address: { host: '127.0.0.1', port: upstreamPort }, connectTimeoutMs: 2_000, clock, secure });
  const made = createPool({ dial, clock });
  pool = made;
  return listenTls((socket) => {
    serveHttp1(socket, undefined, {
      connection: downstream(socket),
      send: calledBack((request) => made.send(request)),
      settings: DEFAULT_SETTINGS,
      clock,
    });
  });
}

/** Writes, reads until the other side closes or `until` says so; rests now and then when `slowly`. */
function talkTls(
  port: number,
  message: Buffer | string,
  until: (bytes: number) => boolean,
  slowly = false,
  firstRestMs = 0,
): Promise<{ got: Buffer; closed: boolean }> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    let restAt = firstRestMs > 0 ? 1 : 300_000;
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => socket.write(message));
    sockets.add(socket);
    const finish = (closed: boolean): void => resolve({ got: Buffer.concat(chunks), closed });
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (until(bytes)) finish(false);
      if (!slowly || bytes < restAt) return;
      socket.pause();
      setTimeout(() => socket.resume(), restAt === 1 ? firstRestMs : 3);
      restAt = bytes + 300_000;
    });
    socket.on('error', () => undefined);
    socket.on('close', () => finish(true));
  });
}

const hash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

function noise(bytes: number): Buffer {
  const words = new Uint32Array(bytes / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 2_654_435_761);
  return Buffer.from(words.buffer);
}

test('requests in turn on one connection, over one upstream connection', async () => {
  let connections = 0;
  const upstreamPort = await listenTls((socket) => {
    connections++;
    socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'));
  });
  const port = await startTlsProxy(upstreamPort);
  const one = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi';

  const { got } = await talkTls(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(3), (bytes) => bytes === one.length * 3);

  expect(got.toString()).toBe(one.repeat(3));
  expect(connections).toBe(1);
});

test('a large answer arrives unchanged at a slow reader', async () => {
  const body = noise(3 * 1024 * 1024);
  const upstreamPort = await listenTls((socket) => {
    socket.once('data', () => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`);
      socket.write(body);
    });
  });
  const port = await startTlsProxy(upstreamPort);
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`;

  const { got } = await talkTls(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', (bytes) => bytes === head.length + body.length, true);

  expect(hash(got.subarray(head.length))).toBe(hash(body));
}, 20_000);

test('many small answers to a client that reads late arrive whole and in order', async () => {
  const count = 4_000;
  let asked = 0;
  const upstreamPort = await listenTls((socket) => {
    socket.on('data', () => {
      // Small ones go out as text, every tenth flows.
      const length = ++asked % 10 === 0 ? 20_000 : 4_000;
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n${String(asked % 10).repeat(length)}`);
    });
  });
  const port = await startTlsProxy(upstreamPort);
  const head = (length: number): number => `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`.length;
  const expected = (count / 10) * (9 * (head(4_000) + 4_000) + head(20_000) + 20_000);

  const { got } = await talkTls(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(count), (bytes) => bytes >= expected, true, 1_000);

  expect(got.length).toBe(expected);
  const bodies = got.toString('latin1').split(/HTTP\/1\.1 200 OK\r\nContent-Length: \d+\r\n\r\n/);
  expect(bodies.slice(1).map((body) => body[0])).toEqual(Array.from({ length: count }, (_, i) => String((i + 1) % 10)));
}, 30_000);

test('case 46: an answer that breaks off ends the client’s connection, and nothing says that it was whole', async () => {
  const upstreamPort = await listenTls((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', () => socket.destroy());
    });
  });
  const port = await startTlsProxy(upstreamPort);

  const { got, closed } = await talkTls(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', () => false);

  expect(closed).toBe(true);
  expect(got.toString()).not.toContain('\r\n0\r\n');
});

test('a bad request is refused in words over TLS too', async () => {
  const port = await startTlsProxy(1);

  const { got, closed } = await talkTls(port, 'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n', () => false);

  expect(got.toString()).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
  expect(closed).toBe(true);
});

/** A body that only the close ends, and how the endpoint's connection closes after it. */
async function closeDelimited(close: (secure: TLSSocket, raw: Socket) => void): Promise<{ text: string; closed: boolean }> {
  const server = createTcpServer((raw) => {
    sockets.add(raw);
    raw.on('error', () => undefined);
    const secure = new TLSSocket(raw, { isServer: true, ...PAIR });
    secure.on('error', () => undefined);
    secure.once('data', () => {
      secure.write('HTTP/1.1 200 OK\r\n\r\n');
      secure.write('hello', () => setTimeout(close, 20, secure, raw));
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const port = await startTlsProxy((server.address() as AddressInfo).port);
  const whole = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n';

  const { got, closed } = await talkTls(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', (bytes) => bytes >= whole.length);
  return { text: got.toString(), closed };
}

test('case 53: a close with close_notify ends a body that only the close ends', async () => {
  const { text } = await closeDelimited((secure) => void secure.end());

  expect(text.endsWith('5\r\nhello\r\n0\r\n\r\n')).toBe(true);
});

test('case 53: that holds for a large body and a slow reader too', async () => {
  const body = noise(2 * 1024 * 1024);
  const upstreamPort = await listenTls((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.end(body);
    });
  });
  const port = await startTlsProxy(upstreamPort);

  const { got } = await talkTls(port, 'GET / HTTP/1.0\r\nHost: a\r\n\r\n', () => false, true);

  expect(hash(got.subarray(got.indexOf('\r\n\r\n') + 4))).toBe(hash(body));
}, 20_000);

test.each([
  ['an end', (raw: Socket): void => void raw.end()],
  ['a reset', (raw: Socket): void => void raw.resetAndDestroy()],
] as const)(
  'case 53: %s without close_notify does not: an attacker can cut a connection, and only the peer can say that it is over',
  async (_name, close) => {
    const { text, closed } = await closeDelimited((_secure, raw) => close(raw));

    expect(closed).toBe(true);
    expect(text).not.toContain('\r\n0\r\n');
  },
);
