/** Message heads: reads a request or response head from one latin1 string, strictly as RFC 9112 says, into one reused object. */
import { HOST, HOST_V6, TARGET, TOKEN, VALUE } from './chars.ts';
import { bad, checkLineEnds, emptyFieldValues, hasToken, readFields } from './fields.ts';
import type { FieldValues, UnderscorePolicy } from './fields.ts';

export interface HeadLimits {
  /** Bytes of a whole head, start line included. */
  readonly headBytesMax: number;
  readonly headerFieldsMax: number;
  /** Bytes of a request target. */
  readonly uriBytesMax: number;
  readonly headersWithUnderscores: UnderscorePolicy;
}

/** `contentLength` in place of a length: there was no such field. */
export const NO_LENGTH = -1;

/** Filled anew by each `readRequestHead`; only `values.headers` may be kept. */
export interface RequestHead {
  method: string;
  /** Path and query as sent (origin and absolute form), `*`, or empty for CONNECT. */
  path: string;
  /** From an absolute-form target, CONNECT's target, or Host; undefined when there is none (HTTP/1.0). */
  authority: string | undefined;
  /** 0 or 1. */
  minor: number;
  contentLength: number;
  chunked: boolean;
  keepAlive: boolean;
  readonly values: FieldValues;
}

/** Filled anew by each `readResponseHead`; only `values.headers` may be kept. */
export interface ResponseHead {
  status: number;
  reason: string;
  minor: number;
  contentLength: number;
  chunked: boolean;
  keepAlive: boolean;
  readonly values: FieldValues;
}

export function newRequestHead(): RequestHead {
  return {
    method: '',
    path: '',
    authority: undefined,
    minor: 1,
    contentLength: NO_LENGTH,
    chunked: false,
    keepAlive: true,
    values: emptyFieldValues(),
  };
}

export function newResponseHead(): ResponseHead {
  return { status: 0, reason: '', minor: 1, contentLength: NO_LENGTH, chunked: false, keepAlive: true, values: emptyFieldValues() };
}

/**
 * Reads a request head from `text[at, end)`, whose bytes are at `bytes[base + at]`. `end` is the index of the CRLF CRLF that ends it. Throws `ProxyError`: `badRequest`, `uriTooLong`,
 * `headersTooLarge`, `versionNotSupported`, `notImplemented`, `expectationFailed` is the caller's.
 */
export function readRequestHead(
  text: string,
  bytes: Uint8Array,
  base: number,
  at: number,
  end: number,
  limits: HeadLimits,
  out: RequestHead,
): void {
  let i = at;
  while (TOKEN[bytes[base + i]!] === 1) i++;
  if (i === at || bytes[base + i] !== 0x20) throw bad('The request line does not start with a method and one space.');
  if (i - at > METHOD_BYTES_MAX) throw bad(`The method is longer than ${METHOD_BYTES_MAX} bytes.`);
  const method =
    i - at === 3 && text.startsWith('GET', at) ? 'GET' : i - at === 4 && text.startsWith('POST', at) ? 'POST' : text.slice(at, i);
  const targetAt = ++i;
  while (TARGET[bytes[base + i]!] === 1) i++;
  if (i - targetAt > limits.uriBytesMax) throw bad(`The target is longer than ${limits.uriBytesMax} bytes.`, 'uriTooLong');
  if (i === targetAt || text.charCodeAt(i) !== 0x20) throw bad('The request target is empty or has a byte that is not allowed.');
  const target = text.slice(targetAt, i);
  out.minor = readVersion(text, i + 1);
  i += 9;
  if (text.charCodeAt(i) !== 0x0d || text.charCodeAt(i + 1) !== 0x0a) throw bad('The request line does not end after the version.');
  out.method = method;
  readFields(text, bytes, base, i + 2, end + 2, 'request', limits.headerFieldsMax, limits.headersWithUnderscores, out.values);
  readTarget(target, out);
  readRequestFraming(out);
}

/** The minor version of `HTTP/1.x` at `at`. */
function readVersion(text: string, at: number): number {
  if (text.startsWith('HTTP/1.', at)) {
    const minor = text.charCodeAt(at + 7) - 0x30;
    if (text.charCodeAt(at + 8) === 0x0d && (minor === 0 || minor === 1)) return minor;
  }
  const eol = text.indexOf('\r\n', at);
  const version = text.slice(at, Math.min(eol, at + 16));
  const known = version.startsWith('HTTP/') && version.length === 8 && version.charCodeAt(6) === 0x2e;
  throw bad('Only HTTP/1.1 and HTTP/1.0 are spoken here.', known ? 'versionNotSupported' : 'badRequest');
}

