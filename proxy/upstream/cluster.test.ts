import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { renderStats } from '../../lib/metrics-text.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { seededRandom } from '../../lib/random.ts';
import type { Cluster, LbEndpoint, LoadAssignment, OutlierDetection } from '../../xds/snapshot.ts';
import { ProxyError } from '../errors.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { ClusterPool } from './cluster-pool.ts';
import type { Pool } from './endpoint.ts';
import { FakeBody, FakeSink, fakeCluster, fakePool, fakeRequest, fakeResponse } from './fakes.ts';

const LIMITS = { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3, trackRemaining: false };

const OUTLIER: OutlierDetection = {
  consecutive5xx: 5,
  enforcingConsecutive5xxPercent: 100,
  consecutiveGatewayFailure: 5,
  enforcingConsecutiveGatewayFailurePercent: 0,
  consecutiveLocalOriginFailure: 5,
  enforcingConsecutiveLocalOriginFailurePercent: 100,
  splitExternalLocalOriginErrors: false,
  intervalMs: 10_000,
  baseEjectionTimeMs: 30_000,
  maxEjectionTimeMs: 300_000,
  maxEjectionTimeJitterMs: 0,
  maxEjectionPercent: 100,
  alwaysEjectOneEndpoint: false,
  enforcingSuccessRatePercent: 100,
  successRateMinimumHosts: 5,
  successRateRequestVolume: 100,
  successRateStdevFactor: 1900,
  failurePercentageThreshold: 85,
  enforcingFailurePercentagePercent: 0,
  failurePercentageMinimumHosts: 5,
  failurePercentageRequestVolume: 50,
};

function cluster(fields: Partial<Cluster> = {}): Cluster {
  return fakeCluster({ name: 'reviews', ...fields });
}

function assignment(...hosts: (string | Partial<LbEndpoint>)[]): LoadAssignment {
  const endpoints = hosts.map((host, i): LbEndpoint => {
    const fields = typeof host === 'string' ? { address: { host, port: 80 } } : host;
    return { address: { host: `h${i}`, port: 80 }, hostname: '', weight: 1, health: 'UNKNOWN', metadata: {}, ...fields };
  });
  const locality = { region: '', zone: '', subZone: '' };
  return { clusterName: 'reviews', localities: [{ locality, priority: 0, endpoints }], overprovisioningFactor: 140, dropPercent: 0 };
}

/** A cluster pool over fake connection pools; `answer` decides what each endpoint does. */
function world(config: Partial<Cluster> = {}) {
  const clock = new ManualClock();
  const metrics = createRegistry();
  const state = {
    answer: (_key: string, _request: ProxyRequest): Promise<ProxyResponse> => Promise.resolve(fakeResponse()),
    drained: [] as string[],
    made: [] as string[],
    sent: [] as string[],
  };
  const pool = new ClusterPool({
    resolve: (host) => Promise.resolve({ addresses: host === 'db.test' ? ['192.0.2.1'] : [] }),
    probe: (endpoint) => Promise.resolve(endpoint.key !== 'ill:80'),
    clock,
    metrics,
    random: seededRandom(4),
    log: silentLog,
    makePool: (endpoint): Pool => {
      state.made.push(endpoint.key);
      return fakePool(
        (request) => {
          state.sent.push(endpoint.key);
          return state.answer(endpoint.key, request);
        },
        () => state.drained.push(endpoint.key),
      );
    },
  });
  const push = (assigned: LoadAssignment | undefined, fields: Partial<Cluster> = {}): void =>
    pool.apply(new Map([['reviews', cluster({ ...config, ...fields })]]), new Map(assigned === undefined ? [] : [['reviews', assigned]]));
  const send = (fields: Parameters<typeof fakeRequest>[0] = {}): Promise<ProxyResponse> =>
    pool.get('reviews')!.send(fakeRequest({ startMs: clock.now(), ...fields }));
  const many = async (count: number): Promise<Record<string, number>> => {
    state.sent.length = 0;
    for (let i = 0; i < count; i++) await send().catch(() => undefined);
    const counts: Record<string, number> = {};
    for (const key of state.sent) counts[key] = (counts[key] ?? 0) + 1;
    return counts;
  };
  const stat = (name: string): number =>
    Number(/: (-?\d+)/.exec(renderStats(metrics, { matches: (dotted) => dotted === `cluster.reviews.${name}` }))?.[1] ?? Number.NaN);
  return { clock, metrics, state, pool, push, send, many, stat };
}

