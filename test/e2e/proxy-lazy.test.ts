/** A lazy proxy under a control plane that is any: what it asks for, how long it waits, what it answers, and what it starts from. */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { freePorts } from '../../cli/ports.ts';
import { STATE_FILE } from '../../proxy/state.ts';
import { encodeResource } from '../../xds/resources/index.ts';
import { parseResourceFile } from '../../xds/resources/resource-file.ts';
import { CLUSTER_TYPE, VIRTUAL_HOST_TYPE } from '../../xds/session/type-urls.ts';
import { closeAll as closePlanes, controlPlane } from '../../xds/stream-testing.ts';
import { address, assignment, call, closeAll, cluster, httpFilter, manager, onEnd, pause } from './proxy-harness.ts';
import { ROUTER_FILTER, routeTo, startApp, startTestProxy, until } from './proxy-harness.ts';
import type { Json, TestProxy } from './proxy-harness.ts';
import type { TestControlPlane } from '../../xds/stream-testing.ts';
import type { EncodedResource } from '../../xds/session/messages.ts';
import type { Kind } from '../../xds/resources/index.ts';

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
const ADS = { ads: {}, resource_api_version: 'V3' };

function wire(kind: Kind, json: Json): EncodedResource {
  const text = JSON.stringify({ resources: [{ '@type': `type.googleapis.com/${TYPES[kind]}`, ...json }] });
  const { resources, errors } = parseResourceFile(text, { format: 'json', file: 'test', kind });
  if (errors[0] !== undefined) throw errors[0];
  const { typeUrl, name, bytes } = encodeResource(kind, resources[0]!.resource as never);
  return { typeUrl, name, bytes, version: createHash('sha256').update(bytes).digest('hex').slice(0, 12) };
}

const ON_DEMAND = httpFilter('on_demand.v3.OnDemand', {}, 'on_demand');
const listener = (filters: Json[] = [ON_DEMAND, ROUTER_FILTER]): EncodedResource =>
  wire('listener', {
    name: 'out',
    address: address(0),
    traffic_direction: 'OUTBOUND',
    filter_chains: [{ filters: [manager({ rds: { route_config_name: 'r', config_source: ADS }, http_filters: filters })] }],
  });
const parent = (more: Json = {}): EncodedResource => wire('route', { name: 'r', vhds: { config_source: ADS }, ...more });
const eds = (name: string): EncodedResource =>
  wire('cluster', { name, type: 'EDS', connect_timeout: '1s', eds_cluster_config: { eds_config: ADS } });
/** The routes of a host, which goes by `name` and `name.default`; as a resource it is called by the longer one. */
const host = (name: string, clusterName = name, more: Json = {}): EncodedResource => ({
  ...wire('virtualHost', { name: `r/${name}.default`, domains: [name, `${name}.default`], routes: [routeTo(clusterName)], ...more }),
  aliases: [`r/${name}`],
});
/** All of a host that one application serves. */
const all = (name: string, port: number): EncodedResource[] => [eds(name), wire('endpoints', assignment(name, [port])), host(name)];

function startLazy(plane: { target: string }, argv: string[] = ['--lazy'], api: Json = {}): Promise<TestProxy> {
  const source = { ...ADS, initial_fetch_timeout: '0s' };
  const port = Number(plane.target.split(':')[1]);
  const http2 = {
    '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    explicit_http_config: { http2_protocol_options: {} },
  };
  const grpc = { api_type: 'DELTA_GRPC', transport_api_version: 'V3', grpc_services: [{ envoy_grpc: { cluster_name: 'xds' } }] };
  return startTestProxy(
    {
      node: { id: 'web-1.default', cluster: 'web' },
      dynamic_resources: { lds_config: source, cds_config: source, ads_config: { ...grpc, ...api } },
      static_resources: {
        clusters: [
          cluster('xds', [port], {
            typed_extension_protocol_options: { 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': http2 },
          }),
        ],
      },
    },
    { argv },
  );
}

/** Names that were asked for of a type, in order. */
const asked = (plane: TestControlPlane, typeUrl: string): string[] =>
  plane.events.flatMap((event) => (event.kind === 'subscribed' && event.typeUrl === typeUrl ? event.change.added : []));
const given = (plane: TestControlPlane, typeUrl: string): string[] =>
  plane.events.flatMap((event) => (event.kind === 'subscribed' && event.typeUrl === typeUrl ? event.change.removed : []));

test('fifty requests at once for a new host are one subscription, and others are not held up', async () => {
  const app = await startApp('app');
  const plane = await controlPlane([listener(), parent(), ...all('a', app.port), ...all('b', app.port), host('slow', 'never')]);
  const proxy = await startLazy(plane);
  const waiting = call(proxy.port(), '/', { host: 'slow' });

  const answers = await Promise.all(Array.from({ length: 50 }, () => call(proxy.port(), '/', { host: 'a' })));
  await call(proxy.port(), '/', { host: 'b' });

  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 50 }, () => 200));
  expect(asked(plane, VIRTUAL_HOST_TYPE)).toEqual(['r/slow', 'r/a', 'r/b']);
  expect(asked(plane, CLUSTER_TYPE)).toEqual(['never', 'a', 'b']);
  expect(plane.events.some((event) => event.kind === 'subscribed' && event.change.wildcardAdded && event.typeUrl === CLUSTER_TYPE)).toBe(
    false,
  );
  await waiting;
});

