/** Seeded variants of HTTP/1.1 requests: valid ones, and the obfuscations of framing, line ends, chunks, Host and white space that smuggling is made of. */
import { below } from '../../lib/random.ts';
import type { Random } from '../../lib/random.ts';

/** A request taken apart, so that any part can be bent. */
interface Parts {
  start: string;
  /** Field lines without their ends. */
  fields: string[];
  body: string;
}

type Mutation = (parts: Parts, random: Random) => void;

const pick = <T>(random: Random, list: readonly T[]): T => list[below(random, list.length)]!;
const chance = (random: Random, probability: number): boolean => random() < probability;

const METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'HEAD', 'PROPFIND', 'PURGE'];
const PATHS = [
  '/',
  '/a',
  '/a/b?c=d',
  '/a%20b',
  '/a;b=c',
  '/~x/-_.!',
  "/a?b={c}&d='e'",
  '/a//b/../c',
  '/%7Euser/./x',
  '/a?x=//y',
  '/%2e%2e/a',
  '/a/..',
  '/?',
  '/a?b=http://c/d',
  '/*',
  '/@:80',
  '//b/c',
  '/a%25%32%66b',
  '/:',
  '/a?%20=%2f',
];
const HOSTS = [
  'a',
  'a.example',
  'a.example:80',
  'A.Example:8080',
  '127.0.0.1',
  '127.0.0.1:65535',
  '[::1]',
  '[2001:db8::1]:443',
  'a_b',
  'a.',
  'xn--bcher-kva.example',
  '[::ffff:1.2.3.4]',
];
const NAMES = ['X-A', 'x-b', 'X-Long-Name-With-Dashes', 'Accept', 'Cookie', 'User-Agent', "X!#$%&'*+.^`|~9"];
const VALUES = [
  '',
  'a',
  'a b',
  'a, b',
  '"q; r"',
  'tab\there',
  '{"json":1}',
  'x'.repeat(300),
  'a:b:c',
  '=?utf-8?q?x?=',
  'chunked',
  '5',
  'GET / HTTP/1.1',
  '\xe9\xff',
  '\\r\\n',
  ';',
  ',,',
  '  two  spaces  ',
];
/** What an attacker would like the next parser to see as a request of its own. */
const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n';

function base(random: Random): Parts {
  const framing = below(random, 3);
  const method = framing === 0 ? pick(random, ['GET', 'DELETE', 'OPTIONS']) : pick(random, METHODS);
  const fields = [`Host: ${pick(random, HOSTS)}`];
  for (let i = below(random, 4); i > 0; i--) fields.push(`${pick(random, NAMES)}: ${pick(random, VALUES)}`);
  const content = pick(random, ['hello', 'x', '0\r\n\r\n', SMUGGLED, 'a'.repeat(5_000), `1\r\nx\r\n0\r\n\r\n${SMUGGLED}`]);
  let body = '';
  if (framing === 1) {
    fields.push(`Content-Length: ${content.length}`);
    body = content;
  } else if (framing === 2) {
    fields.push('Transfer-Encoding: chunked');
    body = chunks(content, random);
  }
  const target = chance(random, 0.1) ? `http://${pick(random, HOSTS)}${pick(random, PATHS)}` : pick(random, PATHS);
  return { start: `${method} ${target} HTTP/1.1`, fields, body };
}

function chunks(content: string, random: Random): string {
  let text = '';
  for (let at = 0; at < content.length;) {
    const size = Math.min(content.length - at, 1 + below(random, chance(random, 0.5) ? 4 : 3_000));
    const digits = chance(random, 0.5)
      ? size.toString(16)
      : size
          .toString(16)
          .toUpperCase()
          .padStart(1 + below(random, 5), '0');
    const extension = chance(random, 0.2) ? pick(random, [';a', ';a=b', ';a="b c"', ';a="\\"";c', ';a;b;c=d']) : '';
    text += `${digits}${extension}\r\n${content.slice(at, at + size)}\r\n`;
    at += size;
  }
  const trailers = chance(random, 0.2)
    ? pick(random, ['X-Sum: 1\r\n', 'X-Sum: 1\r\nX-T:  2 \r\n', 'Content-Length: 3\r\n', 'Host: b\r\nX-T: y\r\n'])
    : '';
  return `${text}${pick(random, ['0', '00', '0;e'])}\r\n${trailers}\r\n`;
}

const ODD = [' ', '\t', '\v', '\f', '\0', '\r', '\n', '\x7f', '\x85', '\xa0', '_', '\\', '"', ',', ';', '\x01', '\xff'];

const fieldAt = (parts: Parts, name: string): number => parts.fields.findIndex((field) => field.toLowerCase().startsWith(name));

