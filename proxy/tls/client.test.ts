import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { dnsSan } from '../../certs/certificate.ts';
import { testLeaf } from '../../certs/testing.ts';
import type { Secret, UpstreamTls } from '../../xds/snapshot.ts';
import { connectTls } from './client.ts';
import { dial, downstreamTls, echo, rootsSecret, startServer, upstreamTls, uriIs } from './testing.ts';
import {
  REVIEWS,
  WEB,
  call,
  clients,
  closeAll,
  contexts,
  foreignRoot,
  forged,
  imposter,
  issued,
  mesh,
  meshRoots,
  nowMs,
  reason,
  serve,
} from './testing-mesh.ts';

afterEach(closeAll);

test.each([true, false])('both sides know each other by their SPIFFE ids (first bytes peeked: %s)', async (peek) => {
  const server = await serve(undefined, peek);

  const { error, socket, peer } = await call(server, upstreamTls(issued(WEB), meshRoots, { matchSubjectAltNames: [uriIs(REVIEWS)] }));

  expect(error).toBeUndefined();
  expect(await echo(socket!, 'hello')).toBe('hello');
  expect(peer).toMatchObject({
    peerUri: REVIEWS,
    localUri: WEB,
    alpn: 'http/1.1',
    version: 'TLSv1.3',
    cipher: expect.stringMatching(/^TLS_/),
  });
  const accepted = await server.accepted();
  expect(accepted.peer).toMatchObject({
    peerUri: WEB,
    localUri: REVIEWS,
    sni: 'reviews.default.svc',
    alpn: 'http/1.1',
    peerSubject: 'O=meshwork',
  });
  expect(accepted.peer!.peerHash).toMatch(/^[0-9a-f]{64}$/);
  expect(accepted.peer!.notAfterMs).toBeLessThanOrEqual(nowMs + 3_700_000);
});

test('a megabyte crosses unharmed both ways', async () => {
  const { socket } = await call(await serve());
  const text = 'x'.repeat(1 << 20);

  expect(await echo(socket!, text)).toBe(text);
});

test('TLS over a socket that is connected already works too', async () => {
  const server = await serve();
  const below = connectTcp(server.port, '127.0.0.1');
  await once(below, 'connect');

  const connected = await dial({ socket: below, context: contexts.upstream(upstreamTls(issued(WEB), meshRoots), new Map(), 'cluster') });

  clients.push(connected.socket!, below);
  expect(await echo(connected.socket!, 'hello')).toBe('hello');
});

test.each<[string, Secret, Partial<UpstreamTls>, string[] | undefined, string]>([
  [
    'case 87: another workload of the mesh',
    issued('spiffe://mesh.test/ns/default/sa/ratings'),
    { matchSubjectAltNames: [uriIs(REVIEWS)] },
    undefined,
    'wrongName',
  ],
  ['case 87: another workload than this connection wants', issued(REVIEWS), {}, ['spiffe://mesh.test/ns/default/sa/ratings'], 'wrongName'],
  [
    'case 82: an expired server',
    forged(testLeaf(foreignRoot, nowMs, [REVIEWS], { notBeforeMs: nowMs - 100_000, notAfterMs: nowMs - 1000 })),
    {},
    undefined,
    'expired',
  ],
  ['case 83: an unknown authority', issued(REVIEWS, imposter), {}, undefined, 'untrusted'],
  ['case 85: two URI names', forged(testLeaf(foreignRoot, nowMs, [REVIEWS, WEB])), {}, undefined, 'notOneUri'],
  [
    'case 86: a certificate for clients only',
    forged(testLeaf(foreignRoot, nowMs, [REVIEWS], { extendedKeyUsage: ['clientAuth'] })),
    {},
    undefined,
    'untrusted',
  ],
  [
    'no identity, and a name that was not asked for',
    forged(testLeaf(foreignRoot, nowMs, [], { sans: [dnsSan('other.test')] })),
    {},
    undefined,
    'wrongName',
  ],
  [
    'no identity, and the name only in the subject',
    forged(testLeaf(foreignRoot, nowMs, [], { subject: { CN: 'reviews.default.svc' } })),
    {},
    undefined,
    'wrongName',
  ],
  [
    'no identity where nothing names the server',
    forged(testLeaf(foreignRoot, nowMs, [], { sans: [dnsSan('other.test')] })),
    { sni: '' },
    undefined,
    'wrongName',
  ],
])('a client refuses a server with %s', async (_name, pair, overrides, expectedSans, expected) => {
  const server = await serve(downstreamTls(pair, rootsSecret(mesh.bundle.current.pem)));
  const roots = rootsSecret(mesh.bundle.current.pem + foreignRoot.pem);

  const connected = await call(server, upstreamTls(issued(WEB), roots, overrides), expectedSans === undefined ? {} : { expectedSans });

  expect(connected.error).toMatchObject({ name: 'ProxyError', code: 'tlsFailed' });
  expect(reason(connected)).toBe(expected);
  expect(connected.socket).toBeUndefined();
});

test('a server outside the mesh is known by its DNS name', async () => {
  const pair = forged(testLeaf(foreignRoot, nowMs, [], { sans: [dnsSan('*.example.test')], extendedKeyUsage: ['serverAuth'] }));
  const server = await serve(downstreamTls(pair, meshRoots, { requireClientCertificate: false }));

  const { socket, peer } = await call(server, upstreamTls(undefined, rootsSecret(foreignRoot.pem), { sni: 'api.example.test' }));

  expect(await echo(socket!, 'hello')).toBe('hello');
  expect(peer).toMatchObject({ peerUri: undefined, peerHash: expect.any(String) });
});

test('a port where nobody listens is a failed connection, and one that speaks no TLS a failed handshake', async () => {
  const plain = await serve();
  plain.server.removeAllListeners('connection');
  plain.server.on('connection', (socket: Socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
  });
  expect((await call(plain)).error).toMatchObject({ code: 'tlsFailed' });
  const gone = await startServer(plain.context);
  await gone.close();
  expect((await call(gone)).error).toMatchObject({ code: 'connectFailed' });
});

test('an attempt that is given up answers once, with an error', async () => {
  const server = await serve();
  const errors: unknown[] = [];

  await new Promise<void>((resolve) => {
    const socket = connectTls(
      { host: '127.0.0.1', port: server.port, context: contexts.upstream(upstreamTls(issued(WEB), meshRoots), new Map(), 'c') },
      (error) => {
        errors.push(error?.code);
        resolve();
      },
    );
    socket.destroy();
  });

  expect(errors).toEqual(['connectFailed']);
});
