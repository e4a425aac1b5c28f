/** Field sections: reads the lines of a head or of trailers into fields, and sorts out those that frame a message or end at this hop. */
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { lowerName } from '../headers.ts';
import { TOKEN } from './chars.ts';

/** What the codec does with a field: `PLAIN` is relayed, `DROP` ends at this hop, `REFUSE` is a look-alike, the others are read and taken off. */
const PLAIN = 0;
const HOST = 1;
const CONTENT_LENGTH = 2;
const TRANSFER_ENCODING = 3;
const CONNECTION = 4;
const UPGRADE = 5;
const EXPECT = 6;
const TE = 7;
const KEEP_ALIVE = 8;
const DROP = 9;
const REFUSE = 10;
const UNDERSCORE = 11;

interface NameEntry {
  readonly name: string;
  readonly lower: string;
  readonly request: number;
  readonly response: number;
  readonly trailer: number;
}

/** The codec's own fields. Anything absent here is plain. Columns: request, response. */
const KINDS: ReadonlyMap<string, readonly [number, number]> = new Map([
  ['host', [HOST, PLAIN]],
  ['content-length', [CONTENT_LENGTH, CONTENT_LENGTH]],
  ['transfer-encoding', [TRANSFER_ENCODING, TRANSFER_ENCODING]],
  ['connection', [CONNECTION, CONNECTION]],
  ['upgrade', [UPGRADE, UPGRADE]],
  ['expect', [EXPECT, PLAIN]],
  ['te', [TE, DROP]],
  ['keep-alive', [DROP, KEEP_ALIVE]],
  ['proxy-connection', [DROP, DROP]],
  ['proxy-authenticate', [DROP, DROP]],
  ['proxy-authorization', [DROP, DROP]],
  ['http2-settings', [DROP, DROP]],
]);

/** Trailers may not frame, route, authenticate or describe the content (RFC 9110 section 6.5.1); such fields are dropped. */
const NOT_IN_TRAILERS: ReadonlySet<string> = new Set([
  ...KINDS.keys(),
  'trailer',
  'authorization',
  'cookie',
  'set-cookie',
  'www-authenticate',
  'content-encoding',
  'content-type',
  'content-range',
  'cache-control',
  'max-forwards',
  'range',
  'x-forwarded-for',
  'x-forwarded-client-cert',
  'x-forwarded-proto',
  'x-forwarded-host',
]);

/** Fields that a peer could read as one of these when it turns `_` into `-`, as CGI and its heirs do. */
const GUARDED_PREFIXES = ['x-forwarded-', 'x-mesh-', 'x-envoy-', 'x-request-id', 'x-real-ip', 'proxy-'];

function entryOf(name: string): NameEntry {
  const lower = lowerName(name);
  const dropInTrailers = NOT_IN_TRAILERS.has(lower);
  if (lower.includes('_')) {
    const dashed = lower.replaceAll('_', '-');
    if (dashed === 'content-length' || dashed === 'transfer-encoding' || dashed === 'host')
      return { name, lower, request: REFUSE, response: REFUSE, trailer: DROP };
    const guarded = KINDS.has(dashed) || GUARDED_PREFIXES.some((prefix) => dashed.startsWith(prefix));
    return { name, lower, request: guarded ? DROP : UNDERSCORE, response: PLAIN, trailer: guarded ? DROP : PLAIN };
  }
  const kinds = KINDS.get(lower);
  const trailer = dropInTrailers || lower.startsWith('x-mesh-') || lower.startsWith('x-envoy-') ? DROP : PLAIN;
  return { name, lower, request: kinds?.[0] ?? PLAIN, response: kinds?.[1] ?? PLAIN, trailer };
}

/**
 * Names seen before with what they mean, found by a hash that is reckoned while the name is scanned: a `Map` would have to intern each
 * name first, which was 3 % of the proxy's CPU. A table of fixed size in which a newcomer takes the place of another is bounded by itself.
 */
const NAMES: (NameEntry | undefined)[] = Array.from({ length: 2048 }, () => undefined);
const NAME_LENGTH_CACHED_MAX = 64;

function lookUp(text: string, at: number, end: number, hash: number): NameEntry {
  const slot = hash & (NAMES.length - 1);
  const known = NAMES[slot];
  if (known !== undefined && known.name.length === end - at && text.startsWith(known.name, at)) return known;
  // A slice would keep the whole head it was cut from alive; the copy through a buffer does not.
  const entry = entryOf(Buffer.from(text.slice(at, end), 'latin1').toString('latin1'));
  if (end - at <= NAME_LENGTH_CACHED_MAX) NAMES[slot] = entry;
  return entry;
}

export type FieldSection = 'request' | 'response' | 'trailer';
export type UnderscorePolicy = 'ALLOW' | 'REJECT_REQUEST' | 'DROP_HEADER';

/** What a field section said to the codec. One object per reader, filled anew by each call; `fields` is handed on and never reused. */
export interface FieldValues {
  /** As in `Headers.fields`. */
  fields: string[];
  host: string | undefined;
  contentLength: string | undefined;
  transferEncoding: string | undefined;
  connection: string | undefined;
  upgrade: string | undefined;
  expect: string | undefined;
  te: string | undefined;
  keepAlive: string | undefined;
}

