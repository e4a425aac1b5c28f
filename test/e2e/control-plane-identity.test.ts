import { afterEach, expect, test } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { createAuthority } from '../../certs/authority.ts';
import { decodeCertificates } from '../../certs/pem.ts';
import { peerIdentity } from '../../certs/identity.ts';
import { systemClock } from '../../lib/clock.ts';
import { decodeSecret } from '../../xds/resources/secret.ts';
import { CLUSTER_TYPE, SECRET_TYPE } from '../../xds/session/type-urls.ts';
import { SERVICE, cleanUp, connectClient, eventually, startForTest } from './control-plane-harness.ts';
import type { ClientOptions, Running, TestClient } from './control-plane-harness.ts';

afterEach(cleanUp);

type Pair = { chainPem: string; keyPem: string };

async function bundleOf(running: Running): Promise<string> {
  return (await running.call('GET', '/api/v1/bundle')).json.bundlePem;
}

async function tokenFor(running: Running, workload: string, more: Record<string, unknown> = {}): Promise<string> {
  const answer = await running.call('POST', '/api/v1/tokens', { namespace: 'default', serviceAccount: workload, workload, ...more });
  expect(answer.status).toBe(201);
  return answer.json.token;
}

function pairOf(client: TestClient): Pair | undefined {
  const bytes = client.resources.get(SECRET_TYPE)?.get('default');
  if (bytes === undefined) return undefined;
  const { content } = decodeSecret(bytes);
  return content.kind === 'certificate' ? content : undefined;
}

function idOf(pair: Pair): string {
  return peerIdentity(decodeCertificates(pair.chainPem)[0]!, systemClock().wallMs()).uri;
}

/** The first connection: by join token, asking for its own certificate and the roots. */
async function join(running: Running, workload: string, more: Partial<ClientOptions> = {}): Promise<{ client: TestClient; pair: Pair }> {
  const client = connectClient(running, {
    id: `${workload}.default`,
    tls: { rootsPem: await bundleOf(running) },
    token: await tokenFor(running, workload),
    secrets: ['default', 'ROOTCA'],
    ...more,
  });
  const pair = await eventually('the certificate arrives', () => pairOf(client));
  return { client, pair };
}

/** Why the stream of a client ended for the first time. */
function refusal(client: TestClient): Promise<string> {
  return eventually('the caller is refused', () => {
    const ended = client.states.find((state) => state.state === 'waiting');
    return ended?.error === '' ? undefined : ended?.error;
  });
}

test('a join token opens the first connection, and the certificate that it brought the next one', async () => {
  const running = await startForTest();
  const { client, pair } = await join(running, 'reviews');
  expect(idOf(pair)).toBe('spiffe://cluster.local/ns/default/sa/reviews');
  const roots = decodeSecret(client.resources.get(SECRET_TYPE)!.get('ROOTCA')!);
  expect(roots.content).toMatchObject({ kind: 'validation', rootsPem: await bundleOf(running) });
  expect((await running.call('GET', '/api/v1/proxies/reviews.default')).json).toMatchObject({
    identity: 'spiffe://cluster.local/ns/default/sa/reviews',
    authentication: 'token',
  });
  client.close();
  const again = connectClient(running, {
    id: 'reviews.default',
    tls: { rootsPem: await bundleOf(running), certificate: pair },
    secrets: ['default', 'ROOTCA'],
  });
  expect(await eventually('the certificate arrives again', () => pairOf(again))).toEqual(pair);
  expect((await running.call('GET', '/api/v1/proxies/reviews.default')).json.authentication).toBe('certificate');
});

test('a token is good for one connection: the second one and a made-up one are refused and logged', async () => {
  const running = await startForTest();
  const token = await tokenFor(running, 'reviews');
  const tls = { rootsPem: await bundleOf(running) };
  const first = connectClient(running, { id: 'reviews.default', tls, token, secrets: ['default'] });
  await eventually('the certificate arrives', () => pairOf(first));
  const second = connectClient(running, { id: 'reviews.default', tls, token, secrets: ['default'] });
  expect(await refusal(second)).toMatch(/UNAUTHENTICATED.*used already/);
  const made = connectClient(running, { id: 'reviews.default', tls, token: `mwj_${'A'.repeat(43)}`, secrets: ['default'] });
  expect(await refusal(made)).toMatch(/UNAUTHENTICATED.*not known/);
  expect(second.updates).toEqual([]);
  expect(running.logLines.filter((line) => line.includes('A caller was refused'))).not.toHaveLength(0);
  expect(running.logLines.join('')).not.toContain(token);
});

