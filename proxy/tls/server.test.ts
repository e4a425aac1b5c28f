import { createPrivateKey } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { connect as connectPlainTls } from 'node:tls';
import { afterEach, expect, test } from '@jest/globals';
import { createAuthority } from '../../certs/authority.ts';
import { uriSan } from '../../certs/certificate.ts';
import { testCa, testLeaf } from '../../certs/testing.ts';
import type { Secret } from '../../xds/snapshot.ts';
import { TlsError } from './peer.ts';
import { downstreamTls, echo, pairSecret, rootsSecret, upstreamTls, uriIs } from './testing.ts';
import {
  REVIEWS,
  WEB,
  call,
  clients,
  clock,
  closeAll,
  closedWithoutBytes,
  foreignRoot,
  forged,
  imposter,
  issued,
  mesh,
  meshRoots,
  nowMs,
  serve,
} from './testing-mesh.ts';

afterEach(closeAll);

const other = createAuthority({ trustDomain: 'other.test', clock });
const constrained = testCa(nowMs, 'constrained', { fields: { sans: [uriSan('spiffe://mesh.test')], permittedUriHost: 'mesh.test' } });
const plainRoot = testCa(nowMs, 'plain', { fields: { sans: [uriSan('spiffe://mesh.test')] } });
const federated = testCa(nowMs, 'federated', { fields: { sans: [uriSan('spiffe://other.test')] } });
const belowFederated = testCa(nowMs, 'below federated', { parent: federated });
const shallowRoot = testCa(nowMs, 'shallow', { fields: { ca: { pathLength: 0 } } });
const belowShallow = testCa(nowMs, 'below', { parent: shallowRoot });
const expiredBelow = testCa(nowMs, 'expired below', {
  parent: plainRoot,
  fields: { notBeforeMs: nowMs - 100_000, notAfterMs: nowMs - 1000 },
});
const expiredRoot = testCa(nowMs, 'expired root', { fields: { notBeforeMs: nowMs - 100_000, notAfterMs: nowMs - 1000 } });
const goodBelow = testCa(nowMs, 'good below', { parent: plainRoot });

test.each<[string, Secret | undefined, Secret, string]>([
  [
    'case 82: an expired client',
    forged(testLeaf(plainRoot, nowMs, [WEB], { notBeforeMs: nowMs - 100_000, notAfterMs: nowMs - 1000 })),
    rootsSecret(plainRoot.pem),
    'expired',
  ],
  [
    'case 82: a client that is not valid yet',
    forged(testLeaf(plainRoot, nowMs, [WEB], { notBeforeMs: nowMs + 60_000 })),
    rootsSecret(plainRoot.pem),
    'notYetValid',
  ],
  [
    'case 82: a client below an expired intermediate',
    forged(testLeaf(expiredBelow, nowMs, [WEB]), expiredBelow),
    rootsSecret(plainRoot.pem),
    'expired',
  ],
  ['case 82: a client below an expired root', forged(testLeaf(expiredRoot, nowMs, [WEB])), rootsSecret(expiredRoot.pem), 'expired'],
  ['case 83: a client of an unknown authority', forged(testLeaf(foreignRoot, nowMs, [WEB])), meshRoots, 'untrusted'],
  ['case 83: a self-signed client', issuedBySelf(), meshRoots, 'untrusted'],
  ['case 83: a client of an authority that calls itself the same', issued(WEB, imposter), meshRoots, 'untrusted'],
  ['case 83: a client of another trust domain', issued('spiffe://other.test/web', other), meshRoots, 'untrusted'],
  [
    'case 83: a foreign id under a root that is for our trust domain',
    forged(testLeaf(plainRoot, nowMs, ['spiffe://other.test/web'])),
    rootsSecret(plainRoot.pem),
    'wrongTrustDomain',
  ],
  [
    'case 83: an id of our trust domain that a federated root vouched for',
    forged(testLeaf(federated, nowMs, [WEB])),
    rootsSecret(mesh.bundle.current.pem + federated.pem),
    'wrongTrustDomain',
  ],
  ['case 84: no client certificate', undefined, meshRoots, 'noCertificate'],
  ['case 85: a client without a URI name', forged(testLeaf(plainRoot, nowMs, [])), rootsSecret(plainRoot.pem), 'notOneUri'],
  ['case 85: a client with two URI names', forged(testLeaf(plainRoot, nowMs, [WEB, REVIEWS])), rootsSecret(plainRoot.pem), 'notOneUri'],
  ['case 85: a NUL in the name', forged(testLeaf(plainRoot, nowMs, [`${WEB}\0.evil`])), rootsSecret(plainRoot.pem), 'badSpiffeId'],
  [
    'case 85: two ids in one name',
    forged(testLeaf(foreignRoot, nowMs, [`${WEB}, URI:${REVIEWS}`])),
    rootsSecret(foreignRoot.pem),
    'badSpiffeId',
  ],
  [
    'case 86: an authority as a client',
    forged(testLeaf(plainRoot, nowMs, [WEB], { ca: { pathLength: 0 }, keyUsage: ['digitalSignature', 'keyCertSign'] })),
    rootsSecret(plainRoot.pem),
    'isCa',
  ],
  [
    'case 86: a client that may sign certificates',
    forged(testLeaf(plainRoot, nowMs, [WEB], { keyUsage: ['digitalSignature', 'cRLSign'] })),
    rootsSecret(plainRoot.pem),
    'keyUsage',
  ],
  [
    'case 86: a client certificate for servers only',
    forged(testLeaf(plainRoot, nowMs, [WEB], { extendedKeyUsage: ['serverAuth'] })),
    rootsSecret(plainRoot.pem),
    'untrusted',
  ],
  [
    'case 86: a name outside its issuer\u2019s constraint',
    forged(testLeaf(constrained, nowMs, ['spiffe://other.test/web'])),
    rootsSecret(constrained.pem),
    'untrusted',
  ],
  [
    'case 86: a path longer than its root allows',
    forged(testLeaf(belowShallow, nowMs, [WEB]), belowShallow),
    rootsSecret(shallowRoot.pem),
    'untrusted',
  ],
])('%s is refused, and not a byte is answered', async (_name, client, roots, expected) => {
  const server = await serve(downstreamTls(issued(REVIEWS), roots));

  const connected = await call(server, upstreamTls(client, meshRoots));

  const accepted = await server.accepted();
  expect(accepted.error).toBeInstanceOf(TlsError);
  expect([accepted.error!.reason, accepted.socket, accepted.peer]).toEqual([expected, undefined, undefined]);
  expect(await closedWithoutBytes(connected)).toBe(true);
});

