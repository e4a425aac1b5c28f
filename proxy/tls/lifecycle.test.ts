import { once } from 'node:events';
import { connect as connectTcp, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { createAuthority } from '../../certs/authority.ts';
import { testCa, testLeaf } from '../../certs/testing.ts';
import { ManualClock } from '../../lib/clock.ts';
import type { Secret } from '../../xds/snapshot.ts';
import { connectTls } from './client.ts';
import { createTlsContexts } from './context.ts';
import { dial, downstreamTls, echo, pairSecret, rootsSecret, startServer, until, upstreamTls } from './testing.ts';
import type { Connected, TestServer } from './testing.ts';

const WEB = 'spiffe://mesh.test/ns/default/sa/web';
const REVIEWS = 'spiffe://mesh.test/ns/default/sa/reviews';
const running: TestServer[] = [];
const clients: { destroy(): void }[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  for (const server of running.splice(0)) await server.close();
});

/** OpenSSL reads the machine's clock, so the test's own starts there. */
function mesh() {
  const clock = new ManualClock({ wallMs: Date.now() });
  const authority = createAuthority({ trustDomain: 'mesh.test', clock });
  const contexts = createTlsContexts({ clock, handshakeTimeoutMs: 5000 });
  const issued = (id: string): Secret => {
    const leaf = authority.issue(id);
    return pairSecret(id, leaf.chainPem, leaf.keyPem!);
  };
  const downstream = () => contexts.downstream(downstreamTls(issued(REVIEWS), rootsSecret(authority.bundle.current.pem)), new Map(), 'l');
  const upstream = (pair = issued(WEB)) => contexts.upstream(upstreamTls(pair, rootsSecret(authority.bundle.current.pem)), new Map(), 'c');
  return { clock, authority, contexts, issued, downstream, upstream };
}
async function serve(context: ReturnType<ReturnType<typeof mesh>['downstream']>): Promise<TestServer> {
  const server = await startServer(context);
  running.push(server);
  return server;
}
async function call(server: TestServer, context: ReturnType<ReturnType<typeof mesh>['upstream']>): Promise<Connected> {
  const connected = await dial({ port: server.port, context });
  if (connected.socket !== undefined) clients.push(connected.socket);
  return connected;
}

test('a certificate rotates while connections are open: old ones go on, new ones see the new one', async () => {
  const { downstream, upstream } = mesh();
  const server = await serve(downstream());
  const old = await call(server, upstream());
  expect(await echo(old.socket!, 'before')).toBe('before');

  server.context = downstream();
  const fresh = await call(server, upstream());

  expect(await echo(old.socket!, 'still')).toBe('still');
  expect(await echo(fresh.socket!, 'new')).toBe('new');
  expect(fresh.peer!.peerHash).not.toBe(old.peer!.peerHash);
  expect(fresh.peer!.peerUri).toBe(old.peer!.peerUri);
});

test('S4 a root rotates in four steps with a connection opened at each, and not one handshake fails', async () => {
  const { authority, downstream, upstream } = mesh();
  const proof = () => ({ bundleVersion: authority.bundle.current.version, pending: [] });
  const first = authority.roots[0]!.id;
  const server = await serve(downstream());
  const lagging = upstream();
  const steps = [
    () => authority.prepare(),
    () => authority.activate(proof()),
    () => authority.taint(first),
    () => authority.revoke(first, proof()),
  ];
  const open: Connected[] = [];

  for (const step of steps) {
    step();
    // The server may have the step before the client and the other way round.
    const before = upstream();
    open.push(await call(server, before));
    server.context = downstream();
    open.push(await call(server, before), await call(server, upstream()));
  }

  for (const { error, socket } of open) {
    expect(error).toBeUndefined();
    expect(await echo(socket!, 'hello')).toBe('hello');
  }
  // C12: who kept the old root and its leaf is out now, on both sides.
  expect((await call(server, lagging)).error).toMatchObject({ code: 'tlsFailed' });
});

