import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { afterEach, expect, test } from '@jest/globals';
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
  manager,
  onEnd,
  rawClient,
  routes,
  routeTo,
  startApp,
  startTestProxy,
  until,
} from './proxy-harness.ts';
import type { Json, TestProxy } from './proxy-harness.ts';
import type { TestControlPlane } from '../../xds/stream-testing.ts';
import type { EncodedResource } from '../../xds/session/messages.ts';
import type { Kind } from '../../xds/resources/index.ts';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

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

/** A resource as a control plane sends it. */
function wire(kind: Kind, json: Json): EncodedResource {
  const text = JSON.stringify({ resources: [{ '@type': `type.googleapis.com/${TYPES[kind]}`, ...json }] });
  const { resources, errors } = parseResourceFile(text, { format: 'json', file: 'test', kind });
  if (errors[0] !== undefined) throw errors[0];
  const { typeUrl, name, bytes } = encodeResource(kind, resources[0]!.resource as never);
  return { typeUrl, name, bytes, version: createHash('sha256').update(bytes).digest('hex').slice(0, 12) };
}

const RDS: Json = { rds: { route_config_name: 'routes', config_source: { ads: {}, resource_api_version: 'V3' } } };
const eds = (name: string): Json => ({
  name,
  type: 'EDS',
  connect_timeout: '1s',
  eds_cluster_config: { eds_config: { ads: {}, resource_api_version: 'V3' } },
});
const listener = (port = 0): Json => ({
  ...httpListener('out', { ...RDS, upgrade_configs: [{ upgrade_type: 'websocket' }] }),
  address: address(port),
  traffic_direction: 'OUTBOUND',
});
const routeConfig = (list: Json[]): Json => ({ ...routes(list), name: 'routes' });

async function startDriven(plane: TestControlPlane, options: { delta?: boolean; ready?: boolean } = {}): Promise<TestProxy> {
  const [host, port] = plane.target.split(':');
  const ads = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '0s' };
  return startTestProxy(
    {
      node: { id: 'web-1.default', cluster: 'web', metadata: { NAMESPACE: 'default', WORKLOAD_NAME: 'web' } },
      dynamic_resources: {
        lds_config: ads,
        cds_config: ads,
        ads_config: {
          api_type: options.delta === false ? 'GRPC' : 'DELTA_GRPC',
          transport_api_version: 'V3',
          grpc_services: [{ envoy_grpc: { cluster_name: 'xds' } }],
        },
      },
      static_resources: {
        clusters: [
          cluster('xds', [Number(port)], {
            typed_extension_protocol_options: http2(),
            load_assignment: {
              cluster_name: 'xds',
              endpoints: [{ lb_endpoints: [{ endpoint: { address: address(Number(port), host) } }] }],
            },
          }),
        ],
      },
    },
    { ready: options.ready ?? true },
  );
}

function http2(): Json {
  return {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
      '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
      explicit_http_config: { http2_protocol_options: {} },
    },
  };
}

for (const delta of [true, false]) {
  test(`${delta ? 'delta' : 'state of the world'}: a proxy starts from its control plane, follows changes, and loses nothing when it goes away`, async () => {
    const [one, two] = [await startApp('one'), await startApp('two')];
    const base = [wire('cluster', eds('app')), wire('listener', listener()), wire('route', routeConfig([routeTo('app')]))];
    const plane = await controlPlane([...base, wire('endpoints', assignment('app', [one.port]))]);
    const proxy = await startDriven(plane, { delta });
    expect((await call(proxy.port(), '/')).body).toBe('one');

    plane.publish([...base, wire('endpoints', assignment('app', [two.port]))]);
    await until(async () => (await call(proxy.port(), '/')).body === 'two', 'the endpoint changed');
    plane.close();

    for (let i = 0; i < 20; i++) expect((await call(proxy.port(), '/')).body).toBe('two');
    const stats = (await proxy.admin('/stats?filter=update_success|server.state|warming')).text;
    expect(stats).toMatch(/^cluster_manager\.cds\.update_success: [1-9]/m);
    expect(stats).toMatch(/^listener_manager\.lds\.update_success: [1-9]/m);
    expect(stats).toMatch(/^server\.state: 0$/m);
    expect(stats).toMatch(/^cluster_manager\.warming_clusters: 0$/m);
  });
}

