/** The catalogue's request cases variant by variant: every byte, name and place that a case speaks of, and inputs of the same kind that it does not list. */
import { describe, expect, test } from '@jest/globals';
import { cut, statuses, talk } from './harness.ts';
import type { Proxy, Upstream } from './harness.ts';
import { get, HOST, onePair, post, PROBE } from './http1-setup.ts';
import { understood } from './parsers.ts';

let upstream: Upstream;
let proxy: Proxy;

onePair({ settings: { upgradeTypes: ['websocket'] } }, (pair) => ({ upstream, proxy } = pair));

const CHUNKED = 'Transfer-Encoding: chunked\r\n';

const target = (text: string): string => `GET ${text} HTTP/1.1\r\n${HOST}\r\n`;
const host = (text: string): string => `GET / HTTP/1.1\r\nHost: ${text}\r\n\r\n`;
const chunked = (body: string): string => post(CHUNKED, body);
const LAST = '0\r\n\r\n';

/** A list of variants without white space. */
const words = (text: string): string[] => text.split(' ');
const byte = (code: number): string => String.fromCharCode(code);
const CONTROLS = [...Array.from({ length: 32 }, (_, code) => byte(code)), '\x7f'];
/** What the catalogue's case 5 puts into names: white space of several kinds, NUL, NEL, NBSP, DEL, backslash, long s, Kelvin sign. */
const ODD = [' ', '\t', '\v', '\f', '\0', '\x85', '\xa0', '\x7f', '\\', '\xc5\xbf', '\xe2\x84\xaa'];

interface Group {
  readonly name: string;
  /** Each is refused with one of `statuses` (default 400). */
  readonly variants: readonly string[];
  readonly statuses?: readonly number[];
}