test('of twenty connections that race with one token exactly one wins', async () => {
  const running = await startForTest();
  const token = await tokenFor(running, 'reviews');
  const tls = { rootsPem: await bundleOf(running) };
  const clients = Array.from({ length: 20 }, () => connectClient(running, { id: 'reviews.default', tls, token, secrets: ['default'] }));
  await eventually('every one has an answer', () =>
    clients.every((client) => client.updates.length > 0 || client.states.some((state) => state.state === 'waiting')),
  );
  expect(clients.filter((client) => client.updates.length > 0)).toHaveLength(1);
}, 20_000);

test('an expired token is refused', async () => {
  const running = await startForTest();
  const token = await tokenFor(running, 'reviews', { ttlSeconds: 1 });
  await new Promise<void>((resolve) => systemClock().after(1100, resolve));
  const client = connectClient(running, { id: 'reviews.default', tls: { rootsPem: await bundleOf(running) }, token, secrets: ['default'] });
  expect(await refusal(client)).toMatch(/UNAUTHENTICATED.*expired/);
});

test('a caller with neither certificate nor token, or with one of another authority, is refused on the TLS port', async () => {
  const running = await startForTest();
  const rootsPem = await bundleOf(running);
  const nobody = connectClient(running, { id: 'reviews.default', tls: { rootsPem } });
  expect(await refusal(nobody)).toMatch(/UNAUTHENTICATED/);
  const foreign = createAuthority({ trustDomain: 'cluster.local', clock: systemClock() }).issue(
    'spiffe://cluster.local/ns/default/sa/reviews',
  );
  const certificate = { chainPem: foreign.chainPem, keyPem: foreign.keyPem! };
  const stranger = connectClient(running, { id: 'reviews.default', tls: { rootsPem, certificate }, secrets: ['default'] });
  expect(await refusal(stranger)).toMatch(/UNAUTHENTICATED/);
  expect(nobody.updates).toEqual([]);
  expect(stranger.updates).toEqual([]);
});

test('a certificate without its key gets nowhere', async () => {
  const running = await startForTest();
  const { pair } = await join(running, 'reviews');
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const rootsPem = await bundleOf(running);
  const thief = connectClient(running, { id: 'reviews.default', tls: { rootsPem, certificate: { chainPem: pair.chainPem, keyPem: key } } });
  expect(await refusal(thief)).toMatch(/key values mismatch/);
  expect(thief.updates).toEqual([]);
});

test.each([
  ['another workload', { id: 'ratings.default' }, /claims.*workload/],
  ['another namespace', { id: 'reviews.other' }, /claims the namespace/],
  ['another namespace in its metadata', { id: 'reviews.default', metadata: { NAMESPACE: 'other' } }, /claims the namespace/],
  ['another service account', { id: 'reviews.default', metadata: { SERVICE_ACCOUNT: 'admin' } }, /claims the service account/],
])('a node that claims to be %s than it has proven is refused and logged', async (_what, claim, message) => {
  const running = await startForTest();
  const client = connectClient(running, {
    tls: { rootsPem: await bundleOf(running) },
    token: await tokenFor(running, 'reviews'),
    secrets: ['default'],
    ...claim,
  });
  expect(await refusal(client)).toMatch(message);
  expect(await refusal(client)).toMatch(/PERMISSION_DENIED/);
  expect(client.updates).toEqual([]);
  expect(running.logLines.some((line) => line.includes('A caller was refused') && line.includes('sa/reviews'))).toBe(true);
});

test('a certificate does not open the way to a workload of another service account', async () => {
  const running = await startForTest();
  await running.call('POST', '/api/v1/resources', {
    apiVersion: 'meshwork.dev/v1alpha1',
    kind: 'Workload',
    metadata: { name: 'ratings', namespace: 'default' },
    spec: { address: '127.0.0.1', ports: { http: 1 }, serviceAccount: 'ratings' },
  });
  const { pair } = await join(running, 'reviews');
  const client = connectClient(running, {
    id: 'ratings.default',
    tls: { rootsPem: await bundleOf(running), certificate: pair },
    secrets: ['default'],
  });
  expect(await refusal(client)).toMatch(/PERMISSION_DENIED.*ratings/);
});

