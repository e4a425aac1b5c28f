/** What a series of memory readings says: is it flat over its last half? */

export interface Reading {
  /** Requests so far. */
  readonly requests: number;
  readonly rssMiB: number;
}

export interface Verdict {
  /** Most in the last half. */
  readonly mostMiB: number;
  /** How far the last quarter's median is above that of the quarter before. */
  readonly growthMiB: number;
  readonly flat: boolean;
}

/** A garbage collector breathes; what grows by less than this share over a quarter of the run is flat. */
const FLAT_SHARE = 0.03;

/** Looks at the readings of the last half of the requests. Throws when there are too few to say anything. */
export function verdictOf(readings: readonly Reading[]): Verdict {
  const total = readings.at(-1)?.requests ?? 0;
  const quarter = (from: number, to: number): number[] =>
    readings.filter(({ requests }) => requests > total * from && requests <= total * to).map(({ rssMiB }) => rssMiB);
  const third = quarter(0.5, 0.75);
  const fourth = quarter(0.75, 1);
  if (third.length < 3 || fourth.length < 3)
    throw new Error(`a verdict needs 3 readings in each of the last quarters, there are ${third.length} and ${fourth.length}`);
  const growthMiB = median(fourth) - median(third);
  return { mostMiB: Math.max(...third, ...fourth), growthMiB, flat: growthMiB <= FLAT_SHARE * median(third) };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
