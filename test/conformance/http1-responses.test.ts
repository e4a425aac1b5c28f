/** Every response of the catalogue of bad inputs that concerns HTTP/1.1: a 502, a canonical answer, or a cut that nobody takes for the end. */
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Socket } from 'node:net';
import { startProxy, startUpstream, statuses, talk } from './harness.ts';
import type { Answer, Conversation, Proxy, Upstream } from './harness.ts';

let upstream: Upstream;
let proxy: Proxy;

afterEach(async () => {
  await proxy.close();
  await upstream.close();
});

const GET = 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n';
const PROBE = 'GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n';
const PROBED = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nprobed';

/** Answers everything but the probe with `bytes`, then does `after`. */
const say =
  (bytes: string, after?: (socket: Socket) => void): Answer =>
  (request, socket) => {
    if (request.head.startsWith('GET /probe')) return PROBED;
    socket.write(Buffer.from(bytes, 'latin1'));
    after?.(socket);
    return undefined;
  };

const end = (socket: Socket): void => void socket.end();
const reset = (socket: Socket): void => void setImmediate(() => socket.resetAndDestroy());

async function ask(answer: Answer, request = GET): Promise<Conversation & { ms: number }> {
  upstream = await startUpstream(answer);
  proxy = await startProxy(upstream.port);
  const started = performance.now();
  const conversation = await talk(proxy.port, [request + PROBE], { until: (text) => text.endsWith('probed') });
  return { ...conversation, ms: performance.now() - started };
}

const okay = (fields: string, body = ''): string => `HTTP/1.1 200 OK\r\n${fields}\r\n${body}`;
const chunked = (body: string): string => okay('Transfer-Encoding: chunked\r\n', body);

