/** Field sections: reads the lines of a head or of trailers into fields, and sorts out those that frame a message or end at this hop. */
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { lowerName } from '../headers.ts';
import { TOKEN, VALUE } from './chars.ts';

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
      return { lower, request: REFUSE, response: REFUSE, trailer: DROP };
    const guarded = KINDS.has(dashed) || GUARDED_PREFIXES.some((prefix) => dashed.startsWith(prefix));
    return { lower, request: guarded ? DROP : UNDERSCORE, response: PLAIN, trailer: guarded ? DROP : PLAIN };
  }
  const kinds = KINDS.get(lower);
  const trailer = dropInTrailers || lower.startsWith('x-mesh-') || lower.startsWith('x-envoy-') ? DROP : PLAIN;
  return { lower, request: kinds?.[0] ?? PLAIN, response: kinds?.[1] ?? PLAIN, trailer };
}

/** Names seen before with what they mean; bounded, so that strangers cannot fill it. */
const NAMES = new Map<string, NameEntry>();
const NAMES_MAX = 1024;
const NAME_LENGTH_CACHED_MAX = 64;

function lookUp(name: string): NameEntry {
  const known = NAMES.get(name);
  if (known !== undefined) return known;
  const entry = entryOf(name);
  // A slice would keep the whole head it was cut from alive; the copy through a buffer does not.
  if (NAMES.size < NAMES_MAX && name.length <= NAME_LENGTH_CACHED_MAX) NAMES.set(Buffer.from(name, 'latin1').toString('latin1'), entry);
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
    while (TOKEN[text.charCodeAt(i)] === 1) i++;
    if (i === at || text.charCodeAt(i) !== 0x3a) throw badName(text, at, i);
    if (++count > fieldsMax) throw new ProxyError('headersTooLarge', `A message may have ${fieldsMax} fields.`);
    const name = text.slice(at, i);
    i++;
    let code = text.charCodeAt(i);
    while (code === 0x20 || code === 0x09) code = text.charCodeAt(++i);
    const start = i;
    while (VALUE[code] === 1) code = text.charCodeAt(++i);
    if (code !== 0x0d || text.charCodeAt(i + 1) !== 0x0a) throw bad(`The value of field ${name} has a byte that is not allowed.`);
    at = i + 2;
    while (i > start && (text.charCodeAt(i - 1) === 0x20 || text.charCodeAt(i - 1) === 0x09)) i--;
    const value = text.slice(start, i);
    const entry = lookUp(name);
    const kind = entry[section];
    if (kind === PLAIN) fields.push(name, entry.lower, value);
    else take(kind, name, entry.lower, value, underscores, out);
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
