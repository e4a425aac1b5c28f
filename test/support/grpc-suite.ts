/** What a proxyless gRPC client is shown to do under our control plane, whatever it is written in: balancing, routes, limits, changes, a restart, reports. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import * as grpc from '@grpc/grpc-js';
import { freePorts } from '../../cli/ports.ts';
import { FETCH_STATUS_METHOD } from '../../xds/resources/client-status.ts';
import type { ClientState } from '../../xds/client-status.ts';
import { HEALTH_CODEC } from '../../xds/health.ts';
import { CLIENT_LOCALITY, startEcho } from './grpc-peers.ts';
import type { Agent, EchoServer } from './grpc-peers.ts';
import { cleanUp, eventually, startForTest, temporaryDirectory } from '../e2e/control-plane-harness.ts';
import type { Running } from '../e2e/control-plane-harness.ts';

const TARGET = 'xds:///echo:9000';
const CLUSTER = 'outbound|9000||echo.default.svc.cluster.local';
const NODE = 'client.default';

let running: Running;
let agent: Agent;
let echoes: [EchoServer, EchoServer];
let restart: () => Promise<void>;

const service = (name: string, selector: Record<string, string>): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { selector, ports: [{ name: 'grpc', port: 9000, targetPort: 'grpc' }] },
});
const workload = (version: string, port: number, more: object = {}): object => ({
  apiVersion: 'meshwork.dev/v1alpha1',
  kind: 'Workload',
  metadata: { name: `echo-${version}`, labels: { app: 'echo', version } },
  spec: { address: '127.0.0.1', ports: { grpc: port }, ...more },
});
const route = (rules: readonly object[]): object => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'GRPCRoute',
  metadata: { name: 'echo' },
  spec: { parentRefs: [{ group: '', kind: 'Service', name: 'echo' }], rules },
});

async function apply(resource: object): Promise<void> {
  const { kind, metadata } = resource as { kind: string; metadata: { name: string } };
  const path = `/api/v1/resources/${kind}/default/${metadata.name}`;
  const { headers, status } = await running.call('GET', path);
  const known = status === 200;
  const answer = known
    ? await running.call('PUT', path, resource, { 'if-match': headers.get('etag')! })
    : await running.call('POST', '/api/v1/resources', resource);
  expect([answer.status, answer.text]).toEqual([known ? 200 : 201, expect.anything()]);
  // Until every connected client has acknowledged it.
  await running.call('GET', `/api/v1/changes/${answer.headers.get('meshwork-change')}?wait=10s`);
}

async function remove(kind: string, name: string): Promise<void> {
  const path = `/api/v1/resources/${kind}/default/${name}`;
  const { headers, status } = await running.call('GET', path);
  if (status === 200) await running.call('DELETE', path, undefined, { 'if-match': headers.get('etag')! });
}

const calls = async (
  count: number,
  more: { path?: string; metadata?: Record<string, string>; target?: string } = {},
): Promise<Record<string, number>> => (await agent.ask({ kind: 'calls', target: TARGET, path: '/test.Echo/Ping', count, ...more })).counts;

/** Waits until calls are answered like this. */
const answeredBy = (what: string, names: readonly string[], more: Parameters<typeof calls>[1] = {}): Promise<unknown> =>
  eventually(
    what,
    async () =>
      Object.keys(await calls(10, more))
        .sort()
        .join() === [...names].sort().join(),
    30_000,
  );

