/** A real Envoy where it differs from our sidecar: what it refuses is shown with its words, and the ways out of the mesh work through it. */
import { afterEach, expect, test } from '@jest/globals';
import { createServer, request } from 'node:http';
import type { Server } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server as TcpServer, Socket } from 'node:net';
import { createApiClient } from '../../cli/client.ts';
import type { ApiClient } from '../../cli/client.ts';
import { freePorts } from '../../cli/ports.ts';
import { formatAddress } from '../../control-plane/options.ts';
import { acknowledged, call, hasEnvoy, startEnvoy, withEnvoy } from '../support/envoy.ts';
import type { EnvoySpec, RunningEnvoy } from '../support/envoy.ts';
import { cleanUp, eventually, startForTest } from './control-plane-harness.ts';
import type { Running } from './control-plane-harness.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of cleanups.splice(0).reverse()) await undo();
  await cleanUp();
}, 30_000);

async function controlPlane(...resources: object[]): Promise<{ running: Running; api: ApiClient }> {
  const running = await startForTest();
  const api = createApiClient(formatAddress(running.addresses.api));
  cleanups.push(() => api.close());
  for (const resource of resources) await api.call('/api/v1/resources', { method: 'POST', body: resource });
  return { running, api };
}

async function envoyOf(api: ApiClient, spec: EnvoySpec): Promise<RunningEnvoy> {
  const envoy = await startEnvoy(api, spec);
  cleanups.push(() => envoy.stop());
  return envoy;
}

async function listening(server: Server | TcpServer, port = 0): Promise<number> {
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  cleanups.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

interface ProxyView {
  readonly state: string;
  readonly message: string;
  readonly types: Readonly<
    Record<string, { readonly state: string; readonly rejected: { readonly resource: string; readonly message: string } | null }>
  >;
}

async function view(api: ApiClient, id: string): Promise<ProxyView | undefined> {
  const { proxies } = (await api.call<{ proxies: readonly (ProxyView & { id: string })[] }>('/api/v1/proxies')).body;
  return proxies.find((proxy) => proxy.id === id);
}

withEnvoy(
  'what Envoy refuses is shown by the API with the resource and its own words, and is over once Envoy takes the next push',
  async () => {
    const [taken] = (await freePorts(1)) as [number];
    const squatter = createTcpServer();
    await listening(squatter, taken);
    const { api } = await controlPlane();
    await envoyOf(api, { name: 'shop-1', service: 'shop', outboundPort: taken });

    const refused = await eventually(
      'the refusal is shown',
      async () => {
        const found = await view(api, 'shop-1.default');
        return found?.state === 'rejected' ? found : undefined;
      },
      60_000,
    );

    expect(refused.types['LDS']).toMatchObject({ state: 'rejected', rejected: { resource: 'outbound' } });
    expect(refused.types['LDS']!.rejected!.message).toMatch(/outbound.*(?:bind|in use)/s);
    expect(refused.message).toBe(refused.types['LDS']!.rejected!.message);
    for (const type of ['CDS', 'EDS']) expect(refused.types[type]!.state).toBe('acked');

    await new Promise<void>((resolve) => squatter.close(() => resolve()));
    const changed = { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { outboundPassthrough: false } };
    await api.call('/api/v1/resources', { method: 'POST', body: changed });
    await acknowledged(api, ['shop-1.default']);
    expect(await view(api, 'shop-1.default')).toMatchObject({ state: 'acked', message: '', types: { LDS: { rejected: null } } });
  },
  90_000,
);

/** Opens a tunnel; the answer is the status, and the socket when it is 200. */
function connectTo(port: number, authority: string): Promise<{ status: number; socket: Socket }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, method: 'CONNECT', path: authority, agent: false });
    outgoing.on('connect', (response, socket) => resolve({ status: response.statusCode ?? 0, socket }));
    outgoing.on('error', reject);
    outgoing.end();
  });
}

function echoed(socket: Socket, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let got = '';
    socket.on('data', (chunk: Buffer) => {
      got += chunk.toString();
      if (got.length >= text.length) resolve(got);
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`the tunnel ended after ${JSON.stringify(got)}`)));
    socket.write(text);
  });
}

withEnvoy(
  'state of the world over the plaintext port: hosts outside the mesh, tunnels to them and to a TCP service, a closed mesh',
  async () => {
    const outside = createServer((incoming, outgoing) => outgoing.end(`outside ${incoming.url}`));
    const outsidePort = await listening(outside);
    const sockets = new Set<Socket>();
    const echo = createTcpServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    const echoPort = await listening(echo);
    cleanups.push(() => sockets.forEach((socket) => socket.destroy()));
    const { running, api } = await controlPlane(
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'echo' },
        spec: { selector: { app: 'echo' }, ports: [{ name: 'tcp', port: 7, targetPort: 'tcp', appProtocol: 'tcp' }] },
      },
      {
        apiVersion: 'meshwork.dev/v1alpha1',
        kind: 'Workload',
        metadata: { name: 'echo-1', labels: { app: 'echo' } },
        spec: { address: '127.0.0.1', ports: { tcp: echoPort } },
      },
    );
    const envoy = await envoyOf(api, { name: 'shop-1', service: 'shop', transport: 'plaintext', api: 'GRPC' });
    await acknowledged(api, ['shop-1.default']);
    const authority = `127.0.0.1:${outsidePort}`;
    await eventually('the mesh is served', async () => (await call(envoy.outboundPort, '/', { host: 'shop' })).status === 200, 30_000);

    expect(await call(envoy.outboundPort, '/x', { host: authority })).toMatchObject({ status: 200, body: 'outside /x' });
    for (const target of ['echo:7', `127.0.0.1:${echoPort}`]) {
      const { status, socket } = await connectTo(envoy.outboundPort, target);
      expect(status).toBe(200);
      expect(await echoed(socket, 'over the tunnel')).toBe('over the tunnel');
      socket.destroy();
    }

    const closed = { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { outboundPassthrough: false } };
    await api.call('/api/v1/resources', { method: 'POST', body: closed });
    await eventually('the mesh is closed', async () => (await call(envoy.outboundPort, '/', { host: authority })).status === 502, 30_000);
    expect((await call(envoy.outboundPort, '/', { host: 'shop' })).status).toBe(200);
    expect((await connectTo(envoy.outboundPort, authority)).status).not.toBe(200);

    expect(running.proxies.get('shop-1.default')).toMatchObject({
      state: 'acked',
      mode: 'sotw',
      authentication: 'lease',
      flavour: 'envoy',
    });
    expect(envoy.warnings()).toEqual([]);
  },
  90_000,
);

test('there is an Envoy, or this file says that there is none', () => {
  if (!hasEnvoy) process.stderr.write('test/e2e/envoy-edges.test.ts: no ENVOY and no envoy on PATH, so real Envoys were not tried.\n');
  expect(typeof hasEnvoy).toBe('boolean');
});
