/** The catalogue's connection cases stage by stage: ends and resets of a client wherever it stands, early answers, upgrades that are none, pipelines that go wrong. */
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Socket } from 'node:net';
import { Client, listen, startProxy, startUpstream, statuses, talk, until } from './harness.ts';
import type { Answer, Listening, Proxy, ProxyOptions, Upstream } from './harness.ts';

let upstream: Upstream | undefined;
let raw: Listening | undefined;
let proxy: Proxy;

afterEach(async () => {
  await proxy.close();
  await upstream?.close();
  await raw?.close();
  upstream = raw = undefined;
});

async function start(options: ProxyOptions = {}, answer?: Answer): Promise<Upstream> {
  upstream = await startUpstream(answer);
  proxy = await startProxy(upstream.port, options);
  return upstream;
}

/** An endpoint that does what it wants with a socket. */
async function startRaw(onSocket: (socket: Socket) => void, options: ProxyOptions = {}): Promise<void> {
  raw = await listen(onSocket);
  proxy = await startProxy(raw.port, options);
}

const get = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;
const HI = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi';
const PROBE = get('/probe');
const POST = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n';
const CHUNKED = 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Where a client can stand when it leaves, and whether it has said all that it had to say. */
const STAGES: readonly (readonly [stage: string, bytes: string])[] = [
  ['before a byte', ''],
  ['in the middle of the request line', 'GET /x HT'],
  ['in the middle of the head', 'GET / HTTP/1.1\r\nHos'],
  ['before the last line end of the head', 'GET / HTTP/1.1\r\nHost: a\r\n\r'],
  ['behind the head, before the body', POST],
  ['in the middle of the body', `${POST}hello`],
  ['in the middle of a chunk size', `${CHUNKED}5\r\nhello\r\n1`],
  ['in the middle of a chunk', `${CHUNKED}5\r\nhel`],
  ['before the last chunk', `${CHUNKED}5\r\nhello\r\n`],
  ['in the middle of the trailers', `${CHUNKED}5\r\nhello\r\n0\r\nX: y\r\n`],
];

describe('a client that leaves before its request is whole', () => {
  test.each(STAGES)('case 44: an end %s: nothing is taken for complete, all is released', async (_stage, bytes) => {
    const up = await start();
    const client = new Client(proxy.port);
    await until('it is served', () => proxy.served.size === 1);
    client.write(bytes);
    await pause(20);

    const started = performance.now();
    client.socket.end();
    await until('all is released', () => proxy.served.size === 0 && up.sockets.size === proxy.pool.idle && proxy.pool.active === 0);

    expect(performance.now() - started).toBeLessThan(1_500);
    expect(up.requests).toEqual([]);
  });

  test.each(STAGES)('case 45: a reset %s: the upstream is cancelled within 100 ms', async (_stage, bytes) => {
    const up = await start();
    const client = new Client(proxy.port);
    await until('it is served', () => proxy.served.size === 1);
    client.write(bytes);
    await pause(20);

    const started = performance.now();
    client.socket.resetAndDestroy();
    await until('all is released', () => proxy.served.size === 0 && up.sockets.size === 0 && proxy.pool.active === 0);

    expect(performance.now() - started).toBeLessThan(100);
    expect(up.requests).toEqual([]);
  });

  test('case 45: a reset while the endpoint is being connected to', async () => {
    const up = await start();
    const clients = Array.from({ length: 50 }, () => new Client(proxy.port));
    await until('they are served', () => proxy.served.size === 50);
    for (const client of clients) client.socket.write(get('/x'), () => client.socket.resetAndDestroy());
    await until('all is released', () => proxy.served.size === 0 && proxy.pool.active === 0);
    const { text } = await talk(proxy.port, [PROBE], { until: (so) => so.endsWith('/probe') });

    expect(statuses(text)).toEqual([200]);
    expect(up.sockets.size).toBe(proxy.pool.idle);
  });

  test('case 45: two hundred resets at every stage leave nothing behind', async () => {
    const up = await start();
    for (let i = 0; i < 200; i++) {
      const client = new Client(proxy.port);
      client.socket.write(STAGES[i % STAGES.length]![1], () => client.socket.resetAndDestroy());
      if (i % 20 === 19) await pause(5);
    }
    await pause(50);
    await until('all is released', () => proxy.served.size === 0 && proxy.pool.active === 0 && up.sockets.size === proxy.pool.idle);

    expect(up.requests).toEqual([]);
  });
});