test('D2 a removed endpoint gets no new request while those under way finish', async () => {
  const { state, push, send, many, pool } = world();
  push(assignment('a', 'b'));
  let finish!: (response: ProxyResponse) => void;
  state.answer = () => new Promise((resolve) => (finish = resolve));
  const first = send();
  const left = state.sent[0]!;

  push(assignment(left === 'a:80' ? 'b' : 'a'));
  state.answer = () => Promise.resolve(fakeResponse());
  const counts = await many(20);
  finish(fakeResponse(201));

  expect((await first).status).toBe(201);
  expect(counts[left]).toBeUndefined();
  expect(state.drained).toEqual([left]);
  expect(pool.get('reviews')!.limits.DEFAULT.requests.active).toBe(0);
});

test('D3 a draining endpoint gets no new requests and its connections stay', async () => {
  const { state, push, many } = world();
  push(assignment('a', 'b'));
  await many(4);
  push(assignment('a', { address: { host: 'b', port: 80 }, health: 'DRAINING' }));

  expect(await many(10)).toEqual({ 'a:80': 10 });
  expect(state.drained).toEqual([]);
});

test('when every endpoint is draining, they serve rather than nobody', async () => {
  const { push, many } = world();
  push(assignment({ health: 'DRAINING' }));
  expect(await many(3)).toEqual({ 'h0:80': 3 });
});

test('D4 an address that belongs to another cluster now is another endpoint with connections of its own', async () => {
  const { pool, state } = world();
  const two = (a: LoadAssignment, b: LoadAssignment): void =>
    pool.apply(
      new Map([
        ['one', cluster({ name: 'one' })],
        ['two', cluster({ name: 'two' })],
      ]),
      new Map([
        ['one', a],
        ['two', b],
      ]),
    );
  two(assignment('a'), assignment('b'));
  await pool.get('one')!.send(fakeRequest());

  two(assignment('c'), assignment('a'));
  await pool.get('one')!.send(fakeRequest());
  await pool.get('two')!.send(fakeRequest());

  expect(state.made).toEqual(['a:80', 'c:80', 'a:80']);
  expect(state.sent).toEqual(['a:80', 'c:80', 'a:80']);
  expect(state.drained).toEqual(['a:80']);
});

test('D5 an empty assignment answers no healthy upstream at once and makes the cluster warm', async () => {
  const { pool, push, send } = world();
  push(undefined);
  expect(pool.warming()).toEqual(['reviews']);

  push(assignment());

  expect(pool.warming()).toEqual([]);
  await expect(send()).rejects.toMatchObject({ code: 'noHealthyEndpoint' });
});

test('W4 endpoints that all have weight 0 are refused and nothing changes', async () => {
  const { push, many } = world();
  push(assignment('a'));
  expect(() => push(assignment({ weight: 0 }, { weight: 0 }))).toThrow(
    /endpoints "reviews".endpoints: at least one of 2 endpoints must have a weight above 0/,
  );
  expect(await many(2)).toEqual({ 'a:80': 2 });
});

test('B1 B3 the request above the maximum is refused at once, counted, and the gauge shows the open breaker', async () => {
  const { state, push, send, stat } = world({ circuitBreakers: { default: { ...LIMITS, maxRequests: 10 }, high: LIMITS } });
  push(assignment('a'));
  const finish: (() => void)[] = [];
  state.answer = () => new Promise((resolve) => finish.push(() => resolve(fakeResponse())));
  const running = Array.from({ length: 10 }, () => send());
  expect(stat('circuit_breakers.default.rq_open')).toBe(1);

  await expect(send()).rejects.toMatchObject({ code: 'overflow' });
  expect(stat('upstream_rq_pending_overflow')).toBe(1);

  finish.splice(0).forEach((done) => done());
  await Promise.all(running);
  expect(stat('circuit_breakers.default.rq_open')).toBe(0);
  expect(stat('upstream_rq_active')).toBe(0);
});