test('a client below an intermediate that it sends along is let in', async () => {
  const server = await serve(downstreamTls(issued(REVIEWS), rootsSecret(plainRoot.pem)));

  const { socket } = await call(server, upstreamTls(forged(testLeaf(goodBelow, nowMs, [WEB]), goodBelow), meshRoots));

  expect(await echo(socket!, 'hello')).toBe('hello');
  expect((await server.accepted()).peer!.peerUri).toBe(WEB);
});

test('a stolen root signs no foreign id that anyone believes: its name constraint is for every TLS library', async () => {
  const record = mesh.exportState().roots[0]!;
  const stolen = { key: createPrivateKey(record.keyPem), der: mesh.bundle.current.roots[0]!, pem: record.certificatePem };
  const server = await serve();

  await call(server, upstreamTls(forged(testLeaf(stolen, nowMs, ['spiffe://other.test/web'])), meshRoots));

  // OpenSSL says so, before our own check of the trust domain is asked.
  expect((await server.accepted()).error).toMatchObject({ reason: 'untrusted' });
});

test('with the roots of two trust domains, each vouches for its own, through an intermediate too', async () => {
  const server = await serve(downstreamTls(issued(REVIEWS), rootsSecret(mesh.bundle.current.pem + federated.pem)));

  await call(server);
  expect((await server.accepted()).peer!.peerUri).toBe(WEB);
  await call(server, upstreamTls(forged(testLeaf(belowFederated, nowMs, ['spiffe://other.test/web']), belowFederated), meshRoots));
  expect((await server.accepted()).peer!.peerUri).toBe('spiffe://other.test/web');
  await call(server, upstreamTls(forged(testLeaf(belowFederated, nowMs, [WEB]), belowFederated), meshRoots));
  expect((await server.accepted()).error).toMatchObject({ reason: 'wrongTrustDomain' });
});

test('a server that names its clients lets in those and nobody else', async () => {
  const server = await serve(downstreamTls(issued(REVIEWS), rootsSecret(mesh.bundle.current.pem, [uriIs(WEB)])));

  await call(server);
  expect((await server.accepted()).peer!.peerUri).toBe(WEB);
  await call(server, upstreamTls(issued('spiffe://mesh.test/ns/default/sa/webb'), meshRoots));
  expect((await server.accepted()).error).toMatchObject({ reason: 'wrongName' });
});

test('where a client certificate is optional, none is fine and a bad one is not', async () => {
  const server = await serve(downstreamTls(issued(REVIEWS), meshRoots, { requireClientCertificate: false }));

  const { socket } = await call(server, upstreamTls(undefined, meshRoots));
  expect(await echo(socket!, 'hello')).toBe('hello');
  expect((await server.accepted()).peer!.peerUri).toBeUndefined();
  await call(server, upstreamTls(forged(testLeaf(foreignRoot, nowMs, [WEB])), meshRoots));
  expect((await server.accepted()).error).toMatchObject({ reason: 'untrusted' });
});

test('a client whose certificate nobody checks has no identity', async () => {
  const unverified: Secret = { name: 'x', content: { kind: 'validation', rootsPem: '', matchSubjectAltNames: [], trustUnverified: true } };
  const server = await serve(downstreamTls(issued(REVIEWS), unverified));

  await call(server, upstreamTls(issued('spiffe://other.test/admin', other), meshRoots));

  expect((await server.accepted()).peer).toMatchObject({ peerUri: undefined, peerHash: undefined });
});

