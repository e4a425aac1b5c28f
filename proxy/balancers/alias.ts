/** Weighted chance in constant time: Vose's alias table, or a plain index where all weights are equal. */
import type { Random } from '../../lib/random.ts';

/** Answers an index with the probability weight / sum; -1 when the sum is 0. */
export type Sampler = (random: Random) => number;

/** Builds a sampler over non-negative weights. An index of weight 0 is never drawn. */
export function sampler(weights: readonly number[]): Sampler {
  const count = weights.length;
  let total = 0;
  for (const weight of weights) total += weight;
  if (!(total > 0)) return () => -1;
  const first = weights[0];
  if (weights.every((weight) => weight === first)) return (random) => Math.floor(random() * count);
  const keep = new Float64Array(count);
  const other = new Int32Array(count);
  const small: number[] = [];
  const large: number[] = [];
  for (let i = 0; i < count; i++) {
    keep[i] = (weights[i]! * count) / total;
    (keep[i]! < 1 ? small : large).push(i);
  }
  while (small.length > 0 && large.length > 0) {
    const low = small.pop()!;
    const high = large.at(-1)!;
    other[low] = high;
    keep[high] = keep[high]! - (1 - keep[low]!);
    if (keep[high]! < 1) small.push(large.pop()!);
  }
  // What is left over holds 1 up to rounding; an index of weight 0 must not profit from that.
  const heaviest = weights.indexOf(Math.max(...weights));
  for (const i of large) keep[i] = 1;
  for (const i of small) {
    if (weights[i] === 0) {
      keep[i] = 0;
      other[i] = heaviest;
    } else keep[i] = 1;
  }
  return (random) => {
    const drawn = random() * count;
    const index = Math.floor(drawn);
    return drawn - index < keep[index]! ? index : other[index]!;
  };
}
