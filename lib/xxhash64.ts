/** xxHash64 in 32-bit halves, without BigInt in the loop: the hash that Envoy's consistent balancers and hash policies use. */

/** The two halves of a 64-bit hash, both unsigned. */
export interface Hash64 {
  high: number;
  low: number;
}

// The algorithm's five primes as high and low halves (xxHash specification, section "XXH64 algorithm description").
const P1H = 0x9e3779b1;
const P1L = 0x85ebca87;
const P2H = 0xc2b2ae3d;
const P2L = 0x27d4eb4f;
const P3H = 0x165667b1;
const P3L = 0x9e3779f9;
const P4H = 0x85ebca77;
const P4L = 0xc2b2ae63;
const P5H = 0x27d4eb2f;
const P5L = 0x165667c5;

// One 64-bit register; functions leave their answer here so that nothing is allocated.
let accHigh = 0;
let accLow = 0;

/** Hashes the UTF-8 bytes of a string, or bytes. `out` takes the halves; a new object is made when it is not given. */
export function xxHash64(input: string | Uint8Array, seed = 0, out: Hash64 = { high: 0, low: 0 }): Hash64 {
  const bytes = typeof input === 'string' ? encode(input) : input;
  const length = typeof input === 'string' ? encodedLength : input.length;
  let at = 0;
  if (length >= 32) {
    at = stripes(bytes, length, seed);
  } else {
    accHigh = P5H;
    accLow = P5L;
    add(0, seed >>> 0);
  }
  add(Math.floor(length / 0x100000000), length >>> 0);
  tail(bytes, at, length);
  avalanche();
  out.high = accHigh >>> 0;
  out.low = accLow >>> 0;
  return out;
}

/** The same as one unsigned 64-bit number. */
export function xxHash64BigInt(input: string | Uint8Array, seed = 0): bigint {
  xxHash64(input, seed, SCRATCH);
  return (BigInt(SCRATCH.high) << 32n) | BigInt(SCRATCH.low);
}

/** The hash modulo a whole number below 2^20, exactly. */
export function hashModulo(hash: Hash64, modulus: number): number {
  return ((hash.high % modulus) * (0x100000000 % modulus) + (hash.low % modulus)) % modulus;
}

const SCRATCH: Hash64 = { high: 0, low: 0 };
const BUFFER_BYTES = 512;
const shared = new Uint8Array(BUFFER_BYTES);
const encoder = new TextEncoder();
let encodedLength = 0;

function encode(text: string): Uint8Array {
  if (text.length * 3 > BUFFER_BYTES) {
    const bytes = encoder.encode(text);
    encodedLength = bytes.length;
    return bytes;
  }
  encodedLength = encoder.encodeInto(text, shared).written;
  return shared;
}

function stripes(bytes: Uint8Array, length: number, seed: number): number {
  const lanes = new Uint32Array(8);
  const start = (lane: number, high: number, low: number): void => {
    accHigh = high;
    accLow = low;
    add(0, seed >>> 0);
    lanes[lane * 2] = accHigh;
    lanes[lane * 2 + 1] = accLow;
  };
  // Prime 1 + prime 2, prime 2, zero, and minus prime 1: each plus the seed.
  start(0, 0x60ea27ee, 0xadc0b5d6);
  start(1, P2H, P2L);
  start(2, 0, 0);
  start(3, 0x61c8864e, 0x7a143579);
  let at = 0;
  for (; at + 32 <= length; at += 32) {
    for (let lane = 0; lane < 4; lane++) {
      accHigh = lanes[lane * 2]!;
      accLow = lanes[lane * 2 + 1]!;
      round(word(bytes, at + lane * 8 + 4), word(bytes, at + lane * 8));
      lanes[lane * 2] = accHigh;
      lanes[lane * 2 + 1] = accLow;
    }
  }
  mergeLanes(lanes);
  return at;
}