const BAD_GATEWAY: readonly (readonly [number: string, name: string, bytes: string, after?: (socket: Socket) => void])[] = [
  ['40', 'a head of 70 KiB', okay(`X: ${'a'.repeat(70_000)}\r\n`)],
  ['40', 'a head of a MiB', okay(`X: ${'a'.repeat(1_048_576)}\r\n`)],
  ['40', '200 fields', okay('X: y\r\n'.repeat(200))],
  ['46', 'an end in the middle of the head', 'HTTP/1.1 200 OK\r\nContent-', end],
  ['50', 'a 101 that nobody asked for', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
  ['50', '17 interim responses', 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(17)],
  ['52', 'Content-Length and Transfer-Encoding', okay('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['52', 'two lengths', okay('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello')],
  ['52', 'two lengths that differ', okay('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello')],
  ['52', 'a length that is none', okay('Content-Length: 0x5\r\n', 'hello')],
  ['52', 'a negative length', okay('Content-Length: -5\r\n', 'hello')],
  ['52', 'a bare LF', 'HTTP/1.1 200 OK\nContent-Length: 5\n\nhello'],
  ['52', 'a bare LF in a field', 'HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello'],
  ['52', 'a folded field', okay('X: y\r\n z\r\nContent-Length: 5\r\n', 'hello')],
  ['52', 'NUL in a value', okay('X: y\0z\r\nContent-Length: 5\r\n', 'hello')],
  ['52', 'CR in a value', okay('X: y\rz\r\nContent-Length: 5\r\n', 'hello')],
  ['52', 'a space before the colon', okay('Content-Length : 5\r\n', 'hello')],
  ['52', 'status 99', 'HTTP/1.1 099 X\r\nContent-Length: 5\r\n\r\nhello'],
  ['52', 'status 1000', 'HTTP/1.1 1000 X\r\nContent-Length: 5\r\n\r\nhello'],
  ['52', 'a status in letters', 'HTTP/1.1 abc X\r\nContent-Length: 5\r\n\r\nhello'],
  ['52', 'HTTP/2.0 in text', 'HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello'],
  ['52', 'HTTP/1.0 with chunked', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ['52', 'an unknown transfer coding', okay('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n')],
  ['52', 'no HTTP at all', 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
  ['52', 'a broken first chunk', chunked('zz\r\nhello\r\n0\r\n\r\n')],
];

describe('502, and the endpoint’s connection is not used again', () => {
  for (const [number, name, bytes, after] of BAD_GATEWAY)
    test(`case ${number}: ${name}`, async () => {
      const { text, ms } = await ask(say(bytes, after));

      const [first] = statuses(text.replaceAll(/HTTP\/1\.1 102[^]*?\r\n\r\n/g, ''));
      // An end in the middle of a head is the endpoint closing before it answered: 503.
      expect([502, 503]).toContain(first);
      expect(text.endsWith('probed')).toBe(true);
      expect(ms).toBeLessThan(1_000);
      expect(proxy.pool.idle).toBe(1);
    });
});

const TRUNCATED: readonly (readonly [number: string, name: string, bytes: string, after: (socket: Socket) => void])[] = [
  ['46', 'an end before the length is reached', okay('Content-Length: 10\r\n', 'hello'), end],
  ['46', 'a reset before the length is reached', okay('Content-Length: 10\r\n', 'hello'), reset],
  ['46', 'an end in the middle of a chunk', chunked('a\r\nhello'), end],
  ['46', 'an end without the last chunk', chunked('5\r\nhello\r\n'), end],
  ['46', 'a reset without the last chunk', chunked('5\r\nhello\r\n'), reset],
  ['46', 'an end in the trailers', chunked('5\r\nhello\r\n0\r\nX: y\r\n'), end],
  ['46', 'a reset of a body that only the close ends', okay('', 'hello'), reset],
];

describe('a body that breaks off is never passed on as complete', () => {
  for (const [number, name, bytes, after] of TRUNCATED)
    test(`case ${number}: ${name}`, async () => {
      const { text, closed, ms } = await ask(say(bytes, after));

      expect(closed).toBe(true);
      expect(ms).toBeLessThan(1_000);
      // Either nothing came, or a message whose own framing says that it is not whole; and never the probe's answer after it.
      expect(text).not.toContain('probed');
      expect(text.endsWith('0\r\n\r\n')).toBe(false);
      if (text.includes('Content-Length: 10')) expect(text.split('\r\n\r\n')[1]!.length).toBeLessThan(10);
      else if (text !== '') expect(text).toContain('Transfer-Encoding: chunked');
    });
});

describe('answers in canonical form', () => {
  const CANONICAL: readonly (readonly [
    number: string,
    name: string,
    bytes: string,
    clientSees: string,
    reused: boolean,
    request?: string,
  ])[] = [
    [
      '50',
      'interim responses go on',
      'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n' + okay('Content-Length: 2\r\n', 'hi'),
      'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
      true,
    ],
    [
      '50',
      '100 that nobody waits for is dropped',
      'HTTP/1.1 100 Continue\r\n\r\n' + okay('Content-Length: 2\r\n', 'hi'),
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
      true,
    ],
    ['51', '204 with a length', 'HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi', 'HTTP/1.1 204 No Content\r\n\r\n', false],
    [
      '51',
      '204 with chunks',
      'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
      'HTTP/1.1 204 No Content\r\n\r\n',
      false,
    ],
    [
      '51',
      '304 keeps its length',
      'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 7\r\n\r\n',
      'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 7\r\n\r\n',
      true,
    ],
    [
      '51',
      'HEAD keeps its length',
      okay('Content-Length: 7\r\n'),
      'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n',
      true,
      'HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n',
    ],
    [
      '51',
      'HEAD with a body',
      okay('Content-Length: 2\r\n', 'hi'),
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n',
      false,
      'HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n',
    ],
    ['52', 'no reason', 'HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi', 'HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi', true],
    ['52', 'an unknown status', 'HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi', 'HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi', true],
    [
      '48',
      'bytes after the answer',
      okay('Content-Length: 2\r\n', 'hiHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'),
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
      false,
    ],
    [
      '48',
      'bytes after the last chunk',
      chunked('2\r\nhi\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n'),
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
      false,
    ],
    [
      '35',
      'fields that end at this hop',
      okay('Connection: keep-alive, X-Y\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: a\r\nX-Y: z\r\nContent-Length: 2\r\n', 'hi'),
      'HTTP/1.1 200 OK\r\nX-Y: z\r\nContent-Length: 2\r\n\r\nhi',
      true,
    ],
    [
      '39',
      'trailers',
      chunked('2;ext=1\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n'),
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n',
      true,
    ],
    [
      '53',
      'an HTTP/1.0 answer with a length',
      'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi',
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
      false,
    ],
    [
      'R5',
      'the case and order of names',
      okay('zEta: 1\r\nALPHA: 2\r\nContent-Length: 2\r\n', 'hi'),
      'HTTP/1.1 200 OK\r\nzEta: 1\r\nALPHA: 2\r\nContent-Length: 2\r\n\r\nhi',
      true,
    ],
  ];

  for (const [number, name, bytes, clientSees, reused, request] of CANONICAL)
    test(`case ${number}: ${name}`, async () => {
      const { text, ms } = await ask(say(bytes), request);

      expect(text).toBe(clientSees + PROBED);
      expect(ms).toBeLessThan(1_000);
      expect(upstream.requests).toHaveLength(2);
      // The probe went over the same connection only if nothing spoke against it.
      expect(upstream.connections).toBe(reused ? 1 : 2);
      expect(proxy.pool.active + proxy.pool.idle).toBe(1);
    });

  test('case 53: a body that only the close ends goes on in chunks', async () => {
    const { text } = await ask(say(okay('', 'hello'), end));

    expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP\/1\.1 200 OK/);
    expect(text.endsWith('probed')).toBe(true);
  });

  test('case 53: to a client of HTTP/1.0 the close ends it', async () => {
    const { text, closed } = await ask(say(okay('', 'hello'), end), 'GET /x HTTP/1.0\r\nHost: a\r\n\r\n');

    expect(text).toBe('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello');
    expect(closed).toBe(true);
  });

  test('case 48: bytes on an idle connection destroy it', async () => {
    let socket: Socket | undefined;
    upstream = await startUpstream((request, from) => {
      socket = from;
      return request.head.startsWith('GET /probe') ? PROBED : 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi';
    });
    proxy = await startProxy(upstream.port);
    await talk(proxy.port, [GET], { until: (text) => text.endsWith('hi') });
    expect(proxy.pool.idle).toBe(1);

    socket!.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison');
    await new Promise<void>((resolve) => socket!.once('close', resolve));
    const { text } = await talk(proxy.port, [PROBE], { until: (so) => so.endsWith('probed') });

    expect(text).toBe(PROBED);
  });
});