export function emptyFieldValues(): FieldValues {
  return {
    fields: [],
    host: undefined,
    contentLength: undefined,
    transferEncoding: undefined,
    connection: undefined,
    upgrade: undefined,
    expect: undefined,
    te: undefined,
    keepAlive: undefined,
  };
}

function clear(out: FieldValues): void {
  out.fields = [];
  out.host = undefined;
  out.contentLength = undefined;
  out.transferEncoding = undefined;
  out.connection = undefined;
  out.upgrade = undefined;
  out.expect = undefined;
  out.te = undefined;
  out.keepAlive = undefined;
}

/**
 * Reads field lines from `text[at, end)`, each ended by CRLF, into `out`. `text` is latin1: one character per byte.
 * Throws `badRequest` for anything RFC 9112 section 5 does not allow, `headersTooLarge` past `fieldsMax`.
 */
export function readFields(
  text: string,
  at: number,
  end: number,
  section: FieldSection,
  fieldsMax: number,
  underscores: UnderscorePolicy,
  out: FieldValues,
): void {
  clear(out);
  const fields = out.fields;
  let count = 0;
  while (at < end) {
    let i = at;
    let hash = 0;
    let code = text.charCodeAt(i);
    while (TOKEN[code] === 1) {
      hash = (Math.imul(hash, 31) + code) | 0;
      code = text.charCodeAt(++i);
    }
    if (i === at || code !== 0x3a) throw badName(text, at, i);
    if (++count > fieldsMax) throw new ProxyError('headersTooLarge', `A message may have ${fieldsMax} fields.`);
    const entry = lookUp(text, at, i, hash);
    code = text.charCodeAt(++i);
    while (code === 0x20 || code === 0x09) code = text.charCodeAt(++i);
    const start = i;
    // Tab, space, visible ASCII and obs-text: RFC 9110 section 5.5.
    while ((code >= 0x20 && code !== 0x7f) || code === 0x09) code = text.charCodeAt(++i);
    if (code !== 0x0d || text.charCodeAt(i + 1) !== 0x0a) throw bad(`The value of field ${entry.name} has a byte that is not allowed.`);
    at = i + 2;
    while (i > start && (text.charCodeAt(i - 1) === 0x20 || text.charCodeAt(i - 1) === 0x09)) i--;
    const value = text.slice(start, i);
    const kind = section === 'request' ? entry.request : section === 'response' ? entry.response : entry.trailer;
    if (kind === PLAIN) fields.push(entry.name, entry.lower, value);
    else take(kind, entry.name, entry.lower, value, underscores, out);
  }
}

function take(kind: number, name: string, lower: string, value: string, underscores: UnderscorePolicy, out: FieldValues): void {
  switch (kind) {
    case HOST:
      if (out.host !== undefined) throw bad('There is more than one Host field.');
      out.host = value;
      return;
    case CONTENT_LENGTH:
      if (out.contentLength !== undefined) throw bad('There is more than one Content-Length field.');
      out.contentLength = value;
      return;
    case TRANSFER_ENCODING:
      if (out.transferEncoding !== undefined) throw bad('There is more than one Transfer-Encoding field.');
      out.transferEncoding = value;
      return;
    case CONNECTION:
      out.connection = out.connection === undefined ? value : `${out.connection},${value}`;
      return;
    case UPGRADE:
      out.upgrade = out.upgrade === undefined ? value : `${out.upgrade},${value}`;
      return;
    case EXPECT:
      out.expect = out.expect === undefined ? value : `${out.expect},${value}`;
      return;
    case TE:
      out.te = out.te === undefined ? value : `${out.te},${value}`;
      return;
    case KEEP_ALIVE:
      out.keepAlive = value;
      return;
    case UNDERSCORE:
      if (underscores === 'REJECT_REQUEST') throw bad(`Field ${name} has an underscore in its name.`);
      if (underscores === 'ALLOW') out.fields.push(name, lower, value);
      return;
    case REFUSE:
      throw bad(`Field ${name} looks like one that frames or routes a message.`);
    default:
      return;
  }
}

function badName(text: string, at: number, i: number): ProxyError {
  if (text.charCodeAt(at) === 0x20 || text.charCodeAt(at) === 0x09) return bad('A field line starts with white space.');
  if (i === at && text.charCodeAt(i) === 0x3a) return bad('A field has an empty name.');
  return bad('A field name has a byte that is not allowed, or no colon after it.');
}

export function bad(detail: string, code: ErrorCode = 'badRequest'): ProxyError {
  return new ProxyError(code, detail);
}

/** Is `token` (lower case) in a comma-separated list? Case-insensitive, empty members ignored. */
export function hasToken(list: string | undefined, token: string): boolean {
  if (list === undefined || list.length < token.length) return false;
  // By far the most common value, and no other token is asked for in it.
  if (list === 'keep-alive') return token === 'keep-alive';
  if (list.length === token.length) return list === token || list.toLowerCase() === token;
  for (const member of list.toLowerCase().split(',')) if (member.trim() === token) return true;
  return false;
}

/** Throws for a bare LF in `text[from…]`. */
export function checkLineEnds(text: string, from: number): void {
  for (let i = text.indexOf('\n', from); i !== -1; i = text.indexOf('\n', i + 1))
    if (text.charCodeAt(i - 1) !== 0x0d) throw bad('A line ends with a bare LF.');
}