describe('case 47: an answer while the client still sends', () => {
  const EARLY: readonly (readonly [what: string, then: (socket: Socket) => void])[] = [
    ['and stays', () => undefined],
    ['and ends', (socket) => void socket.end()],
    ['and resets', (socket) => void setTimeout(() => socket.resetAndDestroy(), 5)],
    ['and stops reading', (socket) => void socket.pause()],
  ];

  for (const framing of ['Content-Length: 10000000', 'Transfer-Encoding: chunked'])
    test.each(EARLY)(`an endpoint that answers a body with ${framing} early %s`, async (_what, then) => {
      let connections = 0;
      await startRaw((socket) => {
        connections++;
        socket.once('data', (chunk: Buffer) => {
          const probe = chunk.toString('latin1').startsWith('GET /probe');
          socket.write(probe ? HI : 'HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno');
          if (!probe) then(socket);
        });
      });
      const body = framing.startsWith('C') ? 'x'.repeat(65_536) : `10000\r\n${'x'.repeat(65_536)}\r\n`;
      const parts = [`POST / HTTP/1.1\r\nHost: a\r\n${framing}\r\n\r\n`, ...Array.from({ length: 40 }, () => body)];

      const started = performance.now();
      const { text } = await talk(proxy.port, parts, { until: (so) => so.endsWith('no') });
      const probed = await talk(proxy.port, [PROBE], { until: (so) => so.endsWith('hi') });

      expect(performance.now() - started).toBeLessThan(1_000);
      expect(statuses(text)).toEqual([413]);
      expect(text).toContain('\r\nConnection: close\r\n');
      expect(statuses(probed.text)).toEqual([200]);
      expect(connections).toBe(2);
    });

  test('an answer of the proxy itself, with the body still coming, ends the connection and reaches the client', async () => {
    await startRaw((socket) => socket.destroy());
    const parts = [
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n`,
      ...Array.from({ length: 15 }, () => 'x'.repeat(65_536)),
    ];

    const { text, closed } = await talk(proxy.port, parts);

    expect(statuses(text)).toEqual([503]);
    expect(closed).toBe(true);
  });
});

describe('case 48: an endpoint that speaks when it was not asked', () => {
  test.each([
    'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison',
    'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n',
    'x',
    '\r\n',
  ])('%j on an idle connection reaches nobody', async (bytes) => {
    const up = await start({}, () => HI);
    for (let i = 0; i < 20; i++) {
      const client = new Client(proxy.port);
      client.write(get('/a'));
      await until('it is answered', () => client.text.endsWith('hi'));
      for (const socket of up.sockets) socket.write(bytes);
      // Whether the bytes or the next request come first is chance: neither order may mix them up.
      if (i % 2 === 0) await until('the connection is gone', () => proxy.pool.idle === 0);
      client.text = '';
      client.write(get('/b'));
      await until('it is answered', () => client.closed || client.text.length >= HI.length);
      client.socket.destroy();
      if (i % 2 === 0) expect(client.text).toBe(HI);
    }
  });
});

describe('upgrades that are none', () => {
  const UPGRADE = 'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  const SETTINGS = { settings: { upgradeTypes: ['websocket'] } };
  const answerWith =
    (bytes: string): Answer =>
    (request) =>
      request.head.startsWith('GET /ws') ? bytes : HI;

  test.each([
    ['200', HI, HI],
    ['403', 'HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n'],
    [
      '426',
      'HTTP/1.1 426 No\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n',
      'HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n',
    ],
    ['200 in chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n', HI],
  ])('case 22: answered with %s, what was pipelined behind it is the next request', async (_name, bytes, sees) => {
    const up = await start(SETTINGS, answerWith(bytes));

    const { text } = await talk(proxy.port, [UPGRADE + PROBE], { until: (so) => so === sees + HI, withinMs: 1_000 });

    expect(text).toBe(sees + HI);
    expect(up.requests.map(({ head }) => head.split(' ')[1])).toEqual(['/ws', '/probe']);
  });

  test.each([
    ['another protocol', 'HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nx'],
    ['no protocol', 'HTTP/1.1 101 Switching\r\n\r\nx'],
    ['two protocols', 'HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\nx'],
    ['a broken head', 'HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nX : y\r\n\r\nx'],
  ])('case 54: a 101 with %s is 502, and nothing is tunnelled', async (_name, bytes) => {
    const up = await start(SETTINGS, answerWith(bytes));

    const { text } = await talk(proxy.port, [UPGRADE + PROBE], { until: (so) => so.endsWith('hi'), withinMs: 1_000 });

    expect(statuses(text)).toEqual([502, 200]);
    expect(up.requests.map(({ head }) => head.split(' ')[1])).toEqual(['/ws', '/probe']);
  });

  test('case 54: bytes behind an upgrade wait for its answer, and are not sent with the request', async () => {
    let answer: (() => void) | undefined;
    const up = await start(SETTINGS, (_request, socket) => {
      answer = () => socket.write(HI);
      return undefined;
    });
    const client = new Client(proxy.port);
    client.write(`${UPGRADE}\x81\x05hello`);
    await until('the request is there', () => answer !== undefined);
    await pause(30);

    expect(up.bytes.endsWith('\r\n\r\n')).toBe(true);
    answer!();
    await until('it is answered', () => client.closed);
    // What was meant for a tunnel is no request.
    expect(statuses(client.text)).toEqual([200, 400]);
    expect(up.requests).toHaveLength(1);
  });
});

describe('case 21: pipelines', () => {
  const BAD = [
    'GET / HTTP/1.1\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n',
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx',
    `${CHUNKED}zz\r\n`,
    '\0\r\n\r\n',
    'G T / HTTP/1.1\r\nHost: a\r\n\r\n',
  ];

  test.each(BAD)('a bad request %j behind a slow one: first the answer, then the refusal', async (bad) => {
    let answer: (() => void) | undefined;
    const up = await start({}, (_request, socket) => {
      answer = () => socket.write(HI);
      return undefined;
    });
    const client = new Client(proxy.port);
    client.write(get('/slow') + bad + PROBE);
    await until('it is under way', () => answer !== undefined);
    await pause(20);
    expect(client.text).toBe('');
    answer!();
    await until('it is closed', () => client.closed);

    expect(client.text.startsWith(`${HI}HTTP/1.1 400 `)).toBe(true);
    expect(statuses(client.text)).toEqual([200, 400]);
    expect(up.requests).toHaveLength(1);
  });

  test('bodies and answers of every framing follow each other on one connection', async () => {
    const up = await start({}, (request) =>
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${request.body.length.toString(16)}\r\n${request.body}\r\n0\r\n\r\n`.replace(
        /\r\n\r\n0\r\n\r\n\r\n0/,
        '\r\n\r\n0',
      ),
    );
    const requests = [
      `POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none`,
      `POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n`,
      `PUT /3 HTTP/1.1\r\nHost: a\r\nContent-Length: ${PROBE.length}\r\n\r\n${PROBE}`,
    ];

    const { text } = await talk(proxy.port, [requests.join('').repeat(50)], {
      until: (so) => statuses(so).length === 150 && so.endsWith('\r\n\r\n'),
      withinMs: 3_000,
    });

    expect(up.requests.map(({ body }) => body)).toEqual(Array.from({ length: 50 }, () => ['one', 'two', PROBE]).flat());
    expect(statuses(text)).toEqual(Array.from({ length: 150 }, () => 200));
    expect(up.connections).toBe(1);
  });

  test('case 20: nothing behind Connection: close is looked at, whatever it is', async () => {
    for (const extra of [PROBE, 'garbage', '\0\0\0', `${CHUNKED}zz`, get('/b').repeat(500)]) {
      const up = await start();
      const { text, closed } = await talk(proxy.port, [
        `POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi${extra}`,
      ]);

      expect(statuses(text)).toEqual([200]);
      expect(closed).toBe(true);
      expect(up.requests).toHaveLength(1);
      await proxy.close();
      await up.close();
    }
    await start();
  });
});

