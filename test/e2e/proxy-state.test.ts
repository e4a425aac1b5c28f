import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { testCa, testLeaf } from '../../certs/testing.ts';
import { freePorts } from '../../cli/ports.ts';
import { STATE_FILE } from '../../proxy/state.ts';
import { encodeResource } from '../../xds/resources/index.ts';
import { parseResourceFile } from '../../xds/resources/resource-file.ts';
import { closeAll as closePlanes, controlPlane } from '../../xds/stream-testing.ts';
import {
  address,
  assignment,
  call,
  closeAll,
  cluster,
  httpListener,
  onEnd,
  routes,
  routeTo,
  startApp,
  startTestProxy,
  until,
} from './proxy-harness.ts';
import type { Json, TestProxy } from './proxy-harness.ts';
import type { Kind } from '../../xds/resources/index.ts';
import type { EncodedResource } from '../../xds/session/messages.ts';

afterEach(async () => {
  await closePlanes();
  await closeAll();
});

const TYPES: Record<Kind, string> = {
  listener: 'envoy.config.listener.v3.Listener',
  route: 'envoy.config.route.v3.RouteConfiguration',
  virtualHost: 'envoy.config.route.v3.VirtualHost',
  cluster: 'envoy.config.cluster.v3.Cluster',
  endpoints: 'envoy.config.endpoint.v3.ClusterLoadAssignment',
  secret: 'envoy.extensions.transport_sockets.tls.v3.Secret',
};

function wire(kind: Kind, json: Json): EncodedResource {
  const text = JSON.stringify({ resources: [{ '@type': `type.googleapis.com/${TYPES[kind]}`, ...json }] });
  const { resources, errors } = parseResourceFile(text, { format: 'json', file: 'test', kind });
  if (errors[0] !== undefined) throw errors[0];
  const { typeUrl, name, bytes } = encodeResource(kind, resources[0]!.resource as never);
  return { typeUrl, name, bytes, version: createHash('sha256').update(bytes).digest('hex').slice(0, 12) };
}

const ADS = { ads: {}, resource_api_version: 'V3' };

/** A listener with its route, a cluster and its endpoint, all as resources of their own. */
function published(appPort: number, listener: Json = {}): EncodedResource[] {
  return [
    wire('listener', { ...httpListener('out', { rds: { route_config_name: 'routes', config_source: ADS } }), ...listener }),
    wire('route', { ...routes([routeTo('app')]), name: 'routes' }),
    wire('cluster', { name: 'app', type: 'EDS', connect_timeout: '1s', eds_cluster_config: { eds_config: ADS } }),
    wire('endpoints', assignment('app', [appPort])),
  ];
}

function stateDirectory(): string {
  const made = mkdtempSync(join(tmpdir(), 'meshwork-state-'));
  onEnd(() => rmSync(made, { recursive: true, force: true }));
  return join(made, 'state');
}

function startDriven(port: number, stateDir: string, ready = true): Promise<TestProxy> {
  const source = { ...ADS, initial_fetch_timeout: '0s' };
  const api = { api_type: 'DELTA_GRPC', transport_api_version: 'V3', grpc_services: [{ envoy_grpc: { cluster_name: 'xds' } }] };
  return startTestProxy(
    {
      node: { id: 'web-1', cluster: 'web' },
      dynamic_resources: { lds_config: source, cds_config: source, ads_config: api },
      static_resources: {
        clusters: [
          cluster('xds', [port], {
            typed_extension_protocol_options: {
              'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
                '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
                explicit_http_config: { http2_protocol_options: {} },
              },
            },
          }),
        ],
      },
    },
    { argv: ['--state-dir', stateDir], ready },
  );
}

const isStale = async (proxy: TestProxy): Promise<boolean> => JSON.parse((await proxy.admin('/server_info')).text).config_stale === true;