test('an unknown host is 404 NR, a cluster that does not exist 503 NC, endpoints that never come 503 UH', async () => {
  const plane = await controlPlane([listener(), parent(), host('lost', 'never'), eds('cold'), host('cold')]);
  const proxy = await startLazy(plane);
  const [unknown, lost, cold] = await Promise.all(['unknown', 'lost', 'cold'].map((name) => call(proxy.port(), '/', { host: name })));

  expect([unknown!.status, unknown!.body]).toEqual([404, expect.stringContaining('No route matches this host and path.')]);
  expect([lost!.status, lost!.body]).toEqual([503, expect.stringContaining('The route names a cluster that does not exist.')]);
  expect([cold!.status, cold!.body]).toEqual([
    503,
    expect.stringMatching(/no healthy upstream Cluster cold waited in vain for endpoints cold/),
  ]);
  expect(plane.events.filter((event) => event.kind === 'nacked')).toEqual([]);
});

test('routes that cannot be used are a NACK, and the request is told why', async () => {
  const plane = await controlPlane([listener(), parent(), { ...host('bad'), bytes: Buffer.from('no virtual host') }]);
  const proxy = await startLazy(plane);
  const answer = await call(proxy.port(), '/', { host: 'bad' });

  expect([answer.status, answer.body]).toEqual([503, expect.stringContaining('Its routes were rejected: ')]);
  await until(() => plane.events.some((event) => event.kind === 'nacked' && event.typeUrl === VIRTUAL_HOST_TYPE), 'the NACK came');
});

test('a host that changes its cluster keeps the old one until the new one is there, and then lets go of it', async () => {
  const [one, two] = [await startApp('one'), await startApp('two')];
  const base = [listener(), parent(), eds('one'), wire('endpoints', assignment('one', [one.port]))];
  const plane = await controlPlane([...base, host('a', 'one')]);
  const proxy = await startLazy(plane);
  const get = async (): Promise<string> => (await call(proxy.port(), '/', { host: 'a' })).body;
  expect(await get()).toBe('one');

  const next = [...base, host('a', 'two'), eds('two')];
  plane.publish(next);
  await until(() => asked(plane, CLUSTER_TYPE).includes('two'), 'the new cluster is asked for');
  for (let i = 0; i < 20; i++) expect(await get()).toBe('one');
  plane.publish([...next, wire('endpoints', assignment('two', [two.port]))]);

  await until(async () => (await get()) === 'two', 'the new one serves');
  await until(() => given(plane, CLUSTER_TYPE).includes('one'), 'the old one is given up');
  expect((await proxy.admin('/clusters')).text).not.toMatch(/^one::/m);
});

test('an update of the route configuration asks for its hosts anew, and fails no request', async () => {
  const app = await startApp('app');
  const rest = [listener(), ...all('a', app.port)];
  const plane = await controlPlane([...rest, parent()]);
  const proxy = await startLazy(plane);
  await call(proxy.port(), '/', { host: 'a' });
  const statuses = new Set<number>();
  let running = true;
  const load = (async () => {
    while (running) statuses.add((await call(proxy.port(), '/', { host: 'a' })).status);
  })();

  plane.publish([...rest, parent({ response_headers_to_add: [{ header: { key: 'x-table', value: 'two' } }] })]);
  await until(async () => (await call(proxy.port(), '/', { host: 'a' })).headers['x-table'] === 'two', 'the new parent counts');
  await until(() => asked(plane, VIRTUAL_HOST_TYPE).length === 2, 'the host is asked for again');
  running = false;
  await load;

  expect(asked(plane, VIRTUAL_HOST_TYPE)).toEqual(['r/a', 'r/a']);
  expect([...statuses]).toEqual([200]);
});

