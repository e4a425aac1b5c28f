import { expect, test } from '@jest/globals';
import { hashModulo, xxHash64, xxHash64BigInt } from './xxhash64.ts';

/** The specification's own formulas on BigInt, slow and plain: what the 32-bit version is held against. */
function reference(bytes: Uint8Array, seed: bigint): bigint {
  const mask = (1n << 64n) - 1n;
  const primes = [0n, 0x9e3779b185ebca87n, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n, 0x85ebca77c2b2ae63n, 0x27d4eb2f165667c5n];
  const [, p1, p2, p3, p4, p5] = primes as [bigint, bigint, bigint, bigint, bigint, bigint];
  const turn = (value: bigint, bits: bigint): bigint => ((value << bits) | (value >> (64n - bits))) & mask;
  const read = (at: number, size: number): bigint => {
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + i]!);
    return value;
  };
  const round = (acc: bigint, input: bigint): bigint => (turn((acc + input * p2) & mask, 31n) * p1) & mask;
  let at = 0;
  let acc: bigint;
  if (bytes.length >= 32) {
    const lanes = [(seed + p1 + p2) & mask, (seed + p2) & mask, seed, (seed - p1) & mask];
    for (; at + 32 <= bytes.length; at += 32)
      for (let lane = 0; lane < 4; lane++) lanes[lane] = round(lanes[lane]!, read(at + lane * 8, 8));
    acc = (turn(lanes[0]!, 1n) + turn(lanes[1]!, 7n) + turn(lanes[2]!, 12n) + turn(lanes[3]!, 18n)) & mask;
    for (const lane of lanes) acc = ((acc ^ round(0n, lane)) * p1 + p4) & mask;
  } else acc = (seed + p5) & mask;
  acc = (acc + BigInt(bytes.length)) & mask;
  for (; at + 8 <= bytes.length; at += 8) acc = (turn(acc ^ round(0n, read(at, 8)), 27n) * p1 + p4) & mask;
  if (at + 4 <= bytes.length) {
    acc = (turn(acc ^ ((read(at, 4) * p1) & mask), 23n) * p2 + p3) & mask;
    at += 4;
  }
  for (; at < bytes.length; at++) acc = (turn(acc ^ ((BigInt(bytes[at]!) * p5) & mask), 11n) * p1) & mask;
  acc = ((acc ^ (acc >> 33n)) * p2) & mask;
  acc = ((acc ^ (acc >> 29n)) * p3) & mask;
  return acc ^ (acc >> 32n);
}

test('published vectors come out', () => {
  expect(xxHash64BigInt('')).toBe(0xef46db3751d8e999n);
  expect(xxHash64BigInt('a')).toBe(0xd24ec4f1a98c6e5bn);
  expect(xxHash64BigInt('abc')).toBe(0x44bc2cf5ad770999n);
  expect(xxHash64BigInt('foo')).toBe(0x33bf00a859c4ba3fn);
});

test('every length up to 200 bytes agrees with the specification in plain BigInt, seeded or not', () => {
  const bytes = Uint8Array.from({ length: 200 }, (_, i) => (i * 167 + 13) & 255);
  for (let length = 0; length <= bytes.length; length++) {
    const slice = bytes.subarray(0, length);
    expect(xxHash64BigInt(slice)).toBe(reference(slice, 0n));
    expect(xxHash64BigInt(slice, 0xfedcba98)).toBe(reference(slice, 0xfedcba98n));
  }
});

test('a string is hashed by its UTF-8 bytes, short or long', () => {
  for (const text of ['grüße', '10.0.0.1:80_17', 'ü'.repeat(600)]) {
    expect(xxHash64BigInt(text)).toBe(reference(new TextEncoder().encode(text), 0n));
  }
});

test('the modulus of the halves is the modulus of the number', () => {
  for (const text of ['a', 'b', 'a longer text']) {
    expect(BigInt(hashModulo(xxHash64(text), 65537))).toBe(xxHash64BigInt(text) % 65537n);
    expect(BigInt(hashModulo(xxHash64(text), 65536))).toBe(xxHash64BigInt(text) % 65536n);
  }
});