test('a bad resource is named in the NACK, its last good version and its good siblings serve', async () => {
  const app = await startApp('app');
  const endpoints = [wire('endpoints', assignment('app', [app.port])), wire('endpoints', assignment('other', [app.port]))];
  const good = [wire('cluster', eds('app')), wire('listener', listener()), ...endpoints];
  const plane = await controlPlane([...good, wire('route', routeConfig([routeTo('app', '/a')]))]);
  const proxy = await startDriven(plane);
  expect((await call(proxy.port(), '/a')).status).toBe(200);

  const broken = wire('cluster', { ...eds('broken'), type: 'ORIGINAL_DST', lb_policy: 'CLUSTER_PROVIDED', eds_cluster_config: undefined });
  plane.publish([
    ...good,
    broken,
    wire('cluster', eds('other')),
    wire('route', routeConfig([routeTo('app', '/a'), routeTo('other', '/b')])),
  ]);
  await until(() => plane.events.some((event) => event.kind === 'nacked'), 'the NACK came');

  const nack = plane.events.find((event) => event.kind === 'nacked');
  expect(nack?.kind === 'nacked' ? nack.message : '').toContain('cluster "broken".type: ORIGINAL_DST is not supported');
  await until(async () => (await call(proxy.port(), '/b')).status === 200, 'the good sibling serves');
  expect((await call(proxy.port(), '/a')).status).toBe(200);
  const stats = (await proxy.admin('/stats?filter=cds.update_rejected')).text;
  expect(stats).toBe('cluster_manager.cds.update_rejected: 1\n');
});

test('an address that is taken is a NACK, and the listener that was there stays', async () => {
  const app = await startApp('app');
  const rest = [
    wire('cluster', eds('app')),
    wire('endpoints', assignment('app', [app.port])),
    wire('route', routeConfig([routeTo('app')])),
  ];
  const plane = await controlPlane([...rest, wire('listener', listener())]);
  const proxy = await startDriven(plane);
  const port = proxy.port();

  plane.publish([...rest, wire('listener', listener(app.port))]);
  await until(() => plane.events.some((event) => event.kind === 'nacked'), 'the NACK came');

  const nack = plane.events.find((event) => event.kind === 'nacked');
  expect(nack?.kind === 'nacked' ? nack.message : '').toMatch(
    new RegExp(`listener "out": cannot listen on 127\\.0\\.0\\.1:${app.port}: .*EADDRINUSE`),
  );
  expect((await call(port, '/')).body).toBe('app');
  const dump = JSON.parse((await proxy.admin('/config_dump?resource=dynamic_listeners')).text) as {
    configs: { error_state?: { details: string } }[];
  };
  expect(dump.configs[0]!.error_state?.details).toContain('EADDRINUSE');
});

test('a route waits for the cluster that it names, and no request sees the one without the other', async () => {
  const [one, two] = [await startApp('one'), await startApp('two')];
  const base = [wire('cluster', eds('one')), wire('listener', listener()), wire('endpoints', assignment('one', [one.port]))];
  const plane = await controlPlane([...base, wire('route', routeConfig([routeTo('one')]))]);
  const proxy = await startDriven(plane);

  const next = [...base, wire('cluster', eds('two')), wire('route', routeConfig([routeTo('two')]))];
  plane.publish(next);
  await until(async () => (await proxy.admin('/config_dump')).text.includes('"dynamic_warming_clusters"'), 'the cluster warms');
  for (let i = 0; i < 10; i++) expect((await call(proxy.port(), '/')).body).toBe('one');
  plane.publish([...next, wire('endpoints', assignment('two', [two.port]))]);

  await until(async () => (await call(proxy.port(), '/')).body === 'two', 'both are in force');
});