/** Bends the line of a field, if there is one. */
const bend =
  (name: string, how: (line: string, random: Random) => string): Mutation =>
  (parts, random) => {
    const at = fieldAt(parts, name);
    if (at !== -1) parts.fields[at] = how(parts.fields[at]!, random);
  };

const insertAt = (text: string, at: number, what: string): string => text.slice(0, at) + what + text.slice(at);

/** A character somewhere in a line: in front, in the name, around the colon, in the value, at the end. */
function poke(line: string, random: Random): string {
  const colon = line.indexOf(':');
  const at = pick(random, [0, 1, colon, colon + 1, colon + 2, line.length, below(random, line.length + 1)]);
  return insertAt(line, Math.max(0, at), pick(random, ODD));
}

const someCase = (text: string, random: Random): string =>
  Array.from(text, (char) => (chance(random, 0.5) ? char.toUpperCase() : char.toLowerCase())).join('');

/** Harmless: the meaning stays, and it must stay for all parsers. */
const HARMLESS: readonly Mutation[] = [
  (parts, random) => {
    const at = below(random, parts.fields.length);
    const line = parts.fields[at]!;
    const colon = line.indexOf(':');
    parts.fields[at] =
      `${line.slice(0, colon + 1)}${pick(random, ['', ' ', '\t', '  \t '])}${line.slice(colon + 1).trim()}${pick(random, ['', ' ', '\t\t', ' \t '])}`;
  },
  (parts, random) => {
    const at = below(random, parts.fields.length);
    const line = parts.fields[at]!;
    const colon = line.indexOf(':');
    parts.fields[at] = someCase(line.slice(0, colon), random) + line.slice(colon);
  },
  bend('transfer-encoding', (line, random) => `${line.slice(0, 18)} ${someCase('chunked', random)}`),
  (parts) => parts.fields.reverse(),
  (parts) => (parts.start = `\r\n${parts.start}`),
  (parts, random) =>
    parts.fields.push(
      pick(random, [
        'Connection: keep-alive',
        'Connection: X-A, close-not',
        'Keep-Alive: timeout=5',
        'TE: trailers',
        'Expect: 100-continue',
      ]),
    ),
  (parts, random) =>
    parts.fields.push(
      pick(random, [
        'Connection: Content-Length, Transfer-Encoding, Host',
        'connection: X-A',
        'TE: gzip, trailers',
        'X-Transfer-Encoding: chunked',
        'X-Content-Length: 5',
        'Transfer-Encoding-: chunked',
        'Content.Length: 5',
        'X-Host: evil',
        'Proxy-Authorization: x',
        'constructor: y',
        'X-A: 1\r\nX-A: 2\r\nx-a: 3',
      ]),
    ),
  (parts, random) =>
    parts.fields.push(pick(random, ['Upgrade: h2c', 'Trailer: X-Sum', 'Proxy-Connection: keep-alive', 'x_under: y', '__proto__: z'])),
];

