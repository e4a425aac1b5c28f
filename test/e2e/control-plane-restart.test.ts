import { afterEach, expect, test } from '@jest/globals';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { runControlPlane } from '../../control-plane/main.ts';
import { decodeSecret } from '../../xds/resources/secret.ts';
import { CLUSTER_TYPE, SECRET_TYPE } from '../../xds/session/type-urls.ts';
import { ROUTE, SERVICE, cleanUp, connectClient, eventually, startForTest, temporaryDirectory } from './control-plane-harness.ts';
import type { ClientOptions } from './control-plane-harness.ts';

afterEach(cleanUp);

const SERVICES = ['reviews', 'reviews-v1', 'reviews-v2'].map((name) => SERVICE(name));

test('after a restart with the same data directory nothing is lost and nothing is pushed', async () => {
  const dataDir = temporaryDirectory();
  const first = await startForTest({ dataDir });
  await first.call('POST', '/api/v1/resources', { apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(90, 10)] });
  const registered = (
    await first.call('POST', '/api/v1/registrations', {
      service: 'reviews-v1',
      name: 'r1',
      address: '127.0.0.1',
      ports: { http: 9001 },
      serviceAccount: 'reviews',
      sidecar: { inboundPort: 20006, outboundPort: 20001, adminPort: 20000 },
      ttlSeconds: 5,
    })
  ).json;
  const rootsPem = registered.bundlePem;
  let tls: ClientOptions['tls'] = { rootsPem };
  const client = connectClient(first, {
    id: registered.nodeId,
    tls,
    tlsNow: () => tls,
    token: registered.joinToken,
    endpoints: ['*'],
    routes: ['*'],
    secrets: ['default', 'ROOTCA'],
  });
  await eventually(
    'everything is acknowledged',
    async () => (await first.call('GET', `/api/v1/proxies/${registered.nodeId}`)).json.state === 'acked',
  );
  await eventually('the certificate is there', () => client.resources.get(SECRET_TYPE)?.has('default'));
  const own = decodeSecret(client.resources.get(SECRET_TYPE)!.get('default')!).content;
  if (own.kind !== 'certificate') throw new Error('the secret "default" is no certificate');
  tls = { rootsPem, certificate: own };
  const before = (await first.call('GET', '/api/v1/resources')).json;
  const versionBefore = (await first.call('GET', `/api/v1/proxies/${registered.nodeId}`)).json.types.RDS.acked;
  const { addresses } = first;
  await first.close();

  client.updates.length = 0;
  const second = await startForTest({ dataDir, xds: addresses.xds, xdsTls: addresses.xdsTls });
  expect((await second.call('GET', '/api/v1/resources')).json).toEqual(before);
  const proxy = await eventually('the proxy is back', async () => {
    const { json, status } = await second.call('GET', `/api/v1/proxies/${registered.nodeId}`);
    return status === 200 && json.connected && json.types.SDS !== undefined ? json : undefined;
  });
  expect(proxy).toMatchObject({ state: 'acked', authentication: 'certificate' });
  expect(proxy.types.RDS.acked).toBe(versionBefore);
  // A write reaches it, so the stream works; it is the only thing that was pushed.
  const written = await second.call('PUT', '/api/v1/resources/HTTPRoute/default/reviews', ROUTE(10, 90), { 'if-match': '*' });
  expect((await second.call('GET', `/api/v1/changes/${written.json.changeId}?wait=5s`)).json).toMatchObject({ done: true });
  expect(client.updates.map((update) => update.typeUrl.split('.').at(-1))).toEqual(['RouteConfiguration']);
  // The lease goes on as well.
  const beat = await second.call(
    'PUT',
    `/api/v1/registrations/${registered.id}/heartbeat`,
    {},
    { authorization: `Bearer ${registered.lease.secret}` },
  );
  expect(beat.status).toBe(200);
});

test('a lease that ends removes the endpoint at every client at once', async () => {
  const running = await startForTest();
  const registered = (
    await running.call('POST', '/api/v1/registrations', { service: 'ratings', address: '127.0.0.1', ports: { http: 9001 }, ttlSeconds: 1 })
  ).json;
  const client = connectClient(running, { id: 'probe.default', endpoints: ['*'] });
  const endpoints = async (): Promise<number> => (await running.call('GET', '/api/v1/endpoints?service=ratings')).json.endpoints.length;
  expect(await endpoints()).toBe(1);
  await eventually('the cluster is there', () =>
    [...(client.resources.get(CLUSTER_TYPE)?.keys() ?? [])].some((name) => name.includes('ratings')),
  );
  const { changes } = await eventually('the lease ends', async () => {
    const { json } = await running.call('GET', '/api/v1/changes');
    return json.changes.length === 2 ? json : undefined;
  });
  const change = (await running.call('GET', `/api/v1/changes/${changes[0].id}?wait=5s`)).json;
  expect(change).toMatchObject({ source: 'registrations', done: true, resources: [`Workload default/${registered.name}`] });
  expect(await endpoints()).toBe(0);
  expect((await running.call('GET', '/api/v1/services/default/ratings')).status).toBe(404);
});