test('a WebSocket lives across 100 route pushes and a listener push', async () => {
  const app = createServer();
  app.on('upgrade', (_request, socket: Duplex) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    socket.on('data', (chunk: Buffer) => socket.write(chunk));
    socket.on('end', () => socket.end());
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => void app.listen(0, '127.0.0.1', resolve));
  onEnd(() => {
    app.closeAllConnections();
    return new Promise<void>((resolve) => void app.close(() => resolve()));
  });
  const port = (app.address() as AddressInfo).port;
  const base = [wire('cluster', eds('app')), wire('endpoints', assignment('app', [port]))];
  const at = (version: number): EncodedResource =>
    wire('route', routeConfig([routeTo('app'), { match: { prefix: `/${version}` }, direct_response: { status: 200 } }]));
  const plane = await controlPlane([...base, wire('listener', listener()), at(0)]);
  const proxy = await startDriven(plane);
  const client = await rawClient(proxy.port());
  client.socket.write('GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await until(() => client.text().includes('101'), 'the upgrade is through');

  const acks = (): number => plane.events.filter((event) => event.kind === 'acked' && event.typeUrl.includes('Route')).length;
  for (let version = 1; version <= 100; version++) {
    const before = acks();
    plane.publish([...base, wire('listener', listener()), at(version)]);
    await until(() => acks() > before, `push ${version} was taken`);
  }
  const changed = {
    ...listener(),
    filter_chains: [{ filters: [manager({ ...RDS, stat_prefix: 'changed', upgrade_configs: [{ upgrade_type: 'websocket' }] })] }],
  };
  plane.publish([...base, wire('listener', changed), at(100)]);
  await until(async () => (await proxy.admin('/stats?filter=^http.changed.downstream_cx_total')).text !== '', 'the listener changed');
  client.socket.write('still here');

  await until(() => client.text().endsWith('still here'), 'the echo came');
  expect(plane.events.filter((event) => event.kind === 'nacked')).toEqual([]);
});

test('requests inside a CONNECT tunnel that was opened before a push take the routes of after it', async () => {
  const [one, two] = [await startApp('one'), await startApp('two')];
  const clusters = [
    wire('cluster', eds('one')),
    wire('cluster', eds('two')),
    wire('endpoints', assignment('one', [one.port])),
    wire('endpoints', assignment('two', [two.port])),
  ];
  const tunnels = { ...httpListener('out', { ...RDS, upgrade_configs: [{ upgrade_type: 'CONNECT' }] }), traffic_direction: 'OUTBOUND' };
  const plane = await controlPlane([...clusters, wire('listener', tunnels), wire('route', routeConfig([routeTo('one')]))]);
  const proxy = await startDriven(plane);
  const client = await rawClient(proxy.port());
  client.socket.write('CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n');
  await until(() => client.text().includes('\r\n\r\n'), 'the tunnel is open');
  const get = (): boolean => client.socket.write('GET / HTTP/1.1\r\nHost: app.test\r\n\r\n');
  get();
  await until(() => client.text().endsWith('one'), 'the first application answered');

  plane.publish([...clusters, wire('listener', tunnels), wire('route', routeConfig([routeTo('two')]))]);
  await until(async () => (await call(proxy.port(), '/')).body === 'two', 'the push is in force');
  get();

  await until(() => client.text().endsWith('two'), 'the second application answered in the same tunnel');
});

test('a removed listener stops accepting at once and lets its requests finish', async () => {
  let release = (): void => undefined;
  const app = await startApp('app', (_request, response) => {
    release = () => response.end('late');
  });
  const rest = [
    wire('cluster', eds('app')),
    wire('endpoints', assignment('app', [app.port])),
    wire('route', routeConfig([routeTo('app')])),
  ];
  const plane = await controlPlane([...rest, wire('listener', listener())]);
  const proxy = await startDriven(plane);
  const port = proxy.port();
  const client = await rawClient(port);
  client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await until(() => app.hits === 1, 'the application has the request');

  plane.publish(rest);
  await until(() => proxy.running.listeners().length === 0, 'the listener is gone');
  await expect(call(port, '/')).rejects.toThrow(/ECONNREFUSED/);
  release();

  await until(() => client.text().endsWith('late'), 'the request was answered');
  await until(client.closed, 'and its connection ended');
});

test('config_dump has the shape of Envoy: order, states and masks', async () => {
  const app = await startApp('app');
  const plane = await controlPlane([
    wire('cluster', eds('app')),
    wire('endpoints', assignment('app', [app.port])),
    wire('listener', listener()),
    wire('route', routeConfig([routeTo('app')])),
  ]);
  const proxy = await startDriven(plane);

  const read = async (query: string): Promise<{ configs: Record<string, unknown>[] }> =>
    JSON.parse((await proxy.admin(`/config_dump${query}`)).text) as { configs: Record<string, unknown>[] };
  const all = await read('?include_eds');
  const clusters = await read('?resource=dynamic_active_clusters&mask=cluster.name');

  expect(all.configs.map((config) => String(config['@type']).split('.').at(-1))).toEqual([
    'BootstrapConfigDump',
    'ClustersConfigDump',
    'EndpointsConfigDump',
    'ListenersConfigDump',
    'ScopedRoutesConfigDump',
    'RoutesConfigDump',
    'SecretsConfigDump',
  ]);
  expect(all.configs[1]!['static_clusters']).toHaveLength(1);
  expect(all.configs[3]!['dynamic_listeners']).toMatchObject([
    { name: 'out', active_state: { listener: { '@type': `type.googleapis.com/${TYPES.listener}`, name: 'out' } } },
  ]);
  expect(clusters.configs).toEqual([
    {
      '@type': 'type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster',
      cluster: { '@type': `type.googleapis.com/${TYPES.cluster}`, name: 'app' },
    },
  ]);
  expect((await proxy.admin('/quitquitquit')).status).toBe(405);
});
