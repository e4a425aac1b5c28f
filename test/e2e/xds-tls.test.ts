/** Discovery over mutual TLS: the server learns who is there from the certificate, and a renewed one is used by the next connection. */
import { X509Certificate } from 'node:crypto';
import { afterEach, expect, jest, test } from '@jest/globals';
import { credentials, ServerCredentials } from '@grpc/grpc-js';
import type { ChannelCredentials } from '@grpc/grpc-js';
import { testCa, testLeaf } from '../../certs/testing.ts';
import type { TestCa, TestLeaf } from '../../certs/testing.ts';
import { testResource } from '../../xds/session/testing.ts';
import { CLUSTER_TYPE } from '../../xds/session/type-urls.ts';
import { clock, closeAll, controlPlane, sidecar, until } from '../../xds/stream-testing.ts';
import type { TestControlPlane } from '../../xds/stream-testing.ts';

jest.setTimeout(30_000);
afterEach(closeAll);

const WEB = 'spiffe://mesh.test/ns/default/sa/web';

async function tlsControlPlane(ca: TestCa): Promise<TestControlPlane> {
  const leaf = testLeaf(ca, clock.wallMs(), ['spiffe://mesh.test/ns/system/sa/control-plane']);
  const pair = { private_key: Buffer.from(leaf.keyPem), cert_chain: Buffer.from(leaf.pem) };
  return controlPlane([testResource(CLUSTER_TYPE, 'a')], {
    transport: 'tls',
    credentials: ServerCredentials.createSsl(Buffer.from(ca.pem), [pair], true),
  });
}

function channel(ca: TestCa, leaf: TestLeaf | undefined): ChannelCredentials {
  const key = leaf === undefined ? null : Buffer.from(leaf.keyPem);
  const chain = leaf === undefined ? null : Buffer.from(leaf.pem);
  // The control plane is known by its SPIFFE id, not by a host name.
  return credentials.createSsl(Buffer.from(ca.pem), key, chain, {
    checkServerIdentity: (_host, certificate) =>
      certificate.subjectaltname === 'URI:spiffe://mesh.test/ns/system/sa/control-plane' ? undefined : new Error('not the control plane'),
  });
}

function uris(plane: TestControlPlane): (string | undefined)[] {
  return [...plane.streams].map(({ peer }) =>
    peer.certificate === undefined ? undefined : new X509Certificate(peer.certificate).subjectAltName,
  );
}

test('the verified certificate of a client is with its stream, and a renewed one with the next', async () => {
  const ca = testCa(clock.wallMs(), 'mesh');
  const plane = await tlsControlPlane(ca);
  let leaf = testLeaf(ca, clock.wallMs(), [WEB]);
  const { client, has } = sidecar(plane.target, 'delta', { credentials: () => channel(ca, leaf) });
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => has(CLUSTER_TYPE, 'a') !== undefined, 'the cluster came');
  expect([...plane.streams].map((stream) => stream.peer.transport)).toEqual(['tls']);
  expect(uris(plane)).toEqual([`URI:${WEB}`]);
  const before = [...plane.streams][0]!.peer.certificate;

  leaf = testLeaf(ca, clock.wallMs(), [WEB]);
  [...plane.streams][0]!.close(14, 'come again');

  await until(() => plane.streams.size === 1 && client.connection.state !== 'waiting', 'the client is back');
  await until(
    () => [...plane.streams].some((stream) => !Buffer.from(stream.peer.certificate!).equals(before!)),
    'it shows the new certificate',
  );
  expect(uris(plane)).toEqual([`URI:${WEB}`]);
});

test.each([
  ['without a certificate', (ca: TestCa) => channel(ca, undefined)],
  ['with a certificate of another root', (ca: TestCa) => channel(ca, testLeaf(testCa(clock.wallMs(), 'other'), clock.wallMs(), [WEB]))],
  ['that trusts another root', (ca: TestCa) => channel(testCa(clock.wallMs(), 'other'), testLeaf(ca, clock.wallMs(), [WEB]))],
  ['in plaintext', () => credentials.createInsecure()],
])('a client %s gets no stream', async (_what, make) => {
  const ca = testCa(clock.wallMs(), 'mesh');
  const plane = await tlsControlPlane(ca);
  let failures = 0;
  const { client } = sidecar(plane.target, 'delta', {
    credentials: () => make(ca),
    onConnection: ({ state }) => (failures += state === 'waiting' ? 1 : 0),
    connectMsMax: 2_000,
  });
  client.subscribe(CLUSTER_TYPE, ['*']);

  await until(() => failures >= 2, 'two attempts failed');

  expect(plane.streams.size).toBe(0);
  expect(plane.events).toEqual([]);
});
