/**
 * DER (ITU-T X.690), both ways: a writer of nested values and a strict, bounded reader; the few types that X.509 needs.
 * `sequence(integer(1n), oid('1.2.3'))` writes; `new DerReader(bytes).sequence()` reads.
 */
import { Buffer } from 'node:buffer';

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** Bytes that are not the DER they should be; the message names place and rule. */
export class DerError extends Error {
  override readonly name = 'DerError';
}

// ---- writing --------------------------------------------------------------------------------------------------------

/** One value: tag, shortest length, content. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  const length = content.length;
  if (length < 0x80) return Buffer.concat([Uint8Array.of(tag, length), content]);
  const lengthBytes: number[] = [];
  for (let left = length; left > 0; left = Math.floor(left / 256)) lengthBytes.unshift(left % 256);
  return Buffer.concat([Uint8Array.of(tag, 0x80 | lengthBytes.length, ...lengthBytes), content]);
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(TAG.sequence, ...parts);
export const octetString = (content: Uint8Array): Buffer => tlv(TAG.octetString, content);
export const utf8 = (text: string): Buffer => tlv(TAG.utf8String, Buffer.from(text, 'utf8'));
export const nullValue = (): Buffer => tlv(TAG.null, Buffer.alloc(0));
export const boolean = (value: boolean): Buffer => tlv(TAG.boolean, Uint8Array.of(value ? 0xff : 0));

/** Members are sorted, as DER asks of a SET OF. */
export const setOf = (...members: readonly Buffer[]): Buffer => tlv(TAG.set, ...members.toSorted((a, b) => Buffer.compare(a, b)));

/** `[n]` around a whole value. */
export const explicit = (n: number, ...parts: readonly Uint8Array[]): Buffer => tlv(0xa0 | n, ...parts);

/** `[n]` in place of a primitive value's own tag. */
export const implicit = (n: number, content: Uint8Array): Buffer => tlv(0x80 | n, content);

/** An INTEGER that is not negative, from a bigint or from big-endian bytes. */
export function integer(value: bigint | Uint8Array): Buffer {
  let bytes: Buffer;
  if (typeof value === 'bigint') {
    if (value < 0n) throw new DerError(`an INTEGER here is not negative, received ${value}`);
    const hex = value.toString(16);
    bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  } else {
    let start = 0;
    while (start < value.length - 1 && value[start] === 0) start++;
    bytes = Buffer.from(value.subarray(start));
  }
  if (bytes.length === 0) bytes = Buffer.of(0);
  return bytes[0]! >= 0x80 ? tlv(TAG.integer, Uint8Array.of(0), bytes) : tlv(TAG.integer, bytes);
}

/** A BIT STRING of whole bytes. */
export const bitString = (content: Uint8Array): Buffer => tlv(TAG.bitString, Uint8Array.of(0), content);

/** A BIT STRING of named bits (RFC 5280 KeyUsage): trailing zero bits are left out, as DER asks. */
export function namedBits(bits: readonly number[]): Buffer {
  const highest = Math.max(-1, ...bits);
  if (highest === -1) return tlv(TAG.bitString, Uint8Array.of(0));
  const bytes = Buffer.alloc(Math.floor(highest / 8) + 1);
  for (const bit of bits) bytes[bit >> 3]! |= 0x80 >> (bit & 7);
  return tlv(TAG.bitString, Uint8Array.of(7 - (highest & 7)), bytes);
}

export function oid(dotted: string): Buffer {
  const arcs = dotted.split('.').map(Number);
  const bytes: number[] = [];
  for (const arc of [arcs[0]! * 40 + arcs[1]!, ...arcs.slice(2)]) {
    const septets = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) septets.unshift(0x80 | (left & 0x7f));
    bytes.push(...septets);
  }
  return tlv(TAG.oid, Uint8Array.from(bytes));
}

/** A moment in whole seconds (rounded down): UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5). */
export function time(epochMs: number): Buffer {
  const digits = new Date(epochMs)
    .toISOString()
    .replace(/\.\d{3}Z$/, 'Z')
    .replace(/[-:T]/g, '');
  const year = Number(digits.slice(0, 4));
  const isUtc = year >= 1950 && year < 2050;
  return tlv(isUtc ? TAG.utcTime : TAG.generalizedTime, Buffer.from(isUtc ? digits.slice(2) : digits, 'latin1'));
}

// ---- reading --------------------------------------------------------------------------------------------------------

/** One value as read; `whole` includes its tag and length. */
export interface DerValue {
  readonly tag: number;
  readonly content: Buffer;
  readonly whole: Buffer;
}

/** Reads values one after the other. Indefinite and overlong lengths, high tags and anything past the end throw `DerError`. */
export class DerReader {
  readonly #bytes: Buffer;
  readonly #place: string;
  #at = 0;

