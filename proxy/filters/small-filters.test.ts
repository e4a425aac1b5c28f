import { expect, test } from '@jest/globals';
import { fakeRequest, layered } from '../upstream/fakes.ts';
import { wholeBody } from '../http1/body.ts';
import { buffer } from './buffer.ts';
import { ConfigReader } from './config.ts';
import { cors } from './cors.ts';
import { fault } from './fault.ts';
import { headerMutation } from './header-mutation.ts';
import { healthCheck } from './health-check.ts';
import { localRateLimit } from './local-ratelimit.ts';
import { answers } from './local-response.ts';
import { errorResponse } from '../http1/error-response.ts';
import { ProxyError } from '../errors.ts';
import { filterHarness, textOf } from './testing.ts';
import type { Body, BodySink } from '../service.ts';

test('a bucket gives its tokens, refuses with the headers of the limit, and fills again by the clock', async () => {
  const harness = filterHarness();
  const service = harness.around(localRateLimit, {
    statPrefix: 'p',
    tokenBucket: { maxTokens: 2, tokensPerFill: 1, fillInterval: '1s' },
    filterEnabled: { defaultValue: { numerator: 100 } },
    filterEnforced: { defaultValue: { numerator: 100 } },
    enableXRatelimitHeaders: 'DRAFT_VERSION_03',
  });
  const at = async (startMs: number): Promise<number> => (await service(fakeRequest({ startMs }))).status;

  expect([await at(0), await at(0), await at(0), await at(999), await at(1000), await at(1000)]).toEqual([200, 200, 429, 429, 200, 429]);
  const refused = await service(fakeRequest({ startMs: 1500 }));
  expect(textOf(refused)).toBe('local_rate_limited');
  expect([
    refused.headers.get('x-ratelimit-limit'),
    refused.headers.get('x-ratelimit-remaining'),
    refused.headers.get('x-ratelimit-reset'),
  ]).toEqual(['2', '0', '1']);
  expect(harness.counts.get('p.http_local_rate_limit.enforced')).toBe(4);
});

test('a bucket that fills too fast, or holds nothing, is refused with field and rule', () => {
  const build = (tokenBucket: Record<string, string | number>) => () => filterHarness().around(localRateLimit, { tokenBucket });

  expect(build({ maxTokens: 1, fillInterval: '0.01s' })).toThrow(/token_?[bB]ucket\.fill_interval: must be at least 50 ms, received 10 ms/);
  expect(build({ maxTokens: 0, fillInterval: '1s' })).toThrow(/maxTokens: must be at least 1, received 0/);
});

test('a delay holds the request for its time and an abort answers in its place, with DI and FI in the log', async () => {
  const harness = filterHarness([0]);
  const service = harness.around(fault, {
    delay: { fixedDelay: '2s', percentage: { numerator: 100 } },
    abort: { httpStatus: 503, percentage: { numerator: 100 } },
  });
  const request = fakeRequest();

  const answer = service(request);
  harness.clock.advance(1999);
  expect(harness.counts.get('fault.aborts_injected')).toBeUndefined();
  harness.clock.advance(1);

  expect((await answer).status).toBe(503);
  expect(request.info.responseFlags).toBe('DI,FI');
  expect(harness.passed).toHaveLength(0);
  expect(harness.clock.pending).toBe(0);
});

test('a client that goes away during a delay ends it', async () => {
  const harness = filterHarness([0]);
  const service = harness.around(fault, { delay: { fixedDelay: '60s', percentage: { numerator: 100 } } });
  const request = fakeRequest();

  const answer = service(request);
  request.abort!(new ProxyError('downstreamReset'));

  await expect(answer).rejects.toThrow('The client went away.');
  expect(harness.clock.pending).toBe(0);
});

test('faults hit their share of requests and only those whose headers match', async () => {
  const harness = filterHarness([0.05, 0.15, 0.05]);
  const config = {
    abort: { httpStatus: 500, percentage: { numerator: 10 } },
    headers: [{ name: 'x-canary', stringMatch: { exact: 'yes' } }],
  };
  const service = harness.around(fault, config);
  const status = async (headers: Record<string, string>): Promise<number> => (await service(fakeRequest({ headers }))).status;

  expect([await status({ 'x-canary': 'yes' }), await status({ 'x-canary': 'yes' }), await status({})]).toEqual([500, 200, 200]);
});

test('a preflight is answered for an allowed origin, and a response is marked', async () => {
  const harness = filterHarness();
  const policy = {
    allowOriginStringMatch: [{ exact: 'https://shop.test' }],
    allowMethods: 'GET',
    allowCredentials: true,
    exposeHeaders: 'x-a',
  };
  const filter = cors.buildForRoute!(new ConfigReader('route', policy), new ConfigReader('l', {}), harness.deps)!;
  const service = filter((request) => Promise.resolve({ ...errorResponse(request, new ProxyError('routeNotFound')), status: 200 }));

  const preflight = await service(
    fakeRequest({ method: 'OPTIONS', headers: { origin: 'https://shop.test', 'access-control-request-method': 'GET' } }),
  );
  const plain = await service(fakeRequest({ headers: { origin: 'https://shop.test' } }));
  const foreign = await service(fakeRequest({ headers: { origin: 'https://evil.test' } }));

  expect(preflight.headers.get('access-control-allow-methods')).toBe('GET');
  expect(plain.headers.get('access-control-allow-origin')).toBe('https://shop.test');
  expect(plain.headers.get('access-control-allow-credentials')).toBe('true');
  expect(foreign.headers.get('access-control-allow-origin')).toBeUndefined();
});

