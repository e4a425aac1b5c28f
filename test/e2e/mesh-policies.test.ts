/** What users write about traffic (routes, faults, limits, authorisation) holds on real sidecars, from a watched file to the answer. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { request } from 'node:http';
import type { IncomingHttpHeaders } from 'node:http';
import { clock, eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly tookMs: number;
}

let mesh: TestMesh;
let outboundPort = 0;

beforeAll(async () => {
  mesh = await startMesh({
    resources: [
      service('shop', { app: 'shop' }),
      service('shop-v1', { app: 'shop', version: 'v1' }),
      service('shop-v2', { app: 'shop', version: 'v2' }),
    ],
    instances: [
      { name: 'shop-1', service: 'shop', version: 'v1' },
      { name: 'shop-2', service: 'shop', version: 'v2' },
      { name: 'caller-1', service: 'caller', application: 'none' },
    ],
  });
  await mesh.settled(4);
  outboundPort = mesh.instances.get('caller-1')!.outboundPort;
}, 120_000);

afterAll(() => mesh?.stop(), 30_000);

/** One request through the caller's sidecar. */
function call(path: string, headers: Readonly<Record<string, string>> = {}, method = 'GET', port = outboundPort): Promise<Answer> {
  const startMs = clock.now();
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, method, headers: { host: 'shop', ...headers }, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString(),
          tookMs: clock.now() - startMs,
        }),
      );
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

interface Change {
  readonly id: string;
  readonly source: string;
}

const newestChange = async (): Promise<Change | undefined> =>
  (await mesh.api.call<{ changes: readonly Change[] }>('/api/v1/changes?limit=10')).body.changes.find(
    (change) => change.source === 'files',
  );

/** Replaces everything that the watched directory says, and waits until every sidecar has it. */
async function apply(...documents: object[]): Promise<void> {
  const before = (await newestChange())?.id;
  writeFileSync(join(mesh.files, 'policies.yaml'), documents.map((document) => JSON.stringify(document)).join('\n---\n'));
  let change: Change | undefined;
  await eventually('the change of the file', 20_000, async () => {
    change = await newestChange();
    return change !== undefined && change.id !== before;
  });
  const { body } = await mesh.api.call<{ proxies: readonly { id: string; state: string }[] }>(`/api/v1/changes/${change!.id}?wait=20s`);
  expect(body.proxies.filter((proxy) => proxy.state !== 'acked')).toEqual([]);
}

const ours = (kind: string, name: string, spec: object): object => ({
  apiVersion: 'meshwork.dev/v1alpha1',
  kind,
  metadata: { name },
  spec,
});
const shopRoute = (...rules: object[]): object => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'HTTPRoute',
  metadata: { name: 'shop' },
  spec: { parentRefs: [{ group: '', kind: 'Service', name: 'shop' }], rules },
});
const targetRefs = [{ kind: 'Service', name: 'shop' }];

test('R1, R8: matches decide, headers change, redirects answer, prefixes are rewritten', async () => {
  await apply(
    shopRoute(
      {
        matches: [{ path: { value: '/old' } }],
        filters: [{ type: 'RequestRedirect', requestRedirect: { hostname: 'new.example', statusCode: 301 } }],
      },
      { matches: [{ headers: [{ name: 'x-version', value: 'v2' }] }], backendRefs: [{ name: 'shop-v2' }] },
      { matches: [{ path: { type: 'RegularExpression', value: '/item/[0-9]+' } }], backendRefs: [{ name: 'shop-v2' }] },
      {
        backendRefs: [{ name: 'shop-v1' }],
        filters: [{ type: 'ResponseHeaderModifier', responseHeaderModifier: { set: [{ name: 'x-from', value: 'mesh' }] } }],
      },
    ),
  );

  const plain = await call('/');
  expect([plain.status, plain.headers['x-from'], plain.body.includes('v1')]).toEqual([200, 'mesh', true]);
  expect((await call('/', { 'x-version': 'v2' })).body).toContain('v2');
  expect((await call('/item/12')).body).toContain('v2');
  const moved = await call('/old/page');
  expect([moved.status, moved.headers['location']]).toEqual([301, 'http://new.example/old/page']);
});

test('a share of backends that do not exist is answered with 500, and a request that nothing matches with 404', async () => {
  writeFileSync(
    join(mesh.files, 'policies.yaml'),
    JSON.stringify(
      shopRoute(
        { matches: [{ path: { type: 'Exact', value: '/gone' } }], backendRefs: [{ name: 'shop-v9' }] },
        { matches: [{ path: { value: '/here' } }], backendRefs: [{ name: 'shop-v1' }] },
      ),
    ),
  );

  await eventually('the new route', 10_000, async () => (await call('/gone')).status === 500);
  expect((await call('/here')).status).toBe(200);
  expect((await call('/')).status).toBe(404);
});

test('faults delay and abort the share that they are meant for', async () => {
  await apply(
    ours('FaultInjection', 'faults', {
      targetRefs,
      headers: [{ name: 'x-fault', value: 'yes' }],
      delay: { duration: '200ms' },
      abort: { httpStatus: 418 },
    }),
  );

  const faulty = await call('/', { 'x-fault': 'yes' });
  expect(faulty.status).toBe(418);
  expect(faulty.tookMs).toBeGreaterThanOrEqual(190);
  expect((await call('/')).status).toBe(200);
});

test('a rate limit answers 429 once each instance has taken its share', async () => {
  await apply(ours('RateLimit', 'limit', { targetRefs, requests: 2, per: '1h' }));

  const statuses: number[] = [];
  for (let count = 0; count < 12; count++) statuses.push((await call('/')).status);
  expect(statuses.filter((status) => status === 200)).toHaveLength(4);
  expect(statuses.filter((status) => status === 429)).toHaveLength(8);
});

test('S7: callers that no policy allows are refused with 403, by identity, method and path', async () => {
  await apply(
    ours('AuthorizationPolicy', 'allow', {
      targetRefs,
      rules: [{ from: [{ principals: ['spiffe://cluster.local/ns/default/sa/*'] }], to: [{ methods: ['GET'], paths: ['/public*'] }] }],
    }),
    ours('AuthorizationPolicy', 'deny', { targetRefs, action: 'DENY', rules: [{ to: [{ paths: ['/public/secret'] }] }] }),
  );

  expect((await call('/public/page')).status).toBe(200);
  expect((await call('/public/page', {}, 'POST')).status).toBe(403);
  expect((await call('/other')).status).toBe(403);
  const denied = await call('/public/secret');
  expect([denied.status, denied.body]).toEqual([403, expect.stringContaining('RBAC: access denied')]);
  // The sidecars keep connections from before the policy: they must see the path in the policy's form too.
  for (let i = 0; i < 4; i++) expect((await call('/public//secret')).status).toBe(403);
  // Plaintext proves nobody: straight to the sidecar of an instance.
  const inboundPort = mesh.instances.get('shop-1')!.inboundPort;
  expect((await call('/public/page', {}, 'GET', inboundPort)).status).toBe(403);
});

test('S1: STRICT closes the inbound port to plaintext, and calls between sidecars go on', async () => {
  const inboundPort = mesh.instances.get('shop-1')!.inboundPort;
  await apply(ours('Mesh', 'mesh', { mtls: 'PERMISSIVE' }));
  expect((await call('/', {}, 'GET', inboundPort)).status).toBe(200);

  await apply(ours('Mesh', 'mesh', { mtls: 'STRICT' }));

  await expect(call('/', {}, 'GET', inboundPort)).rejects.toThrow();
  expect((await call('/')).status).toBe(200);
});