test("nobody gets another identity's secret: it does not exist for the caller, and asking is logged and counted", async () => {
  const running = await startForTest();
  await join(running, 'ratings');
  const { client } = await join(running, 'reviews', {
    secrets: ['default', 'spiffe://cluster.local/ns/default/sa/ratings', 'ratings.default', '*'],
  });
  await eventually('the asking is logged', () =>
    running.logLines.some((line) => line.includes('not its own') && line.includes('sa/ratings')),
  );
  const held = [...client.resources.get(SECRET_TYPE)!.values()].map((bytes) => decodeSecret(bytes));
  for (const secret of held)
    if (secret.content.kind === 'certificate') expect(idOf(secret.content)).toBe('spiffe://cluster.local/ns/default/sa/reviews');
  expect(held.map((secret) => secret.name).sort()).toEqual(['ROOTCA', 'default']);
  const metrics = await (await fetch(`http://127.0.0.1:${running.addresses.metrics.port}/metrics`)).text();
  expect(metrics).toMatch(/meshwork_refused_total\{reason="foreign_secret"\} [1-9]/);
});

test('the plaintext port serves callers without identity, and gives them no certificate', async () => {
  const running = await startForTest();
  await running.call('POST', '/api/v1/resources', SERVICE('reviews'));
  const client = connectClient(running, { id: 'laptop', secrets: ['default', 'ROOTCA'] });
  await eventually('clusters arrive', () => (client.resources.get(CLUSTER_TYPE)?.size ?? 0) > 0);
  await eventually('the roots arrive', () => client.resources.get(SECRET_TYPE)?.has('ROOTCA'));
  expect(client.resources.get(SECRET_TYPE)!.has('default')).toBe(false);
});

test('rotation by hand gives every connected proxy another certificate, and the API shows it without its key', async () => {
  const running = await startForTest();
  const one = await join(running, 'reviews');
  const two = await join(running, 'ratings');
  const before = (await running.call('GET', '/api/v1/certificates')).json;
  expect((await running.call('POST', '/api/v1/certificates/rotate')).json).toEqual({ rotated: 2 });
  for (const { client, pair } of [one, two]) {
    const next = await eventually('a new certificate arrives', () => {
      const held = pairOf(client);
      return held?.chainPem === pair.chainPem ? undefined : held;
    });
    expect(idOf(next)).toBe(idOf(pair));
    expect(next.keyPem).not.toBe(pair.keyPem);
  }
  const answer = await running.call('GET', '/api/v1/certificates');
  expect(answer.json.certificates).toHaveLength(2);
  const serials = (view: { certificates: { serial: string }[] }): string[] => view.certificates.map((entry) => entry.serial);
  expect(serials(answer.json)).not.toEqual(serials(before));
  expect(answer.json.certificates[0].expiresInMs).toBeGreaterThan(0);
  expect(answer.text).not.toMatch(/PRIVATE|keyPem/);
  expect(running.logLines.join('')).not.toContain('PRIVATE KEY');
});

test('a workload that has left gets no new certificate', async () => {
  const running = await startForTest();
  const registered = (
    await running.call('POST', '/api/v1/registrations', { service: 'ratings', address: '127.0.0.1', ports: { http: 9001 } })
  ).json;
  const client = connectClient(running, {
    id: registered.nodeId,
    tls: { rootsPem: registered.bundlePem },
    token: registered.joinToken,
    secrets: ['default'],
  });
  const pair = await eventually('the certificate arrives', () => pairOf(client));
  const lease = { authorization: `Bearer ${registered.lease.secret}` };
  const ended = await running.call('DELETE', `/api/v1/registrations/${registered.id}`, undefined, lease);
  await running.call('GET', `/api/v1/changes/${ended.json.changeId}?wait=5s`);
  expect((await running.call('POST', '/api/v1/certificates/rotate')).json).toEqual({ rotated: 0 });
  expect(pairOf(client)).toEqual(pair);
});
