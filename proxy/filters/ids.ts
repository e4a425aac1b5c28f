/** Random ids in hex: request ids (UUID version 4), trace and span ids. Not secrets. */
import type { Random } from '../../lib/random.ts';

/** Two digits an entry: a table of four would not fit the processor's nearest cache and takes twice the time. */
const HEX: readonly string[] = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, '0'));

/** A UUID version 4 (RFC 9562 section 5.4). */
export function uuid(random: Random): string {
  const a = word(random);
  const b = word(random);
  const c = word(random);
  const d = word(random);
  return (
    HEX[a >>> 24]! +
    HEX[(a >>> 16) & 255]! +
    HEX[(a >>> 8) & 255]! +
    HEX[a & 255]! +
    '-' +
    HEX[b >>> 24]! +
    HEX[(b >>> 16) & 255]! +
    '-' +
    HEX[((b >>> 8) & 15) | 64]! +
    HEX[b & 255]! +
    '-' +
    HEX[((c >>> 24) & 63) | 128]! +
    HEX[(c >>> 16) & 255]! +
    '-' +
    HEX[(c >>> 8) & 255]! +
    HEX[c & 255]! +
    HEX[d >>> 24]! +
    HEX[(d >>> 16) & 255]! +
    HEX[(d >>> 8) & 255]! +
    HEX[d & 255]!
  );
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
  return hex(word(random)) + hex(word(random));
}

function hex(value: number): string {
  return HEX[value >>> 24]! + HEX[(value >>> 16) & 0xff]! + HEX[(value >>> 8) & 0xff]! + HEX[value & 0xff]!;
}

function word(random: Random): number {
  return (random() * 4294967296) >>> 0;
}
