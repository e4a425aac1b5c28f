/** The catalogue's response cases variant by variant: what an endpoint can get wrong, byte by byte, and what a client then must and must not see. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Socket } from 'node:net';
import { startProxy, startUpstream, statuses, talk } from './harness.ts';
import type { Answer, Conversation, Proxy, Upstream } from './harness.ts';

let upstream: Upstream;
let proxy: Proxy;
let behave: Answer;

beforeAll(async () => {
  upstream = await startUpstream((request, socket) => (request.head.startsWith('GET /probe') ? PROBED : behave(request, socket)));
});

beforeEach(async () => {
  proxy = await startProxy(upstream.port, { settings: { upgradeTypes: ['websocket'] } });
  upstream.requests.length = 0;
});

afterEach(() => proxy.close());

afterAll(() => upstream.close());

const GET = 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n';
const PROBE = 'GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n';
const PROBED = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nprobed';

type After = (socket: Socket) => void;
const end: After = (socket) => void socket.end();
const reset: After = (socket) => void socket.resetAndDestroy();

/** Answers with `bytes`, waits until they are with the kernel, then does `after`. */
const say =
  (bytes: string, after?: After): Answer =>
  (_request, socket) => {
    socket.write(Buffer.from(bytes, 'latin1'), () => after !== undefined && setImmediate(after, socket));
    return undefined;
  };

async function ask(answer: Answer, request = GET): Promise<Conversation & { ms: number }> {
  behave = answer;
  const started = performance.now();
  const conversation = await talk(proxy.port, [request + PROBE], { until: (text) => text.endsWith('probed') });
  return { ...conversation, ms: performance.now() - started };
}

const okay = (fields: string, body = ''): string => `HTTP/1.1 200 OK\r\n${fields}\r\n${body}`;
const chunked = (body: string): string => okay('Transfer-Encoding: chunked\r\n', body);
const LAST = '0\r\n\r\n';
const HELLO = 'Content-Length: 5\r\n';
const words = (text: string): string[] => text.split(' ');
const byte = (code: number): string => String.fromCharCode(code);
const CONTROLS = [...Array.from({ length: 32 }, (_, code) => byte(code)), '\x7f'];
const ODD = [' ', '\t', '\v', '\f', '\0', '\x85', '\xa0', '\x7f', '\\', '\xc5\xbf'];

/** A small answer, the end of each line replaced by what is nearly one. */
const LINES = ['HTTP/1.1 200 OK', 'Server: x', 'Transfer-Encoding: chunked', '', '5', 'hello', '0', 'X-Sum: 1', ''];
const LINE_ENDS = ['\n', '\r', '\r\r\n', '\n\r', '\n\r\n', '\n\n', '\0\r\n', '\v\r\n', '\r\0\n'];
const brokenLine = (i: number, ending: string): string => LINES.map((line, k) => line + (k === i ? ending : '\r\n')).join('');

