/** The pool: reuse, limits, queues, failures, aborts. Sockets are real, time is manual. */
import { afterEach, expect, test } from '@jest/globals';
import { ManualClock, systemClock } from '../../lib/clock.ts';
import { DEFAULT_SETTINGS } from '../http1/settings.ts';
import { newRequestHead, readRequestHead } from '../http1/head.ts';
import { newRequest } from '../http1/request.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { ProxyError } from '../errors.ts';
import { downstream, startUpstream, until } from '../../test/conformance/harness.ts';
import type { Answer, Upstream } from '../../test/conformance/harness.ts';
import { Socket } from 'node:net';
import { createDial } from './dial.ts';
import { createPool } from './pool.ts';
import type { Pool, PoolLimits, PoolOptions } from './pool.ts';

let upstream: Upstream;
let pool: Pool;

afterEach(async () => {
  pool.destroy();
  await upstream.close();
});

async function start(options: Partial<PoolOptions> = {}, answer?: Answer): Promise<void> {
  upstream = await startUpstream(answer);
  const clock = options.clock ?? systemClock();
  const dial = createDial({ address: { host: '127.0.0.1', port: upstream.port }, connectTimeoutMs: 1_000, clock });
  pool = createPool({ dial, clock, ...options });
}

function request(path: string): ProxyRequest {
  const head = newRequestHead();
  const text = `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
  readRequestHead(text, Buffer.from(text), 0, 0, text.length - 4, DEFAULT_SETTINGS, head);
  return newRequest(head, downstream(new Socket()), DEFAULT_SETTINGS, 0);
}

/** At most so many connections and so many that wait. */
function limitsOf(connectionsMax: number, pendingMax: number): PoolLimits & { connections: number; pending: number } {
  const limits = {
    connections: 0,
    pending: 0,
    tryConnection: () => limits.connections < connectionsMax && ++limits.connections > 0,
    releaseConnection: () => void limits.connections--,
    tryPending: () => limits.pending < pendingMax && ++limits.pending > 0,
    releasePending: () => void limits.pending--,
  };
  return limits;
}

const codeOf = (promise: Promise<ProxyResponse>): Promise<string> =>
  promise.then(
    (response) => String(response.status),
    (error: unknown) => (error instanceof ProxyError ? error.code : `not a ProxyError: ${String(error)}`),
  );

test('the connection that was used last is used next, and only one is opened for requests in turn', async () => {
  await start();

  for (let i = 0; i < 5; i++) expect((await pool.send(request(`/${i}`))).body?.whole?.toString()).toBe(`/${i}`);

  expect(upstream.connections).toBe(1);
  expect([pool.active, pool.idle, pool.connecting, pool.pending]).toEqual([0, 1, 0, 0]);
});

test('with one connection allowed the others wait for it, in order', async () => {
  const limits = limitsOf(1, 10);
  await start({ limits });

  const answers = await Promise.all(['/a', '/b', '/c'].map((path) => pool.send(request(path))));

  expect(answers.map((answer) => answer.body?.whole?.toString())).toEqual(['/a', '/b', '/c']);
  expect(upstream.connections).toBe(1);
  expect(upstream.requests.map(({ head }) => head.split(' ')[1])).toEqual(['/a', '/b', '/c']);
  expect([limits.connections, limits.pending]).toEqual([1, 0]);
});

test('B2: more than may wait are refused at once', async () => {
  const limits = limitsOf(1, 2);
  await start({ limits }, () => undefined);

  const codes = ['/a', '/b', '/c', '/d'].map((path) => codeOf(pool.send(request(path))));

  // Two wait while the one connection is made; the others are too many.
  expect(await codes[2]).toBe('overflow');
  expect(await codes[3]).toBe('overflow');
  expect(pool.pending).toBe(2);
});

test('an endpoint without any connection gets one past the limit, since it would wait for ever', async () => {
  const limits = limitsOf(0, 10);
  await start({ limits });

  expect(await codeOf(pool.send(request('/a')))).toBe('200');
  expect(limits.connections).toBe(0);
});

test('all counts are back at zero after everything failed', async () => {
  const limits = limitsOf(10, 10);
  await start({ limits }, (_request, socket) => void socket.destroy() as undefined);

  const codes = await Promise.all(['/a', '/b', '/c'].map((path) => codeOf(pool.send(request(path)))));

  expect(codes).toEqual(['upstreamReset', 'upstreamReset', 'upstreamReset']);
  expect([limits.connections, limits.pending, pool.active, pool.idle, pool.connecting, pool.pending]).toEqual([0, 0, 0, 0, 0, 0]);
});

test('a refused connection fails the request that asked for it', async () => {
  const limits = limitsOf(10, 10);
  await start();
  await upstream.close();
  pool = createPool({
    limits,
    clock: systemClock(),
    dial: createDial({ address: { host: '127.0.0.1', port: upstream.port }, connectTimeoutMs: 1_000, clock: systemClock() }),
  });

  expect(await Promise.all([codeOf(pool.send(request('/a'))), codeOf(pool.send(request('/b')))])).toEqual([
    'connectFailed',
    'connectFailed',
  ]);
  expect([limits.connections, limits.pending]).toEqual([0, 0]);
});

test('a connection that does not come in time is given up', async () => {
  const clock = new ManualClock();
  await start({ clock, dial: createDial({ address: { host: '192.0.2.1', port: 9 }, connectTimeoutMs: 250, clock }) });

  const code = codeOf(pool.send(request('/a')));
  clock.advance(250);

  // Where the network answers for it, the address is unreachable at once.
  expect(['connectTimeout', 'connectFailed']).toContain(await code);
  expect(pool.connecting).toBe(0);
});

test('a request can be given up while it waits and while it is under way', async () => {
  const limits = limitsOf(1, 10);
  await start({ limits }, () => undefined);
  const [first, second] = [request('/a'), request('/b')];
  const codes = [codeOf(pool.send(first)), codeOf(pool.send(second))];
  await until('the first is under way', () => upstream.requests.length === 1);

  second.abort!(new ProxyError('upstreamTimeout'));
  first.abort!(new ProxyError('downstreamReset'));

  expect(await Promise.all(codes)).toEqual(['downstreamReset', 'upstreamTimeout']);
  await until('the endpoint is cut off', () => upstream.sockets.size === 0);
  expect([limits.connections, limits.pending]).toEqual([0, 0]);
});

test('max requests per connection closes it and opens another', async () => {
  await start({ client: { maxRequestsPerConnection: 2 } });

  for (let i = 0; i < 4; i++) await pool.send(request(`/${i}`));

  expect(upstream.connections).toBe(2);
  expect(upstream.bytes.match(/Connection: close/g)).toHaveLength(2);
});

test('draining refuses what comes, and what is under way is finished', async () => {
  let answer: (() => void) | undefined;
  await start({}, (_request, socket) => {
    answer = () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    return undefined;
  });
  const code = codeOf(pool.send(request('/a')));
  await until('it is under way', () => answer !== undefined);

  pool.drain();
  expect(await codeOf(pool.send(request('/b')))).toBe('draining');
  answer!();

  expect(await code).toBe('200');
  expect([pool.active, pool.idle]).toEqual([0, 0]);
});
