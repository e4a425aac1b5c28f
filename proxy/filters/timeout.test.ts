import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { Wheel } from '../../lib/wheel.ts';
import { ProxyError } from '../errors.ts';
import type { ProxyRequest, ProxyResponse, Service } from '../service.ts';
import { FakeBody, FakeSink, fakeRequest, fakeResponse, layered } from '../upstream/fakes.ts';
import { attemptTimeout, routeTimeout } from './timeout.ts';
import type { TimeoutSettings } from './timeout.ts';

const NONE: TimeoutSettings = { timeoutMs: 0, idleTimeoutMs: 0, maxDurationMs: 0 };

/** An upstream that answers when told, and rejects when the request is aborted. */
function slow() {
  let answer!: (response: ProxyResponse) => void;
  const service: Service = (request: ProxyRequest) =>
    new Promise((resolve, reject) => {
      request.abort = reject;
      answer = (response) => {
        request.abort = undefined;
        resolve(response);
      };
    });
  return { service, answer: (response: ProxyResponse) => answer(response) };
}

function world(settings: Partial<TimeoutSettings>) {
  const clock = new ManualClock();
  const wheel = new Wheel(clock, { tickMs: 1 });
  const upstream = slow();
  const timedOut: string[] = [];
  const service = layered(
    routeTimeout({ ...NONE, ...settings }, { clock, wheel, onTimeout: (code) => timedOut.push(code) })!,
    upstream.service,
  );
  return { clock, wheel, upstream, service, timedOut };
}

/** Lets promise callbacks run. */
const settled = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};

test('T6 a route that takes too long ends with 504 UT, and its timer is gone', async () => {
  const { clock, service, timedOut } = world({ timeoutMs: 1000 });
  const done = service(fakeRequest());

  clock.advance(999);
  await settled();
  expect(timedOut).toEqual([]);
  clock.advance(1);

  await expect(done).rejects.toMatchObject({ code: 'upstreamTimeout', row: { status: 504, flag: 'UT' } });
  expect(timedOut).toEqual(['upstreamTimeout']);
  expect(clock.pending).toBe(0);
});

test('an answer in time stops the timer, and info tells the deadline', async () => {
  const { clock, service, upstream, wheel } = world({ timeoutMs: 1000, idleTimeoutMs: 60_000 });
  const request = fakeRequest();
  const done = service(request);
  expect(request.info.deadlineMs).toBe(1000);

  upstream.answer(fakeResponse());

  expect((await done).status).toBe(200);
  expect([wheel.size, clock.pending]).toEqual([0, 0]);
});

test('the time-out goes on until the last byte of the answer and breaks it off', async () => {
  const { clock, service, upstream } = world({ timeoutMs: 1000 });
  const request = fakeRequest();
  const done = service(request);
  const body = new FakeBody();
  upstream.answer(fakeResponse(200, {}, body));
  const sink = new FakeSink();
  (await done).body!.pipe(sink);
  body.sink!.data(Buffer.from('part'));

  clock.advance(1000);

  expect(sink.failed?.code).toBe('upstreamTimeout');
  expect(body.cancelled?.code).toBe('upstreamTimeout');
  expect(request.info.responseFlags).toBe('UT');
});

test('while a body is coming up the route time-out has not begun', async () => {
  const { clock, service } = world({ timeoutMs: 1000 });
  const body = new FakeBody();
  const request = fakeRequest({ method: 'POST', body });
  const done = service(request);
  request.body!.pipe(new FakeSink());

  clock.advance(5000);
  body.sink!.end(undefined);
  clock.advance(999);
  let over = false;
  done.catch(() => (over = true));
  await settled();
  expect(over).toBe(false);
  clock.advance(1);

  await expect(done).rejects.toMatchObject({ code: 'upstreamTimeout' });
});

test('T12 without a time-out nothing ends a long stream, and no filter is there at all', () => {
  const clock = new ManualClock();
  expect(routeTimeout(NONE, { clock, wheel: new Wheel(clock) })).toBeUndefined();
});

test('silence ends a stream, bytes in either direction keep it', async () => {
  const { clock, service, upstream } = world({ idleTimeoutMs: 1000 });
  const done = service(fakeRequest());
  const body = new FakeBody();
  upstream.answer(fakeResponse(200, {}, body));
  const sink = new FakeSink();
  (await done).body!.pipe(sink);

  for (let i = 0; i < 10; i++) {
    clock.advance(700);
    body.sink!.data(Buffer.from('.'));
  }
  expect(sink.failed).toBeUndefined();
  clock.advance(1251);

  expect(sink.failed?.code).toBe('streamIdleTimeout');
});

test('the longest duration counts from the head, whatever flows', async () => {
  const { clock, service, upstream } = world({ maxDurationMs: 2000 });
  const done = service(fakeRequest());
  const body = new FakeBody();
  upstream.answer(fakeResponse(200, {}, body));
  const sink = new FakeSink();
  (await done).body!.pipe(sink);

  clock.advance(2000);

  expect(sink.failed?.code).toBe('maxDuration');
});

test('T6 an attempt that takes too long fails with a code that retries know', async () => {
  const clock = new ManualClock();
  const upstream = slow();
  const service = layered(attemptTimeout(100, { clock, wheel: new Wheel(clock, { tickMs: 1 }) }), upstream.service);
  const done = service(fakeRequest());

  clock.advance(100);

  await expect(done).rejects.toMatchObject({ code: 'perTryTimeout' });
  expect(clock.pending).toBe(0);
});

test('a failure from below stops the timers and passes', async () => {
  const clock = new ManualClock();
  const wheel = new Wheel(clock);
  const service = layered(routeTimeout({ timeoutMs: 10, idleTimeoutMs: 10, maxDurationMs: 10 }, { clock, wheel })!, () =>
    Promise.reject(new ProxyError('connectFailed')),
  );

  await expect(service(fakeRequest())).rejects.toMatchObject({ code: 'connectFailed' });
  expect([wheel.size, clock.pending]).toEqual([0, 0]);
});