function readTarget(target: string, out: RequestHead): void {
  const host = out.values.host;
  if (host !== undefined) checkAuthority(host, 'Host');
  else if (out.minor === 1) throw bad('There is no Host field.');
  out.authority = host;
  if (out.method === 'CONNECT') {
    checkAuthority(target, 'The target of CONNECT');
    if (!hasPort(target)) throw bad('The target of CONNECT has no port.');
    out.authority = target;
    out.path = '';
    return;
  }
  if (target.charCodeAt(0) === 0x2f) {
    out.path = target;
    return;
  }
  if (target === '*') {
    if (out.method !== 'OPTIONS') throw bad('The target * belongs to OPTIONS.');
    out.path = '*';
    return;
  }
  const scheme = target.slice(0, 8).toLowerCase();
  const from = scheme === 'https://' ? 8 : scheme.startsWith('http://') ? 7 : -1;
  if (from === -1) throw bad('The target is neither a path nor an http or https URI.');
  let slash = target.indexOf('/', from);
  const query = target.indexOf('?', from);
  if (query !== -1 && (slash === -1 || query < slash)) slash = query;
  // RFC 9112 section 3.2.2: the authority of an absolute-form target replaces whatever Host said.
  const authority = slash === -1 ? target.slice(from) : target.slice(from, slash);
  checkAuthority(authority, 'The authority of the target');
  out.authority = authority;
  if (slash === -1) out.path = out.method === 'OPTIONS' ? '*' : '/';
  else out.path = slash === query ? `/${target.slice(slash)}` : target.slice(slash);
}

function hasPort(authority: string): boolean {
  const colon = authority.lastIndexOf(':');
  return colon !== -1 && authority.charCodeAt(authority.length - 1) !== 0x5d;
}

const HOST_BYTES_MAX = 260;

/** A host name, an IPv4 address or a bracketed IPv6 address, and a port from 1 to 65535 if there is one. */
export function checkAuthority(authority: string, what: string): void {
  const length = authority.length;
  if (length === 0 || length > HOST_BYTES_MAX) throw bad(`${what} is empty or too long.`);
  let i = 0;
  if (authority.charCodeAt(0) === 0x5b) {
    i = 1;
    while (HOST_V6[authority.charCodeAt(i)] === 1) i++;
    if (i < 3 || authority.charCodeAt(i) !== 0x5d) throw bad(`${what} has an address in brackets that is not IPv6.`);
    i++;
  } else {
    while (HOST[authority.charCodeAt(i)] === 1) i++;
    if (i === 0) throw bad(`${what} names no host.`);
  }
  if (i === length) return;
  if (authority.charCodeAt(i) !== 0x3a) throw bad(`${what} has a byte that no host has.`);
  let port = 0;
  const portAt = ++i;
  for (; i < length; i++) {
    const digit = authority.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9 || i - portAt > 4) throw bad(`${what} has a port that is not a number up to 65535.`);
    port = port * 10 + digit;
  }
  if (port < 1 || port > 65535) throw bad(`${what} has a port that is not a number from 1 to 65535.`);
}

/** RFC 9112 section 6.3, and stricter: both framings, or a length twice, is an attack and not a slip. */
function readRequestFraming(out: RequestHead): void {
  const values = out.values;
  out.chunked = false;
  out.contentLength = NO_LENGTH;
  if (values.transferEncoding !== undefined) {
    if (values.contentLength !== undefined) throw bad('There are both Transfer-Encoding and Content-Length.');
    if (out.minor === 0) throw bad('Transfer-Encoding does not exist in HTTP/1.0.');
    checkChunked(values.transferEncoding);
    out.chunked = true;
  } else if (values.contentLength !== undefined) out.contentLength = readLength(values.contentLength);
  out.keepAlive =
    out.minor === 1
      ? values.connection === undefined || !hasToken(values.connection, 'close')
      : hasToken(values.connection, 'keep-alive') && !hasToken(values.connection, 'close');
}

/** The one coding that is relayed is `chunked`, once. Other codings of valid form are 501, the rest 400. */
function checkChunked(value: string): void {
  if (value === 'chunked' || value.toLowerCase() === 'chunked') return;
  const codings = value.toLowerCase().split(',');
  const wellFormed = codings.every((coding, i) => {
    const name = coding.trim();
    for (let k = 0; k < name.length; k++) if (TOKEN[name.charCodeAt(k)] !== 1) return false;
    return name !== '' && name !== 'identity' && (name !== 'chunked' || i === codings.length - 1);
  });
  if (wellFormed) throw bad('Only the transfer coding chunked is supported.', 'notImplemented');
  throw bad('The value of Transfer-Encoding is not valid.');
}

/** Digits alone, no leading zero, at most 2^53 - 1. */
function readLength(value: string): number {
  const length = value.length;
  if (length === 0 || length > 16) throw bad('The value of Content-Length is not a length.');
  let total = 0;
  for (let i = 0; i < length; i++) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) throw bad('The value of Content-Length is not a length.');
    total = total * 10 + digit;
  }
  if ((length > 1 && value.charCodeAt(0) === 0x30) || total > Number.MAX_SAFE_INTEGER)
    throw bad('The value of Content-Length is not a length.');
  return total;
}

