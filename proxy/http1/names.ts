/** Field names: what the codec does with each, and a table in which a name is found by the bytes it was read from. */
import { lowerName, seenBits } from '../headers.ts';

/** What the codec does with a field: `PLAIN` is relayed, `DROP` ends at this hop, `REFUSE` is a look-alike, the others are read and taken off. */
export const PLAIN = 0;
export const HOST = 1;
export const CONTENT_LENGTH = 2;
export const TRANSFER_ENCODING = 3;
export const CONNECTION = 4;
export const UPGRADE = 5;
export const EXPECT = 6;
export const TE = 7;
export const KEEP_ALIVE = 8;
export const DROP = 9;
export const REFUSE = 10;
export const UNDERSCORE = 11;

export interface NameEntry {
  readonly name: string;
  readonly lower: string;
  readonly request: number;
  readonly response: number;
  readonly trailer: number;
  /** As `seenBits` of the lower-case name. */
  readonly bits: number;
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
  const bits = seenBits(lower);
  const dropInTrailers = NOT_IN_TRAILERS.has(lower);
  if (lower.includes('_')) {
    const dashed = lower.replaceAll('_', '-');
    if (dashed === 'content-length' || dashed === 'transfer-encoding' || dashed === 'host')
      return { name, lower, request: REFUSE, response: REFUSE, trailer: DROP, bits };
    const guarded = KINDS.has(dashed) || GUARDED_PREFIXES.some((prefix) => dashed.startsWith(prefix));
    return { name, lower, request: guarded ? DROP : UNDERSCORE, response: PLAIN, trailer: guarded ? DROP : PLAIN, bits };
  }
  const kinds = KINDS.get(lower);
  const trailer = dropInTrailers || lower.startsWith('x-mesh-') || lower.startsWith('x-envoy-') ? DROP : PLAIN;
  return { name, lower, request: kinds?.[0] ?? PLAIN, response: kinds?.[1] ?? PLAIN, trailer, bits };
}

/**
 * Names seen before with what they mean, found by a hash that is reckoned while the name is scanned: a `Map` would have to intern each
 * name first, which was 3 % of the proxy's CPU. A table of fixed size in which a newcomer takes the place of another is bounded by itself.
 */
const NAMES: (NameEntry | undefined)[] = Array.from({ length: 2048 }, () => undefined);
const NAME_LENGTH_CACHED_MAX = 64;

/** The entry of the name at `text[at, end)`; `hash` is the caller's, of its bytes, and may be any function of them. */
export function nameAt(text: string, at: number, end: number, hash: number): NameEntry {
  const slot = hash & (NAMES.length - 1);
  const known = NAMES[slot];
  if (known !== undefined && known.name.length === end - at && text.startsWith(known.name, at)) return known;
  // A slice would keep the whole head it was cut from alive; the copy through a buffer does not.
  const entry = entryOf(Buffer.from(text.slice(at, end), 'latin1').toString('latin1'));
  if (end - at <= NAME_LENGTH_CACHED_MAX) NAMES[slot] = entry;
  return entry;
}
