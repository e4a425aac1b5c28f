import { afterEach, expect, test } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeRoute } from '../../xds/resources/route.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '../../xds/session/type-urls.ts';
import { ROUTE, SERVICE, cleanUp, connectClient, eventually, startForTest, temporaryDirectory } from './control-plane-harness.ts';
import type { Running, TestClient } from './control-plane-harness.ts';

afterEach(cleanUp);

const SERVICES = ['reviews', 'reviews-v1', 'reviews-v2'].map((name) => SERVICE(name));

/** A client that asks for everything that the mesh of these tests has. */
function wholeClient(running: Running, id = 'probe.default'): TestClient {
  return connectClient(running, { id, endpoints: ['*'], routes: ['*'] });
}

function weights(client: TestClient): number[] | undefined {
  for (const bytes of client.resources.get(ROUTE_TYPE)?.values() ?? []) {
    for (const host of decodeRoute(bytes).virtualHosts) {
      for (const { action } of host.routes) {
        if (action.kind === 'forward' && action.target.kind === 'weighted') return action.target.clusters.map((cluster) => cluster.weight);
      }
    }
  }
  return undefined;
}

async function settledProxy(running: Running, id: string): Promise<void> {
  await eventually(
    `${id} has acknowledged everything`,
    async () => (await running.call('GET', `/api/v1/proxies/${id}`)).json.state === 'acked',
  );
}

test('a weight changed through the API reaches every client, and its change is acknowledged', async () => {
  const running = await startForTest();
  for (const service of SERVICES) expect((await running.call('POST', '/api/v1/resources', service)).status).toBe(201);
  expect((await running.call('POST', '/api/v1/resources', ROUTE(90, 10))).status).toBe(201);
  const clients = [wholeClient(running, 'one.default'), wholeClient(running, 'two.default')];
  for (const client of clients) await eventually('the weights arrive', () => JSON.stringify(weights(client)) === '[90,10]');
  const read = await running.call('GET', '/api/v1/resources/HTTPRoute/default/reviews');
  const written = await running.call('PUT', '/api/v1/resources/httproutes/default/reviews', ROUTE(50, 50), {
    'if-match': read.headers.get('etag')!,
  });
  expect(written.status).toBe(200);
  expect(written.headers.get('meshwork-change')).toBe(written.json.changeId);
  const change = await running.call('GET', `/api/v1/changes/${written.json.changeId}?wait=5s`);
  expect(change.json).toMatchObject({ source: 'api', resources: ['HTTPRoute default/reviews'], done: true });
  expect(change.json.proxies.map((proxy: { id: string; state: string; types: string[] }) => [proxy.id, proxy.state])).toEqual([
    ['one.default', 'acked'],
    ['two.default', 'acked'],
  ]);
  expect(change.json.proxies[0].types).toEqual(['RDS']);
  // Acknowledged means that it is there already, not that it will be.
  for (const client of clients) expect(weights(client)).toEqual([50, 50]);
});

test('a weight changed in a file reaches the client, and the change is the first of the list', async () => {
  const directory = temporaryDirectory();
  const file = join(directory, 'mesh.json');
  const write = (v1: number, v2: number): void =>
    writeFileSync(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(v1, v2)] }));
  write(99, 1);
  const running = await startForTest({ files: [directory] });
  const client = wholeClient(running);
  await eventually('the first weights arrive', () => JSON.stringify(weights(client)) === '[99,1]');
  write(25, 75);
  await eventually('the new weights arrive', () => JSON.stringify(weights(client)) === '[25,75]');
  const { changes } = (await running.call('GET', '/api/v1/changes')).json;
  expect(changes[0]).toMatchObject({ source: 'files', resources: ['HTTPRoute default/reviews'] });
  const change = (await running.call('GET', `/api/v1/changes/${changes[0].id}?wait=5s`)).json;
  expect(change).toMatchObject({ done: true, proxies: [{ id: 'probe.default', state: 'acked', types: ['RDS'] }] });
});

test('a write pushes only what differs', async () => {
  const running = await startForTest();
  await running.call('POST', '/api/v1/resources', { apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(90, 10)] });
  const client = wholeClient(running);
  await settledProxy(running, 'probe.default');
  client.updates.length = 0;
  const written = await running.call('PUT', '/api/v1/resources/HTTPRoute/default/reviews', ROUTE(80, 20), { 'if-match': '*' });
  await running.call('GET', `/api/v1/changes/${written.json.changeId}?wait=5s`);
  expect(client.updates.map((update) => update.typeUrl)).toEqual([ROUTE_TYPE]);
  client.updates.length = 0;
  const same = await running.call('PUT', '/api/v1/resources/HTTPRoute/default/reviews', ROUTE(80, 20), { 'if-match': '*' });
  expect(same.json.resources[0].action).toBe('unchanged');
  const change = await running.call('GET', `/api/v1/changes/${same.json.changeId}?wait=5s`);
  expect(change.json.done).toBe(true);
  expect(client.updates).toEqual([]);
});