test('without the on_demand filter nothing is asked for, as in Envoy', async () => {
  const app = await startApp('app');
  const plane = await controlPlane([listener([ROUTER_FILTER]), parent(), ...all('a', app.port)]);
  const proxy = await startLazy(plane);

  expect((await call(proxy.port(), '/', { host: 'a' })).status).toBe(404);
  expect(asked(plane, VIRTUAL_HOST_TYPE)).toEqual([]);
});

test('hosts that stand in the route configuration itself need no asking', async () => {
  const app = await startApp('app');
  const inline = { virtual_hosts: [{ name: 'here', domains: ['here', '*.here'], routes: [routeTo('a')] }] };
  const plane = await controlPlane([listener(), parent(inline), ...all('a', app.port)]);
  const proxy = await startLazy(plane);

  const hosts = async (): Promise<string[]> => {
    const dump = JSON.parse((await proxy.admin('/config_dump?resource=dynamic_route_configs')).text) as {
      configs: { route_config: { virtual_hosts: { name: string }[] } }[];
    };
    return dump.configs.flatMap(({ route_config: config }) => config.virtual_hosts.map(({ name }) => name));
  };
  expect(await hosts()).toEqual(['here']);
  for (const name of ['here', 'x.here', 'a']) expect((await call(proxy.port(), '/', { host: name })).status).toBe(200);
  expect(asked(plane, VIRTUAL_HOST_TYPE)).toEqual(['r/a']);
  expect(await hosts()).toEqual(['here', 'r/a.default']);
});

test('what was in use is kept on disk: a start without a control plane serves it, and asks for it when there is one', async () => {
  const app = await startApp('app');
  const [port] = (await freePorts(1)) as [number];
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-lazy-'));
  onEnd(() => rmSync(directory, { recursive: true, force: true }));
  const argv = ['--lazy', '--state-dir', directory];
  const resources = [listener(), parent(), ...all('a', app.port), ...all('b', app.port)];
  const plane = await controlPlane(resources, { port });
  const before = await startLazy(plane, argv);
  await call(before.port(), '/', { host: 'a' });
  const saved = (): string => (existsSync(join(directory, STATE_FILE)) ? readFileSync(join(directory, STATE_FILE), 'utf8') : '');
  await until(() => saved().includes('virtualHosts'), 'the state is on disk');
  await before.running.stop({ timeoutMs: 0 });
  plane.close();

  const proxy = await startLazy(plane, argv);
  expect((await call(proxy.port(), '/', { host: 'a' })).body).toBe('app');
  expect((await call(proxy.port(), '/', { host: 'b' })).status).toBe(503);
  const again = await controlPlane(resources, { port });
  await until(() => asked(again, VIRTUAL_HOST_TYPE).length > 0, 'the host is asked for');
  expect(asked(again, VIRTUAL_HOST_TYPE)).toEqual(['r/a.default']);
  await until(async () => (await call(proxy.port(), '/', { host: 'b' })).status === 200, 'a new host is served');
  expect((await call(proxy.port(), '/', { host: 'a' })).status).toBe(200);
}, 60_000);

test('a bootstrap without a delta stream for all is refused with the reason', async () => {
  await expect(startLazy({ target: '127.0.0.1:1' }, ['--lazy'], { api_type: 'GRPC' })).rejects.toThrow(
    /a lazy proxy asks for virtual hosts by name, and needs dynamic_resources\.ads_config with api_type DELTA_GRPC, received GRPC/,
  );
});

test('the metadata of the bootstrap says the same as the flag', async () => {
  const app = await startApp('app');
  const plane = await controlPlane([listener(), parent(), ...all('a', app.port)]);
  const proxy = await startLazy(plane, ['--config-yaml', 'node: { metadata: { MESHWORK_LAZY: true } }']);

  expect((await call(proxy.port(), '/', { host: 'a' })).status).toBe(200);
  expect(asked(plane, CLUSTER_TYPE)).toEqual(['a']);
  await pause(10);
});