const BAD_GATEWAY: readonly { readonly name: string; readonly variants: readonly string[] }[] = [
  {
    name: 'case 40: heads past a limit',
    variants: [
      okay(`X: ${'a'.repeat(70_000)}\r\n`),
      okay(`${'X: y\r\n'.repeat(101)}`),
      okay(`${'X: y\r\n'.repeat(15_000)}`),
      okay(`X: ${'a'.repeat(1_048_576)}\r\n`),
      `HTTP/1.1 200 ${'a'.repeat(70_000)}\r\n\r\n`,
      'a'.repeat(70_000),
      `HTTP/1.1 103 Early Hints\r\n\r\n${okay(`X: ${'a'.repeat(70_000)}\r\n`)}`,
    ],
  },
  {
    name: 'case 50: interim responses that may not be',
    variants: [
      'HTTP/1.1 101 Switching Protocols\r\n\r\n',
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n',
      'HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n',
      'HTTP/1.1 100 Continue\r\n\r\n'.repeat(50),
      'HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n'.repeat(50),
      'HTTP/1.1 199 X\r\n\r\n'.repeat(17),
      'HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello',
      'HTTP/1.1 100 Continue\r\nX: y\0\r\n\r\n',
      'HTTP/1.1 099 X\r\n\r\n',
    ],
  },
  {
    name: 'case 52: status lines that are none',
    variants: [
      ...words('099 000 1000 99 9 0x200 +200 -200 2oo 20 2e2 200OK 200.0 OK'),
      '',
      ' 200 OK',
      '200\tOK',
      '\xb200 OK',
      '200 OK\0',
      '200 O\rK',
      '200 \x7f',
    ]
      .map((status) => `HTTP/1.1 ${status}\r\n${HELLO}\r\nhello`)
      .concat(
        [
          'HTTP/2.0',
          'HTTP/1.2',
          'HTTP/0.9',
          'HTTP/1',
          'HTTP/11',
          'HTTP/1.10',
          'http/1.1',
          'HTTPS/1.1',
          'ICY',
          'HTTP/1.1\t',
          '',
          ' HTTP/1.1',
          'HTTP /1.1',
          '\0HTTP/1.1',
        ].map((version) => `${version} 200 OK\r\n${HELLO}\r\nhello`),
        [
          `\r\n${okay(HELLO, 'hello')}`,
          `\n${okay(HELLO, 'hello')}`,
          '\r\n\r\n',
          '<html>hello</html>\r\n\r\n',
          '220 smtp ready\r\n\r\n',
          'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
        ],
      ),
  },
  {
    name: 'case 52: what cannot become a head is not waited for',
    variants: [
      'hello',
      'x',
      '220 smtp ready\r\n',
      '<html>',
      '\r\n',
      ' HTTP/1.1 200',
      'HTTP/2',
      'HTTP/1.1 200 OK\n',
      'http/1.1 200 OK\r\n',
      '\x15\x03\x03\0\x02\x02\x46',
      '\0\0\x12\x04\0\0\0\0\0',
    ],
  },
  {
    name: 'case 52: both framings, doubled or odd ones',
    variants: [
      okay(`${HELLO}Transfer-Encoding: chunked\r\n`, LAST),
      okay(`Transfer-Encoding: chunked\r\n${HELLO}`, LAST),
      okay('content-length: 0\r\nX: y\r\nTRANSFER-ENCODING: chunked\r\n', LAST),
      okay(`${HELLO}Content-Length: 5\r\n`, 'hello'),
      okay(`${HELLO}Content-Length: 6\r\n`, 'hello'),
      okay('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', LAST),
      okay('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', LAST),
      ...[
        ',chunked',
        'chunked,',
        'chunked, chunked',
        'identity',
        '',
        '"chunked"',
        'chunked;x=y',
        'xchunked',
        'gzip, chunked',
        'gzip',
        'chunked, identity',
        'chunked\xa0',
      ].map((value) => okay(`Transfer-Encoding: ${value}\r\n`, LAST)),
      ...[
        '+5',
        '-5',
        '0x5',
        '5e0',
        '5.0',
        '5_0',
        '010',
        '5 5',
        '',
        '18446744073709551621',
        '0,5',
        '5, 5',
        '5,5',
        '5;',
        '"5"',
        '5\xa0',
        '9007199254740992',
      ].map((value) => okay(`Content-Length: ${value}\r\n`, 'hello')),
      'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
  },
  ...['Transfer-Encoding: chunked', 'Content-Length: 5'].map((line) => {
    const [name, value] = line.split(': ') as [string, string];
    return {
      name: `case 52: ${name} with an odd byte before, in, after its name`,
      variants: [
        ...ODD.flatMap((char) => [`${char}${name}: ${value}`, `${name}${char}: ${value}`, `${name[0]}${char}${name.slice(1)}: ${value}`]),
        ...[...ODD, '_'].map((char) => `${name.replace('-', char)}: ${value}`),
      ].map((variant) => okay(`Server: x\r\n${variant}\r\n`, LAST)),
    };
  }),
  {
    name: 'case 52: folded lines, bytes that no name and no value has',
    variants: [
      ...['X: a\r\n b', 'X: a\r\n\tb', 'X:\r\n b', 'X: a\r\n ', ' X: y', '\tX: y', 'X : y', ': y', 'X', 'X\xe9: y', 'X(: y', 'X Y: z'].map(
        (line) => okay(`${line}\r\n${HELLO}`, 'hello'),
      ),
      ...CONTROLS.filter((char) => char !== '\t').flatMap((char) => [
        okay(`X: y${char}z\r\n${HELLO}`, 'hello'),
        okay(`X${char}Y: z\r\n${HELLO}`, 'hello'),
      ]),
    ],
  },
  {
    name: 'case 52: line ends of the head and of the first chunk that are none',
    variants: [0, 1, 2, 3, 4].flatMap((i) => LINE_ENDS.map((ending) => brokenLine(i, ending))),
  },
  {
    name: 'case 52: broken coding in the first read',
    variants: [
      'zz\r\nhello\r\n',
      '5 \r\nhello\r\n',
      '0x5\r\nhello\r\n',
      '-5\r\nhello\r\n',
      '\r\nhello\r\n',
      '5\r\nhelloXX',
      '5;\r\nhello\r\n',
      '5\nhello\r\n',
      'ffffffffffffffffff\r\nhello\r\n',
      `5;${'a'.repeat(20_000)}\r\nhello\r\n`,
    ].map((body) => chunked(body + LAST)),
  },
];

describe('502, and the endpoint’s connection is not used again', () => {
  test.each(BAD_GATEWAY)('$name', async ({ variants }) => {
    const wrong: string[] = [];
    for (const bytes of variants) {
      const before = upstream.connections;
      const { text, ms } = await ask(say(bytes));
      const final = statuses(text).filter((status) => status >= 200);
      // The probe cannot have gone over the connection that was wrong.
      const fresh = upstream.connections - before >= 1;
      if (final.length === 2 && final[0] === 502 && text.endsWith('probed') && ms < 1_000 && fresh && proxy.pool.idle === 1) continue;
      wrong.push(
        `${JSON.stringify(bytes.slice(0, 200))} (${ms.toFixed()} ms, ${proxy.pool.idle} idle): ${JSON.stringify(text.slice(0, 300))}`,
      );
    }

    expect(wrong).toEqual([]);
  });
});

/** What a client can tell about the first final answer in `text`: is it whole by its own framing? */
function isWhole(text: string): boolean {
  const from = text.replace(/^(?:HTTP\/1\.1 1\d\d [^]*?\r\n\r\n)*/, '');
  const stop = from.indexOf('\r\n\r\n');
  if (stop === -1) return false;
  const head = from.slice(0, stop + 2);
  const body = from.slice(stop + 4);
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(head);
  if (length !== null) return body.length >= Number(length[1]);
  if (!/\r\ntransfer-encoding: chunked\r\n/i.test(head)) return true;
  for (let at = 0; ;) {
    const eol = body.indexOf('\r\n', at);
    if (eol === -1) return false;
    const size = Number.parseInt(body.slice(at, eol), 16);
    at = eol + 2 + (size === 0 ? 0 : size + 2);
    if (size === 0) return body.startsWith('\r\n', at) || body.indexOf('\r\n\r\n', at) !== -1;
  }
}

describe('case 46: an answer that breaks off at any byte is never passed on as complete', () => {
  const WHOLE: readonly (readonly [name: string, bytes: string])[] = [
    ['a length', okay('Server: x\r\nContent-Length: 5\r\n', 'hello')],
    ['chunks and trailers', chunked(`3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n`)],
    ['chunks behind an interim response', `HTTP/1.1 103 Early Hints\r\n\r\n${chunked(`5\r\nhello\r\n${LAST}`)}`],
  ];
  const HOW: readonly (readonly [name: string, how: After])[] = [
    ['an end', end],
    ['a reset', reset],
  ];

  for (const [framing, whole] of WHOLE)
    test.each(HOW)(`${framing}, %s`, async (_name, how) => {
      const wrong: string[] = [];
      const head = whole.lastIndexOf('HTTP/1.1');
      const headEnd = whole.indexOf('\r\n\r\n', head) + 4;
      for (let at = 0; at < whole.length; at++) {
        const { text, closed, ms } = await ask(say(whole.slice(0, at), how));
        const final = statuses(text).filter((status) => status >= 200);
        // Before the head was whole nothing went on: an answer of our own, and the next request is served.
        const own = final.length === 2 && (final[0] === 503 || final[0] === 502) && text.endsWith('probed');
        // After that: cut, with a message that is not whole by its own framing, or nothing at all.
        const broken = closed && !text.includes('probed') && (text === '' || !isWhole(text));
        if (ms < 1_000 && (at < headEnd ? own : own || broken)) continue;
        wrong.push(`after ${at} bytes (${ms.toFixed()} ms, closed ${closed}): ${JSON.stringify(text)}`);
      }
      // The check itself must know a whole answer.
      const { text } = await ask(say(whole));

      expect(wrong).toEqual([]);
      expect(isWhole(text.slice(0, -PROBED.length))).toBe(true);
      expect(text.endsWith('probed')).toBe(true);
    });

  test.each(HOW)('to a client of HTTP/1.0, for whom only the close ends a body, %s is a reset', async (_name, how) => {
    for (const bytes of [chunked('5\r\nhello\r\n'), chunked('a\r\nhello'), chunked('5\r\nhello\r\n0\r\nX: y\r\n')]) {
      const { text, reset: cut, closed } = await ask(say(bytes, how), 'GET /x HTTP/1.0\r\nHost: a\r\n\r\n');

      expect([closed, cut || text === '']).toEqual([true, true]);
      expect(text).not.toContain('probed');
    }
  });

  test.each(HOW)('broken chunks after the first read, then %s', async (_name, how) => {
    const wrong: string[] = [];
    const broken = [5, 6, 7, 8]
      .flatMap((i) => LINE_ENDS.map((ending) => brokenLine(i, ending)))
      .concat(chunked('5\r\nhello\r\nzz\r\n'), chunked('5\r\nhello\r\n-1\r\n'));
    for (const bytes of broken) {
      const split = bytes.indexOf('hel') + 3;
      const answer: Answer = (_request, socket) => {
        socket.write(Buffer.from(bytes.slice(0, split), 'latin1'), () =>
          setTimeout(() => say(bytes.slice(split), how)({ head: '', body: '' }, socket), 2),
        );
        return undefined;
      };
      const { text, closed, ms } = await ask(answer);
      if (ms < 1_000 && closed && !text.includes('probed') && (text === '' || !isWhole(text))) continue;
      wrong.push(`${JSON.stringify(bytes)} (${ms.toFixed()} ms, closed ${closed}): ${JSON.stringify(text)}`);
    }

    expect(wrong).toEqual([]);
  });
});

interface Canonical {
  readonly name: string;
  /** Request, what the endpoint says, what the client sees, may the endpoint's connection be used again. */
  readonly variants: readonly (readonly [request: string, bytes: string, sees: string, reused: boolean])[];
}

const HI = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi';
const HEAD = 'HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n';
const status = (code: number, fields: string, body = ''): string => `HTTP/1.1 ${code} X\r\n${fields}\r\n${body}`;

const CANONICAL: readonly Canonical[] = [
  {
    name: 'case 50: up to 16 interim responses go on, 100 only to who waits for it',
    variants: [
      [
        GET,
        'HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n'.repeat(16) + HI,
        'HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n'.repeat(16) + HI,
        true,
      ],
      [GET, 'HTTP/1.1 100 Continue\r\n\r\n'.repeat(16) + HI, HI, true],
      [
        GET,
        `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\nX: y\r\n\r\n${HI}`,
        `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Odd\r\nX: y\r\n\r\n${HI}`,
        true,
      ],
      [GET, `HTTP/1.1 103 Early Hints\r\nConnection: close\r\nKeep-Alive: x\r\n\r\n${HI}`, `HTTP/1.1 103 Early Hints\r\n\r\n${HI}`, true],
      [GET, `${HI}HTTP/1.1 103 Early Hints\r\n\r\n`, HI, false],
      [GET, `${HI}HTTP/1.1 100 Continue\r\n\r\n`, HI, false],
    ],
  },
  {
    name: 'case 51: answers that have no body, whatever they say and send',
    variants: [
      [HEAD, okay('Content-Length: 7\r\n'), okay('Content-Length: 7\r\n'), true],
      [HEAD, okay('Content-Length: 2\r\n', 'hi'), okay('Content-Length: 2\r\n'), false],
      [HEAD, chunked(''), okay('Content-Length: 0\r\n').replace('Content-Length: 0\r\n', ''), true],
      [HEAD, chunked(`2\r\nhi\r\n${LAST}`), okay(''), false],
      [HEAD, okay(''), okay(''), true],
      [GET, status(204, ''), status(204, ''), true],
      [GET, status(204, 'Content-Length: 0\r\n'), status(204, ''), true],
      [GET, status(204, 'Content-Length: 2\r\n', 'hi'), status(204, ''), false],
      [GET, status(204, '', 'hi'), status(204, ''), false],
      [GET, status(204, 'Transfer-Encoding: chunked\r\n', `2\r\nhi\r\n${LAST}`), status(204, ''), false],
      [GET, status(304, 'Content-Length: 7\r\n'), status(304, 'Content-Length: 7\r\n'), true],
      [GET, status(304, 'Content-Length: 2\r\n', 'hi'), status(304, 'Content-Length: 2\r\n'), false],
      [GET, status(304, '', 'hi'), status(304, ''), false],
      [GET, status(304, 'Transfer-Encoding: chunked\r\n', LAST), status(304, ''), false],
      [GET, status(205, 'Content-Length: 0\r\n'), status(205, 'Content-Length: 0\r\n'), true],
      [GET, status(200, 'Content-Length: 0\r\n'), status(200, 'Content-Length: 0\r\n'), true],
    ],
  },
  {
    name: 'case 48: bytes behind an answer are nobody’s answer',
    variants: [
      [GET, `${HI}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison`, HI, false],
      [GET, `${HI}x`, HI, false],
      [GET, `${HI}\r\n`, HI, false],
      [GET, chunked(`2\r\nhi\r\n${LAST}HTTP/1.1 200 OK\r\n\r\n`), HI, false],
      [GET, chunked(`2\r\nhi\r\n${LAST}0`), HI, false],
      [HEAD, `${okay('Content-Length: 2\r\n')}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison`, okay('Content-Length: 2\r\n'), false],
      [GET, `${status(304, '')}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison`, status(304, ''), false],
    ],
  },
  {
    name: 'case 52: odd answers that are valid',
    variants: [
      [GET, 'HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi', 'HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi', true],
      [GET, 'HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi', 'HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi', true],
      [GET, 'HTTP/1.1 200 OK \t \xe9\r\nContent-Length: 2\r\n\r\nhi', 'HTTP/1.1 200 OK \t \xe9\r\nContent-Length: 2\r\n\r\nhi', true],
      [GET, status(999, 'Content-Length: 2\r\n', 'hi'), status(999, 'Content-Length: 2\r\n', 'hi'), true],
      [GET, okay('content-LENGTH:\t2 \r\n', 'hi'), HI, true],
      [GET, okay('transfer-encoding: CHUNKED\r\n', `2\r\nhi\r\n${LAST}`), HI, true],
      [
        GET,
        okay('Host: b\r\nExpect: c\r\nX_Y: z\r\nContent-Length: 2\r\n', 'hi'),
        okay('Host: b\r\nExpect: c\r\nX_Y: z\r\nContent-Length: 2\r\n', 'hi'),
        true,
      ],
      [
        GET,
        okay('Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n', 'hi'),
        okay('Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n', 'hi'),
        true,
      ],
      [GET, okay('Connection: close\r\nContent-Length: 2\r\n', 'hi'), HI, false],
      [
        GET,
        okay('Connection: X, Set-Cookie\r\nX: y\r\nSet-Cookie: a\r\nContent-Length: 2\r\n', 'hi'),
        okay('X: y\r\nSet-Cookie: a\r\nContent-Length: 2\r\n', 'hi'),
        true,
      ],
      [GET, okay('Upgrade: h2c\r\nContent-Length: 2\r\n', 'hi'), HI, true],
      [GET, 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi', HI, true],
    ],
  },
  {
    name: 'case 39: trailers of an answer, without those that may not be',
    variants: [
      ...words('Content-Length Transfer-Encoding Host Connection Trailer Set-Cookie Content-Type Content-Encoding Cache-Control').map(
        (name): [string, string, string, boolean] => [
          GET,
          chunked(`2\r\nhi\r\n0\r\n${name}: x\r\ngrpc-status: 0\r\n\r\n`),
          `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 0\r\n\r\n`,
          true,
        ],
      ),
    ],
  },
];

describe('answers in canonical form', () => {
  test.each(CANONICAL)('$name', async ({ variants }) => {
    const wrong: string[] = [];
    for (const [request, bytes, sees, reused] of variants) {
      const own = await startProxy(upstream.port);
      const before = upstream.connections;
      behave = say(bytes);
      const started = performance.now();
      const { text } = await talk(own.port, [request + PROBE], { until: (so) => so.endsWith('probed') });
      const ms = performance.now() - started;
      const connections = upstream.connections - before;
      await own.close();
      if (text === sees + PROBED && ms < 1_000 && connections === (reused ? 1 : 2)) continue;
      wrong.push(`${JSON.stringify(bytes)} (${ms.toFixed()} ms, ${connections} connections): ${JSON.stringify(text)}`);
    }

    expect(wrong).toEqual([]);
  });
});
