/** Field sections: reads the lines of a head or of trailers into fields, and sorts out those that frame a message or end at this hop. */
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { Headers } from '../headers.ts';
import { TOKEN, VALUE } from './chars.ts';
import {
  CONNECTION,
  CONTENT_LENGTH,
  EXPECT,
  HOST,
  KEEP_ALIVE,
  PLAIN,
  REFUSE,
  TE,
  TRANSFER_ENCODING,
  UNDERSCORE,
  UPGRADE,
  nameAt,
} from './names.ts';
import type { NameEntry } from './names.ts';

export type FieldSection = 'request' | 'response' | 'trailer';
export type UnderscorePolicy = 'ALLOW' | 'REJECT_REQUEST' | 'DROP_HEADER';

/** What a field section said to the codec. One object per reader, filled anew by each call; `headers` is handed on and never reused. */
export interface FieldValues {
  /** The fields that are relayed. */
  headers: Headers;
  host: string | undefined;
  contentLength: string | undefined;
  transferEncoding: string | undefined;
  connection: string | undefined;
  upgrade: string | undefined;
  expect: string | undefined;
  te: string | undefined;
  keepAlive: string | undefined;
}

/** Stands there until a section is read; nobody may change it. */
const NONE = new Headers();

export function emptyFieldValues(): FieldValues {
  return {
    headers: NONE,
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
 * Reads field lines from `text[at, end)`, each ended by CRLF, into `out`. `text` is latin1, one character per byte, and `bytes` are the same
 * from `bytes[base]` on: reading bytes costs a third of reading characters. What is relayed is cut from the text in runs of lines that are
 * written as we write them; only a line with other white space is made anew.
 * Throws `badRequest` for anything RFC 9112 section 5 does not allow, `headersTooLarge` past `fieldsMax`.
 */
export function readFields(
  text: string,
  bytes: Uint8Array,
  base: number,
  at: number,
  end: number,
  section: FieldSection,
  fieldsMax: number,
  underscores: UnderscorePolicy,
  out: FieldValues,
): void {
  clear(out);
  let lines = '';
  let seen = 0;
  /** Start of the run of lines that go on as they are; -1 = there is none. */
  let runAt = -1;
  let count = 0;
  while (at < end) {
    let i = base + at;
    let hash = 0;
    let code = bytes[i]!;
    while (TOKEN[code] === 1) {
      hash = (Math.imul(hash, 31) + code) | 0;
      code = bytes[++i]!;
    }
    const nameEnd = i - base;
    if (nameEnd === at || code !== 0x3a) throw badName(text, at, nameEnd);
    if (++count > fieldsMax) throw new ProxyError('headersTooLarge', `A message may have ${fieldsMax} fields.`);
    const entry = nameAt(text, at, nameEnd, hash);
    code = bytes[++i]!;
    while (code === 0x20 || code === 0x09) code = bytes[++i]!;
    const start = i - base;
    // Tab, space, visible ASCII and obs-text: RFC 9110 section 5.5.
    while (VALUE[code] === 1) code = bytes[++i]!;
    if (code !== 0x0d || bytes[i + 1] !== 0x0a) throw bad(`The value of field ${entry.name} has a byte that is not allowed.`);
    let stop = i - base;
    const next = stop + 2;
    while (stop > start && (text.charCodeAt(stop - 1) === 0x20 || text.charCodeAt(stop - 1) === 0x09)) stop--;
    const kind = section === 'request' ? entry.request : section === 'response' ? entry.response : entry.trailer;
    if (kind === PLAIN && stop + 2 === next && start === nameEnd + 2 && text.charCodeAt(nameEnd + 1) === 0x20) {
      seen |= entry.bits;
      if (runAt === -1) runAt = at;
    } else {
      if (runAt !== -1) lines += text.slice(runAt, at);
      runAt = -1;
      const value = text.slice(start, stop);
      if (kind === PLAIN || relays(kind, entry, value, underscores, out)) {
        seen |= entry.bits;
        lines += `${entry.name}: ${value}\r\n`;
      }
    }
    at = next;
  }
  if (runAt !== -1) lines = lines === '' ? text.slice(runAt, at) : lines + text.slice(runAt, at);
  out.headers = new Headers(lines, seen);
}

/** Takes a field that is not plain. True = it is relayed all the same. */
function relays(kind: number, entry: NameEntry, value: string, underscores: UnderscorePolicy, out: FieldValues): boolean {
  switch (kind) {
    case HOST:
      if (out.host !== undefined) throw bad('There is more than one Host field.');
      out.host = value;
      return false;
    case CONTENT_LENGTH:
      if (out.contentLength !== undefined) throw bad('There is more than one Content-Length field.');
      out.contentLength = value;
      return false;
    case TRANSFER_ENCODING:
      if (out.transferEncoding !== undefined) throw bad('There is more than one Transfer-Encoding field.');
      out.transferEncoding = value;
      return false;
    case CONNECTION:
      out.connection = out.connection === undefined ? value : `${out.connection},${value}`;
      return false;
    case UPGRADE:
      out.upgrade = out.upgrade === undefined ? value : `${out.upgrade},${value}`;
      return false;
    case EXPECT:
      out.expect = out.expect === undefined ? value : `${out.expect},${value}`;
      return false;
    case TE:
      out.te = out.te === undefined ? value : `${out.te},${value}`;
      return false;
    case KEEP_ALIVE:
      out.keepAlive = value;
      return false;
    case UNDERSCORE:
      if (underscores === 'REJECT_REQUEST') throw bad(`Field ${entry.name} has an underscore in its name.`);
      return underscores === 'ALLOW';
    case REFUSE:
      throw bad(`Field ${entry.name} looks like one that frames or routes a message.`);
    default:
      return false;
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
