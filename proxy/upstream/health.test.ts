import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import type { HealthCheck } from '../../xds/snapshot.ts';
import { fakeEndpoint } from './fakes.ts';
import { HealthChecks, HealthState } from './health.ts';
import { plainProbe } from './probe.ts';

const CHECK: HealthCheck = {
  timeoutMs: 1000,
  intervalMs: 5000,
  noTrafficIntervalMs: 60_000,
  unhealthyThreshold: 3,
  healthyThreshold: 2,
  check: { kind: 'http', path: '/health', host: 'app.test', expectedStatuses: [] },
};

const settled = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

test('one good answer makes a new endpoint well; later it takes the thresholds in a row', () => {
  const state = new HealthState();
  const run = (...answers: boolean[]): boolean[] =>
    answers.map((well) => {
      state.observe(well, CHECK);
      return state.healthy;
    });

  expect(run(false, true)).toEqual([false, true]);
  expect(run(false, false, true, false, false, false)).toEqual([true, true, true, true, true, false]);
  expect(run(true, false, true, true)).toEqual([false, false, false, true]);
});

function world(busy: boolean) {
  const clock = new ManualClock();
  const changes: string[] = [];
  const state = { answer: (_key: string): Promise<boolean> => Promise.resolve(true), asked: 0, aborted: 0 };
  const checks = new HealthChecks(
    [CHECK],
    {
      clock,
      random: () => 0.5,
      probe: (endpoint, _check, signal) => {
        state.asked++;
        signal.addEventListener('abort', () => state.aborted++);
        return state.answer(endpoint.key);
      },
    },
    () => busy,
    (endpoint, healthy) => changes.push(`${endpoint.key} ${healthy}`),
  );
  return { clock, changes, state, checks };
}

test('endpoints are asked at once and at intervals, and changes are told', async () => {
  const { clock, changes, state, checks } = world(true);
  checks.setEndpoints([fakeEndpoint('a:1'), fakeEndpoint('b:1')]);
  await settled();
  expect(changes).toEqual(['a:1 true', 'b:1 true']);

  state.answer = (key) => (key === 'a:1' ? Promise.reject(new Error('refused')) : Promise.resolve(true));
  for (let i = 0; i < 3; i++) {
    clock.advance(5000);
    await settled();
  }
  expect(changes.slice(2)).toEqual(['a:1 false']);
  expect(state.asked).toBe(8);
});

test('an answer that does not come in time counts as not well and the question is taken back', async () => {
  const { clock, changes, state, checks } = world(true);
  checks.setEndpoints([fakeEndpoint('a:1')]);
  await settled();
  state.answer = () => new Promise(() => undefined);
  for (let i = 0; i < 3; i++) {
    clock.advance(5000);
    await settled();
    clock.advance(1000);
    await settled();
  }
  expect(changes).toEqual(['a:1 true', 'a:1 false']);
  expect(state.aborted).toBe(3);
});

test('without traffic questions are rarer, and those for endpoints that left stop', async () => {
  const { clock, state, checks } = world(false);
  checks.setEndpoints([fakeEndpoint('a:1')]);
  await settled();
  clock.advance(59_000);
  await settled();
  expect(state.asked).toBe(1);
  clock.advance(1000);
  await settled();
  expect(state.asked).toBe(2);

  checks.setEndpoints([]);
  await settled();
  expect(clock.pending).toBe(0);
});

test('the probe asks by HTTP with the configured host and judges the status, or only connects', async () => {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.headers.host} ${request.url}`);
    response.writeHead(request.url === '/health' ? 200 : 503).end('x');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const endpoint = fakeEndpoint(`127.0.0.1:${port}`);
  const probe = plainProbe();
  const http = (path: string, expectedStatuses: { start: number; end: number }[] = []): Promise<boolean> =>
    probe(endpoint, { kind: 'http', path, host: 'app.test', expectedStatuses }, new AbortController().signal);

  expect(await http('/health')).toBe(true);
  expect(await http('/other')).toBe(false);
  expect(await http('/other', [{ start: 503, end: 504 }])).toBe(true);
  expect(seen[0]).toBe('app.test /health');
  expect(await probe(endpoint, { kind: 'tcp' }, new AbortController().signal)).toBe(true);

  await new Promise((resolve) => server.close(resolve));
  expect(await probe(endpoint, { kind: 'tcp' }, new AbortController().signal)).toBe(false);
  await expect(http('/health')).rejects.toThrow();
});