test('a rejected push keeps the last good config and shows resource and field, and the change says so', async () => {
  const running = await startForTest();
  await running.call('POST', '/api/v1/resources', { apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(90, 10)] });
  const client = wholeClient(running);
  await eventually('the weights arrive', () => JSON.stringify(weights(client)) === '[90,10]');
  await settledProxy(running, 'probe.default');
  // Else the first change and the next one are published together, and both are said to have touched every type.
  await running.publisher.settled();
  const name = [...client.resources.get(ROUTE_TYPE)!.keys()][0]!;
  client.rejecting.set(ROUTE_TYPE, [{ name, message: 'virtual_hosts[0].routes[0].route.weighted_clusters: the sum must not be 70' }]);
  const written = await running.call('PUT', '/api/v1/resources/HTTPRoute/default/reviews', ROUTE(30, 40), { 'if-match': '*' });
  const change = (await running.call('GET', `/api/v1/changes/${written.json.changeId}?wait=5s`)).json;
  expect(change.proxies).toEqual([
    { id: 'probe.default', state: 'rejected', types: ['RDS'], message: expect.stringContaining('virtual_hosts[0].routes[0]') },
  ]);
  const proxy = (await running.call('GET', '/api/v1/proxies/probe.default')).json;
  expect(proxy).toMatchObject({
    state: 'rejected',
    types: { CDS: { state: 'acked' }, RDS: { state: 'rejected', rejected: { resource: name } } },
  });
  expect(proxy.types.RDS.rejected.message).toContain('the sum must not be 70');
  expect(weights(client)).toEqual([90, 10]);
  expect(running.logLines.some((line) => line.includes('rejected a push') && line.includes('probe.default'))).toBe(true);
  // The next good one goes through.
  client.rejecting.clear();
  const better = await running.call('PUT', '/api/v1/resources/HTTPRoute/default/reviews', ROUTE(60, 40), { 'if-match': '*' });
  const next = (await running.call('GET', `/api/v1/changes/${better.json.changeId}?wait=5s`)).json;
  expect(next.proxies[0].state).toBe('acked');
  expect(weights(client)).toEqual([60, 40]);
});

test('a bad file keeps the last good config and names file, line and field', async () => {
  const directory = temporaryDirectory();
  const file = join(directory, 'mesh.yaml');
  const text = (weight: string): string =>
    [...SERVICES, ROUTE(1, 1)]
      .map((document) => JSON.stringify(document, null, 1))
      .join('\n---\n')
      .replace('"weight": 1\n', `"weight": ${weight}\n`);
  writeFileSync(file, text('7'));
  const running = await startForTest({ files: [directory] });
  const client = wholeClient(running);
  await eventually('the weights arrive', () => JSON.stringify(weights(client)) === '[7,1]');
  writeFileSync(file, text('"heavy"'));
  const { problems } = await eventually('the problem is shown', async () => {
    const answer = (await running.call('GET', '/api/v1/problems')).json;
    return answer.problems.length > 0 ? answer : undefined;
  });
  expect(problems[0]).toMatchObject({ field: expect.stringContaining('weight'), place: expect.stringMatching(/mesh\.yaml:\d+:\d+$/) });
  expect(weights(client)).toEqual([7, 1]);
});

test('state of the world clients get the same as delta clients', async () => {
  const running = await startForTest();
  await running.call('POST', '/api/v1/resources', { apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(90, 10)] });
  const delta = wholeClient(running, 'delta.default');
  await settledProxy(running, 'delta.default');
  const names = (type: string): string[] => [...(delta.resources.get(type)?.keys() ?? [])];
  const sotw = connectClient(running, { id: 'sotw.default', mode: 'sotw', endpoints: names(ENDPOINT_TYPE), routes: names(ROUTE_TYPE) });
  await settledProxy(running, 'sotw.default');
  for (const type of [CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE]) {
    const bytes = (client: TestClient): string[] =>
      [...(client.resources.get(type) ?? [])].map(([name, value]) => `${name} ${Buffer.from(value).toString('hex')}`).sort();
    expect(bytes(sotw)).toEqual(bytes(delta));
    expect(bytes(delta).length).toBeGreaterThan(0);
  }
});

test('a change of the trust domain pushes nothing and says why', async () => {
  const running = await startForTest();
  await running.call('POST', '/api/v1/resources', { apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(90, 10)] });
  const client = wholeClient(running);
  await settledProxy(running, 'probe.default');
  client.updates.length = 0;
  const mesh = { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { trustDomain: 'other.example' } };
  const written = await running.call('POST', '/api/v1/resources', mesh);
  const change = (await running.call('GET', `/api/v1/changes/${written.json.changeId}?wait=5s`)).json;
  expect(change.proxies).toMatchObject([{ state: 'rejected', message: expect.stringContaining('cannot change from cluster.local') }]);
  expect(client.updates).toEqual([]);
});

test('a storm of writes becomes a few pushes, ends in the last state, and every change of it is done', async () => {
  const running = await startForTest();
  const client = wholeClient(running);
  await settledProxy(running, 'probe.default');
  client.updates.length = 0;
  const names = Array.from({ length: 200 }, (_, index) => `service-${index}`);
  const ids = await Promise.all(names.map(async (name) => (await running.call('POST', '/api/v1/resources', SERVICE(name))).json.changeId));
  for (const id of ids) expect((await running.call('GET', `/api/v1/changes/${id}?wait=5s`)).json.done).toBe(true);
  const clusters = [...client.resources.get(CLUSTER_TYPE)!.keys()].join(' ');
  expect(names.filter((name) => !clusters.includes(name))).toEqual([]);
  expect(client.updates.filter((update) => update.typeUrl === CLUSTER_TYPE).length).toBeLessThan(100);
}, 30_000);