test('C12 a revoked root takes its open connections with it, and only those', async () => {
  const { authority, contexts, issued } = mesh();
  const proof = () => ({ bundleVersion: authority.bundle.current.version, pending: [] });
  const first = authority.roots[0]!.id;
  const bySds = { certificates: [{ kind: 'sds', name: 'default' }], validation: { kind: 'sds', name: 'ROOTCA' } } as const;
  const secrets = (id: string) =>
    new Map([['default', issued(id)] as const, ['ROOTCA', rootsSecret(authority.bundle.current.pem)] as const]);
  const roots = rootsSecret('');
  const downstream = () => contexts.downstream(downstreamTls(roots, roots, bySds), secrets(REVIEWS), 'l');
  const upstream = () => contexts.upstream(upstreamTls(roots, roots, bySds), secrets(WEB), 'c');
  const server = await serve(downstream());
  const old = await call(server, upstream());
  const oldAccepted = await server.accepted();
  authority.prepare();
  authority.activate(proof());
  server.context = downstream();
  const fresh = await call(server, upstream());
  const freshAccepted = await server.accepted();
  authority.taint(first);
  server.context = downstream();
  expect(await echo(old.socket!, 'still')).toBe('still');

  authority.revoke(first, { ...proof(), force: true });
  server.context = downstream();

  expect([old.socket!.destroyed, oldAccepted.socket!.destroyed]).toEqual([true, true]);
  expect([fresh.socket!.destroyed, freshAccepted.socket!.destroyed]).toEqual([false, false]);
  expect(await echo(fresh.socket!, 'still')).toBe('still');
});

test('handshakes beyond the bound are refused at once, and room comes back', async () => {
  const { clock, authority, issued, upstream } = mesh();
  const contexts = createTlsContexts({ clock, handshakesMax: 2 });
  const server = await serve(
    contexts.downstream(downstreamTls(issued(REVIEWS), rootsSecret(authority.bundle.current.pem)), new Map(), 'l'),
  );
  const stuck = [0, 1].map(() => connectTcp(server.port, '127.0.0.1').on('error', () => undefined));
  clients.push(...stuck);
  for (const socket of stuck) socket.write('\x16');
  await until(() => clock.pending >= 2);

  expect((await call(server, upstream())).error).toMatchObject({ code: 'tlsFailed' });
  expect((await server.accepted()).error).toMatchObject({ reason: 'overloaded' });
  stuck[0]!.destroy();
  expect((await server.accepted()).error).toMatchObject({ reason: 'aborted' });
  expect((await call(server, upstream())).error).toBeUndefined();
});

test('a handshake that goes nowhere ends at its timeout, on both sides, and no timer stays', async () => {
  const { clock, downstream, upstream } = mesh();
  const server = await serve(downstream());
  const silent = connectTcp(server.port, '127.0.0.1');
  clients.push(silent);
  silent.on('error', () => undefined);
  silent.write(Buffer.from('1603010200010001fc0303', 'hex'));
  const [blackHole] = await listen(() => undefined);
  let answers = 0;
  const connecting = new Promise<string | undefined>((resolve) => {
    connectTls({ host: '127.0.0.1', port: blackHole, context: upstream() }, (error) => {
      answers++;
      resolve(error?.code);
    });
  });
  await until(() => clock.pending >= 2);

  clock.advance(4999);
  expect([server.count, answers]).toEqual([0, 0]);
  clock.advance(1);

  expect((await server.accepted()).error).toMatchObject({ reason: 'timeout' });
  expect(await connecting).toBe('connectTimeout');
  await until(() => silent.closed);
  expect(clock.pending).toBe(0);
});

test('case 91: two hundred handshakes that are aborted all along the way leave nothing behind', async () => {
  const { clock, downstream, upstream } = mesh();
  const server = await serve(downstream());
  const context = upstream();
  const total = 200;
  let before = 0;

  for (let i = 0; i < total; i++) {
    // The first flight is about 250 bytes, the second about 700: cuts fall into and between both.
    const [port, relay] = await listen((client) => cutAfter(client, connectTcp(server.port, '127.0.0.1'), 1 + i * 4));
    const connected = await dial({ port, context });
    if (connected.error !== undefined) before++;
    else if (!connected.socket!.closed) await once(connected.socket!.resume(), 'close');
    relay.close();
  }
  await until(() => server.connections === total && server.open.size === 0);

  // A reset may overtake the bytes before it, so that a few never get as far as a handshake.
  expect(server.begun).toBeGreaterThan(total / 2);
  expect(server.count).toBe(server.begun);
  expect(before).toBeGreaterThan(0);
  expect(clock.pending).toBe(0);
  expect(await echo((await call(server, context)).socket!, 'alive')).toBe('alive');
});