describe('case 10: Expect: 100-continue', () => {
  const EXPECT = 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n';

  test('a body that does not wait is taken, and 100 comes at most once', async () => {
    const up = await start();

    const { text } = await talk(proxy.port, [`${EXPECT}hello${PROBE}`], { until: (so) => so.endsWith('/probe') });

    expect(statuses(text).filter((status) => status !== 100)).toEqual([200, 200]);
    expect(statuses(text).filter((status) => status === 100).length).toBeLessThanOrEqual(1);
    expect(up.requests.map(({ body }) => body)).toEqual(['hello', '']);
  });

  test('a refusal before the body ends the connection: a body that comes all the same is no request', async () => {
    await start({ service: () => () => Promise.reject(new Error('no')) });
    const client = new Client(proxy.port);
    client.write(EXPECT);
    await until('it is answered', () => client.text.includes('\r\n\r\n'));
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await until('it is closed', () => client.closed);

    expect(statuses(client.text)).toEqual([500]);
    expect(client.text).toContain('\r\nConnection: close\r\n');
  });

  test('HTTP/1.0 has no expectations: none is answered, none goes on', async () => {
    const up = await start();

    const { text } = await talk(proxy.port, ['POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello']);

    expect(statuses(text)).toEqual([200]);
    expect(up.bytes).toBe('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello');
  });
});
