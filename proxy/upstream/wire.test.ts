import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { seededRandom } from '../../lib/random.ts';
import { Wheel } from '../../lib/wheel.ts';
import { NO_HEADER_MUTATIONS } from '../../xds/snapshot.ts';
import type { ForwardAction, LoadAssignment, RouteConfiguration } from '../../xds/snapshot.ts';
import { ProxyError } from '../errors.ts';
import type { ProxyResponse } from '../service.ts';
import { promised } from '../promised.ts';
import { compileRoutes } from '../router/router.ts';
import { ClusterPool } from './cluster-pool.ts';
import { createDial } from './dial.ts';
import { FakeBody, FakeSink, fakeCluster, fakeRequest } from './fakes.ts';
import { createPool } from './pool.ts';

const open: (() => Promise<unknown> | void)[] = [];

afterEach(async () => {
  for (const close of open.splice(0).toReversed()) await close();
});

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push(() => new Promise((resolve) => server.close(resolve)));
  return (server.address() as AddressInfo).port;
}

const serve = (answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<number> => {
  const server = createServer(answer);
  open.push(() => server.closeAllConnections());
  return listening(server);
};

/** Accepts, reads a little and closes without an answer. */
const slam = (): Promise<number> =>
  listening(createTcpServer((socket) => socket.on('error', () => undefined).once('data', () => socket.destroy())));

async function refusingPort(): Promise<number> {
  const server = createTcpServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A route to one cluster over the real pool, its endpoints in order of priority. */
function router(ports: readonly number[], action: Partial<ForwardAction>) {
  const clock = systemClock({ keepAlive: false });
  const metrics = createRegistry();
  const limits = { maxConnections: 64, maxPendingRequests: 64, maxRequests: 64, maxRetries: 3, trackRemaining: false };
  const clusters = new ClusterPool({
    clock,
    metrics,
    random: seededRandom(5),
    log: silentLog,
    makePool: (endpoint, cluster) =>
      createPool({ clock, limits: cluster.limits, dial: createDial({ address: endpoint.address, connectTimeoutMs: 2000, clock }) }),
  });
  open.push(() => clusters.close());
  const cluster = fakeCluster({
    name: 'c',
    type: 'STATIC',
    connectTimeoutMs: 2000,
    circuitBreakers: { default: limits, high: limits },
    loadAssignment: assignment(ports),
  });
  clusters.apply(new Map([['c', cluster]]), new Map());
  const forward: ForwardAction = {
    target: { kind: 'cluster', cluster: 'c' },
    clusterNotFoundStatus: 503,
    timeoutMs: 10_000,
    appendXForwardedHost: false,
    hashPolicies: [],
    mirrors: [],
    upgradeConfigs: [],
    priority: 'DEFAULT',
    ...action,
  };
  const match = {
    path: { kind: 'prefix', value: '/' },
    caseSensitive: true,
    headers: [],
    queryParameters: [],
    runtimeFraction: 1,
    grpcOnly: false,
  } as const;
  const route = {
    name: 'r',
    match,
    action: { kind: 'forward', ...forward },
    headerMutations: NO_HEADER_MUTATIONS,
    perFilterConfig: new Map(),
  } as const;
  const config: RouteConfiguration = {
    name: 'routes',
    virtualHosts: [
      {
        name: 'all',
        domains: ['*'],
        routes: [route],
        headerMutations: NO_HEADER_MUTATIONS,
        includeRequestAttemptCount: false,
        includeAttemptCountInResponse: false,
        requireTls: 'NONE',
        perFilterConfig: new Map(),
      },
    ],
    headerMutations: NO_HEADER_MUTATIONS,
    validateClusters: true,
    ignorePortInHostMatching: false,
    mostSpecificHeaderMutationsWins: false,
    maxDirectResponseBodyBytes: 4096,
  };
  const { send } = compileRoutes(config, {
    clusters,
    clock,
    random: seededRandom(6),
    wheel: new Wheel(clock),
    mirrorsDropped: metrics.counter('mirrors_dropped_total'),
  });
  return {
    clusters,
    clock,
    send: (fields: Parameters<typeof fakeRequest>[0]) => promised(send, fakeRequest({ startMs: clock.now(), ...fields })),
  };
}

function assignment(ports: readonly number[]): LoadAssignment {
  const endpoints = ports.map((port) => ({
    address: { host: '127.0.0.1', port },
    hostname: '',
    weight: 1,
    health: 'UNKNOWN' as const,
    metadata: {},
  }));
  return {
    clusterName: 'c',
    localities: [{ locality: { region: '', zone: '', subZone: '' }, priority: 0, endpoints }],
    overprovisioningFactor: 140,
    dropPercent: 0,
  };
}

const RETRY = {
  retryOn: ['5xx', 'reset', 'connect-failure'],
  numRetries: 3,
  retriableStatusCodes: [],
  retriableHeaders: [],
  backOffBaseMs: 1,
  backOffMaxMs: 5,
  resetHeaders: [],
  resetMaxMs: 0,
  previousHosts: true,
  hostSelectionAttemptsMax: 5,
};

const text = (response: ProxyResponse): Promise<string> =>
  new Promise((resolve, reject) => {
    const { body } = response;
    if (body === undefined || body.whole !== undefined) {
      resolve(body?.whole?.toString() ?? '');
      return;
    }
    const sink = new FakeSink();
    sink.end = () => resolve(sink.text);
    sink.fail = reject;
    body.pipe(sink);
  });

test('requests reach an endpoint over real sockets, and every count is back at zero afterwards', async () => {
  const port = await serve((request, response) => response.end(`${request.method} ${request.url} ${request.headers.host}`));
  const { send, clusters } = router([port], {});
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => send({ path: `/${i}`, authority: 'app.test' }).then(text)));
  expect(answers[7]).toBe('GET /7 app.test');
  expect(clusters.get('c')!.limits.DEFAULT.requests.active).toBe(0);
  expect([...clusters.get('c')!.members.values()].map((member) => member.active)).toEqual([0]);
});

