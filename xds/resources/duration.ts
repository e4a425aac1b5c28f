/** Numbers of the wire in and out of ours: durations, percents, wrapped booleans, names of enum values. */
import { create } from '@bufbuild/protobuf';
import { type Duration, DurationSchema } from '@bufbuild/protobuf/wkt';
import type { FractionalPercent, Percent } from '../gen/envoy/type/v3/percent_pb.js';
import { FractionalPercentSchema, FractionalPercent_DenominatorType, PercentSchema } from '../gen/envoy/type/v3/percent_pb.js';

export function fromDuration(value: Duration): number;
export function fromDuration(value: Duration | undefined): number | undefined;
export function fromDuration<T extends number>(value: Duration | undefined, otherwise: T): number;
export function fromDuration(value: Duration | undefined, otherwise?: number): number | undefined {
  return value === undefined ? otherwise : Number(value.seconds) * 1_000 + value.nanos / 1_000_000;
}

export function toDuration(ms: number): Duration;
export function toDuration(ms: number | undefined): Duration | undefined;
export function toDuration(ms: number | undefined): Duration | undefined {
  if (ms === undefined) return undefined;
  const seconds = Math.trunc(ms / 1_000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1_000) * 1_000_000) });
}

export function fromPercent(value: Percent | undefined, otherwise: number): number {
  return value === undefined ? otherwise : value.value;
}

export function toPercent(value: number): Percent {
  return create(PercentSchema, { value });
}

const DENOMINATORS: Readonly<Record<number, number>> = {
  [FractionalPercent_DenominatorType.HUNDRED]: 100,
  [FractionalPercent_DenominatorType.TEN_THOUSAND]: 10_000,
  [FractionalPercent_DenominatorType.MILLION]: 1_000_000,
};

/** 0 to 1. */
export function fromFraction(value: FractionalPercent | undefined, otherwise: number): number {
  return value === undefined ? otherwise : Math.min(1, value.numerator / (DENOMINATORS[value.denominator] ?? 100));
}

/** The same as a percentage, without the rounding of a way through 0 to 1. */
export function fromFractionPercent(value: FractionalPercent | undefined): number {
  return value === undefined ? 0 : Math.min(100, (value.numerator * 100) / (DENOMINATORS[value.denominator] ?? 100));
}

/** The coarsest denominator that keeps the value. */
export function toFraction(value: number): FractionalPercent {
  const hundred = Math.round(value * 1_000_000) % 10_000 === 0;
  return hundred
    ? create(FractionalPercentSchema, { numerator: Math.round(value * 100), denominator: FractionalPercent_DenominatorType.HUNDRED })
    : create(FractionalPercentSchema, { numerator: Math.round(value * 1_000_000), denominator: FractionalPercent_DenominatorType.MILLION });
}

/** The name of an enum's value in a generated table; undefined for a number that the protos do not know. */
export function nameOf<T extends Readonly<Record<string, number>>>(table: T, value: number): keyof T | undefined {
  for (const name in table) if (table[name] === value) return name;
  return undefined;
}
