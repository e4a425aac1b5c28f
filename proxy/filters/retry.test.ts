import { expect, test } from '@jest/globals';
import { ManualClock, sleep } from '../../lib/clock.ts';
import { envoyScope } from '../../lib/metrics-scope.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { seededRandom } from '../../lib/random.ts';
import { Wheel } from '../../lib/wheel.ts';
import type { RetryPolicy } from '../../xds/snapshot.ts';
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import type { BodySink, ProxyRequest, ProxyResponse, Service } from '../service.ts';
import { FakeBody, FakeSink, fakeEndpoint, fakeRequest, fakeResponse, layered } from '../upstream/fakes.ts';
import { Limits } from '../upstream/limits.ts';
import { askedBackOffMs, backOffMs, compileRetryRules, RETRY_WORDS } from './retry-rules.ts';
import { retry } from './retry.ts';

const POLICY: RetryPolicy = {
  retryOn: ['5xx'],
  numRetries: 2,
  retriableStatusCodes: [],
  retriableHeaders: [],
  backOffBaseMs: 25,
  backOffMaxMs: 250,
  resetHeaders: [],
  resetMaxMs: 300_000,
  previousHosts: false,
  hostSelectionAttemptsMax: 1,
};

type Step = number | ErrorCode | ProxyResponse | ((request: ProxyRequest) => Promise<ProxyResponse>);

function world(
  policy: Partial<RetryPolicy>,
  steps: readonly Step[],
  breakers: { maxRetries?: number; retryBudget?: { budgetPercent: number; minRetryConcurrency: number } } = {},
) {
  const clock = new ManualClock();
  const wheel = new Wheel(clock, { tickMs: 1 });
  const registry = createRegistry();
  const limits = new Limits(
    { maxConnections: 9, maxPendingRequests: 9, maxRequests: 1e6, maxRetries: 3, trackRemaining: false, ...breakers },
    envoyScope(registry, 'cluster', 'cluster.c', { envoy_cluster_name: 'c' }),
    'default',
  );
  const counts = { retry: 0, success: 0, limit: 0, exponential: 0, ratelimited: 0 };
  const counter = (name: keyof typeof counts) => ({ inc: () => void counts[name]++ });
  const counters = {
    rqRetry: counter('retry'),
    rqRetrySuccess: counter('success'),
    rqRetryLimitExceeded: counter('limit'),
    rqRetryBackoffExponential: counter('exponential'),
    rqRetryBackoffRatelimited: counter('ratelimited'),
    retried: () => undefined,
  };
  const attempts: { atMs: number; attemptCount: number }[] = [];
  const rules = compileRetryRules({ ...POLICY, ...policy }, 'retry');
  const filter = retry(rules, { clock, wheel, random: seededRandom(9), budget: () => limits, counters: () => counters });
  const service = layered(filter, (request) => {
    const step = steps[Math.min(attempts.length, steps.length - 1)]!;
    attempts.push({ atMs: clock.now(), attemptCount: request.info.attemptCount });
    if (typeof step === 'function') return step(request);
    if (typeof step === 'number') return Promise.resolve(fakeResponse(step));
    return typeof step === 'string' ? Promise.reject(new ProxyError(step)) : Promise.resolve(step);
  });
  /** Sends and moves time on until the answer is there. */
  const run = async (request: ProxyRequest): Promise<ProxyResponse | ProxyError> => {
    let done: ProxyResponse | ProxyError | undefined;
    service(request).then(
      (response) => (done = response),
      (error: unknown) => (done = ProxyError.from(error)),
    );
    for (let i = 0; i < 2000 && done === undefined; i++) {
      await Promise.resolve();
      if (i % 10 === 9) clock.advance(Math.max(0, (clock.nextDueMs ?? clock.now()) - clock.now()));
    }
    if (done === undefined) throw new Error('the request never ended');
    return done;
  };
  return { clock, wheel, limits, counts, attempts, service, run, registry };
}

test('T1 5xx with two retries makes three attempts, then the answer passes with URX', async () => {
  const { run, attempts, counts, limits } = world({}, [503]);
  const request = fakeRequest();

  expect(await run(request)).toMatchObject({ status: 503 });

  expect(attempts.map((attempt) => attempt.attemptCount)).toEqual([1, 2, 3]);
  expect(request.info.responseFlags).toBe('URX');
  expect(counts).toMatchObject({ retry: 2, limit: 1, success: 0 });
  expect(limits.retries).toBe(0);
});