const REFUSED: readonly Group[] = [
  {
    name: 'case 1: both framings, whatever stands between and around them',
    variants: [
      post(`content-length: 0\r\n${CHUNKED}`, LAST),
      post(`${CHUNKED}X: y\r\nCONTENT-LENGTH: 5\r\n`, LAST),
      post('Content-Length: 5\r\ntransfer-encoding: CHUNKED\r\n', LAST),
      post('Content-Length: 5\r\nTransfer-Encoding: identity\r\n', 'hello'),
      post('Content-Length: 5\r\nTransfer-Encoding:\r\n', 'hello'),
      `GET / HTTP/1.1\r\nContent-Length: 5\r\n${HOST}${CHUNKED}\r\n${LAST}`,
      `POST / HTTP/1.0\r\n${HOST}Content-Length: 5\r\n${CHUNKED}\r\n${LAST}`,
    ],
  },
  {
    name: 'case 2: chunked that is not the last and only coding',
    variants: [
      'chunked, identity',
      'identity, chunked',
      'chunked,identity',
      'chunked , chunked',
      'chunked\t,\tchunked',
      'chunked,',
      'chunked, ',
      'chunked,,chunked',
      'Chunked, cHUNKED',
    ].map((value) => post(`Transfer-Encoding: ${value}\r\n`, LAST)),
  },
  {
    name: 'case 2: two lines of Transfer-Encoding, whatever they say',
    variants: [
      ['chunked', 'chunked'],
      ['chunked', 'identity'],
      ['identity', 'chunked'],
      ['', 'chunked'],
      ['chunked', ''],
      ['gzip', 'chunked'],
      ['chunked', 'cow'],
    ].map(([one, two]) => post(`Transfer-Encoding: ${one}\r\ntransfer-encoding: ${two}\r\n`, LAST)),
  },
  {
    name: 'cases 3 and 4: values that are not exactly chunked',
    statuses: [400, 501],
    variants: [
      ',chunked',
      ', chunked',
      ' ',
      '\t',
      'identity',
      '"chunked"',
      "'chunked'",
      ...words('chunked;x=y chunked; xchunked chunkedx chunk'),
      'chunked chunked',
      'x chunked',
      'chun\xe2\x84\xaaed',
      'chunked\xa0',
      '\xa0chunked',
      'chunked\x85',
      'gzip, chunked',
      'gzip',
      'deflate, chunked',
      'compress',
      'chunked, gzip',
      'chunked\\',
      'c hunked',
      'chunked/1',
      'chunked=1',
    ].map((value) => post(`Transfer-Encoding: ${value}\r\n`, LAST)),
  },
  {
    name: 'case 3: control characters in the value',
    variants: CONTROLS.filter((char) => char !== '\t').flatMap((char) =>
      [`${char}chunked`, `chunked${char}`, `chun${char}ked`].map((value) => post(`Transfer-Encoding: ${value}\r\n`, LAST)),
    ),
  },
  ...['Transfer-Encoding: chunked', 'Content-Length: 5', 'Host: evil'].map((line): Group => {
    const [name, value] = line.split(': ') as [string, string];
    const variants = ODD.flatMap((char) => [
      `${char}${name}: ${value}`,
      `${name}${char}: ${value}`,
      `${name[0]}${char}${name.slice(1)}: ${value}`,
    ]);
    if (name.includes('-')) variants.push(...[...ODD, '_'].map((char) => `${name.replace('-', char)}: ${value}`));
    return {
      name: `cases 5 and 17: ${name} with an odd byte before, in, after its name`,
      variants: variants.flatMap((variant) => [post(`${variant}\r\n`, LAST), `POST / HTTP/1.1\r\n${variant}\r\n${HOST}\r\n${LAST}`]),
    };
  }),
  {
    name: 'case 5: s and k that only look so when they change case',
    variants: [
      post('Tran\xc5\xbffer-Encoding: chunked\r\n', LAST),
      get('Ho\xc5\xbft: evil\r\n'),
      get('TRANSFER_ENCODING: chunked\r\n'),
      get('content_LENGTH: 5\r\n'),
    ],
  },
  {
    name: 'case 6: Transfer-Encoding in HTTP/1.0',
    variants: ['', 'Connection: keep-alive\r\n', 'Connection: close\r\n'].flatMap((connection) =>
      ['chunked', 'identity', 'gzip'].map((value) => `POST / HTTP/1.0\r\n${HOST}${connection}Transfer-Encoding: ${value}\r\n\r\n${LAST}`),
    ),
  },
  {
    name: 'case 7: more than one length',
    variants: [
      ['5', '5'],
      ['5', '6'],
      ['0', '5'],
      ['5', ''],
      ['', '5'],
      ['5', '05'],
    ]
      .map(([one, two]) => post(`Content-Length: ${one}\r\nX: y\r\ncontent-length: ${two}\r\n`, 'hello'))
      .concat(['5,5', '5, 5', '5 ,5', '5,6', '5,', ',5', '0, 5'].map((value) => post(`Content-Length: ${value}\r\n`, 'hello'))),
  },
  {
    name: 'case 8: lengths that are not plain digits',
    variants: [
      ...words('+5 -5 +0 -0 0x5 0X5 5e0 5E0 5.0 5. .5 5_0 010 05 00'),
      '5 5',
      '5\t5',
      '5;',
      '5;x',
      '"5"',
      "'5'",
      '5h',
      'five',
      '0b1',
      '0o5',
      '\xb2',
      '5\xa0',
      '\xa05',
      '5\x85',
      '\xd9\xa5',
      '\xef\xbc\x95',
      '',
      ...words('NaN Infinity null 18446744073709551615 18446744073709551616 18446744073709551621 9223372036854775808'),
      ...words('9007199254740992 99999999999999999'),
      '5'.repeat(400),
      '\x0b5',
      '5\x0c',
      '5\0',
    ].map((value) => post(`Content-Length: ${value}\r\n`, 'hello')),
  },
  {
    name: 'case 10: expectations that are not exactly 100-continue',
    statuses: [417],
    variants: [
      '',
      '100-continue;x',
      '100-continue;q=1',
      '100-continue, x',
      '100-continue,',
      ',100-continue',
      '"100-continue"',
      '100 continue',
      '100-continu',
      '100-continuee',
      'x100-continue',
      '100-continue 100-continue',
      '100-continue\xa0',
      '101-continue',
      '1',
    ]
      .map((value) => post(`Expect: ${value}\r\nContent-Length: 5\r\n`, 'hello'))
      .concat(get('Expect: x\r\n'), post('Expect: x\r\nContent-Length: 0\r\n')),
  },
  {
    name: 'case 10: expectations that are no valid field',
    variants: [
      post('Expect : 100-continue\r\nContent-Length: 5\r\n', 'hello'),
      post(' Expect: 100-continue\r\nContent-Length: 5\r\n', 'hello'),
      post('Expect:\r\n 100-continue\r\nContent-Length: 5\r\n', 'hello'),
      post('Expect: 100-continue\v\r\nContent-Length: 5\r\n', 'hello'),
    ],
  },
  {
    name: 'case 11: chunk sizes, of the first, of a later and of the last chunk',
    variants: [
      '',
      ' ',
      ' 5',
      '\t5',
      '5 ',
      '5\t',
      '5 ;a',
      '5\t;a',
      ...words('+5 -5 0x5 0X5 x5 5_ 5_0 5h 5. 5, 5: "5"'),
      '\xb2',
      '\xa05',
      '5\xa0',
      '\x0b5',
      '5\0',
      '\0',
      '5\x7f',
      '00000000000000005',
      '5'.repeat(17),
      ...words('fffffffffffffffff 10000000000000000 20000000000000 ffffffffffffffff 8000000000000005'),
    ]
      .flatMap((size) => [chunked(`${size}\r\nhello\r\n${LAST}`), chunked(`5\r\nhello\r\n${size}\r\nhello\r\n${LAST}`)])
      .concat(
        ['+0', '-0', '0x0', ' 0', '0 ', '00000000000000000', '0_', '0.0', '0,'].map((size) => chunked(`5\r\nhello\r\n${size}\r\n\r\n`)),
      ),
  },
  {
    name: 'case 12: bytes where the line end after a chunk belongs',
    variants: [
      '',
      '\n',
      '\r',
      '\n\r',
      '\r\r\n',
      '\n\n',
      '\r\nXX',
      '\r\nXX\r\n',
      'XX\r\n',
      ' \r\n',
      '\r \n',
      '\r\n\r\n',
      '\r\n ',
      '\0\r\n',
    ].flatMap((end) => [chunked(`5\r\nhello${end}${LAST}`), chunked(`5\r\nhello\r\n1\r\nx${end}${LAST}`)]),
  },
  {
    name: 'case 12: bytes where the line end after a chunk size belongs',
    variants: ['\n', '\r', '\n\r', '\r\r\n', '\rX', '\rX\n', '\r \n', '\0\r\n', '\v\r\n', '\x85'].flatMap((end) => [
      chunked(`5${end}hello\r\n${LAST}`),
      chunked(`5;a${end}hello\r\n${LAST}`),
      chunked(`5;a=b${end}hello\r\n${LAST}`),
      chunked(`5;a="b"${end}hello\r\n${LAST}`),
      chunked(`5\r\nhello\r\n0${end}\r\n`),
    ]),
  },
  {
    name: 'case 13: chunk extensions that are none',
    variants: [
      ';',
      ';;',
      ';a;',
      '; a',
      ' ;a',
      ';a =b',
      ';a= b',
      ...words(';a= ;=b ;a=" ;a="b ;a="b"c ;a=b"c"'),
      ';a="\r\n"',
      ';a="\n"',
      ';a="\r"',
      ';a="\\\r\n"',
      ';a="\\\n"',
      ';a="\0"',
      ';a\0',
      '\0;a',
      ';a\r',
      ';a\rb',
      ';a\nb',
      ';a=b\nc',
      ';a=b,c',
      ';a b',
      ';(a)',
      ';a=\xe9',
      ';\xe9',
      ...words(';a=b=c =a ,a "a" ;"a"'),
      ';a="\x7f"',
    ].flatMap((extension) => [chunked(`5${extension}\r\nhello\r\n${LAST}`), chunked(`5\r\nhello\r\n0${extension}\r\n\r\n`)]),
  },
  {
    name: 'case 14: chunk extensions without end, in one chunk or in many',
    statuses: [413],
    variants: [
      chunked(`5;${'a'.repeat(20_000)}\r\nhello\r\n${LAST}`),
      chunked(`5;a=${'b'.repeat(20_000)}\r\nhello\r\n${LAST}`),
      chunked(`5;a="${'b'.repeat(20_000)}"\r\nhello\r\n${LAST}`),
      chunked(`5${';a'.repeat(9_000)}\r\nhello\r\n${LAST}`),
      chunked(`5\r\nhello\r\n0;${'a'.repeat(20_000)}\r\n\r\n`),
      chunked(`${'1;a\r\nx\r\n'.repeat(9_000)}${LAST}`),
    ],
  },
  {
    name: 'case 16: folded lines of every kind',
    variants: [
      'X: a\r\n b',
      'X: a\r\n\tb',
      'X:\r\n b',
      'X: a\r\n ',
      'X: a\r\n \r\n b',
      'X: a\r\n  \t',
      'Content-Length:\r\n 5',
      'Content-Length: 5\r\n ',
      'Content-Length: \r\n\t5',
      'Transfer-Encoding:\r\n\tchunked',
      'Transfer-Encoding: chunked\r\n ',
      'Transfer-Encoding: chunked\r\n , identity',
      'Connection: close\r\n x',
    ]
      .map((line) => post(`${line}\r\n`, 'hello'))
      .concat(
        `GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n`,
        `GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n`,
        `GET / HTTP/1.1\r\n ${HOST}\r\n`,
        `GET / HTTP/1.1\r\n \r\n${HOST}\r\n`,
        `GET / HTTP/1.1\r\n\t${HOST}\r\n`,
        `GET /\r\n HTTP/1.1\r\n${HOST}\r\n`,
      ),
  },
  {
    name: 'case 17: white space before a name or before its colon',
    variants: [' ', '\t', '  ', '\v', '\f', '\xa0'].flatMap((space) =>
      ['Host: b', 'Content-Length: 5', 'Transfer-Encoding: chunked', 'X: y', 'Connection: close', 'Expect: 100-continue'].flatMap(
        (line) => [
          post(`${space}${line}\r\n`, 'hello'),
          post(`${line.replace(':', `${space}:`)}\r\n`, 'hello'),
          `POST / HTTP/1.1\r\n${space}${line}\r\n${HOST}\r\nhello`,
        ],
      ),
    ),
  },
  {
    name: 'case 18: every byte that no name has',
    variants: [...CONTROLS, ...Array.from(' "(),/;<=>?@[\\]{}'), ...Array.from({ length: 128 }, (_, i) => byte(128 + i))].flatMap(
      (char) => [get(`X${char}Y: z\r\n`), get(`${char}X: z\r\n`), get(`X${char}: z\r\n`)],
    ),
  },
  {
    name: 'case 18: every byte that no value has',
    variants: CONTROLS.filter((char) => char !== '\t').flatMap((char) => [
      get(`X: y${char}z\r\n`),
      get(`X: ${char}z\r\n`),
      get(`X: z${char}\r\n`),
      get(`X:${char}\r\n`),
      `GET / HTTP/1.1\r\nHost: a${char}\r\n\r\n`,
    ]),
  },
  {
    name: 'case 18: lines that are no fields',
    variants: [':', ': x', '::', ' : x', 'X', 'X Y', 'X Y: z', 'X; y', '=', '\0', 'GET / HTTP/1.1', 'X\r\n\tY: z'].map((line) =>
      get(`${line}\r\n`),
    ),
  },
  {
    name: 'case 19: bytes before the request line',
    variants: [
      ' ',
      '\t',
      '\n',
      '\r',
      '\0',
      '\v',
      '\f',
      '\xa0',
      '\xef\xbb\xbf',
      '\r\n\n',
      '\n\r\n',
      '\r\n\r\n',
      '\n\n',
      '\r\r\n',
      '\r\n ',
      '\r\n\t',
      '\r\n\r',
      '\0\r\n',
      ' \r\n',
    ].map((lead) => `${lead}${get('')}`),
  },
  {
    name: 'case 23: Hosts that name no host',
    variants: [
      '',
      ' ',
      ',',
      'a,b',
      'a, b',
      ...words('u@a @a a@ u:p@a:80 a/ /a a/b http://a a#b #'),
      'a b',
      'a\tb',
      'a?b',
      'a\\b',
      ...words('a;b a=b a* * "a"'),
      "a'b",
      ...words('<a> a%41 a%00 a% % a|b a^b a`b {a} a! a$b a&b (a) a+b'),
      '\xe9',
      'a\xff',
      '\xef\xbd\x81',
      'a\xa0',
      ...words('a: a:0 a:65536 a:99999 a:100000 a:4294967376 a:-1 a:+80'),
      'a: 80',
      'a:80 ,b',
      'a:8 0',
      ...words('a:x a:80x a:0x50 a:80:80 a::80 :80 : ::1 ::1:80 [ ] [] []:80 [a] [::1 ::1] [::1]x [::1]x:80 [::1]:'),
      ...words('[::1]:0 [::1]:65536 [::1]:x [[::1]] [::1]] [: [x] [::1%25lo] [v1.x]'),
      'a'.repeat(261),
    ].map(host),
  },
  {
    name: 'case 23: Host that is missing, doubled, or hidden',
    variants: [
      'GET / HTTP/1.1\r\n\r\n',
      'GET / HTTP/1.1\r\nX-Host: a\r\n\r\n',
      'GET / HTTP/1.1\r\nHos: a\r\nHostt: a\r\n\r\n',
      `GET http://a/ HTTP/1.1\r\n\r\n`,
      get('host: a\r\n'),
      get('HOST: b\r\n'),
      get('X: y\r\nHost:\r\n'),
      `GET / HTTP/1.1\r\nHost:\r\n${HOST}\r\n`,
      `GET http://a/ HTTP/1.1\r\n${HOST}${HOST}\r\n`,
      `GET / HTTP/1.0\r\n${HOST}${HOST}\r\n`,
      `GET / HTTP/1.0\r\nHost: a,b\r\n\r\n`,
      'GET / HTTP/1.0\r\n\r\n',
    ],
  },
  {
    name: 'case 24: absolute targets that are no http URI, or beside a bad Host',
    variants: [
      ...words('http:// http:/// http:///x http:/b/ http:b http//b/ ://b/ ftp://b/ ws://b/ file:///etc/passwd'),
      ...words('javascript:x http://u@b/ http://u:p@b/ http://@b/ http://b@/ http://b:0/ http://b:99999/ http://b:/'),
      ...words('http://b:x/ http://a,b/ http://[::1/ http://b%00/ http://b%2f/ http://b/%00 http://b/#f http://b#f'),
      'http://b\\c/',
      'http://?x',
      'https://',
      'https:///x',
    ]
      .map(target)
      .concat(
        `GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n`,
        `GET http://b/ HTTP/1.1\r\nHost: u@b\r\n\r\n`,
        `GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n`,
      ),
  },
  {
    name: 'case 25: authority and asterisk form where they do not belong',
    variants: ['a:80', 'a', '*', '*/', '**', '*?x', 'x', '?x', ';x', '.', '..', '../x', '%2f', '[::1]:80'].map(target).concat(
      ['POST', 'HEAD', 'options'].map((method) => `${method} * HTTP/1.1\r\n${HOST}\r\n`),
      ['*?x', '**', 'a:80'].map((text) => `OPTIONS ${text} HTTP/1.1\r\n${HOST}\r\n`),
      ['a:443', 'a', '/', '*', 'http://a:443/', 'u@a:443', 'a:0', 'a:65536', 'a:443/x', ':443', '[::1]', 'a:443#'].map(
        (text) => `CONNECT ${text} HTTP/1.1\r\n${HOST}\r\n`,
      ),
    ),
  },
  {
    name: 'case 26: every byte that no target has, and broken percents',
    variants: [...CONTROLS, ' ', '#', '\\', '\x80', '\x85', '\xa0', '\xe9', '\xff']
      .flatMap((char) => [target(`/${char}`), target(`/a${char}b`), target(`/?a${char}b`), target(`http://a/${char}`)])
      .concat(
        ['%', '%2', '%zz', '%0', '%g0', '%0g', '%%', '%%30', '%u0041', '%-1', '% 41', '%00', '%2x', '%00x', 'a%00.html', '%4'].flatMap(
          (percent) => [target(`/${percent}`), target(`/?${percent}`), target(`/a/../${percent}`)],
        ),
      ),
  },
  {
    name: 'case 27: escaped slashes and dot segments in disguise',
    variants: [
      ...words('/a%2fb /a%2Fb /a%5cb /a%5Cb /%2f /%2f%2e%2e /..%2f /..%2Fx /%2e%2e%2fx /..%5cx /a/..;/b /a/..;x/b'),
      ...words('/..; /.;/b /a/.;x=y/b /%2e%2e;/b /%2e;/b /.%2e;/b //..;/x'),
    ].map(target),
  },
  {
    name: 'case 28: methods that are no token',
    variants: [
      '',
      'G T',
      'G@T',
      'GET,',
      'GE\tT',
      ...words('"GET" G(T) GET/ G:T G[T'),
      'G\\T',
      'G{T}',
      'G=T',
      '\xc7ET',
      'GE\0T',
      'GET\x7f',
    ].map((method) => `${method} / HTTP/1.1\r\n${HOST}\r\n`),
  },
  {
    name: 'case 29: versions that are none',
    statuses: [400, 505],
    variants: [
      ...words('HTTP/0.9 HTTP/1.2 HTTP/1.9 HTTP/1.32 HTTP/1.10 HTTP/1.11 HTTP/2.0 HTTP/2 HTTP/3.0 HTTP/3 HTTP/1'),
      ...words('HTTP/1. HTTP/.1 HTTP/11 HTTP/01.1 HTTP/1.01 HTTP/1,1 HTTP/1.1.1 HTTP/-1.1 HTTP/+1.1 HTTP/1.x'),
      'HTTP/ 1.1',
      'HTTP /1.1',
      'HTTP/1. 1',
      'HTTP/1.1x',
      'HTTP/1.1 ',
      'HTTP/1.1\t',
      ' HTTP/1.1',
      'HTTP/1.1 x',
      ...words('http/1.1 Http/1.1 HTTPS/1.1 HTTP HTTP/ ICY/1.1 RTSP/1.0 xHTTP/1.1'),
      'HTTP\\1.1',
      'HTTP/1\0.1',
      'HTTP/\r\r1.1',
      'HTTP/1.1\r',
      'HTTP/1.1\0',
      '\xa0HTTP/1.1',
      '',
    ]
      .map((version) => `GET / ${version}\r\n${HOST}\r\n`)
      .concat(
        'GET /\r\n',
        'GET /\r\n\r\n',
        'GET\r\n\r\n',
        '/ HTTP/1.1\r\n\r\n',
        'HTTP/1.1 200 OK\r\n\r\n',
        `GET / HTTP/1.1 HTTP/1.1\r\n${HOST}\r\n`,
      ),
  },
  {
    name: 'case 30: other protocols on this port',
    statuses: [400, 505],
    variants: [
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0',
      '\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n',
      'SSH-2.0-OpenSSH_9.2\r\n\r\n',
      'EHLO x\r\n\r\n',
      'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n',
      '*1\r\n$4\r\nPING\r\n\r\n',
    ],
  },
  {
    name: 'case 31: heads past a limit',
    statuses: [400, 414, 431],
    variants: [
      target(`/${'a'.repeat(8_192)}`),
      target(`/?${'a'.repeat(65_536)}`),
      target(`http://a/${'a'.repeat(8_192)}`),
      `${'G'.repeat(9_000)} / HTTP/1.1\r\n${HOST}\r\n`,
      get(`X: ${'a'.repeat(61_440)}\r\n`),
      get(`${'a'.repeat(61_440)}: x\r\n`),
      get(`X: ${' '.repeat(61_440)}y\r\n`),
      get(`X: ${'a'.repeat(1_000)}\r\n`.repeat(70)),
      get('X: y\r\n'.repeat(100)),
      get('X:\r\n'.repeat(15_000)),
    ],
  },
  {
    name: 'case 39: trailers that are no fields',
    variants: [
      'X',
      ': y',
      'X : y',
      ' X: y',
      '\tX: y',
      'X: y\0',
      'X: y\rz',
      'X\0: y',
      'X: y\r\n z',
      'X\xe9: y',
      'X: y\n',
      'X(: y',
      '\r',
      '\n',
      'X: y\r',
    ].map((line) => chunked(`5\r\nhello\r\n0\r\n${line}\r\n\r\n`)),
  },
  {
    name: 'case 39: more trailers than a head may have',
    statuses: [431],
    variants: [
      chunked(`0\r\n${'X: y\r\n'.repeat(101)}\r\n`),
      chunked(`0\r\nX: ${'y'.repeat(62_000)}\r\n\r\n`),
      chunked(`0\r\n${'x'.repeat(70_000)}`),
    ],
  },
];

