import { afterEach, expect, test } from '@jest/globals';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLUSTER_TYPE } from '../../xds/session/type-urls.ts';
import { ROUTE, SERVICE, cleanUp, connectClient, eventually, startForTest, temporaryDirectory } from './control-plane-harness.ts';
import type { Running } from './control-plane-harness.ts';

afterEach(cleanUp);

const SERVICES = ['reviews', 'reviews-v1', 'reviews-v2'].map((name) => SERVICE(name));
const ROUTE_PATH = '/api/v1/resources/HTTPRoute/default/reviews';

async function withRoute(): Promise<Running> {
  const running = await startForTest();
  expect(
    (await running.call('POST', '/api/v1/resources', { apiVersion: 'v1', kind: 'List', items: [...SERVICES, ROUTE(90, 10)] })).status,
  ).toBe(201);
  return running;
}

test('a resource is read under any spelling of its kind, with a strong entity tag of its content', async () => {
  const running = await withRoute();
  const answers = await Promise.all(
    ['HTTPRoute', 'httproute', 'httproutes'].map((kind) => running.call('GET', `/api/v1/resources/${kind}/default/reviews`)),
  );
  for (const answer of answers) {
    expect(answer.status).toBe(200);
    expect(answer.json).toEqual(ROUTE(90, 10));
    expect(answer.headers.get('etag')).toBe(answers[0]!.headers.get('etag'));
  }
  const cached = await running.call('GET', ROUTE_PATH, undefined, { 'if-none-match': answers[0]!.headers.get('etag')! });
  expect(cached.status).toBe(304);
  expect((await running.call('GET', '/api/v1/resources/HTTPRoute/default/nothing')).status).toBe(404);
  expect((await running.call('GET', '/api/v1/resources/Nonsense/default/x')).json.detail).toContain('HTTPRoute');
});

test('replacing and deleting need the entity tag of what is there', async () => {
  const running = await withRoute();
  const etag = (await running.call('GET', ROUTE_PATH)).headers.get('etag')!;
  expect((await running.call('PUT', ROUTE_PATH, ROUTE(1, 1))).status).toBe(428);
  expect((await running.call('PUT', ROUTE_PATH, ROUTE(1, 1), { 'if-match': '"other"' })).status).toBe(412);
  expect((await running.call('PUT', ROUTE_PATH, ROUTE(1, 1), { 'if-none-match': '*' })).status).toBe(412);
  const replaced = await running.call('PUT', ROUTE_PATH, ROUTE(1, 1), { 'if-match': etag });
  expect(replaced.status).toBe(200);
  expect(replaced.json.resources).toEqual([
    { resource: 'HTTPRoute default/reviews', action: 'replaced', etag: replaced.headers.get('etag') },
  ]);
  expect((await running.call('DELETE', ROUTE_PATH, undefined, { 'if-match': etag })).status).toBe(412);
  expect((await running.call('DELETE', ROUTE_PATH)).status).toBe(428);
  expect((await running.call('DELETE', ROUTE_PATH, undefined, { 'if-match': replaced.headers.get('etag')! })).status).toBe(200);
  expect((await running.call('DELETE', ROUTE_PATH, undefined, { 'if-match': '*' })).status).toBe(404);
  expect((await running.call('PUT', ROUTE_PATH, ROUTE(2, 2), { 'if-match': '*' })).status).toBe(412);
  const created = await running.call('PUT', ROUTE_PATH, ROUTE(2, 2), { 'if-none-match': '*' });
  expect(created.status).toBe(201);
  expect((await running.call('POST', '/api/v1/resources', ROUTE(3, 3))).status).toBe(409);
});

test('sixteen writers at once lose no update', async () => {
  const running = await withRoute();
  const rounds = 12;
  const writer = async (name: string): Promise<void> => {
    for (let round = 0; round < rounds;) {
      const read = await running.call('GET', ROUTE_PATH);
      const annotations = { ...read.json.metadata.annotations, [name]: String(round + 1) };
      const body = { ...read.json, metadata: { ...read.json.metadata, annotations } };
      const { status } = await running.call('PUT', ROUTE_PATH, body, { 'if-match': read.headers.get('etag')! });
      if (status === 200) round++;
      else expect(status).toBe(412);
    }
  };
  const names = Array.from({ length: 16 }, (_, index) => `writer-${index}`);
  await Promise.all(names.map(writer));
  expect((await running.call('GET', ROUTE_PATH)).json.metadata.annotations).toEqual(
    Object.fromEntries(names.map((name) => [name, String(rounds)])),
  );
}, 60_000);