test('a retry that succeeds is counted and leaves no flag', async () => {
  const { run, counts, clock } = world({}, [503, 200]);
  const request = fakeRequest();
  expect(await run(request)).toMatchObject({ status: 200 });
  expect([counts.retry, counts.success, request.info.responseFlags, clock.pending]).toEqual([1, 1, '', 0]);
});

const answer = (status: number, headers: Record<string, string> = {}): ProxyResponse => fakeResponse(status, headers);
/** Word, what it covers, what it does not. */
const CASES: [string, Step[], Step[], Partial<RetryPolicy>?][] = [
  ['5xx', [500, 503, 'upstreamReset', 'connectFailed', 'perTryTimeout'], [404, answer(500, { 'x-envoy-ratelimited': 'true' }), 'overflow']],
  ['gateway-error', [502, 503, 504, 'upstreamReset'], [500, 501, 505]],
  ['reset', ['upstreamReset', 'upstreamProtocol', 'perTryTimeout', 'connectFailed'], [503, 'noHealthyEndpoint']],
  ['reset-before-request', ['connectFailed', 'upstreamRefused'], ['upstreamReset', 503]],
  ['connect-failure', ['connectFailed', 'connectTimeout', 'tlsFailed'], ['upstreamReset', 'upstreamRefused', 503]],
  ['refused-stream', ['upstreamRefused'], ['connectFailed', 'upstreamReset', 503]],
  ['retriable-4xx', [409], [404, 400, 503]],
  ['retriable-status-codes', [418], [503, 409], { retriableStatusCodes: [418] }],
  [
    'retriable-headers',
    [answer(200, { 'X-Again': '1' })],
    [answer(200), 503],
    { retriableHeaders: [{ name: 'x-again', match: { kind: 'present', present: true }, invert: false, treatMissingAsEmpty: false }] },
  ],
  ['envoy-ratelimited', [answer(429, { 'x-envoy-ratelimited': 'true' })], [429, 503]],
  ['cancelled', [answer(200, { 'grpc-status': '1' })], [answer(200, { 'grpc-status': '0' }), answer(200, { 'grpc-status': '14' }), 503]],
  ['deadline-exceeded', [answer(200, { 'grpc-status': '4' })], [answer(200, { 'grpc-status': '1' })]],
  ['internal', [answer(200, { 'grpc-status': '13' })], [answer(200, { 'grpc-status': '2' })]],
  ['resource-exhausted', [answer(200, { 'grpc-status': '8' })], [answer(200, { 'grpc-status': '14' })]],
  ['unavailable', [answer(200, { 'grpc-status': '14' })], [answer(200, { 'grpc-status': '8' })]],
];

test.each(CASES.map((row) => ({ word: row[0], row })))('T2 the word $word retries what it covers and nothing else', async ({ row }) => {
  const [word, covered, others, more] = row;
  for (const step of covered) {
    const { run, attempts } = world({ retryOn: [word], ...more }, [step, 200]);
    await run(fakeRequest());
    expect([step, attempts.length]).toEqual([step, 2]);
  }
  for (const step of others) {
    const { run, attempts } = world({ retryOn: [word], ...more }, [step, 200]);
    await run(fakeRequest());
    expect([step, attempts.length]).toEqual([step, 1]);
  }
});

test('T2 every word has a case, and an unknown one is refused by name', () => {
  const cased = CASES.map(([word]) => word);
  expect(RETRY_WORDS.filter((word) => !cased.includes(word))).toEqual(['non-idempotent', 'http3-post-connect-failure']);
  expect(() => compileRetryRules({ ...POLICY, retryOn: ['5xxx'] }, 'route.retry_policy')).toThrow(
    /route.retry_policy.retry_on: unknown word "5xxx"; there are 5xx, /,
  );
});

test('T3 once an answer was handed on, its failing body is not retried', async () => {
  const body = new FakeBody();
  const { run, attempts } = world({}, [fakeResponse(200, {}, body)]);
  const response = (await run(fakeRequest())) as ProxyResponse;
  const sink = new FakeSink();
  response.body!.pipe(sink);

  body.sink!.fail(new ProxyError('upstreamBodyReset'));

  expect(sink.failed?.code).toBe('upstreamBodyReset');
  expect(attempts).toHaveLength(1);
});

test('an answer that is thrown away is cancelled before the next attempt', async () => {
  const body = new FakeBody();
  const { run } = world({}, [fakeResponse(503, {}, body), 200]);
  await run(fakeRequest());
  expect(body.cancelled).toBeDefined();
});

