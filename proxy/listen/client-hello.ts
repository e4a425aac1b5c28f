/** Reads the server name and the protocols out of a TLS ClientHello without answering it (RFC 8446 section 4.1.2). */

export type HelloResult =
  | { readonly kind: 'more' }
  | { readonly kind: 'other' }
  | { readonly kind: 'hello'; readonly serverName: string; readonly applicationProtocols: readonly string[] };

/** A ClientHello may span records; more than this is no honest client. */
export const HELLO_BYTES_MAX = 64 * 1024;

const MORE: HelloResult = { kind: 'more' };
const OTHER: HelloResult = { kind: 'other' };
const EXTENSION_SERVER_NAME = 0;
const EXTENSION_ALPN = 16;

/** Looks at the first bytes of a connection. `more` = could still be TLS; `other` = it is not. Never throws. */
export function readClientHello(bytes: Buffer): HelloResult {
  if (bytes.length >= 1 && bytes[0] !== 0x16) return OTHER;
  if (bytes.length >= 2 && bytes[1] !== 0x03) return OTHER;
  if (bytes.length < 6) return MORE;
  const handshake = joinRecords(bytes);
  if (handshake === undefined) return OTHER;
  if (handshake.length >= 1 && handshake[0] !== 1) return OTHER;
  if (handshake.length < 4) return MORE;
  const length = handshake.readUIntBE(1, 3);
  if (length > HELLO_BYTES_MAX) return OTHER;
  if (handshake.length < 4 + length) return bytes.length >= HELLO_BYTES_MAX ? OTHER : MORE;
  return parseBody(handshake.subarray(4, 4 + length)) ?? OTHER;
}

/** The payloads of the handshake records there are, one after the other; undefined when a record is of another type or too long. */
function joinRecords(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  let at = 0;
  while (at + 5 <= bytes.length) {
    if (bytes[at] !== 0x16) return parts.length === 0 ? undefined : Buffer.concat(parts);
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0 || length > 16_384 + 256) return undefined;
    parts.push(bytes.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return parts.length === 1 ? parts[0] : Buffer.concat(parts);
}

function parseBody(body: Buffer): HelloResult | undefined {
  let at = 2 + 32;
  const skip = (lengthBytes: 1 | 2): void => {
    if (at + lengthBytes > body.length) at = Number.POSITIVE_INFINITY;
    else at += lengthBytes + body.readUIntBE(at, lengthBytes);
  };
  skip(1);
  skip(2);
  skip(1);
  if (at === body.length) return { kind: 'hello', serverName: '', applicationProtocols: [] };
  if (at + 2 > body.length) return undefined;
  const end = at + 2 + body.readUInt16BE(at);
  at += 2;
  if (end > body.length) return undefined;
  let serverName = '';
  let applicationProtocols: readonly string[] = [];
  while (at + 4 <= end) {
    const type = body.readUInt16BE(at);
    const length = body.readUInt16BE(at + 2);
    const value = body.subarray(at + 4, at + 4 + length);
    if (value.length < length) return undefined;
    if (type === EXTENSION_SERVER_NAME) serverName = parseServerName(value);
    else if (type === EXTENSION_ALPN) applicationProtocols = parseProtocols(value);
    at += 4 + length;
  }
  return { kind: 'hello', serverName, applicationProtocols };
}

function parseServerName(value: Buffer): string {
  if (value.length < 5 || value[2] !== 0) return '';
  const name = value.subarray(5, 5 + value.readUInt16BE(3)).toString('latin1');
  return /^[\x21-\x7e]{1,255}$/.test(name) ? name.toLowerCase() : '';
}

function parseProtocols(value: Buffer): readonly string[] {
  const protocols: string[] = [];
  for (let at = 2; at < value.length && protocols.length < 32; at += 1 + value[at]!) {
    protocols.push(value.subarray(at + 1, at + 1 + value[at]!).toString('latin1'));
  }
  return protocols;
}