test('B1 priorities have breakers of their own', async () => {
  const { pool, state, push, send } = world({ circuitBreakers: { default: { ...LIMITS, maxRequests: 0 }, high: LIMITS } });
  push(assignment('a'));

  await expect(send()).rejects.toMatchObject({ code: 'overflow' });
  await pool.get('reviews')!.send(fakeRequest(), 'HIGH');
  expect(state.sent).toEqual(['a:80']);
});

test('the request knows when the endpoint began to answer it', async () => {
  const { clock, state, push, pool } = world();
  push(assignment('a'));
  state.answer = () => {
    clock.advance(37);
    return Promise.resolve(fakeResponse());
  };
  const request = fakeRequest({ startMs: clock.now() });

  await pool.get('reviews')!.send(request);

  expect(request.info.answeredMs - request.startMs).toBe(37);
});

test('a request counts as under way until the last byte of its answer', async () => {
  const { pool, state, push, send } = world();
  push(assignment('a'));
  const body = new FakeBody();
  state.answer = () => Promise.resolve(fakeResponse(200, {}, body));
  const limits = pool.get('reviews')!.limits.DEFAULT;

  const response = await send();
  expect(limits.requests.active).toBe(1);
  const sink = new FakeSink();
  response.body!.pipe(sink);
  body.sink!.data(Buffer.from('hi'));
  body.sink!.end(undefined);

  expect([sink.text, sink.ended, limits.requests.active]).toEqual(['hi', true, 0]);
});

test('a reader that gives up frees the request and reaches the source once', async () => {
  const { pool, state, push, send } = world();
  push(assignment('a'));
  const body = new FakeBody();
  state.answer = () => Promise.resolve(fakeResponse(200, {}, body));

  const response = await send();
  response.body!.cancel(new ProxyError('downstreamReset'));
  response.body!.cancel(new ProxyError('downstreamReset'));

  expect(body.cancelled?.code).toBe('downstreamReset');
  expect(pool.get('reviews')!.limits.DEFAULT.requests.active).toBe(0);
});

test('B4 the fifth 5xx in a row ejects for 30 s, the next time for 60 s, and one success in between starts the count anew', async () => {
  const { clock, state, push, many, pool } = world({ outlierDetection: OUTLIER });
  push(assignment('a', 'b'));
  state.answer = (key) => Promise.resolve(fakeResponse(key === 'a:80' ? 500 : 200));
  const a = pool.get('reviews')!.members.get('a:80')!;

  await many(8);
  expect(a.ejectedUntilMs).toBe(0);
  await many(2);
  expect(a.ejectedUntilMs).toBe(clock.now() + 30_000);
  expect(await many(10)).toEqual({ 'b:80': 10 });

  clock.advance(30_000);
  expect(a.ejectedUntilMs).toBe(0);
  await many(2);
  expect(a.ejectedUntilMs).toBe(clock.now() + 60_000);
});

test('B8 after an ejection one real request goes first and the others keep away until it is answered', async () => {
  const { clock, state, push, many, pool, send } = world({ outlierDetection: OUTLIER });
  push(assignment('a', 'b'));
  state.answer = (key) => Promise.resolve(fakeResponse(key === 'a:80' ? 500 : 200));
  await many(10);
  clock.advance(30_000);
  const finish: ((response: ProxyResponse) => void)[] = [];
  state.answer = (key) => (key === 'a:80' ? new Promise((resolve) => finish.push(resolve)) : Promise.resolve(fakeResponse()));

  state.sent.length = 0;
  const sends = Array.from({ length: 11 }, () => send());
  expect(state.sent.filter((key) => key === 'a:80')).toHaveLength(1);
  finish[0]!(fakeResponse());
  await Promise.all(sends);

  expect(pool.get('reviews')!.members.get('a:80')!.outlier.probe).toBe('none');
});