test('T4 endpoints that failed are named for the next pick, with the number of reselections', async () => {
  const tried: (string[] | undefined)[] = [];
  const endpoints = [fakeEndpoint('a:1'), fakeEndpoint('b:1'), fakeEndpoint('c:1')];
  const step = (request: ProxyRequest): Promise<ProxyResponse> => {
    tried.push(request.info.triedEndpoints?.map((endpoint) => endpoint.key));
    request.info.endpoint = endpoints[tried.length - 1]!;
    expect(request.info.reselectionsMax).toBe(tried.length === 1 ? undefined : 5);
    return Promise.resolve(fakeResponse(503));
  };
  await world({ previousHosts: true, hostSelectionAttemptsMax: 5 }, [step]).run(fakeRequest());
  expect(tried).toEqual([undefined, ['a:1'], ['a:1', 'b:1']]);
});

test('T5 the back-off is spread over [0, (2^n − 1) × 25 ms) and capped at 250 ms', () => {
  const random = seededRandom(2);
  for (const [n, boundMs] of [
    [1, 25],
    [2, 75],
    [3, 175],
    [4, 250],
    [20, 250],
  ] as const) {
    const samples = Array.from({ length: 2000 }, () => backOffMs(POLICY, n, random));
    expect(Math.max(...samples)).toBeLessThan(boundMs);
    expect(Math.max(...samples)).toBeGreaterThan(boundMs * 0.98);
    expect(Math.min(...samples)).toBeLessThan(boundMs * 0.02);
  }
});

test('T7 Retry-After beats the exponential wait, is stretched by up to half, and is ignored above the cap', async () => {
  const resetHeaders = [{ name: 'Retry-After', format: 'SECONDS' as const }];
  const policy: RetryPolicy = { ...POLICY, resetHeaders };
  const random = seededRandom(3);
  const waits = Array.from({ length: 500 }, () => askedBackOffMs(policy, answer(503, { 'retry-after': '10' }), 0, random)!);
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(10_000);
  expect(Math.max(...waits)).toBeLessThan(15_000);
  expect(askedBackOffMs(policy, answer(503, { 'retry-after': '301' }), 0, random)).toBeUndefined();
  expect(askedBackOffMs(policy, answer(503, { 'retry-after': 'soon' }), 0, random)).toBeUndefined();

  const { run, attempts, counts } = world({ resetHeaders }, [answer(503, { 'retry-after': '10' }), 200]);
  await run(fakeRequest());
  expect(attempts[1]!.atMs).toBeGreaterThanOrEqual(10_000);
  expect(counts).toMatchObject({ ratelimited: 1, exponential: 0 });
});

test('T7 a reset header may be a point in time', () => {
  const policy: RetryPolicy = { ...POLICY, resetHeaders: [{ name: 'X-RateLimit-Reset', format: 'UNIX_TIMESTAMP' }] };
  expect(askedBackOffMs(policy, answer(429, { 'x-ratelimit-reset': '1000' }), 995_000, () => 0)).toBe(5000);
});

test('a wait that would end after the deadline is not begun: the answer at hand passes', async () => {
  const { run, attempts, clock } = world({ resetHeaders: [{ name: 'retry-after', format: 'SECONDS' }] }, [
    answer(503, { 'retry-after': '10' }),
    200,
  ]);
  const request = fakeRequest();
  request.info.deadlineMs = 5000;
  expect(await run(request)).toMatchObject({ status: 503 });
  expect([attempts.length, clock.now()]).toEqual([1, 0]);
});

test('T8 with a budget of 20 % and everything failing, retries stay at a fifth of what is under way and the overflow is counted', async () => {
  const { service, attempts, limits, clock, registry } = world({ numRetries: 1 }, [503], {
    retryBudget: { budgetPercent: 20, minRetryConcurrency: 3 },
  });
  for (let i = 0; i < 100; i++) limits.requests.tryTake();

  const all = Array.from({ length: 100 }, () => service(fakeRequest()));
  for (let i = 0; i < 20; i++) await Promise.resolve();
  clock.advance(1000);
  await Promise.all(all);

  expect(attempts.length).toBe(120);
  expect(registry.counter('envoy_cluster_upstream_rq_retry_overflow', { envoy_cluster_name: 'c' }).value).toBe(80);
  expect(limits.retries).toBe(0);
});