/** Every line of a request with trailers, its end replaced by what is nearly one. */
const LINES = ['POST / HTTP/1.1', 'Host: a', 'X: y', 'Transfer-Encoding: chunked', '', '5', 'hello', '0', 'X-Sum: 1', ''];
const LINE_ENDS = ['\n', '\r', '\r\r\n', '\n\r', '\n\r\n', '\n\n', '\r\n\r', '\0\r\n', '\v\r\n', '\r\0\n'];
const brokenLines = (i: number): string[] =>
  LINE_ENDS.filter((end) => i < LINES.length - 1 || end !== '\r\n\r').map((end) =>
    LINES.map((line, k) => line + (k === i ? end : '\r\n')).join(''),
  );

const GROUPS: readonly Group[] = [
  ...REFUSED,
  ...LINES.map((line, i): Group => ({
    name: `cases 12 and 15: the end of line ${i + 1}, ${JSON.stringify(line)}, is none`,
    variants: brokenLines(i),
    statuses: [400, 431, 505],
  })),
];

/** Refused: one answer, the connection closed, no complete message upstream, and not a byte where all came in one read. */
async function whyNotRefused(bytes: string, expected: readonly number[]): Promise<string | undefined> {
  for (const parts of [[bytes + PROBE], [...cut(bytes, 5), PROBE]]) {
    upstream.bytes = '';
    upstream.requests.length = proxy.rejected.length = 0;
    const { text, closed } = await talk(proxy.port, parts, { withinMs: 1_000 });
    const got = statuses(text);
    const wrong = [
      upstream.requests.length > 0 && `forwarded: ${JSON.stringify(upstream.bytes)}`,
      parts.length === 1 && upstream.bytes !== '' && `bytes upstream: ${JSON.stringify(upstream.bytes)}`,
      !(got.length === 1 && expected.includes(got[0]!)) && `answered ${JSON.stringify(text)}`,
      !closed && 'not closed',
      !text.toLowerCase().includes('\r\nconnection: close\r\n') && 'no Connection: close',
      proxy.rejected.length !== 1 && `counted ${proxy.rejected.length} times`,
    ].filter((one) => one !== false);
    if (wrong.length > 0) return `${JSON.stringify(bytes.slice(0, 300))} in ${parts.length} parts: ${wrong.join('; ')}`;
  }
  return undefined;
}

