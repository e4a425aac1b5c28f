/** Random ids in hex: request ids (UUID version 4), trace and span ids. Not secrets. */
import type { Random } from '../../lib/random.ts';

const HEX: readonly string[] = Array.from({ length: 65_536 }, (_, value) => value.toString(16).padStart(4, '0'));

/** A UUID version 4 (RFC 9562 section 5.4). */
export function uuid(random: Random): string {
  const a = word(random);
  const b = word(random);
  const c = word(random);
  const d = word(random);
  const version = HEX[(b & 0x0fff) | 0x4000]!;
  const variant = HEX[((c >>> 16) & 0x3fff) | 0x8000]!;
  return `${HEX[a >>> 16]!}${HEX[a & 0xffff]!}-${HEX[b >>> 16]!}-${version}-${variant}-${HEX[c & 0xffff]!}${HEX[d >>> 16]!}${HEX[d & 0xffff]!}`;
}

/** 32 hex digits, never all zero (W3C Trace Context section 3.2.2.3). */
export function traceId(random: Random): string {
  return hex64(random) + spanId(random);
}

/** 16 hex digits, never all zero. */
export function spanId(random: Random): string {
  const id = hex64(random);
  return id === '0000000000000000' ? '0000000000000001' : id;
}

function hex64(random: Random): string {
  const a = word(random);
  const b = word(random);
  return HEX[a >>> 16]! + HEX[a & 0xffff]! + HEX[b >>> 16]! + HEX[b & 0xffff]!;
}

function word(random: Random): number {
  return (random() * 4294967296) >>> 0;
}