test('a bad write changes nothing and says where by line, column and field', async () => {
  const running = await withRoute();
  const before = (await running.call('GET', '/api/v1/resources')).text;
  const yaml = `apiVersion: v1\nkind: Service\nmetadata:\n  name: good\nspec:\n  ports: [{port: 80}]\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: bad\nspec:\n  ports:\n    - port: 70000\n`;
  const answer = await running.call('POST', '/api/v1/resources', yaml);
  expect(answer.status).toBe(422);
  expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
  expect(answer.json).toMatchObject({
    status: 422,
    title: expect.any(String),
    errors: [{ field: 'spec.ports[0].port', line: 14, column: 13 }],
  });
  expect(answer.json.detail).toContain('70000');
  const json = await running.call('PUT', ROUTE_PATH, { ...ROUTE(1, 1), spec: { parentRef: [] } }, { 'if-match': '*' });
  expect(json.status).toBe(422);
  expect(json.json.errors.length).toBeGreaterThan(0);
  expect((await running.call('PUT', ROUTE_PATH, SERVICE('x'), { 'if-match': '*' })).status).toBe(400);
  expect((await running.call('POST', '/api/v1/resources', '')).status).toBe(400);
  expect((await running.call('GET', '/api/v1/resources')).text).toBe(before);
});

test('a dry run says which proxies would get something else, and writes nothing', async () => {
  const running = await withRoute();
  connectClient(running, { id: 'probe.default', routes: ['*'], endpoints: ['*'] });
  await eventually(
    'the proxy has acknowledged',
    async () => (await running.call('GET', '/api/v1/proxies/probe.default')).json.state === 'acked',
  );
  const before = await running.call('GET', ROUTE_PATH);
  const dry = await running.call('PUT', `${ROUTE_PATH}?dryRun=true`, ROUTE(5, 5), { 'if-match': before.headers.get('etag')! });
  expect(dry.json).toMatchObject({ dryRun: true, affected: [{ id: 'probe.default', types: { RDS: { added: [], removed: [] } } }] });
  expect(dry.json.affected[0].types.RDS.changed).toHaveLength(1);
  expect(dry.headers.get('meshwork-change')).toBeNull();
  const none = await running.call('PUT', `${ROUTE_PATH}?dryRun=true`, ROUTE(90, 10), { 'if-match': '*' });
  expect(none.json.affected).toEqual([]);
  const gone = await running.call('DELETE', '/api/v1/resources/Service/default/reviews-v2?dryRun=true', undefined, { 'if-match': '*' });
  expect(gone.json.affected[0].types.CDS.removed).toHaveLength(1);
  const lost = {
    ...ROUTE(1, 1),
    metadata: { name: 'lost', namespace: 'default' },
    spec: { parentRefs: [{ group: '', kind: 'Service', name: 'reviws' }] },
  };
  const typo = await running.call('POST', '/api/v1/resources?dryRun=true', lost);
  expect(typo.json.problems).toMatchObject([
    { resource: 'HTTPRoute default/lost', field: 'spec.parentRefs[0]', message: expect.stringContaining('reviews') },
  ]);
  expect((await running.call('GET', ROUTE_PATH)).headers.get('etag')).toBe(before.headers.get('etag'));
});

test('what a file defines is read by the API and changed in the file alone', async () => {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'a.yaml'), JSON.stringify(SERVICE('reviews')));
  const running = await startForTest({ files: [directory] });
  const path = '/api/v1/resources/services/default/reviews';
  expect((await running.call('GET', path)).status).toBe(200);
  const answer = await running.call('PUT', path, SERVICE('reviews', 81), { 'if-match': '*' });
  expect(answer.status).toBe(409);
  expect(answer.json.detail).toMatch(/a\.yaml:1/);
  expect((await running.call('DELETE', path, undefined, { 'if-match': '*' })).status).toBe(409);
  expect((await running.call('POST', '/api/v1/resources', SERVICE('reviews'))).status).toBe(409);
});