  constructor(bytes: Uint8Array, place = 'DER') {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#place = place;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** Tag of the next value, or undefined at the end. */
  peek(): number | undefined {
    return this.#bytes[this.#at];
  }

  fail(rule: string): never {
    throw new DerError(`${this.#place}: ${rule} (at byte ${this.#at})`);
  }

  /** The next value; with `tag` it must be that one. */
  next(tag?: number): DerValue {
    const bytes = this.#bytes;
    const start = this.#at;
    const found = bytes[start];
    if (found === undefined) return this.fail('ends too early');
    if ((found & 0x1f) === 0x1f) return this.fail('tags above 30 are not used in X.509');
    if (tag !== undefined && found !== tag) return this.fail(`expected tag 0x${tag.toString(16)}, found 0x${found.toString(16)}`);
    let at = start + 1;
    let length = bytes[at++];
    if (length === undefined) return this.fail('ends too early');
    if (length >= 0x80) {
      const count = length & 0x7f;
      if (count === 0 || count > 3) return this.fail('a length is definite and below 16 MiB');
      length = 0;
      for (let i = 0; i < count; i++) {
        const byte = bytes[at++];
        if (byte === undefined) return this.fail('ends too early');
        length = length * 256 + byte;
      }
      if (length < 0x80 || length < 2 ** (8 * (count - 1))) return this.fail('a length takes the fewest bytes');
    }
    if (at + length > bytes.length) return this.fail('a value runs past the end');
    this.#at = at + length;
    return { tag: found, content: bytes.subarray(at, this.#at), whole: bytes.subarray(start, this.#at) };
  }

  /** The next value if it has this tag, else undefined and nothing is read. */
  optional(tag: number): DerValue | undefined {
    return this.peek() === tag ? this.next(tag) : undefined;
  }

  /** A reader of the next value's content. */
  sequence(tag: number = TAG.sequence, place = this.#place): DerReader {
    return new DerReader(this.next(tag).content, place);
  }

  /** Nothing may follow. */
  end(): void {
    if (!this.done) this.fail('has bytes after its end');
  }

  /** Content of an INTEGER, big-endian, not negative, without a leading zero byte. */
  integer(): Buffer {
    const { content } = this.next(TAG.integer);
    if (content.length === 0) return this.fail('an INTEGER has at least one byte');
    if (content[0]! >= 0x80) return this.fail('an INTEGER here is not negative');
    if (content.length > 1 && content[0] === 0) {
      if (content[1]! < 0x80) return this.fail('an INTEGER takes the fewest bytes');
      return content.subarray(1);
    }
    return content;
  }

  /** An INTEGER that fits 31 bits. */
  smallInteger(): number {
    const bytes = this.integer();
    if (bytes.length > 4 || (bytes.length === 4 && bytes[0]! >= 0x80)) return this.fail('an INTEGER here is below 2^31');
    return bytes.readUIntBE(0, bytes.length);
  }

  boolean(): boolean {
    const { content } = this.next(TAG.boolean);
    if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) return this.fail('a BOOLEAN is 00 or ff');
    return content[0] === 0xff;
  }

  oid(): string {
    const { content } = this.next(TAG.oid);
    if (content.length === 0 || content.length > 64 || content[content.length - 1]! >= 0x80) return this.fail('not an OBJECT IDENTIFIER');
    const arcs: number[] = [];
    let arc = 0;
    for (const byte of content) {
      if (arc === 0 && byte === 0x80) return this.fail('an OBJECT IDENTIFIER takes the fewest bytes');
      arc = arc * 128 + (byte & 0x7f);
      if (arc > Number.MAX_SAFE_INTEGER / 256) return this.fail('an arc of an OBJECT IDENTIFIER is too large');
      if (byte >= 0x80) continue;
      if (arcs.length === 0) arcs.push(Math.min(2, Math.floor(arc / 40)), arc - 40 * Math.min(2, Math.floor(arc / 40)));
      else arcs.push(arc);
      arc = 0;
    }
    return arcs.join('.');
  }

  /** Content of a BIT STRING and how many of its last bits do not count. */
  bitString(tag: number = TAG.bitString): { readonly bytes: Buffer; readonly unusedBits: number } {
    const { content } = this.next(tag);
    const unusedBits = content[0];
    if (unusedBits === undefined || unusedBits > 7 || (content.length === 1 && unusedBits !== 0)) return this.fail('not a BIT STRING');
    const last = content[content.length - 1]!;
    if (content.length > 1 && (last & ((1 << unusedBits) - 1)) !== 0) return this.fail('unused bits of a BIT STRING are zero');
    return { bytes: content.subarray(1), unusedBits };
  }

  /** A UTCTime or GeneralizedTime in the one form that RFC 5280 allows, as epoch milliseconds. */
  time(): number {
    const value = this.next();
    const text = value.content.toString('latin1');
    let digits: string;
    if (value.tag === TAG.utcTime && /^\d{12}Z$/.test(text)) digits = `${Number(text.slice(0, 2)) >= 50 ? '19' : '20'}${text}`;
    else if (value.tag === TAG.generalizedTime && /^\d{14}Z$/.test(text)) digits = text;
    else return this.fail('a time is YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ');
    const iso = digits.replace(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6.000Z');
    const epochMs = Date.parse(iso);
    if (Number.isNaN(epochMs) || new Date(epochMs).toISOString() !== iso) return this.fail(`not a moment: ${digits}`);
    return epochMs;
  }
}