test('B6 connect failures count with answers, or apart when asked', async () => {
  for (const split of [false, true]) {
    const { state, push, many, pool, stat } = world({ outlierDetection: { ...OUTLIER, splitExternalLocalOriginErrors: split } });
    push(assignment('a', 'b'));
    state.answer = (key) => (key === 'a:80' ? Promise.reject(new ProxyError('connectFailed')) : Promise.resolve(fakeResponse()));
    await many(10);
    expect(pool.get('reviews')!.members.get('a:80')!.outlier.ejectedBy).toBe(
      split ? 'consecutive_local_origin_failure' : 'consecutive_5xx',
    );
    expect(stat('outlier_detection.ejections_active')).toBe(1);
  }
});

test('B9 when all are ejected, panic spreads to all; with panic off nobody is there', async () => {
  for (const panic of [50, 0]) {
    const { state, push, many, send } = world({ outlierDetection: OUTLIER, panicThresholdPercent: panic });
    push(assignment('a', 'b'));
    state.answer = () => Promise.resolve(fakeResponse(500));
    await many(10);
    state.answer = () => Promise.resolve(fakeResponse());

    if (panic === 50) expect(Object.keys(await many(10)).sort()).toEqual(['a:80', 'b:80']);
    else await expect(send()).rejects.toMatchObject({ code: 'noHealthyEndpoint' });
  }
});

test('B10 an ejection survives an unrelated push of endpoints and a new outlier configuration', async () => {
  const { state, push, many, pool } = world({ outlierDetection: OUTLIER });
  push(assignment('a', 'b'));
  state.answer = (key) => Promise.resolve(fakeResponse(key === 'a:80' ? 500 : 200));
  await many(10);

  push(assignment('a', 'b', 'c'));
  push(assignment('a', 'b', 'c'), { outlierDetection: { ...OUTLIER, consecutive5xx: 7 } });

  expect(pool.get('reviews')!.members.get('a:80')!.ejectedUntilMs).toBeGreaterThan(0);
  expect(Object.keys(await many(10)).sort()).toEqual(['b:80', 'c:80']);
});

test('W12 a new endpoint starts slowly, never at zero, and has its full share when the window is over', async () => {
  const slowStart = { windowMs: 60_000, aggression: 1, minWeightPercent: 10 };
  const { clock, push, many } = world({ slowStart });
  const old = Array.from({ length: 130 }, (_, i) => `old${i}`);
  push(assignment(...old));
  clock.advance(60_000);
  push(assignment(...old, 'new'));

  clock.advance(1000);
  const early = (await many(10_000))['new:80'] ?? 0;
  clock.advance(60_000);
  const late = (await many(13_100))['new:80'] ?? 0;

  expect(early).toBeGreaterThan(0);
  expect(early).toBeLessThanOrEqual((10_000 / 131) * 0.25);
  expect(late).toBe(100);
});

test('a push with other connection settings opens new connections, one without keeps them', async () => {
  const { state, push, many } = world();
  const same = assignment('a');
  push(same);
  await many(2);
  push(same, { circuitBreakers: { default: { ...LIMITS, maxRequests: 7 }, high: LIMITS } });
  await many(1);
  expect([state.made, state.drained]).toEqual([['a:80'], []]);

  push(same, { connectTimeoutMs: 9 });
  await many(1);
  expect([state.made, state.drained]).toEqual([['a:80', 'a:80'], ['a:80']]);
});

test('a cluster that a push leaves out serves until the sweep, and a later one of that name is found by the old route', async () => {
  const { pool, push, state } = world();
  push(assignment('a'));
  const ref = pool.ref('reviews');
  const serving = ref.current!;
  await serving.send(fakeRequest());

  pool.apply(new Map(), new Map());
  await serving.send(fakeRequest());
  pool.sweep();
  expect([ref.current, state.sent.length, state.drained]).toEqual([undefined, 2, ['a:80']]);

  push(assignment('a'));
  expect(ref.current).toBeDefined();
  expect(ref.current).not.toBe(serving);
});