test('headers are set, appended, kept and removed as the actions say, with values from the request', async () => {
  const harness = filterHarness();
  const append = (key: string, value: string, appendAction: string) => ({ append: { header: { key, value }, appendAction } });
  const service = harness.around(headerMutation, {
    mutations: {
      requestMutations: [
        append('x-path', '%REQ(:PATH)%', 'OVERWRITE_IF_EXISTS_OR_ADD'),
        append('x-had', 'new', 'ADD_IF_ABSENT'),
        append('x-none', 'new', 'OVERWRITE_IF_EXISTS'),
        { remove: 'x-secret' },
      ],
      responseMutations: [append('x-status', '%RESPONSE_CODE%', 'APPEND_IF_EXISTS_OR_ADD')],
    },
  });
  const request = fakeRequest({ path: '/p', headers: { 'x-had': 'old', 'x-secret': '1' } });

  const response = await service(request);

  const names = ['x-path', 'x-had', 'x-none', 'x-secret'];
  expect(names.map((name) => request.headers.get(name))).toEqual(['/p', 'old', undefined, undefined]);
  expect(response.headers.get('x-status')).toBe('200');
});

test('a health check is answered by the proxy, and says no when the proxy drains', async () => {
  const harness = filterHarness();
  const config = { headers: [{ name: ':path', stringMatch: { exact: '/healthz' } }] };

  const healthy = await harness.around(healthCheck, config)(fakeRequest({ path: '/healthz' }));
  const filter = healthCheck.build(new ConfigReader('f', config), { ...harness.deps, healthy: () => false })!;
  const sick = await filter(() => Promise.reject(new Error('not reached')))(fakeRequest({ path: '/healthz' }));

  expect([healthy.status, sick.status]).toEqual([200, 503]);
  expect(sick.headers.get('x-envoy-immediate-health-check-fail')).toBe('true');
  expect(harness.passed).toHaveLength(0);
});

test('a buffered body arrives in one piece, and one that is too long is 413', async () => {
  const harness = filterHarness();
  const service = harness.around(buffer, { maxRequestBytes: 8 });
  const flowing = (chunks: string[]): { body: Body; cancelled: () => boolean } => {
    let cancelled = false;
    const pipe = (sink: BodySink): void => {
      for (const chunk of chunks) if (!cancelled) sink.data(Buffer.from(chunk));
      if (!cancelled) sink.end(undefined);
    };
    return {
      body: {
        length: undefined,
        whole: undefined,
        pipe,
        pause: () => undefined,
        resume: () => undefined,
        cancel: () => (cancelled = true),
      },
      cancelled: () => cancelled,
    };
  };
  const long = flowing(['12345', '67890']);

  await service(fakeRequest({ method: 'POST', body: flowing(['ab', 'cd']).body }));
  await expect(service(fakeRequest({ method: 'POST', body: long.body }))).rejects.toThrow(
    'The request body is larger than this route allows. At most 8 bytes are taken.',
  );
  await expect(service(fakeRequest({ method: 'POST', body: wholeBody(Buffer.alloc(9)) }))).rejects.toThrow(/At most 8 bytes/);

  expect(harness.passed[0]!.body?.whole?.toString()).toBe('abcd');
  expect(long.cancelled()).toBe(true);
});

test('errors become sentences for people and trailers for gRPC, with flag and details in the log', async () => {
  const plain = fakeRequest();
  const grpc = fakeRequest({ headers: { 'content-type': 'application/grpc+proto' } });
  const service = layered(answers(), () => Promise.reject(new ProxyError('overflow')));

  const text = await service(plain);
  const trailers = await service(grpc);

  expect([text.status, text.headers.get('x-envoy-overloaded')]).toEqual([503, 'true']);
  expect(textOf(text)).toMatch(/^A circuit breaker of the cluster is open/);
  expect([plain.info.responseFlags, plain.info.responseDetails]).toEqual(['UO', 'upstream_reset_before_response_started{overflow}']);
  expect([trailers.status, trailers.headers.get('grpc-status'), trailers.body]).toEqual([200, '14', undefined]);
  expect(trailers.headers.get('grpc-message')).toMatch(/^A circuit breaker/);
});

test('what nobody expected is a 500 that keeps its cause, and a client that left gets nothing', async () => {
  const request = fakeRequest();

  const answer = await layered(answers(), () => Promise.reject(new TypeError('x is not a function')))(request);

  expect(answer.status).toBe(500);
  expect(textOf(answer)).toBe('The proxy failed while handling this request. x is not a function');
  await expect(layered(answers(), () => Promise.reject(new ProxyError('downstreamReset')))(request)).rejects.toThrow(
    'The client went away.',
  );
  expect(request.info.responseFlags).toBe('DC');
});
