/** Every request of the catalogue of bad inputs that concerns HTTP/1.1: refused with zero bytes upstream, or forwarded in canonical form. */
import { describe, expect, test } from '@jest/globals';
import { cut, statuses, talk } from './harness.ts';
import type { Proxy, Upstream } from './harness.ts';
import { get, HOST, onePair, post, PROBE } from './http1-setup.ts';

let upstream: Upstream;
let proxy: Proxy;

onePair({ settings: { upgradeTypes: ['websocket'] } }, (pair) => ({ upstream, proxy } = pair));

const chunked = (body: string): string => post('Transfer-Encoding: chunked\r\n', body);

type Refused = readonly [number: string, name: string, bytes: string, statuses?: readonly number[]];

/** Refused: a status, the connection closed, nothing upstream, the reason counted. */
const REFUSED: readonly Refused[] = [
  ['1', 'Content-Length and Transfer-Encoding', post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['1', 'Transfer-Encoding and Content-Length', post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n')],
  ['2', 'chunked, identity', post('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n')],
  ['2', 'two Transfer-Encoding lines', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['2', 'chunked, chunked', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')],
  ['3', 'a comma before chunked', post('Transfer-Encoding: ,chunked\r\n', '0\r\n\r\n')],
  ['3', 'an empty Transfer-Encoding', post('Transfer-Encoding: \r\n', '0\r\n\r\n')],
  ['3', 'identity', post('Transfer-Encoding: identity\r\n', '0\r\n\r\n')],
  ['3', 'chunked in quotes', post('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n')],
  ['3', 'chunked with a parameter', post('Transfer-Encoding: chunked;x=y\r\n', '0\r\n\r\n')],
  ['3', 'an unknown coding', post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'), [501]],
  ['4', 'gzip, chunked', post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), [501]],
  ...[' ', '\t', '\v', '\f', '\0', '\x85', '\xa0', '\x7f', '\\', '\xc5\xbf', '\xe2\x84\xaa'].flatMap((char): Refused[] => [
    ['5', `${JSON.stringify(char)} before Transfer-Encoding`, post(`${char}Transfer-Encoding: chunked\r\n`, '0\r\n\r\n')],
    ['5', `${JSON.stringify(char)} after Transfer-Encoding`, post(`Transfer-Encoding${char}: chunked\r\n`, '0\r\n\r\n')],
  ]),
  ['5', 'an underscore in Transfer_Encoding', post('Transfer_Encoding: chunked\r\n', '0\r\n\r\n')],
  ['5', 'an underscore in Content_Length', post('Content_Length: 5\r\n', '0\r\n\r\n')],
  ['6', 'chunked in HTTP/1.0', `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ['7', 'two lengths that differ', post('Content-Length: 5\r\nContent-Length: 6\r\n', 'helloo')],
  ['7', 'two lengths that agree', post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello')],
  ['7', 'a list of lengths', post('Content-Length: 5, 5\r\n', 'hello')],
  ...['+5', '-5', '0x5', '5e0', '5.0', '5_0', '010', '5 5', '', '18446744073709551621', '9007199254740993', '0,5', '\x0b5', '5\x00'].map(
    (length): Refused => ['8', `Content-Length ${JSON.stringify(length)}`, post(`Content-Length: ${length}\r\n`, 'hello')],
  ),
  ['10', 'an expectation with a word before it', post('Expect: y 100-continue\r\nContent-Length: 5\r\n', 'hello'), [417]],
  ['10', 'an expectation twice', post('Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n', 'hello'), [417]],
  ['10', 'an unknown expectation', post('Expect: 200-ok\r\nContent-Length: 5\r\n', 'hello'), [417]],
  ...[
    '',
    ' 5',
    '5 ',
    '+5',
    '0x5',
    '5_',
    '00000000000000005',
    'fffffffffffffffff',
    '10000000000000000',
    'ffffffffffffffff',
    'g',
    '-5',
    '5\t',
  ].map((size): Refused => ['11', `chunk size ${JSON.stringify(size)}`, chunked(`${size}\r\nhello\r\n0\r\n\r\n`)]),
  ['12', 'a chunk line ended by LF', chunked('5\nhello\r\n0\r\n\r\n')],
  ['12', 'a chunk line ended by CR', chunked('5\rhello\r\n0\r\n\r\n')],
  ['12', 'a chunk line ended by CR and another byte', chunked('5\rXhello\r\n0\r\n\r\n')],
  ['12', 'chunk data without CRLF', chunked('5\r\nhello0\r\n\r\n')],
  ['12', 'chunk data longer than its size', chunked('5\r\nhelloXX\r\n0\r\n\r\n')],
  ['12', 'chunk data followed by LF', chunked('5\r\nhello\n0\r\n\r\n')],
  ['12', 'a last chunk ended by LF', chunked('5\r\nhello\r\n0\n\n')],
  ['12', 'a last line ended by LF', chunked('5\r\nhello\r\n0\r\n\n')],
  ['13', 'a chunk extension with LF', chunked('5;a\nb\r\nhello\r\n0\r\n\r\n')],
  ['13', 'a chunk extension with NUL', chunked('5;a\0b\r\nhello\r\n0\r\n\r\n')],
  ['13', 'a chunk extension without a name', chunked('5;\r\nhello\r\n0\r\n\r\n')],
  ['13', 'a chunk extension with a line end in quotes', chunked('5;a="x\r\ny"\r\nhello\r\n0\r\n\r\n')],
  ['13', 'a chunk extension with an empty value', chunked('5;a=\r\nhello\r\n0\r\n\r\n')],
  ['13', 'a chunk extension after CR', chunked('5;a\rb\r\nhello\r\n0\r\n\r\n')],
  ['14', 'a chunk extension of 20 KB', chunked(`5;${'a'.repeat(20_000)}\r\nhello\r\n0\r\n\r\n`), [413]],
  ['14', 'many one-byte chunks with extensions', chunked(`${`1;${'a'.repeat(60)}\r\nx\r\n`.repeat(600)}0\r\n\r\n`), [413]],
  ['15', 'LF as the end of the request line', `GET / HTTP/1.1\n${HOST}\r\n`],
  ['15', 'LF as the end of a field', `GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n`],
  ['15', 'LF as the end of the head', `GET / HTTP/1.1\r\nHost: a\r\nX: y\n\n`],
  ['15', 'LF everywhere', `GET / HTTP/1.1\nHost: a\n\n`],
  ['15', 'CR in a value', get('X: a\rb\r\n')],
  ['15', 'CRLF CR X as the end of the head', `GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n`],
  ['15', 'CR CR LF', `GET / HTTP/1.1\r\nHost: a\r\r\n\r\n`],
  ['16', 'a folded field', get('X: a\r\n b\r\n')],
  ['16', 'a folded Transfer-Encoding', post('Transfer-Encoding:\r\n chunked\r\n', '0\r\n\r\n')],
  ['16', 'a folded Transfer-Encoding with tab', post('Transfer-Encoding: \r\n\tchunked\r\n', '0\r\n\r\n')],
  ['16', 'a folded first field', `GET / HTTP/1.1\r\n X: a\r\n${HOST}\r\n`],
  ['17', 'a space before the colon', get('X : y\r\n')],
  ['17', 'a tab before the colon', get('X\t: y\r\n')],
  ['17', 'a space before the first field', `GET / HTTP/1.1\r\n Host: a\r\n\r\n`],
  ['17', 'a space before Content-Length', post(' Content-Length: 5\r\n', 'hello')],
  ...['\0', '\x01', '\x08', '\x0b', '\x1f', '\x7f'].flatMap((char): Refused[] => [
    ['18', `${JSON.stringify(char)} in a name`, get(`X${char}Y: z\r\n`)],
    ['18', `${JSON.stringify(char)} in a value`, get(`X: y${char}z\r\n`)],
  ]),
  ['18', 'an empty name', get(': x\r\n')],
  ['18', 'a line without a colon', get('X\r\n')],
  ['18', 'a name with a bracket', get('X(Y): z\r\n')],
  ['18', 'a name with a byte above 0x7F', get('X\xe9: z\r\n')],
  ['19', 'a space before the request line', ` GET / HTTP/1.1\r\n${HOST}\r\n`],
  ['19', 'two empty lines before the request line', `\r\n\r\nGET / HTTP/1.1\r\n${HOST}\r\n`],
  ['19', 'LF before the request line', `\nGET / HTTP/1.1\r\n${HOST}\r\n`],
  ['23', 'no Host', 'GET / HTTP/1.1\r\nX: y\r\n\r\n'],
  ['23', 'no field at all', 'GET / HTTP/1.1\r\n\r\n'],
  ['23', 'two Hosts that agree', get('Host: a\r\n')],
  ['23', 'two Hosts that differ', get('Host: b\r\n')],
  ...[
    '',
    'a,b',
    'u@a',
    'u:p@a',
    'a/b',
    'a#b',
    'a b',
    'a:65536',
    'a:0',
    'a:',
    'a:x',
    'a:80:80',
    '[::1',
    '[::1]x',
    '[x]',
    'a?b',
    'a\\b',
    '\xe9',
    ':80',
    'a%00',
  ].map((host): Refused => ['23', `Host ${JSON.stringify(host)}`, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`]),
  ['24', 'an absolute form with another scheme', `GET ftp://b/ HTTP/1.1\r\n${HOST}\r\n`],
  ['24', 'an absolute form with userinfo', `GET http://u@b/ HTTP/1.1\r\n${HOST}\r\n`],
  ['24', 'an absolute form without a host', `GET http:///x HTTP/1.1\r\n${HOST}\r\n`],
  ['25', 'authority form without CONNECT', `GET a:80 HTTP/1.1\r\n${HOST}\r\n`],
  ['25', '* without OPTIONS', `GET * HTTP/1.1\r\n${HOST}\r\n`],
  ['25', 'CONNECT where it is not allowed', 'CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n'],
  ['25', 'CONNECT with a path', 'CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['25', 'a path without a slash', `GET x HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a fragment', `GET /a#b HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a space in the target', `GET /a b HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a byte above 0x7F in the target', `GET /\xe9 HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'NUL in the target', `GET /\0 HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a backslash in the target', `GET /a\\b HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'an encoded NUL', `GET /%00 HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a percent sign and no digits', `GET /%zz HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a percent sign and one digit', `GET /%2 HTTP/1.1\r\n${HOST}\r\n`],
  ['26', 'a broken percent sign in the query', `GET /?%2 HTTP/1.1\r\n${HOST}\r\n`],
  ['27', 'an escaped slash', `GET /a%2fb HTTP/1.1\r\n${HOST}\r\n`],
  ['27', 'an escaped backslash', `GET /a%5Cb HTTP/1.1\r\n${HOST}\r\n`],
  ['27', 'a dot segment with a parameter', `GET /a/..;/b HTTP/1.1\r\n${HOST}\r\n`],
  ['29', 'no version', 'GET /\r\n\r\n'],
  ['29', 'HTTP/0.9', `GET / HTTP/0.9\r\n${HOST}\r\n`, [505]],
  ['29', 'HTTP/2.0', `GET / HTTP/2.0\r\n${HOST}\r\n`, [505]],
  ['29', 'HTTP/1.2', `GET / HTTP/1.2\r\n${HOST}\r\n`, [505]],
  ['29', 'HTTP/1.32', `GET / HTTP/1.32\r\n${HOST}\r\n`],
  ['29', 'CRs in the version', `GET / HTTP/\r\r1.1\r\n${HOST}\r\n`],
  ['29', 'http/1.1', `GET / http/1.1\r\n${HOST}\r\n`],
  ['29', 'two spaces before the version', `GET /  HTTP/1.1\r\n${HOST}\r\n`],
  ['29', 'a space after the version', `GET / HTTP/1.1 \r\n${HOST}\r\n`],
  ['29', 'a tab between the words', `GET\t/ HTTP/1.1\r\n${HOST}\r\n`],
  ['30', 'the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400, 505]],
  ['31', 'a URI of 64 KiB', `GET /${'a'.repeat(65_536)} HTTP/1.1\r\n${HOST}\r\n`, [414]],
  ['31', 'a URI of 9 KiB', `GET /${'a'.repeat(9_216)} HTTP/1.1\r\n${HOST}\r\n`, [414]],
  ['31', 'a head of 70 KiB', get(`X: ${'a'.repeat(70_000)}\r\n`), [431]],
  ['31', '101 fields', get('X: y\r\n'.repeat(100)), [431]],
  ['32', '1,100 fields with one that a policy reads last', get(`${'X: y\r\n'.repeat(1_100)}Authorization: z\r\n`), [431]],
  ['32', '10,000 tiny fields', get('a:b\r\n'.repeat(10_000)), [431]],
  ['33', 'a flood of names that look like integers', get(Array.from({ length: 5_000 }, (_, i) => `${i}: x\r\n`).join('')), [431]],
  ['39', 'a MiB of trailers', chunked(`5\r\nhello\r\n0\r\n${`X: ${'a'.repeat(1_000)}\r\n`.repeat(1_000)}\r\n`), [431]],
  ['39', 'a trailer with a bare LF', chunked('5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n')],
  ['39', 'a folded trailer', chunked('5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n')],
];

describe('refused with zero bytes upstream', () => {
  test.each(REFUSED)('case %s: %s', async (_number, _name, bytes, expected = [400]) => {
    for (const parts of [[bytes + PROBE], [...cut(bytes, 4), PROBE]]) {
      upstream.bytes = '';
      proxy.rejected.length = 0;

      const { text, closed } = await talk(proxy.port, parts);

      // A body that breaks off after its head went on reaches the upstream as an open end, never as a whole message.
      expect(upstream.requests).toEqual([]);
      if (parts.length === 1) expect(upstream.bytes).toBe('');
      expect(statuses(text)).toHaveLength(1);
      expect(expected).toContain(statuses(text)[0]);
      expect(text.toLowerCase()).toContain('\r\nconnection: close\r\n');
      expect(closed).toBe(true);
      expect(proxy.rejected).toHaveLength(1);
    }
  });
});

type Forwarded = readonly [number: string, name: string, bytes: string, upstreamSees: string, answers?: readonly number[]];

const HEAD = 'GET / HTTP/1.1\r\nHost: a\r\n';

/** Forwarded: the upstream gets exactly this, and the probe after it is answered. */
const FORWARDED: readonly Forwarded[] = [
  [
    '8',
    'white space around a length',
    post('Content-Length: \t5 \t\r\n', 'hello'),
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
  ],
  ['9', 'a body on GET', get('Content-Length: 5\r\n') + 'hello', `${HEAD}Content-Length: 5\r\n\r\nhello`],
  [
    '9',
    'a body on OPTIONS',
    `OPTIONS / HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`,
    'OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
  ],
  [
    '9',
    'a body on HEAD',
    `HEAD / HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`,
    'HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
  ],
  [
    '9',
    'a body that looks like a request',
    post('Content-Length: 36\r\n', PROBE),
    `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n${PROBE}`,
  ],
  [
    '10',
    'an expectation without a body',
    post('Expect: 100-continue\r\nContent-Length: 0\r\n'),
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n',
  ],
  [
    '13',
    'chunk extensions',
    chunked('5;a;b=c;d="e;\\"\r"\r\nhello\r\n0\r\n\r\n').replace('\r"', '"'),
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello',
  ],
  [
    '13',
    'chunks of many sizes',
    chunked('5\r\nhello\r\n0001\r\n \r\n5\r\nworld\r\n00\r\n\r\n'),
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world',
  ],
  ['18', 'obs-text in a value', get('X: \xe9\xff\r\n'), `${HEAD}X: \xe9\xff\r\n\r\n`],
  ['18', 'an empty value', get('X:\r\nY: \r\n'), `${HEAD}X: \r\nY: \r\n\r\n`],
  ['19', 'one empty line before the request line', `\r\n${HEAD}\r\n`, `${HEAD}\r\n`],
  [
    '22',
    'an upgrade that is not allowed',
    get('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'),
    `${HEAD}\r\n`,
  ],
  [
    '22',
    'an upgrade that is not answered with 101',
    get('Connection: Upgrade\r\nUpgrade: WebSocket\r\n'),
    `${HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  ],
  ['23', 'a Host with a port', 'GET / HTTP/1.1\r\nhost:a.b-c:65535\r\n\r\n', 'GET / HTTP/1.1\r\nHost: a.b-c:65535\r\n\r\n'],
  ['23', 'an IPv6 Host', 'GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n', 'GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n'],
  [
    '24',
    'an absolute form, whose authority wins',
    `GET http://b:81/x?y HTTP/1.1\r\n${HOST}\r\n`,
    'GET /x?y HTTP/1.1\r\nHost: b:81\r\n\r\n',
  ],
  ['24', 'an absolute form without a path', `GET HTTP://b HTTP/1.1\r\n${HOST}\r\n`, 'GET / HTTP/1.1\r\nHost: b\r\n\r\n'],
  ['24', 'an absolute form with a query alone', `GET http://b?x=/y HTTP/1.1\r\n${HOST}\r\n`, 'GET /?x=/y HTTP/1.1\r\nHost: b\r\n\r\n'],
  ['25', 'OPTIONS *', `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`, 'OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'],
  ['27', 'dot segments', `GET /a/../b/./c HTTP/1.1\r\n${HOST}\r\n`, 'GET /b/c HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['27', 'encoded dot segments', `GET /a/%2e%2E/b HTTP/1.1\r\n${HOST}\r\n`, 'GET /b HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['27', 'dot segments above the root', `GET /../../etc HTTP/1.1\r\n${HOST}\r\n`, 'GET /etc HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['27', 'double slashes', `GET //a///b// HTTP/1.1\r\n${HOST}\r\n`, 'GET /a/b/ HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['27', 'double encoding', `GET /a%252fb HTTP/1.1\r\n${HOST}\r\n`, 'GET /a%252fb HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['27', 'encoded letters', `GET /%61dmin HTTP/1.1\r\n${HOST}\r\n`, 'GET /admin HTTP/1.1\r\nHost: a\r\n\r\n'],
  [
    '27',
    'dots and slashes in the query',
    `GET /a?b=/../c//d%2f HTTP/1.1\r\n${HOST}\r\n`,
    'GET /a?b=/../c//d%2f HTTP/1.1\r\nHost: a\r\n\r\n',
  ],
  ['28', 'an unknown method', `M-SEARCH / HTTP/1.1\r\n${HOST}\r\n`, 'M-SEARCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'],
  ['28', 'a method in lower case', `get / HTTP/1.1\r\n${HOST}\r\n`, 'get / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'],
  ['31', 'a URI of 8 KiB', `GET /${'a'.repeat(8_191)} HTTP/1.1\r\n${HOST}\r\n`, `GET /${'a'.repeat(8_191)} HTTP/1.1\r\nHost: a\r\n\r\n`],
  ['31', '100 fields', get('X: y\r\n'.repeat(99)), `${HEAD}${'X: y\r\n'.repeat(99)}\r\n`],
  [
    '34',
    'names that JavaScript objects have',
    get('__proto__: x\r\nconstructor: y\r\ntoString: z\r\nhasOwnProperty: w\r\n'),
    `${HEAD}__proto__: x\r\nconstructor: y\r\ntoString: z\r\nhasOwnProperty: w\r\n\r\n`,
  ],
  [
    '35',
    'end-to-end fields that Connection names',
    get(
      'Connection: keep-alive, X-Forwarded-For, Authorization, Host, x-mesh-peer\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: b\r\nX-Mesh-Peer: c\r\n',
    ),
    `${HEAD}X-Forwarded-For: 1.2.3.4\r\nAuthorization: b\r\nX-Mesh-Peer: c\r\n\r\n`,
  ],
  [
    '36',
    'hop-by-hop fields',
    get(
      'Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: x\r\nProxy-Authenticate: y\r\nProxy-Authorization: z\r\nX: y\r\n',
    ),
    `${HEAD}X: y\r\n\r\n`,
  ],
  ['36', 'TE: trailers', get('TE: gzip, trailers\r\nConnection: TE\r\n'), `${HEAD}TE: trailers\r\nConnection: TE\r\n\r\n`],
  [
    '37',
    'identity fields with underscores',
    get('X_Forwarded_Client_Cert: a\r\nX_Mesh_Peer: b\r\nx_other: c\r\n'),
    `${HEAD}x_other: c\r\n\r\n`,
  ],
  ['38', 'a field twice', get('Role: user\r\nrole: admin\r\n'), `${HEAD}Role: user\r\nrole: admin\r\n\r\n`],
  [
    '39',
    'trailers, without those that may not be',
    chunked(
      '5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: b\r\nAuthorization: c\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n',
    ),
    'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n',
  ],
  ['R5', 'the case and order of names', get('zEta: 1\r\nALPHA: 2\r\nx-B: 3\r\n'), `${HEAD}zEta: 1\r\nALPHA: 2\r\nx-B: 3\r\n\r\n`],
  [
    '100',
    'a compressed body, untouched',
    post('Content-Encoding: gzip\r\nContent-Length: 3\r\n', '\x1f\x8b\x00'),
    'POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00',
  ],
];

describe('forwarded in canonical form', () => {
  test.each(FORWARDED)('case %s: %s', async (_number, _name, bytes, sees) => {
    const { text } = await talk(proxy.port, [bytes + PROBE], { until: (so) => so.endsWith('\r\n\r\n/probe') });

    expect(statuses(text)).toEqual([200, 200]);
    expect(upstream.requests).toHaveLength(2);
    expect(upstream.bytes).toBe(`${sees}GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n`);
    expect(proxy.rejected).toEqual([]);
  });

  test('cut into many parts they are the same messages', async () => {
    for (const [, , bytes] of FORWARDED) {
      upstream.requests.length = 0;
      const { text } = await talk(proxy.port, cut(bytes + PROBE, 9), { until: (so) => so.endsWith('\r\n\r\n/probe') });

      expect(statuses(text)).toEqual([200, 200]);
      expect(upstream.requests).toHaveLength(2);
      expect(upstream.requests[1]?.head).toBe('GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n');
    }
  });
});