test('T8 an attempt that no upstream saw does not use the budget: a dead instance does not fail those that wait for it', async () => {
  const { service, attempts, limits, clock, registry } = world({ numRetries: 1, retryOn: ['connect-failure'] }, ['connectFailed'], {
    retryBudget: { budgetPercent: 20, minRetryConcurrency: 3 },
  });

  const all = Array.from({ length: 100 }, () => service(fakeRequest()).catch(() => undefined));
  for (let i = 0; i < 20; i++) await Promise.resolve();
  clock.advance(1000);
  await Promise.all(all);

  expect(attempts.length).toBe(200);
  expect(registry.counter('envoy_cluster_upstream_rq_retry_overflow', { envoy_cluster_name: 'c' }).value).toBe(0);
  expect(limits.retries).toBe(0);
});

test('T9 a POST that the upstream may have seen is not sent again, unless the route or the client allows it', async () => {
  const post = (headers = {}) => fakeRequest({ method: 'POST', headers });
  const attemptsOf = async (retryOn: string[], step: Step, request: ProxyRequest, more: Partial<RetryPolicy> = {}): Promise<number> => {
    const { run, attempts } = world({ retryOn, ...more }, [step, 200]);
    await run(request);
    return attempts.length;
  };
  for (const step of [503, 'upstreamReset', 'perTryTimeout'] as const) {
    expect(await attemptsOf(['5xx', 'reset', 'gateway-error'], step, post())).toBe(1);
    expect(await attemptsOf(['5xx', 'reset', 'non-idempotent'], step, post())).toBe(2);
    expect(await attemptsOf(['5xx', 'reset'], step, post({ 'Idempotency-Key': 'k1' }))).toBe(2);
    expect(await attemptsOf(['5xx', 'reset'], step, fakeRequest({ method: 'PUT' }))).toBe(2);
  }
  expect(await attemptsOf(['connect-failure'], 'connectFailed', post())).toBe(2);
  expect(await attemptsOf(['refused-stream'], 'upstreamRefused', post())).toBe(2);
  expect(await attemptsOf(['unavailable'], answer(200, { 'grpc-status': '14' }), post())).toBe(2);
  expect(await attemptsOf(['retriable-status-codes'], 503, post(), { retriableStatusCodes: [503] })).toBe(2);
});

/** An attempt that reads the request's body into a sink and then does what it is told. */
function reading(sinks: FakeSink[], then: () => Promise<ProxyResponse>): (request: ProxyRequest) => Promise<ProxyResponse> {
  return (request) => {
    const sink = new FakeSink();
    sinks.push(sink);
    request.body!.pipe(sink);
    return then();
  };
}

test('T10 a streamed body of up to 64 KiB is sent again from its first byte, while it is still coming', async () => {
  const sinks: FakeSink[] = [];
  const body = new FakeBody();
  let fail!: (error: ProxyError) => void;
  const first = reading(sinks, () => new Promise((_, reject) => (fail = reject)));
  let finish!: (response: ProxyResponse) => void;
  const second = reading(sinks, () => new Promise((resolve) => (finish = resolve)));
  const { service, clock } = world({}, [first, second]);
  const request = fakeRequest({ method: 'PUT', body });
  const done = service(request);

  body.sink!.data(Buffer.from('one '));
  request.body!.cancel(new ProxyError('upstreamReset'));
  fail(new ProxyError('upstreamReset'));
  expect([body.cancelled, body.paused]).toEqual([undefined, true]);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  clock.advance(100);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  body.sink!.data(Buffer.from('two'));
  body.sink!.end(undefined);
  finish(fakeResponse(201));

  expect((await done).status).toBe(201);
  expect(sinks.map((sink) => sink.text)).toEqual(['one ', 'one two']);
  expect(sinks[1]!.ended).toBe(true);
});

test('T10 a body above 64 KiB flows through unchanged, is not kept and not retried once it began to flow', async () => {
  for (const length of [undefined, 70_000]) {
    const sinks: FakeSink[] = [];
    const body = new FakeBody(length);
    let fail!: (error: ProxyError) => void;
    const step = reading(sinks, () => new Promise((_, reject) => (fail = reject)));
    const { service, attempts } = world({}, [step]);
    const done = service(fakeRequest({ method: 'PUT', body }));

    for (let i = 0; i < 7; i++) expect(body.sink!.data(Buffer.alloc(10_000, 97 + i))).toBe(true);
    fail(new ProxyError('upstreamReset'));

    await expect(done).rejects.toMatchObject({ code: 'upstreamReset' });
    expect(sinks[0]!.text).toHaveLength(70_000);
    expect(attempts).toHaveLength(1);
    expect(body.cancelled?.code).toBe('upstreamReset');
  }
});

