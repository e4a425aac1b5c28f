/**
 * The first message of a TLS client, read from peeked bytes without answering it: `readClientHello(bytes)` gives server name, protocols and
 * versions for the choice of a filter chain and for telling TLS from plaintext (RFC 8446 section 4.1.2). Never throws, whatever the bytes.
 */
import { Buffer } from 'node:buffer';
import { isIP } from 'node:net';

/** `more`: could become one, read on. `other`: not TLS. `malformed`: TLS, and not to be answered. */
export type HelloResult =
  | { readonly kind: 'more' }
  | { readonly kind: 'other' }
  | { readonly kind: 'malformed'; readonly rule: string }
  | ClientHello;

export interface ClientHello {
  readonly kind: 'hello';
  /** Lower case; empty when the client named nobody, or named an IP address, which is no server name. */
  readonly serverName: string;
  /** In the client's order. */
  readonly applicationProtocols: readonly string[];
  /** Wire values of what it offers: 0x0304 is TLS 1.3, 0x0303 is TLS 1.2. GREASE is left out. */
  readonly versions: readonly number[];
}

/** A hello with post-quantum shares takes 2 KiB; Envoy's inspector stops at 16 KiB too. */
export const HELLO_BYTES_MAX = 16_384;

const MORE: HelloResult = { kind: 'more' };
const OTHER: HelloResult = { kind: 'other' };
const EXTENSION = { serverName: 0, alpn: 16, supportedVersions: 43 } as const;
const PROTOCOLS_MAX = 32;
const EXTENSIONS_MAX = 128;

/** Reads what is there. Call again with all bytes so far after `more`; the answer comes by `HELLO_BYTES_MAX` bytes at the latest. */
export function readClientHello(bytes: Buffer): HelloResult {
  if (bytes.length >= 1 && bytes[0] !== 0x16) return OTHER;
  if (bytes.length >= 2 && bytes[1] !== 0x03) return OTHER;
  if (bytes.length >= 6 && bytes[5] !== 0x01) return OTHER;
  try {
    return readRecords(bytes);
  } catch (error) {
    if (error instanceof Malformed) return { kind: 'malformed', rule: error.message };
    throw error;
  }
}

class Malformed extends Error {}

/** Joins the handshake records there are and reads the hello once it is whole. */
function readRecords(bytes: Buffer): HelloResult {
  let hello: Buffer | undefined;
  let parts: Buffer[] | undefined;
  let have = 0;
  let wanted = 4;
  for (let at = 0; have < wanted;) {
    if (at + 5 > bytes.length) return more(bytes);
    if (bytes[at] !== 0x16 || bytes[at + 1] !== 0x03) throw new Malformed('a hello is made of handshake records only');
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0 || length > 16_384) throw new Malformed('a record holds 1 to 16,384 bytes');
    const part = bytes.subarray(at + 5, at + 5 + length);
    // One record is the rule; only a split hello is copied.
    if (hello === undefined) hello = part;
    else (parts ??= [hello]).push(part);
    have += part.length;
    at += 5 + length;
    if (have >= 4 && wanted === 4) {
      if (parts !== undefined) parts = [(hello = Buffer.concat(parts))];
      wanted = 4 + hello.readUIntBE(1, 3);
      if (wanted > HELLO_BYTES_MAX) throw new Malformed(`a hello takes at most ${HELLO_BYTES_MAX} bytes`);
    }
    if (part.length < length && have < wanted) return more(bytes);
  }
  const whole = parts === undefined ? hello! : Buffer.concat(parts);
  return readBody(new Fields(whole.subarray(4, wanted)));
}

function more(bytes: Buffer): HelloResult {
  if (bytes.length >= HELLO_BYTES_MAX) throw new Malformed(`a hello takes at most ${HELLO_BYTES_MAX} bytes`);
  return MORE;
}

function readBody(body: Fields): ClientHello {
  const legacyVersion = body.number(2);
  body.bytes(32);
  if (body.vector(1).length > 32) throw new Malformed('a session id takes at most 32 bytes');
  const suites = body.vector(2).length;
  if (suites === 0 || suites % 2 !== 0) throw new Malformed('cipher suites take two bytes each and are not empty');
  if (body.vector(1).length === 0) throw new Malformed('compression methods are not empty');
  let serverName = '';
  let applicationProtocols: readonly string[] = [];
  let versions: readonly number[] = [legacyVersion];
  if (!body.done) {
    const extensions = new Fields(body.vector(2));
    const seen = new Set<number>();
    while (!extensions.done) {
      const type = extensions.number(2);
      const value = new Fields(extensions.vector(2));
      if (seen.has(type)) throw new Malformed(`extension ${type} is there twice`);
      if (seen.size >= EXTENSIONS_MAX) throw new Malformed(`at most ${EXTENSIONS_MAX} extensions`);
      seen.add(type);
      if (type === EXTENSION.serverName) serverName = readServerName(value);
      else if (type === EXTENSION.alpn) applicationProtocols = readProtocols(value);
      else if (type === EXTENSION.supportedVersions) versions = readVersions(value);
    }
  }
  if (!body.done) throw new Malformed('a hello has nothing after its extensions');
  return { kind: 'hello', serverName, applicationProtocols, versions };
}

/** RFC 6066 section 3: one host name of ASCII letters, digits, dots and dashes (and underscores, as service names have them). */
function readServerName(value: Fields): string {
  const list = new Fields(value.vector(2));
  value.end();
  if (list.number(1) !== 0) throw new Malformed('the only type of server name is host_name');
  const name = list.vector(2).toString('latin1').toLowerCase();
  list.end();
  if (!/^[\x21-\x7e]{1,255}$/.test(name)) throw new Malformed('a server name is 1 to 255 printable ASCII characters');
  if (isIP(name) !== 0) return '';
  if (!/^[a-z0-9_*-]+(\.[a-z0-9_-]+)*\.?$/.test(name))
    throw new Malformed('a server name is made of letters, digits, dots, dashes and underscores');
  return name.endsWith('.') ? name.slice(0, -1) : name;
}

function readProtocols(value: Fields): readonly string[] {
  const list = new Fields(value.vector(2));
  value.end();
  const protocols: string[] = [];
  while (!list.done) {
    const name = list.vector(1);
    if (name.length === 0) throw new Malformed('a protocol name is not empty');
    if (protocols.length >= PROTOCOLS_MAX) throw new Malformed(`at most ${PROTOCOLS_MAX} protocols`);
    protocols.push(name.toString('latin1'));
  }
  return protocols;
}

function readVersions(value: Fields): readonly number[] {
  const list = new Fields(value.vector(1));
  value.end();
  const versions: number[] = [];
  while (!list.done) {
    const version = list.number(2);
    if (version >> 8 === 3) versions.push(version);
  }
  return versions;
}

/** Reads numbers and length-prefixed vectors; running past the end is `Malformed`. */
class Fields {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  bytes(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new Malformed('a length runs past the end');
    const part = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return part;
  }

  number(length: 1 | 2): number {
    return this.bytes(length).readUIntBE(0, length);
  }

  vector(lengthBytes: 1 | 2): Buffer {
    return this.bytes(this.number(lengthBytes));
  }

  end(): void {
    if (!this.done) throw new Malformed('a field has bytes after its end');
  }
}
