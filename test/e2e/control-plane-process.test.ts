import { afterEach, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { sleep, systemClock } from '../../lib/clock.ts';
import { ROUTE_TYPE, SECRET_TYPE } from '../../xds/session/type-urls.ts';
import { decodeSecret } from '../../xds/resources/secret.ts';
import { ROUTE, SERVICE, cleanUp, connectClient, eventually, startForTest, temporaryDirectory } from './control-plane-harness.ts';
import type { ClientOptions } from './control-plane-harness.ts';

const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.ts', import.meta.url));
const children: ChildProcess[] = [];

afterEach(async () => {
  await cleanUp();
  for (const child of children.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }
});

interface Ready {
  readonly child: ChildProcess;
  readonly xds: string;
  readonly xdsTls: string;
  readonly api: string;
  readonly metrics: string;
  readonly stderr: () => string;
}

async function start(argv: readonly string[], environment: Record<string, string> = {}): Promise<Ready> {
  const child = spawn(process.execPath, [MESHWORK, 'control-plane', '-o', 'json', ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  children.push(child);
  let stdout = '';
  let stderr = '';
  child.stdout!.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  await eventually(
    'the control plane is ready',
    () => {
      if (child.exitCode !== null) throw new Error(`the control plane ended with ${child.exitCode}: ${stderr}`);
      return stdout.includes('\n');
    },
    20_000,
  );
  return { child, stderr: () => stderr, ...JSON.parse(stdout) };
}

const FREE = ['--xds', ':0', '--xds-tls', ':0', '--api', ':0', '--metrics', ':0'];

function addressesOf(ready: Ready): { addresses: Record<'xds' | 'xdsTls', { host: string; port: number }> } {
  const split = (text: string): { host: string; port: number } => ({ host: '127.0.0.1', port: Number(text.split(':')[1]) });
  return { addresses: { xds: split(ready.xds), xdsTls: split(ready.xdsTls) } };
}

async function call(ready: Ready, method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<any> {
  const response = await fetch(`http://${ready.api}/api/v1${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return response.json();
}

test('killed and started again, it pushes nothing that did not change, and what was written is there', async () => {
  const dataDir = temporaryDirectory();
  const first = await start([...FREE, '--data-dir', dataDir]);
  const items = [...['reviews', 'reviews-v1', 'reviews-v2'].map((name) => SERVICE(name)), ROUTE(90, 10)];
  await call(first, 'POST', '/resources', { apiVersion: 'v1', kind: 'List', items });
  const registered = await call(first, 'POST', '/registrations', {
    service: 'reviews-v1',
    name: 'r1',
    address: '127.0.0.1',
    ports: { http: 9001 },
    ttlSeconds: 2,
  });
  let tls: ClientOptions['tls'] = { rootsPem: registered.bundlePem };
  const client = connectClient(addressesOf(first), {
    id: registered.nodeId,
    tls,
    tlsNow: () => tls,
    token: registered.joinToken,
    endpoints: ['*'],
    routes: ['*'],
    secrets: ['default', 'ROOTCA'],
  });
  await eventually('everything is acknowledged', async () => (await call(first, 'GET', `/proxies/${registered.nodeId}`)).state === 'acked');
  const own = await eventually('the certificate is there', () => {
    const bytes = client.resources.get(SECRET_TYPE)?.get('default');
    return bytes === undefined ? undefined : decodeSecret(bytes).content;
  });
  if (own.kind === 'certificate') tls = { rootsPem: registered.bundlePem, certificate: own };
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  client.updates.length = 0;

  const second = await start(['--xds', first.xds, '--xds-tls', first.xdsTls, '--api', ':0', '--metrics', ':0', '--data-dir', dataDir]);
  await eventually('the proxy is back', async () => {
    const proxy = await call(second, 'GET', `/proxies/${registered.nodeId}`);
    return proxy.connected === true && proxy.types.SDS !== undefined && proxy.state === 'acked';
  });
  const metrics = await (await fetch(`http://${second.metrics}/metrics`)).text();
  expect(metrics).not.toMatch(/^pilot_xds_pushes\{/m);
  const written = await call(second, 'PUT', '/resources/HTTPRoute/default/reviews', ROUTE(10, 90), { 'if-match': '*' });
  expect(await call(second, 'GET', `/changes/${written.changeId}?wait=5s`)).toMatchObject({ done: true });
  expect(client.updates.map((update) => update.typeUrl)).toEqual([ROUTE_TYPE]);
  client.close();
  second.child.kill('SIGTERM');
  const [code] = await once(second.child, 'exit');
  expect(code).toBe(0);
}, 40_000);

test('stopped for longer than the leases run, it removes nobody who still sends heartbeats', async () => {
  const ready = await start(FREE);
  const registered = await call(ready, 'POST', '/registrations', {
    service: 'reviews',
    address: '127.0.0.1',
    ports: { http: 9001 },
    ttlSeconds: 2,
  });
  const clock = systemClock();
  const beat = (): Promise<unknown> =>
    call(ready, 'PUT', `/registrations/${registered.id}/heartbeat`, {}, { authorization: `Bearer ${registered.lease.secret}` });
  let beating = true;
  const beats = (async () => {
    while (beating) {
      await beat();
      await sleep(clock, 300);
    }
  })();
  ready.child.kill('SIGSTOP');
  await sleep(clock, 5_000);
  ready.child.kill('SIGCONT');
  await sleep(clock, 3_000);
  expect((await call(ready, 'GET', '/endpoints')).endpoints).toHaveLength(1);
  expect((await call(ready, 'GET', '/changes')).changes).toHaveLength(1);
  beating = false;
  await beats;
}, 40_000);

test('pushes and API calls are traced to the collector that the environment names', async () => {
  const spans: string[] = [];
  const collector = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      if (request.url === '/v1/traces') spans.push(Buffer.concat(chunks).toString('latin1'));
      response.writeHead(200, { 'content-type': request.headers['content-type'] ?? 'application/json' }).end();
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = collector.address() as AddressInfo;
    const ready = await start(FREE, {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
      OTEL_METRICS_EXPORTER: 'none',
      OTEL_LOGS_EXPORTER: 'none',
      OTEL_BSP_SCHEDULE_DELAY: '50',
    });
    await call(ready, 'POST', '/resources', SERVICE('reviews'));
    await eventually('a push is traced', () => spans.some((text) => text.includes('publish')));
    await eventually('the write is traced', () => spans.some((text) => text.includes('POST /api/v1/resources')));
    ready.child.kill('SIGTERM');
    const [code] = await once(ready.child, 'exit');
    expect(code).toBe(0);
  } finally {
    collector.closeAllConnections();
    collector.close();
  }
}, 40_000);

test.each(['xds', 'xdsTls', 'api', 'metrics'] as const)('a port that is taken is named: %s', async (which) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as AddressInfo;
  try {
    await expect(startForTest({ [which]: { host: '127.0.0.1', port } })).rejects.toThrow(String(port));
  } finally {
    taken.close();
  }
});