test('T10 bytes that are only lent are copied while they are kept, and go through as they are afterwards', async () => {
  const sinks: FakeSink[] = [];
  const body = new FakeBody();
  let fail!: (error: ProxyError) => void;
  const first = reading(sinks, () => new Promise((_, reject) => (fail = reject)));
  const second = reading(sinks, () => new Promise(() => undefined));
  const { service, clock } = world({}, [first, second]);
  const request = fakeRequest({ method: 'PUT', body });
  void service(request);

  const chunk = Buffer.from('lent');
  expect(body.sink!.lend!(chunk)).toBe(true);
  chunk.fill(0);
  request.body!.cancel(new ProxyError('upstreamReset'));
  fail(new ProxyError('upstreamReset'));
  for (let i = 0; i < 20; i++) await Promise.resolve();
  clock.advance(100);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  expect(sinks[1]!.text).toBe('lent');

  const lent: Buffer[] = [];
  (sinks[1] as BodySink).lend = (bytes) => lent.push(bytes) > 0;
  const large = Buffer.alloc(70_000);
  expect(body.sink!.lend!(large)).toBe(true);
  expect(lent[0]).toBe(large);
});

test('T10 a large body of which nothing was taken may go to another endpoint when the connect failed', async () => {
  const body = new FakeBody(1 << 20);
  const { run, attempts } = world({}, ['connectFailed', 200]);
  expect(await run(fakeRequest({ method: 'POST', body }))).toMatchObject({ status: 200 });
  expect(attempts).toHaveLength(2);
});

test('back-pressure of the upstream reaches the client through the replay', async () => {
  const sinks: FakeSink[] = [];
  const body = new FakeBody();
  const { service } = world({}, [reading(sinks, () => new Promise(() => undefined))]);
  const request = fakeRequest({ method: 'PUT', body });
  void service(request);

  sinks[0]!.room = false;
  expect(body.sink!.data(Buffer.from('x'))).toBe(false);
  request.body!.pause();
  expect(body.paused).toBe(true);
  request.body!.resume();
  expect(body.paused).toBe(false);
});

test('a client that leaves during the wait ends it, and the budget is given back', async () => {
  const { service, clock, limits, attempts } = world({ backOffBaseMs: 10_000, backOffMaxMs: 10_000 }, [503]);
  const request = fakeRequest();
  const done = service(request);
  for (let i = 0; i < 20; i++) await Promise.resolve();
  expect(limits.retries).toBe(1);

  request.abort!(new ProxyError('downstreamReset'));

  await expect(done).rejects.toMatchObject({ code: 'downstreamReset' });
  expect([limits.retries, clock.pending, attempts.length]).toEqual([0, 0, 1]);
});

test('an upgrade that succeeded is never retried', async () => {
  const response = fakeResponse(503);
  response.tunnel = { socket: undefined as never, head: Buffer.alloc(0), closed: () => undefined };
  const { run, attempts } = world({}, [response]);
  expect(await run(fakeRequest({ upgrade: 'websocket' }))).toBe(response);
  expect(attempts).toHaveLength(1);
});

test('T13 three hops that each retry twice multiply the load by the budget per hop, not by three per hop', async () => {
  const clock = new ManualClock();
  const wheel = new Wheel(clock, { tickMs: 1 });
  const budgeted = {
    maxConnections: 9,
    maxPendingRequests: 9,
    maxRequests: 1e6,
    maxRetries: 3,
    trackRemaining: false,
    retryBudget: { budgetPercent: 20, minRetryConcurrency: 3 },
  };
  let reached = 0;
  let service: Service = async () => {
    reached++;
    await sleep(clock, 10);
    return fakeResponse(503);
  };
  for (let hop = 0; hop < 3; hop++) {
    const limits = new Limits(budgeted, envoyScope(createRegistry(), 'cluster', 'cluster.c', {}), 'default');
    const next = service;
    const counted: Service = async (request) => {
      limits.requests.tryTake();
      return next(request).finally(() => limits.requests.give());
    };
    const filter = retry(compileRetryRules(POLICY, 'retry'), {
      clock,
      wheel,
      random: seededRandom(hop),
      budget: () => limits,
      counters: () => undefined,
    });
    service = layered(filter, counted);
  }

  const requests = 400;
  const all: Promise<ProxyResponse>[] = [];
  for (let i = 0; i < requests; i++) all.push(service(fakeRequest()));
  for (let i = 0; i < 400; i++) {
    for (let j = 0; j < 30; j++) await Promise.resolve();
    clock.advance(5);
  }
  await Promise.all(all);

  // Three tries at each of three hops would be 27 times the load; a budget of 20 % allows 1.2 at each.
  expect(reached).toBeGreaterThan(requests);
  expect(reached).toBeLessThanOrEqual(requests * 1.2 ** 3);
});
