/** Who may report load, and what is served beside discovery on which port. */
import { afterEach, expect, test } from '@jest/globals';
import { ChannelCredentials, Client, credentials, Metadata } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { formatAddress } from '../../control-plane/options.ts';
import { HEALTH_CODEC } from '../../xds/health.ts';
import { FETCH_STATUS_METHOD } from '../../xds/resources/client-status.ts';
import { LOAD_REPORT_METHOD } from '../../xds/resources/load-report.ts';
import type { LoadInstruction } from '../../xds/resources/load-report.ts';
import { testNode } from '../../xds/session/testing.ts';
import { cleanUp, connectClient, eventually, startForTest } from './control-plane-harness.ts';
import type { Running } from './control-plane-harness.ts';

const closers: (() => void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) close();
  await cleanUp();
});

async function clientOf(running: Running, transport: 'tls' | 'plaintext'): Promise<Client> {
  const { xds, xdsTls } = running.addresses;
  const rootsPem = (await running.call('GET', '/api/v1/bundle')).json.bundlePem as string;
  const client =
    transport === 'tls'
      ? new Client(`localhost:${xdsTls.port}`, ChannelCredentials.createSsl(Buffer.from(rootsPem)))
      : new Client(formatAddress(xds), credentials.createInsecure());
  closers.push(() => client.close());
  return client;
}

/** What the server says to a client that wants to report. */
function report(client: Client, nodeId: string, token?: string): Promise<LoadInstruction | string> {
  const { path, requestSerialize, responseDeserialize } = LOAD_REPORT_METHOD;
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
  closers.push(() => call.cancel());
  const answer = new Promise<LoadInstruction | string>((resolve) => {
    call.once('data', resolve);
    call.on('error', (error) => resolve(error.message));
  });
  call.write({ node: { ...testNode(), id: nodeId }, clusters: [] });
  return answer;
}

test('load reports are taken on the TLS port from callers that prove who they are, for their own node, and never for a join token', async () => {
  const running = await startForTest();
  const body = { service: 'legacy', name: 'legacy-1', address: '127.0.0.1', ports: { http: 3000 } };
  const { lease, joinToken } = (await running.call('POST', '/api/v1/registrations', body)).json as {
    lease: { credential: string };
    joinToken: string;
  };
  const client = await clientOf(running, 'tls');

  expect(await report(client, 'legacy-1.default')).toMatch(/UNAUTHENTICATED/);
  expect(await report(client, 'legacy-1.default', joinToken)).toMatch(/UNAUTHENTICATED/);
  expect(await report(client, 'other.default', lease.credential)).toMatch(/PERMISSION_DENIED/);
  expect(await report(client, 'legacy-1.default', lease.credential)).toMatchObject({ clusters: 'all' });
  // The join token was not spent on it.
  const joined = connectClient(running, {
    id: 'legacy-1.default',
    tls: { rootsPem: (await running.call('GET', '/api/v1/bundle')).json.bundlePem as string },
    token: joinToken,
    secrets: ['default'],
  });
  await eventually('the join token is still good', () => joined.updates.length > 0);
});

test('client status, which tells of every proxy, is served on the loopback port only; health on both', async () => {
  const running = await startForTest();
  const status = (client: Client): Promise<unknown> =>
    new Promise((resolve) => {
      const { path, requestSerialize, responseDeserialize } = FETCH_STATUS_METHOD;
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { withContents: false }, (error: ServiceError | null, value) =>
        resolve(error?.message ?? value),
      );
    });
  const health = (client: Client): Promise<unknown> =>
    new Promise((resolve) => {
      const { requestSerialize, responseDeserialize } = HEALTH_CODEC;
      client.makeUnaryRequest('/grpc.health.v1.Health/Check', requestSerialize, responseDeserialize, '', (error, value) =>
        resolve(error?.message ?? value),
      );
    });
  const [tls, plaintext] = [await clientOf(running, 'tls'), await clientOf(running, 'plaintext')];

  expect(await status(tls)).toMatch(/UNIMPLEMENTED/);
  expect(await status(plaintext)).toEqual([]);
  expect([await health(tls), await health(plaintext)]).toEqual(['SERVING', 'SERVING']);
});