test('a client that leaves before the handshake starts is one answer and no timer', async () => {
  const { clock, downstream } = mesh();
  const server = await serve(downstream());
  const socket = connectTcp(server.port, '127.0.0.1');
  socket.end('\x16');

  expect((await server.accepted()).error).toMatchObject({ reason: 'aborted' });
  expect(clock.pending).toBe(0);
});

test('an answer comes even when only the socket below tells that the client is gone', async () => {
  const { clock, downstream } = mesh();
  const context = downstream();
  context.server.removeAllListeners('tlsClientError');
  const server = await serve(context);
  connectTcp(server.port, '127.0.0.1').end('\x16');

  expect((await server.accepted()).error).toMatchObject({ reason: 'aborted' });
  expect(clock.pending).toBe(0);
});

test('case 82: a peer that was known once is not let in after its end', async () => {
  const { clock, downstream, upstream } = mesh();
  const server = await serve(downstream());
  const context = upstream();
  expect((await call(server, context)).error).toBeUndefined();
  expect((await server.accepted()).error).toBeUndefined();

  // By the clock of the proxy it ended; the machine's own, which OpenSSL asks, does not know.
  clock.advance(24 * 3_600_000 + 1000);

  expect((await call(server, context)).error!.cause).toMatchObject({ reason: 'expired' });
});

test('case 93: a connection is closed when the certificate of its peer ends', async () => {
  const clock = new ManualClock({ wallMs: Date.now() });
  const nowMs = clock.wallMs();
  const contexts = createTlsContexts({ clock });
  const ca = testCa(nowMs, 'ca');
  const [server, client] = [
    testLeaf(ca, nowMs, [REVIEWS]),
    testLeaf(ca, nowMs, [WEB], { notAfterMs: Math.floor(nowMs / 1000) * 1000 + 60_000 }),
  ];
  const listening = await serve(
    contexts.downstream(downstreamTls(pairSecret('s', server.pem, server.keyPem), rootsSecret(ca.pem)), new Map(), 'l'),
  );
  const { socket, peer } = await call(
    listening,
    contexts.upstream(upstreamTls(pairSecret('c', client.pem, client.keyPem), rootsSecret(ca.pem)), new Map(), 'c'),
  );
  expect(await echo(socket!, 'hello')).toBe('hello');
  const accepted = await listening.accepted();
  expect([accepted.peer!.notAfterMs, peer!.notAfterMs]).toEqual([
    Math.floor(nowMs / 1000) * 1000 + 60_000,
    Math.floor(nowMs / 1000) * 1000 + 60_000,
  ]);

  clock.advance(58_999);
  expect(await echo(socket!, 'still')).toBe('still');
  clock.advance(1001);

  await once(socket!.resume(), 'close');
  expect(accepted.socket!.destroyed).toBe(true);
  expect(clock.pending).toBe(0);
});

async function listen(onSocket: (socket: Socket) => void): Promise<[number, { close(): void }]> {
  const server = createServer((socket) => {
    clients.push(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const handle = { close: () => void server.close(), destroy: () => void server.close() };
  clients.push(handle);
  return [(server.address() as AddressInfo).port, handle];
}

/** Relays both ways until the client has sent so many bytes, then resets both sides. */
function cutAfter(client: Socket, upstream: Socket, bytes: number): void {
  let left = bytes;
  upstream.on('error', () => undefined);
  upstream.on('data', (chunk) => client.write(chunk));
  const cut = (): void => {
    client.destroy();
    upstream.destroy();
  };
  client.on('close', cut);
  upstream.on('close', cut);
  client.on('data', (chunk: Buffer) => {
    const part = chunk.subarray(0, left);
    left -= part.length;
    upstream.write(part, () => {
      if (left <= 0) upstream.resetAndDestroy();
    });
  });
}