function mergeLanes(lanes: Uint32Array): void {
  let high = 0;
  let low = 0;
  const turns = [1, 7, 12, 18];
  for (let lane = 0; lane < 4; lane++) {
    accHigh = lanes[lane * 2]!;
    accLow = lanes[lane * 2 + 1]!;
    rotate(turns[lane]!);
    add(high, low);
    high = accHigh;
    low = accLow;
  }
  for (let lane = 0; lane < 4; lane++) {
    accHigh = 0;
    accLow = 0;
    round(lanes[lane * 2]!, lanes[lane * 2 + 1]!);
    accHigh ^= high;
    accLow ^= low;
    multiply(P1H, P1L);
    add(P4H, P4L);
    high = accHigh;
    low = accLow;
  }
}

function tail(bytes: Uint8Array, from: number, length: number): void {
  let at = from;
  for (; at + 8 <= length; at += 8) {
    const high = accHigh;
    const low = accLow;
    accHigh = 0;
    accLow = 0;
    round(word(bytes, at + 4), word(bytes, at));
    accHigh ^= high;
    accLow ^= low;
    rotate(27);
    multiply(P1H, P1L);
    add(P4H, P4L);
  }
  if (at + 4 <= length) {
    multiplyInto(0, word(bytes, at));
    rotate(23);
    multiply(P2H, P2L);
    add(P3H, P3L);
    at += 4;
  }
  for (; at < length; at++) {
    const high = accHigh;
    const low = accLow;
    accHigh = 0;
    accLow = bytes[at]!;
    multiply(P5H, P5L);
    accHigh ^= high;
    accLow ^= low;
    rotate(11);
    multiply(P1H, P1L);
  }
}

/** acc ^= (high:low) × prime 1. */
function multiplyInto(high: number, low: number): void {
  const keptHigh = accHigh;
  const keptLow = accLow;
  accHigh = high;
  accLow = low;
  multiply(P1H, P1L);
  accHigh ^= keptHigh;
  accLow ^= keptLow;
}

/** acc = rotl(acc + input × prime 2, 31) × prime 1. */
function round(high: number, low: number): void {
  const keptHigh = accHigh;
  const keptLow = accLow;
  accHigh = high;
  accLow = low;
  multiply(P2H, P2L);
  add(keptHigh, keptLow);
  rotate(31);
  multiply(P1H, P1L);
}

function avalanche(): void {
  shiftXor(33);
  multiply(P2H, P2L);
  shiftXor(29);
  multiply(P3H, P3L);
  shiftXor(32);
}

function word(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function add(high: number, low: number): void {
  const sum = (accLow >>> 0) + (low >>> 0);
  accHigh = (accHigh + high + (sum > 0xffffffff ? 1 : 0)) >>> 0;
  accLow = sum >>> 0;
}

function rotate(bits: number): void {
  const high = accHigh;
  const low = accLow;
  accHigh = ((high << bits) | (low >>> (32 - bits))) >>> 0;
  accLow = ((low << bits) | (high >>> (32 - bits))) >>> 0;
}

function shiftXor(bits: number): void {
  if (bits === 32) {
    accLow = (accLow ^ accHigh) >>> 0;
    return;
  }
  const high = accHigh >>> 0;
  const shiftedLow = bits > 32 ? high >>> (bits - 32) : ((accLow >>> bits) | (high << (32 - bits))) >>> 0;
  const shiftedHigh = bits > 32 ? 0 : high >>> bits;
  accHigh = (accHigh ^ shiftedHigh) >>> 0;
  accLow = (accLow ^ shiftedLow) >>> 0;
}

/** acc × (high:low) modulo 2^64, by 16-bit limbs of the low words. */
function multiply(high: number, low: number): void {
  const a = accLow & 0xffff;
  const b = accLow >>> 16;
  const c = low & 0xffff;
  const d = low >>> 16;
  const ac = Math.imul(a, c) >>> 0;
  const bc = b * c;
  const middle = a * d + (ac >>> 16) + (bc % 0x10000);
  const carry = b * d + Math.floor(bc / 0x10000) + Math.floor(middle / 0x10000);
  accHigh = (Math.imul(accHigh, low) + Math.imul(accLow, high) + (carry >>> 0)) >>> 0;
  accLow = (((middle & 0xffff) << 16) | (ac & 0xffff)) >>> 0;
}