function raw(running: Running, options: { method: string; path: string; headers: Record<string, string>; body?: string }): Promise<number> {
  return new Promise((resolve, reject) => {
    const { host, port } = running.addresses.api;
    const sent = httpRequest({ host, port, method: options.method, path: options.path, headers: options.headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    sent.on('error', reject);
    sent.end(options.body);
  });
}

test('pages of other sites get nothing: foreign host names and cross-origin writes are refused', async () => {
  const running = await startForTest({ apiHosts: ['mesh.internal'] });
  const get = (host: string): Promise<number> => raw(running, { method: 'GET', path: '/api/v1/version', headers: { host } });
  expect(await get('evil.example:15080')).toBe(403);
  expect(await get('localhost:15080')).toBe(200);
  expect(await get('mesh.internal')).toBe(200);
  expect(await get('[::1]:15080')).toBe(200);
  const post = (headers: Record<string, string>): Promise<number> =>
    raw(running, {
      method: 'POST',
      path: '/api/v1/resources?dryRun=true',
      headers: { host: 'localhost:1', 'content-type': 'application/json', ...headers },
      body: JSON.stringify(SERVICE('x')),
    });
  expect(await post({})).toBe(200);
  expect(await post({ origin: 'http://localhost:1' })).toBe(200);
  expect(await post({ origin: 'http://evil.example' })).toBe(403);
  expect(await post({ origin: 'null' })).toBe(403);
  expect(await post({ 'sec-fetch-site': 'cross-site' })).toBe(403);
  expect(await post({ 'content-type': 'text/plain' })).toBe(415);
  expect(await post({ 'content-type': 'application/x-www-form-urlencoded' })).toBe(415);
});

test('bodies have a bound, and so have the answers to nonsense', async () => {
  const running = await startForTest();
  const big = await running.call('POST', '/api/v1/resources', `# ${'x'.repeat(1_048_600)}`);
  expect(big.status).toBe(413);
  expect(big.json.status).toBe(413);
  expect((await running.call('GET', '/api/v1/nonsense')).json).toMatchObject({ status: 404, type: expect.stringContaining('404') });
  expect((await running.call('GET', '/api/v1/changes/x?wait=soon')).json.errors).toEqual([
    { field: 'wait', message: expect.stringContaining('duration') },
  ]);
  const bad = await running.call('POST', '/api/v1/registrations', { address: 'localhost', ports: { http: 0 }, nonsense: 1 });
  expect(bad.status).toBe(400);
  expect(bad.json.errors.map((error: { field: string }) => error.field)).toEqual(expect.arrayContaining(['address', 'ports.http']));
});

test('the OpenAPI document names every path', async () => {
  const running = await startForTest();
  const { json } = await running.call('GET', '/api/v1/openapi.json');
  expect(json.openapi).toBe('3.1.0');
  expect(Object.keys(json.paths)).toEqual(
    expect.arrayContaining([
      '/api/v1/services',
      '/api/v1/endpoints',
      '/api/v1/routes',
      '/api/v1/workloads',
      '/api/v1/policies',
      '/api/v1/proxies',
      '/api/v1/proxies/{id}',
      '/api/v1/certificates',
      '/api/v1/changes/{id}',
      '/api/v1/problems',
      '/api/v1/mesh',
      '/api/v1/healthz',
      '/api/v1/version',
      '/api/v1/resources/{kind}/{namespace}/{name}',
      '/api/v1/registrations/{id}/heartbeat',
      '/api/v1/tokens',
    ]),
  );
  expect(Object.keys(json.paths['/api/v1/resources'].post.requestBody.content)).toEqual(['application/json', 'application/yaml']);
  expect(json.paths['/api/v1/registrations'].post.requestBody.content['application/json'].schema.properties.address).toBeDefined();
  for (const path of Object.values(json.paths) as Record<string, { summary?: string }>[])
    for (const operation of Object.values(path)) expect(operation.summary).toBeTruthy();
});

test('the mesh is shown: services, endpoints, routes, workloads, settings', async () => {
  const running = await withRoute();
  await running.call('POST', '/api/v1/registrations', { service: 'reviews-v1', address: '127.0.0.1', ports: { http: 9001 } });
  await eventually('the endpoint is there', async () => (await running.call('GET', '/api/v1/endpoints')).json.endpoints.length === 1);
  expect((await running.call('GET', '/api/v1/services')).json.services.map((service: { name: string }) => service.name)).toEqual([
    'reviews',
    'reviews-v1',
    'reviews-v2',
  ]);
  expect((await running.call('GET', '/api/v1/services/default/reviews-v1')).json.instances).toHaveLength(1);
  expect((await running.call('GET', '/api/v1/routes')).json.routes[0].meshwork.origin.source).toBe('api');
  expect((await running.call('GET', '/api/v1/workloads?namespace=other')).json.workloads).toEqual([]);
  expect((await running.call('GET', '/api/v1/mesh')).json).toMatchObject({
    settings: { trustDomain: 'cluster.local' },
    counts: { services: 3, workloads: 1 },
  });
});

test("a sidecar's admin port is relayed for reading, and only for reading", async () => {
  const seen: string[] = [];
  const admin = createServer((request, response) => {
    seen.push(`${request.method} ${request.url} ${request.headers.cookie ?? ''}`);
    response.setHeader('content-type', 'application/json');
    response.end('{"configs":[]}');
  });
  await new Promise<void>((resolve) => admin.listen(0, '127.0.0.1', resolve));
  try {
    const running = await startForTest();
    const { port } = admin.address() as AddressInfo;
    const registered = (
      await running.call('POST', '/api/v1/registrations', {
        service: 'reviews',
        address: '127.0.0.1',
        ports: { http: 9001 },
        sidecar: { inboundPort: 20006, outboundPort: 20001, adminPort: port },
      })
    ).json;
    const path = `/api/v1/proxies/${registered.nodeId}/admin`;
    expect((await running.call('GET', `${path}/config_dump`)).status).toBe(404);
    const client = connectClient(running, { id: registered.nodeId });
    await eventually('the proxy is there', () => client.resources.get(CLUSTER_TYPE) !== undefined);
    const answer = await running.call('GET', `${path}/config_dump?include_eds=1`, undefined, { cookie: 'secret=1' });
    expect(answer.json).toEqual({ configs: [] });
    expect(seen).toEqual(['GET /config_dump?include_eds=1 ']);
    for (const wrong of ['quitquitquit', 'logging', '../quitquitquit', '%2e%2e/quitquitquit', 'stats/recentlookups', 'heap_dump'])
      expect([403, 404]).toContain((await running.call('GET', `${path}/${wrong}`)).status);
    expect((await running.call('POST', `${path}/config_dump`)).status).toBe(404);
    expect(seen).toHaveLength(1);
    await new Promise<void>((resolve) => admin.close(() => resolve()));
    const away = await running.call('GET', `${path}/stats`);
    expect(away.status).toBe(502);
    expect(away.json.status).toBe(502);
  } finally {
    admin.closeAllConnections();
    admin.close();
  }
});

test('the metrics port tells pushes, connected proxies and API calls', async () => {
  const running = await withRoute();
  connectClient(running, { id: 'probe.default', routes: ['*'] });
  await eventually(
    'the proxy has acknowledged',
    async () => (await running.call('GET', '/api/v1/proxies/probe.default')).json.state === 'acked',
  );
  const response = await fetch(`http://127.0.0.1:${running.addresses.metrics.port}/metrics`);
  const text = await response.text();
  expect(response.headers.get('content-type')).toContain('text/plain');
  for (const line of [
    /^pilot_xds 1$/m,
    /^pilot_xds_pushes\{type="\w+"\} [1-9]/m,
    /^pilot_proxy_convergence_time_count [1-9]/m,
    /^pilot_services 3$/m,
    /^process_cpu_seconds_total /m,
    /^meshwork_root_expiry_seconds [1-9]/m,
    /^meshwork_api_request_seconds_count\{method="POST",route="\/api\/v1\/resources",status="201"\} 1$/m,
  ])
    expect(text).toMatch(line);
  expect((await fetch(`http://127.0.0.1:${running.addresses.metrics.port}/`)).status).toBe(404);
});