test.each([
  ['TLSv1.2', {}],
  ['TLSv1.1', { ciphers: 'DEFAULT@SECLEVEL=0' }],
] as const)('case 88: a client that speaks %s at most is refused by a mesh listener', async (maxVersion, extra) => {
  const server = await serve();

  const client = connectPlainTls({
    port: server.port,
    host: '127.0.0.1',
    minVersion: maxVersion,
    maxVersion,
    rejectUnauthorized: false,
    ...extra,
  });
  const [error] = (await once(client, 'error')) as [Error & { code: string }];

  expect(error.code).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  expect((await server.accepted()).error).toMatchObject({ reason: 'protocol' });
});

test('case 88: TLS 1.2, where a resource allows it, takes ECDHE with an AEAD cipher only', async () => {
  const server = await serve(downstreamTls(issued(REVIEWS), meshRoots, { minVersion: 'TLSv1_2' }));
  const tls12 = { minVersion: 'TLSv1_2', maxVersion: 'TLSv1_2' } as const;

  const good = await call(server, upstreamTls(issued(WEB), meshRoots, tls12));
  expect(good.peer).toMatchObject({ version: 'TLSv1.2', cipher: expect.stringMatching(/^TLS_ECDHE_ECDSA_WITH_(AES_.*_GCM|CHACHA20)/) });
  const cbc = connectPlainTls({
    port: server.port,
    host: '127.0.0.1',
    maxVersion: 'TLSv1.2',
    ciphers: 'ECDHE-ECDSA-AES128-SHA256',
    rejectUnauthorized: false,
  });
  const [error] = (await once(cbc, 'error')) as [Error];
  expect(error.message).toMatch(/handshake failure/);
});

test.each(['TLSv1.2', 'TLSv1.3'] as const)(
  'case 89: a session of %s cannot be resumed, so every handshake checks the certificate',
  async (maxVersion) => {
    const server = await serve(downstreamTls(issued(REVIEWS), meshRoots, { requireClientCertificate: false, minVersion: 'TLSv1_2' }));
    const sessions: Buffer[] = [];
    const connect = async (session?: Buffer) => {
      const client = connectPlainTls({
        port: server.port,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        maxVersion,
        ...(session === undefined ? {} : { session }),
      });
      client.on('session', (ticket) => sessions.push(ticket));
      client.on('error', () => undefined);
      clients.push(client);
      await once(client, 'secureConnect');
      client.write('hello');
      await once(client, 'data');
      return client.isSessionReused();
    };

    expect(await connect()).toBe(false);
    for (const session of sessions.slice(0, 2)) expect(await connect(session)).toBe(false);
  },
);

test.each([
  ['empty', ''],
  ['300 bytes', 'a'.repeat(300)],
  ['with a NUL', 'a\0b'],
  ['an IP address', '127.0.0.1'],
  ['unknown', 'nobody.test'],
  ['not ASCII', '\u00ff\u00fe'],
])('case 90: a server name that is %s ends in an answer or a closed connection, never in a crash', async (_name, servername) => {
  const server = await serve(downstreamTls(issued(REVIEWS), meshRoots, { requireClientCertificate: false }), true);
  const socket = connectTcp(server.port, '127.0.0.1');
  clients.push(socket);
  socket.on('error', () => undefined);
  socket.write(helloNaming(Buffer.from(servername, 'latin1')));

  await Promise.race([once(socket, 'data'), once(socket, 'close')]);

  expect(await echo((await call(server)).socket!, 'alive')).toBe('alive');
});

function issuedBySelf(): Secret {
  const self = testCa(nowMs, 'self', { fields: { sans: [uriSan(WEB)], keyUsage: ['digitalSignature'] } });
  return pairSecret('self', self.pem, self.key.export({ type: 'pkcs8', format: 'pem' }) as string);
}

/** A TLS 1.3 hello with this server name and no key share: enough for a server to parse the name and answer something. */
function helloNaming(name: Buffer): Buffer {
  const u16 = (value: number): Buffer => Buffer.of(value >> 8, value & 255);
  const sized = (content: Buffer): Buffer => Buffer.concat([u16(content.length), content]);
  const extension = (type: number, content: Buffer): Buffer => Buffer.concat([u16(type), sized(content)]);
  const extensions = Buffer.concat([
    extension(0, sized(Buffer.concat([Buffer.of(0), sized(name)]))),
    extension(10, sized(Buffer.from('001d0017', 'hex'))),
    extension(13, sized(Buffer.from('04030804', 'hex'))),
    extension(43, Buffer.from('020304', 'hex')),
    extension(51, sized(Buffer.alloc(0))),
  ]);
  const body = Buffer.concat([
    Buffer.from('0303', 'hex'),
    Buffer.alloc(32, 7),
    Buffer.of(0),
    sized(Buffer.from('1301', 'hex')),
    Buffer.from('0100', 'hex'),
    sized(extensions),
  ]);
  return Buffer.concat([Buffer.from('160301', 'hex'), sized(Buffer.concat([Buffer.of(1, 0), u16(body.length), body]))]);
}