/** Declares the tests. `startAgent` starts a client that takes its configuration from the control plane at a port; `ownRace` is what it says when it loses a race with itself. */
export function proxylessSuite(startAgent: (xdsPort: number, nodeId: string) => Promise<Agent>, ownRace?: RegExp): void {
  /** Who answered, without the one call that the client itself may lose at each change of the cluster: its calls come one after the other. */
  const withoutRaces = (counts: Readonly<Record<string, number>>, changes: number): string[] => {
    const lost = Object.entries(counts).filter(([who]) => ownRace?.test(who) === true);
    expect(lost.reduce((sum, [, times]) => sum + times, 0)).toBeLessThanOrEqual(changes);
    return Object.keys(counts)
      .filter((who) => lost.every(([name]) => name !== who))
      .sort();
  };

  beforeAll(async () => {
    echoes = [await startEcho('v1'), await startEcho('v2')];
    const dataDir = temporaryDirectory();
    const [port] = (await freePorts(1)) as [number];
    const options = { dataDir, xds: { host: '127.0.0.1', port } };
    running = await startForTest(options);
    restart = async () => {
      await running.close();
      running = await startForTest(options);
    };
    for (const resource of [
      service('echo', { app: 'echo' }),
      service('echo-v1', { app: 'echo', version: 'v1' }),
      service('echo-v2', { app: 'echo', version: 'v2' }),
      workload('v1', echoes[0].port),
      workload('v2', echoes[1].port),
    ])
      await apply(resource);
    agent = await startAgent(port, NODE);
  }, 60_000);

  afterEach(async () => {
    for (const echo of echoes) echo.release();
    await remove('GRPCRoute', 'echo');
    await remove('BackendPolicy', 'echo');
  });

  afterAll(async () => {
    agent?.stop();
    for (const echo of echoes ?? []) echo.stop();
    await cleanUp();
  }, 30_000);

  test('ping-pong by every name of the service, and round robin over its instances', async () => {
    for (const name of ['echo', 'echo.default', 'echo.default.svc', 'echo.default.svc.cluster.local'])
      expect(Object.keys(await calls(1, { target: `xds:///${name}:9000` })).every((who) => who === 'v1' || who === 'v2')).toBe(true);
    await answeredBy('both instances are connected', ['v1', 'v2']);

    const { sequence } = await agent.ask({ kind: 'calls', target: TARGET, path: '/test.Echo/Ping', count: 50 });

    expect(sequence.every((who, index) => index === 0 || who !== sequence[index - 1])).toBe(true);
  }, 60_000);

  test('a GRPCRoute splits by weight, matches methods and headers, and changes under calls that do not fail', async () => {
    await apply(
      route([
        { matches: [{ method: { service: 'test.Echo', method: 'Other' } }], backendRefs: [{ name: 'echo-v2', port: 9000 }] },
        { matches: [{ headers: [{ name: 'x-version', value: 'one' }] }], backendRefs: [{ name: 'echo-v1', port: 9000 }] },
        {
          matches: [{ headers: [{ type: 'RegularExpression', name: 'x-version', value: 't.o' }] }],
          backendRefs: [{ name: 'echo-v2', port: 9000 }],
        },
        {
          backendRefs: [
            { name: 'echo-v1', port: 9000, weight: 4 },
            { name: 'echo-v2', port: 9000, weight: 1 },
          ],
        },
      ]),
    );
    await answeredBy('the method has its route', ['v2'], { path: '/test.Echo/Other' });

    const split = await calls(300);
    // 300 draws at 4:1; five standard deviations are 35.
    expect(split['v1']! + split['v2']!).toBe(300);
    expect(Math.abs(split['v1']! - 240)).toBeLessThanOrEqual(35);
    expect(await calls(20, { path: '/test.Echo/Other' })).toEqual({ v2: 20 });
    expect(await calls(20, { metadata: { 'x-version': 'one' } })).toEqual({ v1: 20 });
    expect(await calls(20, { metadata: { 'x-version': 'two' } })).toEqual({ v2: 20 });

    const question = { target: TARGET, path: '/test.Echo/Ping' };
    await agent.ask({ kind: 'start', ...question });
    for (const name of ['echo-v1', 'echo-v2', 'echo-v1']) {
      await apply(route([{ backendRefs: [{ name, port: 9000 }] }]));
      await answeredBy(`all goes to ${name}`, [name.slice(5)]);
    }
    const { counts } = await agent.ask({ kind: 'stop', ...question });
    expect(withoutRaces(counts, 3)).toEqual(['v1', 'v2']);
  }, 90_000);

  test('an HTTPRoute holds for gRPC too: path prefix and header to another service', async () => {
    await apply({
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'HTTPRoute',
      metadata: { name: 'echo' },
      spec: {
        parentRefs: [{ group: '', kind: 'Service', name: 'echo' }],
        rules: [
          { matches: [{ path: { type: 'PathPrefix', value: '/test.Echo/Other' } }], backendRefs: [{ name: 'echo-v2', port: 9000 }] },
          { matches: [{ path: { value: '/' }, queryParams: [{ name: 'q', value: '1' }] }], backendRefs: [{ name: 'echo-v2', port: 9000 }] },
          { matches: [{ method: 'GET' }], backendRefs: [{ name: 'echo-v2', port: 9000 }] },
          { matches: [{ method: 'POST' }], backendRefs: [{ name: 'echo-v1', port: 9000 }] },
        ],
      },
    });
    try {
      await answeredBy('the path goes to v2', ['v2'], { path: '/test.Echo/Other' });
      expect(await calls(20)).toEqual({ v1: 20 });
    } finally {
      await remove('HTTPRoute', 'echo');
    }
  }, 60_000);

  test('circuit breaking: a call beyond maxRequests fails at once, and works again when there is room', async () => {
    await apply({
      apiVersion: 'meshwork.dev/v1alpha1',
      kind: 'BackendPolicy',
      metadata: { name: 'echo' },
      spec: { targetRefs: [{ kind: 'Service', name: 'echo' }], circuitBreaker: { maxRequests: 3 } },
    });
    await answeredBy('both serve', ['v1', 'v2']);

    const hold = { kind: 'calls', target: TARGET, path: '/test.Echo/Hold', together: true } as const;
    const three = agent.ask({ ...hold, count: 3 });
    await eventually('three are under way', () => echoes[0].held + echoes[1].held === 3);
    const { sequence: beyond } = await agent.ask({ ...hold, count: 7 });
    for (const echo of echoes) echo.release();

    expect(beyond.filter((who) => who.startsWith('error 14'))).toHaveLength(7);
    expect((await three).sequence.every((who) => who === 'v1' || who === 'v2')).toBe(true);
    expect(await calls(10)).toEqual({ v1: 5, v2: 5 });
  }, 60_000);

  test('an instance that drains and goes gets nothing new, and no call fails', async () => {
    await answeredBy('both serve', ['v1', 'v2']);
    const question = { target: TARGET, path: '/test.Echo/Ping' };
    await agent.ask({ kind: 'start', ...question });

    await apply(workload('v2', echoes[1].port, { draining: true }));
    await answeredBy('only v1 serves', ['v1']);
    await remove('Workload', 'echo-v2');
    await answeredBy('still only v1 serves', ['v1']);
    await apply(workload('v2', echoes[1].port));
    await answeredBy('both serve again', ['v1', 'v2']);
    const { counts } = await agent.ask({ kind: 'stop', ...question });

    expect(Object.keys(counts).sort()).toEqual(['v1', 'v2']);
  }, 90_000);

  test('priority failover: the own zone has all calls; the next place takes over when nobody is left there, well or reachable, and gives them back', async () => {
    await apply({
      apiVersion: 'meshwork.dev/v1alpha1',
      kind: 'BackendPolicy',
      metadata: { name: 'echo' },
      spec: { targetRefs: [{ kind: 'Service', name: 'echo' }], loadBalancing: { localityFailover: true } },
    });
    const near = (more: object = {}): object => workload('v1', echoes[0].port, { locality: CLIENT_LOCALITY, ...more });
    await apply(near());
    await apply(workload('v2', echoes[1].port, { locality: { region: 'us', zone: 'us-1' } }));
    try {
      await answeredBy('the own zone serves', ['v1']);
      expect(await calls(50)).toEqual({ v1: 50 });
      const question = { target: TARGET, path: '/test.Echo/Ping' };
      await agent.ask({ kind: 'start', ...question });

      await apply(near({ healthy: false }));
      await answeredBy('nobody near is well', ['v2']);
      await apply(near());
      await answeredBy('it is well again', ['v1']);
      await remove('Workload', 'echo-v1');
      await answeredBy('nobody near is left', ['v2']);
      await apply(near());
      await answeredBy('it is there again', ['v1']);
      const { counts } = await agent.ask({ kind: 'stop', ...question });
      expect(withoutRaces(counts, 4)).toEqual(['v1', 'v2']);

      // What the control plane does not know the client sees by itself.
      const { port } = echoes[0];
      echoes[0].stop();
      await answeredBy('nobody near is reachable', ['v2']);
      expect(await calls(20)).toEqual({ v2: 20 });
      echoes[0] = await startEcho('v1', port);
      await answeredBy('it is reachable again', ['v1']);
      expect(await calls(20)).toEqual({ v1: 20 });
    } finally {
      await remove('BackendPolicy', 'echo');
      for (const [index, version] of ['v1', 'v2'].entries()) await apply(workload(version, echoes[index]!.port));
    }
  }, 120_000);

  test('the control plane restarts: calls go on, and the next change arrives', async () => {
    await answeredBy('both serve', ['v1', 'v2']);
    const question = { target: TARGET, path: '/test.Echo/Ping' };
    await agent.ask({ kind: 'start', ...question });

    await restart();
    expect((await calls(10))['v1']).toBeGreaterThan(0);
    await eventually('the client is back', () => running.proxies.get(NODE)?.state === 'acked', 30_000);
    await apply(route([{ backendRefs: [{ name: 'echo-v2', port: 9000 }] }]));
    await answeredBy('the change arrived', ['v2']);
    const { counts } = await agent.ask({ kind: 'stop', ...question });

    expect(withoutRaces(counts, 1)).toEqual(['v1', 'v2']);
  }, 90_000);

  test('CSDS tells what the client has, and LRS how many calls it made, by cluster', async () => {
    await calls(20);
    const client = new grpc.Client(`127.0.0.1:${running.addresses.xds.port}`, grpc.credentials.createInsecure());
    try {
      const { path, requestSerialize, responseDeserialize } = FETCH_STATUS_METHOD;
      const ask = (): Promise<ClientState[]> =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { withContents: true }, (error, value) =>
            error === null ? resolve(value!) : reject(error),
          );
        });
      await eventually('the cluster is in sync', async () => {
        // grpc-go has a stream for every target.
        const resources = (await ask()).filter(({ node }) => node.id === NODE).flatMap((state) => state.resources);
        const clusters = resources.filter(({ name, typeUrl }) => name === CLUSTER && typeUrl.endsWith('Cluster'));
        return clusters.some(({ config, version }) => config === 'SYNCED' && version !== '');
      });

      await eventually('all is acknowledged', () => running.proxies.get(NODE)?.state === 'acked');
      expect(running.proxies.get(NODE)).toMatchObject({ flavour: 'grpc' });
      const load = await eventually(
        'a report came',
        async () => {
          // What a client counted before its stream broke may be lost with it, so calls go on.
          await calls(20);
          const { load: found } = (await running.call('GET', '/api/v1/load')).json as {
            load: { node: string; cluster: string; issued: number }[];
          };
          return found.find((entry) => entry.node === NODE && entry.cluster === CLUSTER && entry.issued >= 20);
        },
        30_000,
      );
      expect(load).toMatchObject({ failed: 0 });
    } finally {
      client.close();
    }
  }, 60_000);

  test('health says that the control plane serves, and reflection names its services', async () => {
    const client = new grpc.Client(`127.0.0.1:${running.addresses.xds.port}`, grpc.credentials.createInsecure());
    try {
      const health = await new Promise((resolve, reject) => {
        const { requestSerialize, responseDeserialize } = HEALTH_CODEC;
        client.makeUnaryRequest('/grpc.health.v1.Health/Check', requestSerialize, responseDeserialize, '', (error, value) =>
          error === null ? resolve(value) : reject(error),
        );
      });
      expect(health).toBe('SERVING');
      const call = client.makeBidiStreamRequest('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo', Buffer.from, Buffer.from);
      call.on('error', () => undefined);
      const answer = new Promise<Buffer>((resolve) => call.once('data', resolve));
      // ServerReflectionRequest { list_services = 7: "" }.
      call.write(Buffer.from([(7 << 3) | 2, 0]));
      const text = (await answer).toString('latin1');
      call.cancel();
      for (const name of ['envoy.service.discovery.v3.AggregatedDiscoveryService', 'envoy.service.load_stats.v3.LoadReportingService'])
        expect(text).toContain(name);
    } finally {
      client.close();
    }
  }, 30_000);
}