/** Hostile: two parsers may read different things into it, so it must be refused or made plain. */
const HOSTILE: readonly Mutation[] = [
  bend('transfer-encoding', poke),
  bend('content-length', poke),
  bend('host', poke),
  (parts, random) => {
    const at = below(random, parts.fields.length);
    parts.fields[at] = poke(parts.fields[at]!, random);
  },
  (parts, random) =>
    parts.fields.push(
      pick(random, [
        'Transfer-Encoding: chunked',
        'Transfer-Encoding: identity',
        'Transfer-Encoding:chunked',
        'Transfer-Encoding : chunked',
        'Transfer-Encoding: x',
        'Transfer-encoding: ,chunked',
        'Transfer-Encoding: chunked, identity',
        'Transfer-Encoding:\r\n chunked',
        'Transfer_Encoding: chunked',
        'Transfer-Encoding: "chunked"',
        'Transfer-Encoding: chunked;a=b',
        'Transfer-Encoding: gzip, chunked',
        'Transfer-Encoding: chunked\x0b',
        'Transfer-Encoding: chun\xe2\x84\xaaed',
        'Tran\xc5\xbffer-Encoding: chunked',
        'Transfer\\Encoding: chunked',
        'Transfer-Encoding',
        'Transfer-Encoding:',
        'X: y\rTransfer-Encoding: chunked',
        'X: y\nTransfer-Encoding: chunked',
        'X: y\0\r\nTransfer-Encoding: chunked',
      ]),
    ),
  (parts, random) =>
    parts.fields.unshift(
      pick(random, [
        'Content-Length: 0',
        'Content-Length: 5',
        'Content-Length: +5',
        'Content-Length: 5, 5',
        'Content-Length: 0x5',
        'Content-Length: ',
        'Content-Length: 5 5',
        'Content_Length: 5',
        'Content-Length: -1',
        'Content-Length: 010',
        'Content-Length: 5.0',
        'Content-Length: 5,',
        'Content-Length: "5"',
        'Content-Length: 18446744073709551621',
        'Content-Length:5\r\n ',
        'Content-Length : 5',
        'Content-Length\x0b: 5',
        'X: y\nContent-Length: 5',
        'X: y\rContent-Length: 5',
      ]),
    ),
  (parts, random) =>
    parts.fields.push(
      pick(random, [
        'Host: evil',
        'Host : evil',
        'Host:',
        'X: y\r\n Host: evil',
        'Host: a',
        '\tHost: evil',
        'X: y\nHost: evil',
        'X: y\rHost: evil',
      ]),
    ),
  bend(
    'host',
    (_line, random) => `Host: ${pick(random, ['', 'a@b', 'a/b', 'a b', 'a,b', 'a:99999', 'a:', 'a#b', '[::1', 'a\tb', 'a%00b', 'a?b'])}`,
  ),
  (parts, random) => (parts.start = poke(parts.start, random)),
  (parts, random) =>
    (parts.start = parts.start.replace(
      'HTTP/1.1',
      pick(random, [
        'HTTP/1.0',
        'HTTP/1.2',
        'HTTP/2.0',
        'HTTP/0.9',
        'http/1.1',
        'HTTP/1.1 ',
        ' HTTP/1.1',
        'HTTP/11',
        'HTTP/1.01',
        '',
        'HTTP/1.1 x',
        'HTTP/1.1\tx',
        'HTTP/1.1 HTTP/1.1',
        'HTTP/1,1',
        'HTTP/1.1\r',
      ]),
    )),
  (parts, random) => (parts.body = parts.body.replace('\r\n', pick(random, ['\n', '\r', '\r\r\n', '\n\r', ' \r\n', ';\r\n', '\r\n\r\n']))),
  (parts, random) =>
    (parts.body = parts.body.replace(/^[0-9a-fA-F]+/, (size) =>
      pick(random, [`0x${size}`, `+${size}`, ` ${size}`, `${size} `, `-${size}`, `${size}_`, `fffffffff${size}`, `${size}g`, '']),
    )),
  (parts, random) => (parts.body = insertAt(parts.body, below(random, parts.body.length + 1), pick(random, ODD))),
  (parts) => (parts.body = parts.body.slice(0, -2)),
  // Chunks that say more or less than there is, or two readers read in two ways.
  (parts, random) =>
    (parts.body = parts.body.replace(/^[0-9a-fA-F]+/, (size) =>
      pick(random, [`${size}0`, size.slice(1), `0${size}`, `1${size}`, '0', '1', '7fffffffffffffff', '100000005']),
    )),
  (parts, random) =>
    (parts.body = parts.body.replace(
      '\r\n',
      pick(random, [
        ';\n\r\n',
        ';a\nb\r\n',
        ';a="\n"\r\n',
        ';a=\r\r\n',
        ';\0\r\n',
        ';a="\r\n',
        ' ;a\r\n',
        ';a ;b\r\n',
        '\t\r\n',
        '\x0c\r\n',
        '\r\n\n',
      ]),
    )),
  (parts, random) =>
    (parts.body = parts.body.replace(
      /\r\n$/,
      pick(random, [
        '\r',
        '\n',
        '\r\r\n',
        'X: y\r\n\r\n',
        ' X: y\r\n\r\n',
        'X: y\n\r\n',
        'Transfer-Encoding: chunked\r\n\r\n',
        'X: y\r\n z\r\n\r\n',
        '0\r\n\r\n',
      ]),
    )),
  // A target that one reader ends earlier than another.
  (parts, random) =>
    (parts.start = parts.start.replace(
      / \S+ /,
      ` ${pick(random, ['/a#b', '/a\\b', '/%00', '/a%2fb', '//evil/..;/x', 'http://u@evil/', 'http://evil#@a/', 'http://evil\\@a/', '*', 'evil:80', '/\xe9', '/a?\xff', '/ ', '/\ta', 'http:///a', '/%', '/..;/a'])} `,
    )),
  (parts) => (parts.body += SMUGGLED),
];

/** How the lines of the head end: nearly always rightly. */
function join(parts: Parts, random: Random): string {
  const lines = [parts.start, ...parts.fields, ''];
  const wrong = chance(random, 0.06) ? below(random, lines.length) : -1;
  return (
    lines.map((line, i) => line + (i === wrong ? pick(random, ['\n', '\r', '\r\r\n', '\n\r\n', '\r\n\r']) : '\r\n')).join('') + parts.body
  );
}

/** One variant. About half are hostile. */
export function variant(random: Random): string {
  const parts = base(random);
  for (let i = below(random, 4); i > 0; i--) pick(random, HARMLESS)(parts, random);
  if (chance(random, 0.5)) for (let i = 1 + below(random, 2); i > 0; i--) pick(random, HOSTILE)(parts, random);
  return join(parts, random);
}