test('an aggregate uses the first cluster that has somebody, and must not contain itself', async () => {
  const { pool, state } = world();
  const aggregate = cluster({
    name: 'all',
    type: 'AGGREGATE',
    aggregateClusters: ['first', 'second'],
    lbPolicy: { name: 'CLUSTER_PROVIDED', type: '', config: {} },
  });
  const clusters = new Map([
    ['all', aggregate],
    ['first', cluster({ name: 'first' })],
    ['second', cluster({ name: 'second' })],
  ]);
  pool.apply(
    clusters,
    new Map([
      ['first', assignment()],
      ['second', assignment('b')],
    ]),
  );
  await pool.get('all')!.send(fakeRequest());
  pool.apply(
    clusters,
    new Map([
      ['first', assignment('a')],
      ['second', assignment('b')],
    ]),
  );
  await pool.get('all')!.send(fakeRequest());
  expect(state.sent).toEqual(['b:80', 'a:80']);

  const loop = new Map([['all', cluster({ name: 'all', type: 'AGGREGATE', aggregateClusters: ['all'] })]]);
  expect(() => pool.apply(loop, new Map())).toThrow(/an aggregate must not contain itself: all > all/);
});

test('what is not supported is refused by name', () => {
  const { push } = world();
  expect(() => push(undefined, { type: 'ORIGINAL_DST' })).toThrow('cluster "reviews".type: ORIGINAL_DST is not supported');
  expect(() => push(undefined, { lbPolicy: { name: 'x', type: 'acme.Lb', config: {} } })).toThrow(
    /policy "acme.Lb" is not supported; there are ROUND_ROBIN, LEAST_REQUEST/,
  );
});

test('closing leaves no timer behind', async () => {
  const { clock, pool, push, many, state } = world({
    outlierDetection: OUTLIER,
    slowStart: { windowMs: 1000, aggression: 1, minWeightPercent: 10 },
  });
  push(assignment('a', 'b'));
  state.answer = () => Promise.resolve(fakeResponse(500));
  await many(10);
  expect(clock.pending).toBeGreaterThan(0);

  pool.close();

  expect(clock.pending).toBe(0);
});

test('a cluster with names is warm after the first answer of DNS', async () => {
  const { pool, push, many } = world({ type: 'STRICT_DNS', loadAssignment: assignment('db.test') });
  push(undefined);
  expect(pool.warming()).toEqual(['reviews']);
  for (let i = 0; i < 20; i++) await Promise.resolve();

  expect(pool.warming()).toEqual([]);
  expect(await many(2)).toEqual({ '192.0.2.1:80': 2 });
  pool.close();
});

test('with health checks an endpoint waits for its first good answer, and one that fails gets nothing', async () => {
  const check = { kind: 'tcp' } as const;
  const { pool, push, many, clock } = world({
    panicThresholdPercent: 0,
    healthChecks: [{ timeoutMs: 1000, intervalMs: 5000, noTrafficIntervalMs: 5000, unhealthyThreshold: 1, healthyThreshold: 1, check }],
  });
  push(assignment('well', 'ill'));
  expect(await many(1)).toEqual({});
  for (let i = 0; i < 20; i++) await Promise.resolve();
  expect(await many(4)).toEqual({ 'well:80': 4 });
  pool.close();
  expect(clock.pending).toBe(0);
});

test('a dynamic cluster dials what the request names, once per host, and refuses what is no host', async () => {
  const { state, push, send } = world({ type: 'DYNAMIC_FORWARD_PROXY', lbPolicy: { name: 'CLUSTER_PROVIDED', type: '', config: {} } });
  push(undefined);
  for (const authority of ['one.test', 'one.test:80', '[::1]:8080', 'one.test', 'other.test:9000']) await send({ authority });
  await send({ authority: 'secure.test', scheme: 'https' });

  expect(state.made).toEqual(['one.test:80', '::1:8080', 'other.test:9000', 'secure.test:443']);
  expect(state.sent).toHaveLength(6);
  for (const authority of ['', 'a b', 'x:99999', 'user@host'])
    await expect(send({ authority })).rejects.toMatchObject({ code: 'noHealthyEndpoint' });
});

