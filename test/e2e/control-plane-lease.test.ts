/** The lease credential: the way in for data planes that show the same words on every connection, for as long as their registration lives. */
import { afterEach, expect, test } from '@jest/globals';
import { decodeCertificates } from '../../certs/pem.ts';
import { peerIdentity } from '../../certs/identity.ts';
import { systemClock } from '../../lib/clock.ts';
import { decodeSecret } from '../../xds/resources/secret.ts';
import { SECRET_TYPE } from '../../xds/session/type-urls.ts';
import { cleanUp, connectClient, eventually, startForTest } from './control-plane-harness.ts';
import type { ClientOptions, Running, TestClient } from './control-plane-harness.ts';

afterEach(cleanUp);

interface Lease {
  readonly id: string;
  readonly secret: string;
  readonly credential: string;
}

async function register(running: Running, name = 'legacy-1', more: Record<string, unknown> = {}): Promise<Lease> {
  const body = { service: 'legacy', name, address: '127.0.0.1', ports: { http: 3000 }, serviceAccount: 'legacy', ttlSeconds: 300, ...more };
  const answer = await running.call('POST', '/api/v1/registrations', body);
  expect(answer.status).toBe(201);
  return answer.json.lease as Lease;
}

async function tlsOf(running: Running): Promise<ClientOptions['tls'] & {}> {
  return { rootsPem: (await running.call('GET', '/api/v1/bundle')).json.bundlePem as string };
}

function certificateOf(client: TestClient): string | undefined {
  const bytes = client.resources.get(SECRET_TYPE)?.get('default');
  if (bytes === undefined) return undefined;
  const { content } = decodeSecret(bytes);
  return content.kind === 'certificate' ? content.chainPem : undefined;
}

function refusal(client: TestClient): Promise<string> {
  return eventually('the stream ends', () => {
    const ended = client.states.find((state) => state.state === 'waiting' && state.error !== '');
    return ended?.error;
  });
}

test('a lease credential opens connection after connection on both ports, for its own identity', async () => {
  const running = await startForTest();
  const { credential: token } = await register(running);
  const tls = await tlsOf(running);

  for (const way of [{ tls }, { tls }, {}, {}] as const) {
    const client = connectClient(running, { id: 'legacy-1.default', token, secrets: ['default', 'ROOTCA'], ...way });
    const chain = await eventually('the certificate arrives', () => certificateOf(client));
    expect(peerIdentity(decodeCertificates(chain)[0]!, systemClock().wallMs()).uri).toBe('spiffe://cluster.local/ns/default/sa/legacy');
    const view = (await running.call('GET', '/api/v1/proxies/legacy-1.default')).json;
    expect(view).toMatchObject({ authentication: 'lease', identity: 'spiffe://cluster.local/ns/default/sa/legacy' });
    client.close();
  }
  expect(running.logLines.join('')).not.toContain(token);
});

test('a lease credential speaks for its own workload only', async () => {
  const running = await startForTest();
  const { credential: token } = await register(running);
  await register(running, 'legacy-2');
  const tls = await tlsOf(running);

  const other = connectClient(running, { id: 'legacy-2.default', tls, token, secrets: ['default'] });
  expect(await refusal(other)).toMatch(/PERMISSION_DENIED.*legacy-2/);
  const foreign = connectClient(running, { id: 'legacy-1.payments', tls, token, secrets: ['default'] });
  expect(await refusal(foreign)).toMatch(/PERMISSION_DENIED.*payments/);
  const unnamed = connectClient(running, { id: 'whoever', tls, token, secrets: ['default'] });
  expect(await refusal(unnamed)).toMatch(/PERMISSION_DENIED.*no workload/);
  for (const client of [other, foreign, unnamed]) expect(client.updates).toEqual([]);
});

test('a credential with a wrong secret, of no lease or of no form is refused, in plaintext too', async () => {
  const running = await startForTest();
  const { id } = await register(running);
  const tls = await tlsOf(running);
  const wrong = [`mwl_${id}.${'A'.repeat(43)}`, `mwl_${'A'.repeat(16)}.${'A'.repeat(43)}`, 'mwl_', `mwl_${id}`];

  for (const token of wrong) {
    for (const way of [{ tls }, {}] as const) {
      const client = connectClient(running, { id: 'legacy-1.default', token, secrets: ['default'], ...way });
      expect(await refusal(client)).toMatch(/UNAUTHENTICATED/);
      expect(client.updates).toEqual([]);
      client.close();
    }
  }
});

test('when the lease ends, its streams end and nobody comes in with it again; the other registrations stay', async () => {
  const running = await startForTest();
  const { id, secret, credential: token } = await register(running);
  const { credential: another } = await register(running, 'legacy-2');
  const tls = await tlsOf(running);
  const client = connectClient(running, { id: 'legacy-1.default', tls, token, secrets: ['default'] });
  const stays = connectClient(running, { id: 'legacy-2.default', tls, token: another, secrets: ['default'] });
  await eventually('both have certificates', () => certificateOf(client) !== undefined && certificateOf(stays) !== undefined);

  const answer = await running.call('DELETE', `/api/v1/registrations/${id}`, undefined, { authorization: `Bearer ${secret}` });
  expect(answer.status).toBe(200);

  expect(await refusal(client)).toMatch(/UNAUTHENTICATED.*lease/);
  await eventually('it is gone', async () => {
    const { proxies } = (await running.call('GET', '/api/v1/proxies')).json as { proxies: { id: string; connected: boolean }[] };
    return proxies.every((proxy) => proxy.connected === (proxy.id === 'legacy-2.default'));
  });
  const late = connectClient(running, { id: 'legacy-1.default', tls, token, secrets: ['default'] });
  expect(await refusal(late)).toMatch(/UNAUTHENTICATED/);
  expect(stays.states.some((state) => state.state === 'waiting')).toBe(false);
});

test('a lease credential is no join token, and a join token stays good for one use', async () => {
  const running = await startForTest();
  const answer = await running.call('POST', '/api/v1/registrations', {
    service: 'legacy',
    name: 'legacy-1',
    address: '127.0.0.1',
    ports: { http: 3000 },
  });
  const { joinToken: token, lease } = answer.json as { joinToken: string; lease: Lease };
  const tls = await tlsOf(running);
  const byLease = connectClient(running, { id: 'legacy-1.default', tls, token: lease.credential, secrets: ['default'] });
  const byToken = connectClient(running, { id: 'legacy-1.default', tls, token, secrets: ['default'] });
  await eventually('both come in', () => certificateOf(byLease) !== undefined && certificateOf(byToken) !== undefined);

  const again = connectClient(running, { id: 'legacy-1.default', tls, token, secrets: ['default'] });

  expect(await refusal(again)).toMatch(/UNAUTHENTICATED.*used already/);
});