/** Reads a response head; `end` is the index of the CRLF CRLF that ends it. Throws `ProxyError`; the caller makes it the upstream's fault. */
export function readResponseHead(
  text: string,
  bytes: Uint8Array,
  base: number,
  at: number,
  end: number,
  limits: HeadLimits,
  out: ResponseHead,
): void {
  if (!text.startsWith(STATUS_LINE_START, at)) throw bad('The status line does not start with HTTP/1.');
  const minor = text.charCodeAt(at + 7) - 0x30;
  const status = (text.charCodeAt(at + 9) - 0x30) * 100 + (text.charCodeAt(at + 10) - 0x30) * 10 + (text.charCodeAt(at + 11) - 0x30);
  if ((minor !== 0 && minor !== 1) || text.charCodeAt(at + 8) !== 0x20) throw bad('The status line has no version that is spoken here.');
  if (!threeDigits(text, at + 9) || status < 100) throw bad('The status is not a number from 100 to 999.');
  let i = at + 12;
  let reason = '';
  if (text.charCodeAt(i) === 0x20) {
    const reasonAt = ++i;
    while (VALUE[text.charCodeAt(i)] === 1) i++;
    reason = text.slice(reasonAt, i);
  }
  if (text.charCodeAt(i) !== 0x0d || text.charCodeAt(i + 1) !== 0x0a) throw bad('The status line has a byte that is not allowed.');
  out.status = status;
  out.reason = reason;
  out.minor = minor;
  readFields(text, bytes, base, i + 2, end + 2, 'response', limits.headerFieldsMax, 'ALLOW', out.values);
  readResponseFraming(out);
}

/**
 * A request head that is not all there may already be wrong: too long, or with a bare LF that would never end it. `text[searched…]` is
 * what was not looked at before. Throws `uriTooLong`, `headersTooLarge` or `badRequest`.
 */
export function checkPartialHead(text: string, at: number, searched: number, limits: HeadLimits): void {
  const eol = text.indexOf('\r\n', at);
  if ((eol === -1 ? text.length : eol) - at > limits.uriBytesMax + METHOD_AND_VERSION_BYTES_MAX)
    throw bad(`The target is longer than ${limits.uriBytesMax} bytes.`, 'uriTooLong');
  if (text.length > limits.headBytesMax) throw bad(`A head may have ${limits.headBytesMax} bytes.`, 'headersTooLarge');
  checkLineEnds(text, searched);
  const first = text.charCodeAt(at);
  // After the one empty line, or at the start; a lone CR may still become that line.
  if (text.length > at && TOKEN[first] !== 1 && (first !== 0x0d || at === 2 || text.length > 1))
    throw bad('The request line does not start with a method.');
}

/**
 * A cheap first look at what came after `buffer[0, searched)` passed `checkPartialHead`: true if `buffer[0, bytes)` neither ends the head nor
 * can be wrong. Who sends a head byte by byte costs no more than that a byte.
 */
export function isPartOfHead(buffer: Uint8Array, searched: number, bytes: number, limits: HeadLimits): boolean {
  // How it starts is looked at in the first bytes.
  if (searched < 4 || bytes > limits.headBytesMax) return false;
  for (let i = searched; i < bytes; i++) if (buffer[i] === 0x0a && (buffer[i - 1] !== 0x0d || buffer[i - 2] === 0x0a)) return false;
  if (bytes <= limits.uriBytesMax) return true;
  const firstLineEnd = buffer.indexOf(0x0a, 2);
  return firstLineEnd !== -1 && firstLineEnd < searched;
}

/** `checkPartialHead` for a response head: what cannot become one is not waited for. Throws `badRequest`, which the caller makes the upstream's fault. */
export function checkPartialResponseHead(text: string, searched: number): void {
  if (!STATUS_LINE_START.startsWith(text.slice(0, STATUS_LINE_START.length))) throw bad('The status line does not start with HTTP/1.');
  checkLineEnds(text, searched);
}

const STATUS_LINE_START = 'HTTP/1.';
/** The longest registered method has 17 bytes. */
const METHOD_BYTES_MAX = 64;
/** With two spaces and eight bytes of version. */
const METHOD_AND_VERSION_BYTES_MAX = METHOD_BYTES_MAX + 10;

function threeDigits(text: string, at: number): boolean {
  for (let i = at; i < at + 3; i++) {
    const code = text.charCodeAt(i);
    if (!(code >= 0x30 && code <= 0x39)) return false;
  }
  return true;
}

function readResponseFraming(out: ResponseHead): void {
  const values = out.values;
  out.chunked = false;
  out.contentLength = NO_LENGTH;
  if (values.transferEncoding !== undefined) {
    if (values.contentLength !== undefined) throw bad('There are both Transfer-Encoding and Content-Length.');
    if (out.minor === 0) throw bad('Transfer-Encoding does not exist in HTTP/1.0.');
    checkChunked(values.transferEncoding);
    out.chunked = true;
  } else if (values.contentLength !== undefined) out.contentLength = readLength(values.contentLength);
  out.keepAlive =
    out.minor === 1
      ? values.connection === undefined || !hasToken(values.connection, 'close')
      : hasToken(values.connection, 'keep-alive') && !hasToken(values.connection, 'close');
}