test('a dynamic cluster keeps a bounded number of hosts, those used last', async () => {
  const { pool, state, push, send } = world({
    type: 'DYNAMIC_FORWARD_PROXY',
    lbPolicy: { name: 'CLUSTER_PROVIDED', type: '', config: {} },
  });
  push(undefined);
  for (let i = 0; i < 1024; i++) await send({ authority: `h${i}.test` });
  await send({ authority: 'h0.test' });
  await send({ authority: 'more.test' });

  expect(state.drained).toEqual(['h1.test:80']);
  expect(pool.get('reviews')!.members.size).toBe(1024);
});

test('a share of requests is dropped when the control plane asks for it', async () => {
  const { push, state, send } = world();
  push({ ...assignment('a'), dropPercent: 50 });
  let dropped = 0;
  for (let i = 0; i < 400; i++) await send().catch((error: unknown) => (error as ProxyError).code === 'dropOverload' && dropped++);
  expect(dropped + state.sent.length).toBe(400);
  expect(Math.abs(dropped - 200)).toBeLessThan(50);
});

test('an assignment that says the same again keeps the picker, one that changes a weight makes a new one', () => {
  const { pool, push } = world();
  push(assignment('a', 'b'));
  const reviews = pool.get('reviews')!;
  const { picker } = reviews;

  push(assignment('a', 'b'));
  expect(reviews.picker).toBe(picker);
  reviews.assign(assignment('a', { address: { host: 'b', port: 80 }, weight: 2 }));
  expect(reviews.picker).not.toBe(picker);
});

test('pushes that come faster than the sweep do not put it off', async () => {
  const outlierDetection = {
    ...OUTLIER,
    consecutive5xx: 0,
    enforcingSuccessRatePercent: 0,
    enforcingFailurePercentagePercent: 100,
    failurePercentageMinimumHosts: 1,
    failurePercentageRequestVolume: 10,
  };
  const { clock, pool, push, many, state } = world({ outlierDetection });
  push(assignment('a', 'b'));
  state.answer = (key) => Promise.resolve(fakeResponse(key === 'a:80' ? 500 : 200));
  await many(40);
  for (let i = 0; i < 4; i++) {
    clock.advance(3000);
    push(assignment('a', 'b'), { outlierDetection: { ...outlierDetection } });
  }
  expect(pool.get('reviews')!.members.get('a:80')!.outlier.ejectedBy).toBe('failure_percentage');
});

test('B4 gRPC failures in the head eject as the statuses they stand for', async () => {
  const { push, many, pool, state } = world({ outlierDetection: OUTLIER });
  push(assignment('a', 'b'));
  state.answer = (key) => Promise.resolve(fakeResponse(200, { 'grpc-status': key === 'a:80' ? '14' : '5' }));
  await many(10);
  expect(pool.get('reviews')!.members.get('a:80')!.outlier.ejectedBy).toBe('consecutive_5xx');
  expect(pool.get('reviews')!.members.get('b:80')!.ejectedUntilMs).toBe(0);
});

test('W8 with peak EWMA an endpoint that refuses quickly does not gain share', async () => {
  const { push, state, clock, send } = world({ lbPolicy: { name: 'PEAK_EWMA', type: '', config: {} } });
  push(assignment('a', 'b', 'c', 'd'));
  state.answer = async (key) => {
    if (key !== 'a:80') clock.advance(20);
    return fakeResponse(key === 'a:80' ? 503 : 200);
  };
  for (let i = 0; i < 400; i++) await send();
  expect(state.sent.filter((key) => key === 'a:80').length).toBeLessThan(100 / 2);
});