describe('refused with zero bytes upstream', () => {
  test.each(GROUPS)('$name', async ({ variants, statuses: expected = [400] }) => {
    const wrong: string[] = [];
    for (const bytes of variants) {
      const why = await whyNotRefused(bytes, expected);
      if (why !== undefined) wrong.push(why);
    }

    expect(wrong).toEqual([]);
  });
});

type Forwarded = readonly [bytes: string, upstreamSees: string];

const HEAD = 'GET / HTTP/1.1\r\nHost: a\r\n';
const POSTED = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello`;
const path = (from: string, to: string): Forwarded => [target(from), target(to)];

const FORWARDED: readonly { readonly name: string; readonly variants: readonly Forwarded[] }[] = [
  {
    name: 'case 5: names that only resemble the framing fields frame nothing',
    variants: [
      ...words('X-Transfer-Encoding Transfer-Encoding- -Transfer-Encoding Transfer--Encoding TransferEncoding'),
      ...words('Transfer.Encoding Transfer-Encodin X-Content-Length Content-Length- ContentLength Content.Length'),
      ...words('Content-Lengt X-Host Hosts'),
    ].map((name): Forwarded => [get(`${name}: 5\r\n`), `${HEAD}${name}: 5\r\n\r\n`]),
  },
  {
    name: 'case 3: chunked in any case, with white space around it',
    variants: ['chunked', 'CHUNKED', 'Chunked', 'cHuNkEd', ' chunked', '\tchunked', 'chunked ', 'chunked\t \t'].map((value): Forwarded => [
      post(`transfer-encoding:${value}\r\n`, `5\r\nhello\r\n${LAST}`),
      POSTED,
    ]),
  },
  {
    name: 'case 8: white space around a length is not part of it',
    variants: ['5', ' 5', '  5  ', '\t5\t', ' \t 5 \t '].map((value): Forwarded => [post(`content-length:${value}\r\n`, 'hello'), POSTED]),
  },
  {
    name: 'case 9: a body on methods that rarely have one is framed and read',
    variants: ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE', 'PROPFIND', 'FOO'].flatMap((method): Forwarded[] => [
      [
        `${method} / HTTP/1.1\r\n${HOST}Content-Length: 37\r\n\r\n${PROBE}`.replace('37', String(PROBE.length)),
        `${method} / HTTP/1.1\r\nHost: a\r\nContent-Length: ${PROBE.length}\r\n\r\n${PROBE}`,
      ],
      [
        `${method} / HTTP/1.1\r\n${HOST}${CHUNKED}\r\n5\r\nhello\r\n${LAST}`,
        `${method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello`,
      ],
      [
        `${method} / HTTP/1.1\r\n${HOST}Content-Length: 0\r\n\r\n`,
        `${method} / HTTP/1.1\r\nHost: a\r\n${['GET', 'HEAD', 'DELETE', 'TRACE'].includes(method) ? '' : 'Content-Length: 0\r\n'}\r\n`,
      ],
    ]),
  },
  {
    name: 'case 10: an expectation in any case, or without a body to wait for',
    variants: [
      [post('Expect: 100-Continue\r\nContent-Length: 5\r\n', 'hello'), POSTED],
      [post('expect:100-CONTINUE \r\nContent-Length: 5\r\n', 'hello'), POSTED],
      [get('Expect: 100-continue\r\n'), `${HEAD}\r\n`],
      [post('Expect: 100-continue\r\nContent-Length: 0\r\n'), 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'],
      [post(`Expect: 100-continue\r\n${CHUNKED}`, LAST), 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'],
    ],
  },
  {
    name: 'cases 11 and 13: sizes with zeros and letters, extensions of every valid form',
    variants: [
      ...words('5 05 0000000000000005 5;a 5;a=b 5;a="b" 5;a=""'),
      '5;a="b c;d"',
      '5;a="\\"\\\\"',
      '5;a;b;c=d;e="f"',
      '5;!#$%&=*',
      '5;a="\xe9"',
      '5;a="\t"',
    ]
      .map((size): Forwarded => [chunked(`${size}\r\nhello\r\n${LAST}`), POSTED])
      .concat(
        ['0', '00', '0000000000000000', '0;a', '0;a="b"'].map((size): Forwarded => [chunked(`5\r\nhello\r\n${size}\r\n\r\n`), POSTED]),
        [
          [chunked(`A\r\n0123456789\r\n${LAST}`), 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789'],
          [chunked(`0b\r\n\r\n0\r\n\r\nGET \r\n${LAST}`), 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n\r\n0\r\n\r\nGET '],
        ],
      ),
  },
  {
    name: 'case 18: values of every byte that a value may have',
    variants: [...Array.from({ length: 95 }, (_, i) => byte(32 + i)), '\t', ...Array.from({ length: 128 }, (_, i) => byte(128 + i))].map(
      (char): Forwarded => [get(`X: y${char}z\r\n`), `${HEAD}X: y${char}z\r\n\r\n`],
    ),
  },
  {
    name: 'case 18: names of every byte that a name may have',
    variants: Array.from("!#$%&'*+-.^`|~0aZ").map((char): Forwarded => [get(`X${char}y: z\r\n`), `${HEAD}X${char}y: z\r\n\r\n`]),
  },
  {
    name: 'case 19: an empty line before a request, the first one and the next',
    variants: [
      [`\r\n${get('')}`, `${HEAD}\r\n`],
      [`${get('')}\r\n`, `${HEAD}\r\n`],
      [`\r\n${post('Content-Length: 5\r\n', 'hello')}\r\n`, POSTED],
    ],
  },
  {
    name: 'case 22: an upgrade that is none, or comes with a body, is a request like others',
    variants: [
      [get('Connection: Upgrade\r\nUpgrade: h2c\r\n'), `${HEAD}\r\n`],
      [get('Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n'), `${HEAD}\r\n`],
      [get('Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n'), `${HEAD}\r\n`],
      [get('Connection: Upgrade\r\nUpgrade: connect\r\n'), `${HEAD}\r\n`],
      [get('Connection: Upgrade\r\nUpgrade:\r\n'), `${HEAD}\r\n`],
      [get('Connection: Upgrade\r\nUpgrade: websocket/13\r\n'), `${HEAD}\r\n`],
      [get('Upgrade: websocket\r\n'), `${HEAD}\r\n`],
      [get('Connection: Upgrade\r\n'), `${HEAD}\r\n`],
      [get('Connection: keep-alive, upgrade\r\nUpgrade: WEBSOCKET\r\n'), `${HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`],
      [post('Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n', 'hello'), POSTED],
      [post(`Connection: Upgrade\r\nUpgrade: websocket\r\n${CHUNKED}`, `5\r\nhello\r\n${LAST}`), POSTED],
    ],
  },
  {
    name: 'case 23: Hosts of every valid form',
    variants: [
      ...words('a A.Example a.b-c.d a_b xn--nxasmq6b 1.2.3.4 1.2.3.4:1 a:65535 a:80 [::1] [::1]:65535 [2001:DB8::1]'),
      ...words('[::ffff:1.2.3.4]:80'),
      'a'.repeat(253),
      'a.',
    ]
      .map((name): Forwarded => [host(name), host(name)])
      .concat([[host('  a\t '), host('a')]]),
  },
  {
    name: 'case 24: the authority of an absolute target wins, Host is written anew',
    variants: [
      [target('http://b/'), `GET / HTTP/1.1\r\nHost: b\r\n\r\n`],
      [target('http://b:8080/x?y=http://c/'), `GET /x?y=http://c/ HTTP/1.1\r\nHost: b:8080\r\n\r\n`],
      [target('HTTPS://b/x'), `GET /x HTTP/1.1\r\nHost: b\r\n\r\n`],
      [target('http://[::1]:80/'), `GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n`],
      [target('http://b/../x//y'), `GET /x/y HTTP/1.1\r\nHost: b\r\n\r\n`],
      [target('http://b//c/d'), `GET /c/d HTTP/1.1\r\nHost: b\r\n\r\n`],
      [target('http://b?@c/'), `GET /?@c/ HTTP/1.1\r\nHost: b\r\n\r\n`],
      [target('http://a'), `${HEAD}\r\n`],
      [`OPTIONS http://b HTTP/1.1\r\n${HOST}\r\n`, 'OPTIONS * HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n'],
      [`OPTIONS http://b/ HTTP/1.1\r\n${HOST}\r\n`, 'OPTIONS / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n'],
    ],
  },
  {
    name: 'case 27: one form of a path, for routing and for the upstream',
    variants: [
      path('/', '/'),
      path('/.', '/'),
      path('/..', '/'),
      path('/./', '/'),
      path('/../', '/'),
      path('/a/.', '/a/'),
      path('/a/..', '/'),
      path('/a/b/..', '/a/'),
      path('/a/b/../', '/a/'),
      path('/a/./b', '/a/b'),
      path('/a/../../b', '/b'),
      path('/a/b/../../c', '/c'),
      path('//', '/'),
      path('//a', '/a'),
      path('/a//', '/a/'),
      path('///a///b', '/a/b'),
      path('/a//../b', '/a/b'),
      path('/a/..//b', '/b'),
      path('/%2e', '/'),
      path('/%2E%2e', '/'),
      path('/.%2e/a', '/a'),
      path('/%2e./a', '/a'),
      path('/a/%2e%2E/b', '/b'),
      path('/%2e%2e%2e', '/...'),
      path('/...', '/...'),
      path('/..a', '/..a'),
      path('/a..', '/a..'),
      path('/.a', '/.a'),
      path('/a.', '/a.'),
      path('/a;x=y/../b', '/b'),
      path('/a;/b', '/a;/b'),
      path('/%252e%252e/', '/%252e%252e/'),
      path('/%252f', '/%252f'),
      path('/%255c', '/%255c'),
      path('/%25', '/%25'),
      path('/%41%7e', '/A~'),
      path('/%20', '/%20'),
      path('/%3f', '/%3f'),
      path('/%23', '/%23'),
      path('/%3B', '/%3B'),
      path('/?', '/?'),
      path('/?/../%2f//', '/?/../%2f//'),
      path('/a?b?c', '/a?b?c'),
      path('/*', '/*'),
      path('/:80', '/:80'),
      path('/@b', '/@b'),
      path('//b:80/c', '/b:80/c'),
    ],
  },
  {
    name: 'case 28: any token is a method, and case matters',
    variants: ['FOO', 'M-SEARCH', 'get', 'Get', 'QUERY', 'PURGE', 'PRI', "!#$%&'*+-.^_`|~1", 'CHUNKED', 'A'.repeat(50)].map(
      (method): Forwarded => [`${method} / HTTP/1.1\r\n${HOST}\r\n`, `${method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`],
    ),
  },
  {
    name: 'case 34: names of what every object has',
    variants: [
      ...words('__proto__ __defineGetter__ constructor prototype toString valueOf hasOwnProperty isPrototypeOf then'),
      ...words('length 0'),
    ].map((name): Forwarded => [get(`${name}: x\r\n${name}: y\r\n`), `${HEAD}${name}: x\r\n${name}: y\r\n\r\n`]),
  },
  {
    name: 'case 35: Connection cannot take off what is not hop-by-hop',
    variants: [
      ...[
        ...words('Host X-Forwarded-For X-Forwarded-Client-Cert Authorization Cookie Traceparent X-Request-Id'),
        ...words('X-Mesh-Peer X-Y'),
      ].map((name): Forwarded => [
        get(`Connection: ${name}, ${name.toLowerCase()}\r\n${name === 'Host' ? 'X' : name}: v\r\n`),
        `${HEAD}${name === 'Host' ? 'X' : name}: v\r\n\r\n`,
      ]),
      [post('Connection: Content-Length\r\nContent-Length: 5\r\n', 'hello'), POSTED],
      [post(`Connection: Transfer-Encoding, Content-Length\r\n${CHUNKED}`, `5\r\nhello\r\n${LAST}`), POSTED],
      [get('Connection: \r\nX: y\r\n'), `${HEAD}X: y\r\n\r\n`],
      [get('Connection: ,,\r\nConnection: x\r\nX: y\r\n'), `${HEAD}X: y\r\n\r\n`],
      [get('Connection: closed, xclose, close;x\r\n'), `${HEAD}\r\n`],
    ],
  },
  {
    name: 'case 36: what ends at this hop',
    variants: [
      ...[
        'Keep-Alive: timeout=5, max=100',
        'Proxy-Connection: close',
        'Proxy-Authenticate: x',
        'Proxy-Authorization: Basic eDp5',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABk',
        'TE: gzip',
        'TE: chunked',
        'TE:',
        'te: deflate;q=0.5',
        'Connection: TE',
      ].map((line): Forwarded => [get(`${line}\r\n`), `${HEAD}\r\n`]),
      ...['trailers', 'Trailers', 'gzip, trailers', 'trailers, gzip;q=0.1'].map((value): Forwarded => [
        get(`TE: ${value}\r\nConnection: TE\r\n`),
        `${HEAD}TE: trailers\r\nConnection: TE\r\n\r\n`,
      ]),
    ],
  },
  {
    name: 'case 37: identity fields spelled with underscores',
    variants: [
      ...words('X_Forwarded_For x-forwarded_for X_Forwarded-Client-Cert X_FORWARDED_PROTO x_forwarded_host'),
      ...words('x_mesh_peer X-Mesh_Identity x_envoy_internal x_request_id X_Real_IP Proxy_Authorization Keep_Alive'),
      ...words('HTTP2_Settings'),
    ].map((name): Forwarded => [get(`${name}: v\r\nX: y\r\n`), `${HEAD}X: y\r\n\r\n`]),
  },
  {
    name: 'case 39: trailers go on, without those that frame, route, authenticate or describe',
    variants: [
      ...[
        'Content-Length: 5',
        'Transfer-Encoding: chunked',
        'Host: b',
        'Authorization: x',
        'Content-Encoding: gzip',
        'Content-Type: x/y',
        'Content-Range: x',
        'Trailer: X',
        'Connection: close',
        'Keep-Alive: x',
        'TE: trailers',
        'Upgrade: h2c',
        'Expect: 100-continue',
        'Cookie: a=b',
        'Set-Cookie: a=b',
        'Proxy-Authorization: x',
        'Cache-Control: no-store',
        'Max-Forwards: 1',
        'Range: x',
        'X-Forwarded-For: 1.2.3.4',
        'X-Forwarded-Client-Cert: x',
        'X-Mesh-Peer: x',
        'X-Envoy-Internal: true',
        'Content_Length: 5',
        'Transfer_Encoding: chunked',
        'X_Forwarded_For: x',
      ].map((line): Forwarded => [
        chunked(`5\r\nhello\r\n0\r\n${line}\r\nGrpc-Status: 0\r\n\r\n`),
        `POST / HTTP/1.1\r\nHost: a\r\n${CHUNKED}\r\n5\r\nhello\r\n0\r\nGrpc-Status: 0\r\n\r\n`,
      ]),
      [chunked('5\r\nhello\r\n0\r\nHost: b\r\n\r\n'), POSTED],
      [
        chunked('5\r\nhello\r\n0\r\ngrpc-status: 0\r\ngrpc-message:  \r\n\r\n'),
        `POST / HTTP/1.1\r\nHost: a\r\n${CHUNKED}\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\ngrpc-message: \r\n\r\n`,
      ],
    ],
  },
  {
    name: 'case 100: compressed bodies, whatever they claim to be',
    variants: ['gzip', 'br', 'deflate', 'zstd', 'gzip, gzip', 'x'].map((coding): Forwarded => [
      post(`Content-Encoding: ${coding}\r\nContent-Length: 5\r\n`, '\x1f\x8b\x08\0\0'),
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: ${coding}\r\nContent-Length: 5\r\n\r\n\x1f\x8b\x08\0\0`,
    ]),
  },
];

/** A canonical message without its framing, by the few lines that read what other parsers pass on. */
function meaning(message: string): string {
  const end = message.indexOf('\r\n\r\n') + 4;
  return JSON.stringify(understood(message.slice(0, end), message.slice(end)));
}

/** Forwarded: the upstream sees exactly the canonical form, the service the same target and Host, and the probe behind it is answered. */
async function whyNotForwarded(bytes: string, sees: string): Promise<string | undefined> {
  for (const parts of [[bytes + PROBE], cut(bytes + PROBE, 7), [bytes, PROBE]]) {
    upstream.bytes = '';
    upstream.requests.length = proxy.requests.length = proxy.rejected.length = 0;
    const { text } = await talk(proxy.port, parts, { until: (so) => so.endsWith('\r\n\r\n/probe'), withinMs: 1_000 });
    const got = statuses(text).filter((status) => status !== 100);
    const known = proxy.requests[0];
    const [start, hostLine] = upstream.bytes.split('\r\n');
    // A chunked body that did not come in one read goes on in other chunks: then the meaning must be the same.
    const same =
      upstream.bytes === sees + PROBE ||
      (parts.length > 1 &&
        upstream.requests.length === 2 &&
        meaning(upstream.requests[0]!.head + upstream.requests[0]!.body) === meaning(sees));
    const wrong = [
      !same && `upstream saw ${JSON.stringify(upstream.bytes)}`,
      (got.length !== 2 || got[0] !== 200 || got[1] !== 200) && `answered ${JSON.stringify(text)}`,
      known !== undefined && start !== `${known.method} ${known.path} HTTP/1.1` && 'routed by another target than was forwarded',
      known !== undefined && hostLine !== `Host: ${known.authority}` && 'routed by another Host than was forwarded',
      proxy.rejected.length > 0 && 'counted as rejected',
    ].filter((one) => one !== false);
    if (wrong.length > 0) return `${JSON.stringify(bytes.slice(0, 300))} in ${parts.length} parts: ${wrong.join('; ')}`;
  }
  return undefined;
}

describe('forwarded in canonical form', () => {
  test.each(FORWARDED)('$name', async ({ variants }) => {
    const wrong: string[] = [];
    for (const [bytes, sees] of variants) {
      const why = await whyNotForwarded(bytes, sees);
      if (why !== undefined) wrong.push(why);
    }

    expect(wrong).toEqual([]);
    expect(Object.keys(Object.prototype)).toEqual([]);
  });
});