test('T4 a refused connection and a slammed one are retried elsewhere, and callers see no error', async () => {
  const good = await serve((_, response) => response.end('ok'));
  const { send } = router([await refusingPort(), await slam(), good], { retryPolicy: RETRY });
  for (let i = 0; i < 12; i++) expect(await send({}).then(text)).toBe('ok');
});

test('T10 a streamed upload is replayed to the next endpoint from its first byte', async () => {
  const good = await serve((request, response) => {
    let got = '';
    request.on('data', (chunk: Buffer) => (got += chunk.toString())).on('end', () => response.end(got));
  });
  const { send } = router([await slam(), good], { retryPolicy: RETRY });
  for (let i = 0; i < 4; i++) {
    const body = new FakeBody(6);
    const done = send({ method: 'PUT', body });
    const flow = setInterval(() => {
      if (body.sink === undefined) return;
      clearInterval(flow);
      body.sink.data(Buffer.from('abc'));
      setTimeout(() => {
        body.sink!.data(Buffer.from('def'));
        body.sink!.end(undefined);
      }, 20);
    }, 1);
    expect(await done.then(text)).toBe('abcdef');
  }
});

test('T6 an endpoint that does not answer ends in a time-out, and its connection is not used again', async () => {
  const seen: number[] = [];
  const port = await serve((request, response) => {
    seen.push(request.socket.remotePort!);
    if (request.url !== '/slow') response.end('ok');
  });
  const { send, clusters } = router([port], { timeoutMs: 50 });
  await expect(send({ path: '/slow' })).rejects.toMatchObject({ code: 'upstreamTimeout' });
  expect(await send({ path: '/' }).then(text)).toBe('ok');
  expect(seen[1]).not.toBe(seen[0]);
  expect(clusters.get('c')!.limits.DEFAULT.requests.active).toBe(0);
  expect(clusters.get('c')!.limits.DEFAULT.connections.active).toBe(1);
});

test('a streamed answer passes with its bytes in order, and a client that leaves frees everything', async () => {
  const port = await serve((request, response) => {
    response.write('first ');
    if (request.url === '/endless') return;
    setTimeout(() => response.end('last'), 20);
  });
  const { send, clusters } = router([port], {});
  expect(await send({}).then(text)).toBe('first last');

  const response = await send({ path: '/endless' });
  expect(clusters.get('c')!.limits.DEFAULT.requests.active).toBe(1);
  response.body!.cancel(new ProxyError('downstreamReset'));
  expect(clusters.get('c')!.limits.DEFAULT.requests.active).toBe(0);
});