test('a sidecar that was started again gets a new join token from the holder of the lease alone', async () => {
  const running = await startForTest();
  const registered = (
    await running.call('POST', '/api/v1/registrations', { service: 'ratings', address: '127.0.0.1', ports: { http: 9001 } })
  ).json;
  const path = `/api/v1/registrations/${registered.id}/token`;
  expect((await running.call('POST', path)).status).toBe(401);
  expect((await running.call('POST', path, undefined, { authorization: 'Bearer guess' })).status).toBe(403);
  const answer = await running.call('POST', path, undefined, { authorization: `Bearer ${registered.lease.secret}` });
  expect(answer.status).toBe(201);
  expect(answer.json.joinToken).not.toBe(registered.joinToken);
  const client = connectClient(running, {
    id: registered.nodeId,
    tls: { rootsPem: answer.json.bundlePem },
    token: answer.json.joinToken,
    secrets: ['default'],
  });
  await eventually('the certificate arrives', () => client.resources.get(SECRET_TYPE)?.has('default'));
});

test('a damaged data file is refused with exit code 1, and keeps every byte', async () => {
  const dataDir = temporaryDirectory();
  const first = await startForTest({ dataDir });
  await first.call('POST', '/api/v1/resources', SERVICE('reviews'));
  await first.close();
  const file = join(dataDir, 'meshwork.db');
  const bytes = readFileSync(file);
  bytes.fill(0x5a, 4096, 6000);
  writeFileSync(file, bytes);
  const errors: string[] = [];
  const write = process.stderr.write.bind(process.stderr);
  process.stderr.write = ((text: string) => errors.push(text) > 0) as typeof process.stderr.write;
  try {
    expect(await runControlPlane(['--xds', ':0', '--xds-tls', ':0', '--api', ':0', '--metrics', ':0', '--data-dir', dataDir])).toBe(1);
  } finally {
    process.stderr.write = write;
  }
  expect(errors.join('')).toContain(file);
  expect(errors.join('')).toMatch(/put a backup in its place/);
  expect(readFileSync(file).equals(bytes)).toBe(true);
});

test('no secret of a lease, token or workload key is in the data file', async () => {
  const dataDir = temporaryDirectory();
  const running = await startForTest({ dataDir });
  const registered = (
    await running.call('POST', '/api/v1/registrations', { service: 'ratings', address: '127.0.0.1', ports: { http: 9001 } })
  ).json;
  const client = connectClient(running, {
    id: registered.nodeId,
    tls: { rootsPem: registered.bundlePem },
    token: registered.joinToken,
    secrets: ['default'],
  });
  await eventually('the certificate arrives', () => client.resources.get(SECRET_TYPE)?.has('default'));
  const own = decodeSecret(client.resources.get(SECRET_TYPE)!.get('default')!).content;
  await running.close();
  const database = new DatabaseSync(join(dataDir, 'meshwork.db'), { readOnly: true });
  const text = JSON.stringify(database.prepare('SELECT * FROM records').all());
  database.close();
  expect(text).toContain('"collection":"authority"');
  expect(text).not.toContain(registered.joinToken);
  expect(text).not.toContain(registered.lease.secret);
  expect(own.kind).toBe('certificate');
  if (own.kind === 'certificate') expect(text).not.toContain(JSON.stringify(own.keyPem).slice(40, 90));
});

test('a data directory of another trust domain is refused', async () => {
  const dataDir = temporaryDirectory();
  const file = join(dataDir, 'mesh.yaml');
  const write = (trustDomain: string): void =>
    writeFileSync(
      file,
      JSON.stringify({ apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { trustDomain } }),
    );
  write('one.example');
  await (await startForTest({ dataDir, files: [file] })).close();
  write('two.example');
  await expect(startForTest({ dataDir, files: [file] })).rejects.toThrow(/one\.example.*two\.example.*another --data-dir/s);
});
