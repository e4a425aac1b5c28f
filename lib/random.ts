/** Chance as an argument: a source of numbers in [0, 1), the real one and one that a seed replays. */
import { randomBytes } from 'node:crypto';

/** Answers a number in [0, 1). */
export type Random = () => number;

/** The machine's chance. Not for keys or tokens: those take `node:crypto` directly. */
export const systemRandom: Random = () => Math.random();

/** A whole number in [0, bound). */
export function below(random: Random, bound: number): number {
  return Math.floor(random() * bound);
}

/** The same numbers for the same seed on every machine (mulberry32: 32 bits of state, enough for tests and simulations). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** An unguessable token of `bytes` random bytes, base64url. */
export function secretToken(bytes = 32): string {
  return randomBytes(bytes).toString('base64url');
}