/** Runs a proxy under a control plane until its state is on disk; both are gone then. */
async function leaveState(port: number, stateDir: string, resources: EncodedResource[]): Promise<void> {
  const plane = await controlPlane(resources, { port });
  const proxy = await startDriven(port, stateDir);
  await until(() => existsSync(join(stateDir, STATE_FILE)), 'the state is on disk');
  expect(await isStale(proxy)).toBe(false);
  await proxy.running.stop({ timeoutMs: 0 });
  plane.close();
}

test('a proxy starts from disk when the control plane is away, says so, and follows it when it is back', async () => {
  const [old, fresh] = [await startApp('old'), await startApp('fresh')];
  const [port] = (await freePorts(1)) as [number];
  const stateDir = stateDirectory();
  await leaveState(port, stateDir, [...published(old.port), wire('cluster', cluster('leaves', [1]))]);

  const proxy = await startDriven(port, stateDir);

  expect((await call(proxy.port('out'), '/')).body).toBe('old');
  expect(await isStale(proxy)).toBe(true);
  expect((await proxy.admin('/ready')).text).toBe('LIVE\n');
  expect((await proxy.admin('/stats?filter=config_stale')).text).toBe('server.config_stale: 1\n');

  await controlPlane(published(fresh.port), { port });
  await until(async () => (await call(proxy.port('out'), '/')).body === 'fresh', 'the new endpoint is in force', 30_000);
  await until(async () => !(await isStale(proxy)), 'the state is fresh', 15_000);
  expect((await proxy.admin('/stats?filter=config_stale')).text).toBe('server.config_stale: 0\n');
  expect((await proxy.admin('/clusters')).text).not.toContain('leaves');
}, 60_000);

test('a state that was tampered with is ignored: the proxy waits for its control plane', async () => {
  const app = await startApp('app');
  const [port] = (await freePorts(1)) as [number];
  const stateDir = stateDirectory();
  await leaveState(port, stateDir, published(app.port));
  const file = join(stateDir, STATE_FILE);
  writeFileSync(file, readFileSync(file, 'utf8').replace('"app"', '"abb"'));

  const proxy = await startDriven(port, stateDir, false);
  await new Promise((resolve) => setTimeout(resolve, 1_500));

  expect(await isStale(proxy)).toBe(false);
  expect(proxy.running.listeners()).toEqual([]);
  expect((await proxy.admin('/ready')).status).toBe(503);
  await controlPlane(published(app.port), { port });
  await proxy.running.ready;
  expect((await call(proxy.port('out'), '/')).body).toBe('app');
}, 60_000);

test('a state whose certificate is over is not used: nothing listens, nothing goes out in clear text', async () => {
  const app = await startApp('app');
  const [port] = (await freePorts(1)) as [number];
  const stateDir = stateDirectory();
  const nowMs = Date.now();
  const ca = testCa(nowMs, 'mesh');
  const leaf = testLeaf(ca, nowMs, ['spiffe://mesh.test/ns/default/sa/web'], { notAfterMs: Math.floor(nowMs / 1_000) * 1_000 + 6_000 });
  const socket = {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
      common_tls_context: { tls_certificate_sds_secret_configs: [{ name: 'me', sds_config: ADS }] },
    },
  };
  const plain = httpListener('out', { rds: { route_config_name: 'routes', config_source: ADS } });
  const chain = { ...(plain['filter_chains'] as Json[])[0]!, transport_socket: socket };
  const secret = {
    name: 'me',
    tls_certificate: { certificate_chain: { inline_string: leaf.pem }, private_key: { inline_string: leaf.keyPem } },
  };
  await leaveState(port, stateDir, [...published(app.port, { address: address(0), filter_chains: [chain] }), wire('secret', secret)]);
  expect(readFileSync(join(stateDir, STATE_FILE), 'utf8')).toContain('"secrets","me"');
  await until(() => Date.now() > nowMs + 7_000, 'the certificate is over', 10_000);

  const proxy = await startDriven(port, stateDir, false);
  await new Promise((resolve) => setTimeout(resolve, 1_500));

  expect(proxy.running.listeners()).toEqual([]);
  expect((await proxy.admin('/ready')).status).toBe(503);
}, 60_000);
