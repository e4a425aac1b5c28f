/** Envoy's rules on single values, compiled from their FieldRules: lengths, ranges, patterns, sets. */
import { type DescField, isFieldSet, type Message } from '@bufbuild/protobuf';
import { DurationSchema, type Duration } from '@bufbuild/protobuf/wkt';
import type { RE2JS } from 're2js';
import { re2 } from '../../lib/on-demand.ts';
import { type FieldRules, FieldRulesSchema } from '../gen/validate/validate_pb.js';
import { joinPath } from './decoding.ts';

export interface Violation {
  readonly path: string;
  readonly rule: string;
  readonly value: unknown;
}

/** The way from the top of the message to where the walk is, and what it met. */
export interface Walk {
  readonly trail: (string | number)[];
  readonly unknown: string[];
}

/** Checks one value; answers the first rule that does not hold. */
export type AnyCheck = (value: unknown, walk: Walk) => Violation | undefined;

/** The rules on one value, from the `type` of its FieldRules. */
export function compileRules(rules: FieldRules | undefined, field?: DescField): AnyCheck | undefined {
  if (rules === undefined || rules.type.case === undefined) return undefined;
  const { case: kind, value } = rules.type;
  const set = setFieldsOf(kind, value as Message & Record<string, unknown>);
  switch (kind) {
    case 'repeated':
    case 'map':
    case 'timestamp':
    case 'any':
      return undefined;
    case 'bool':
      return set.has('const')
        ? (actual, walk) => (actual === set.get('const') ? undefined : broken(walk, `must be ${String(set.get('const'))}`, actual))
        : undefined;
    case 'enum':
      return compileEnum(set, field);
    case 'string':
      return compileString(set);
    case 'bytes':
      return compileLength(set, 'bytes', (actual) => (actual as Uint8Array).length);
    case 'duration':
      return compileNumber(set, (actual) => durationMs(actual as Duration), 'ms');
    default:
      return compileNumber(set, Number, '');
  }
}

/** The constraints that are present, by name. */
function setFieldsOf(kind: string, value: Message & Record<string, unknown>): ReadonlyMap<string, unknown> {
  const holder = FieldRulesSchema.fields.find((field) => field.localName === kind);
  const set = new Map<string, unknown>();
  if (holder?.message === undefined) return set;
  for (const field of holder.message.fields) if (isFieldSet(value, field)) set.set(field.name, valueOf(field, value));
  return set;
}

function valueOf(field: DescField, fields: Readonly<Record<string, unknown>>): unknown {
  if (field.oneof === undefined) return fields[field.localName];
  return (fields[field.oneof.localName] as { value?: unknown }).value;
}

function compileEnum(set: ReadonlyMap<string, unknown>, field: DescField | undefined): AnyCheck | undefined {
  const values = field?.enum?.values.map((value) => value.number) ?? [];
  const definedOnly = set.get('defined_only') === true && values.length > 0;
  const notIn = (set.get('not_in') as number[] | undefined) ?? [];
  const only = set.get('in') as number[] | undefined;
  if (!definedOnly && notIn.length === 0 && only === undefined) return undefined;
  const names =
    field?.enum?.values.filter((v) => !notIn.includes(v.number) && (only === undefined || only.includes(v.number))).map((v) => v.name) ??
    [];
  return (actual, walk) => {
    const number = actual as number;
    if ((definedOnly && !values.includes(number)) || notIn.includes(number) || (only !== undefined && !only.includes(number))) {
      return broken(walk, `must be one of ${names.join(', ')}`, number);
    }
    return undefined;
  };
}

function compileNumber(set: ReadonlyMap<string, unknown>, numberOf: (value: unknown) => number, unit: string): AnyCheck | undefined {
  const bound = (name: string): number | undefined => (set.has(name) ? boundOf(set.get(name)) : undefined);
  const [lt, lte, gt, gte, exact] = [bound('lt'), bound('lte'), bound('gt'), bound('gte'), bound('const')];
  const only = (set.get('in') as unknown[] | undefined)?.map(boundOf);
  const not = (set.get('not_in') as unknown[] | undefined)?.map(boundOf);
  const text = [
    gte === undefined ? '' : `at least ${gte}${unit}`,
    gt === undefined ? '' : `more than ${gt}${unit}`,
    lte === undefined ? '' : `at most ${lte}${unit}`,
    lt === undefined ? '' : `less than ${lt}${unit}`,
    exact === undefined ? '' : `${exact}${unit}`,
    only === undefined ? '' : `one of ${only.join(', ')}`,
    not === undefined ? '' : `none of ${not.join(', ')}`,
  ].filter((part) => part !== '');
  if (text.length === 0) return undefined;
  const rule = `must be ${text.join(' and ')}`;
  return (actual, walk) => {
    const number = numberOf(actual);
    const fine =
      (lt === undefined || number < lt) &&
      (lte === undefined || number <= lte) &&
      (gt === undefined || number > gt) &&
      (gte === undefined || number >= gte) &&
      (exact === undefined || number === exact) &&
      (only === undefined || only.includes(number)) &&
      (not === undefined || !not.includes(number));
    return fine ? undefined : broken(walk, rule, unit === '' ? number : `${number}${unit}`);
  };
}

function boundOf(value: unknown): number {
  return typeof value === 'object' && value !== null && '$typeName' in value && value.$typeName === DurationSchema.typeName
    ? durationMs(value as Duration)
    : Number(value);
}

function durationMs(value: Duration): number {
  return Number(value.seconds) * 1_000 + value.nanos / 1_000_000;
}

function compileString(set: ReadonlyMap<string, unknown>): AnyCheck | undefined {
  const parts = [
    compileLength(set, 'characters', (value) => Array.from(value as string).length),
    set.has('min_bytes') || set.has('max_bytes')
      ? compileLength(
          new Map([['min_len', set.get('min_bytes') ?? 0n], ...(set.has('max_bytes') ? [['max_len', set.get('max_bytes')] as const] : [])]),
          'bytes',
          (value) => Buffer.byteLength(value as string),
        )
      : undefined,
    compilePattern(set),
    compileWords(set),
  ].filter((part) => part !== undefined);
  if (parts.length === 0) return undefined;
  const ignoreEmpty = set.get('ignore_empty') === true;
  return (value, walk) => {
    if (ignoreEmpty && value === '') return undefined;
    for (const part of parts) {
      const violation = part(value, walk);
      if (violation !== undefined) return violation;
    }
    return undefined;
  };
}

function compileLength(set: ReadonlyMap<string, unknown>, unit: string, length: (value: unknown) => number): AnyCheck | undefined {
  const min = Number(set.get('min_len') ?? 0n);
  const max = set.has('max_len') ? Number(set.get('max_len')) : Number.POSITIVE_INFINITY;
  if (min === 0 && max === Number.POSITIVE_INFINITY) return undefined;
  return (value, walk) => {
    const actual = length(value);
    if (actual < min) return broken(walk, min === 1 ? 'must not be empty' : `needs at least ${min} ${unit}`, value);
    if (actual > max) return broken(walk, `takes at most ${max} ${unit}`, value);
    return undefined;
  };
}

// KnownRegex of validate.proto: a name of a header, and a value of one; loose where `strict` is false.
const HEADER_NAME = 1;
const STRICT_NAME = /^:?[0-9a-zA-Z!#$%&'*+.^_|~`-]+$/;
// oxlint-disable-next-line no-control-regex
const STRICT_VALUE = /^[^\u0000-\u0008\u000a-\u001f\u007f]*$/;
// oxlint-disable-next-line no-control-regex
const LOOSE = /^[^\u0000\n\r]*$/;

function compilePattern(set: ReadonlyMap<string, unknown>): AnyCheck | undefined {
  const known = set.get('well_known_regex') as number | undefined;
  if (known !== undefined && known !== 0) {
    const strict = set.get('strict') !== false;
    const isName = known === HEADER_NAME;
    const pattern = strict ? (isName ? STRICT_NAME : STRICT_VALUE) : LOOSE;
    const rule = isName ? 'must be a header name' : 'must be a header value, without control characters';
    return (value, walk) => (value === '' || pattern.test(value as string) ? undefined : broken(walk, rule, value));
  }
  if (!set.has('pattern')) return undefined;
  const source = set.get('pattern') as string;
  // Most fields with a pattern are never set.
  let pattern: RE2JS | undefined;
  return (value, walk) => {
    pattern ??= re2().RE2JS.compile(source);
    return pattern.matcher(value as string).find() ? undefined : broken(walk, `must match ${source}`, value);
  };
}

function compileWords(set: ReadonlyMap<string, unknown>): AnyCheck | undefined {
  const only = set.get('in') as string[] | undefined;
  const not = set.get('not_in') as string[] | undefined;
  const prefix = (set.get('prefix') as string | undefined) ?? '';
  const suffix = (set.get('suffix') as string | undefined) ?? '';
  const exact = set.get('const') as string | undefined;
  if (only === undefined && not === undefined && prefix === '' && suffix === '' && exact === undefined) return undefined;
  return (actual, walk) => {
    const text = actual as string;
    if (exact !== undefined && text !== exact) return broken(walk, `must be ${exact}`, text);
    if (only !== undefined && !only.includes(text)) return broken(walk, `must be one of ${only.join(', ')}`, text);
    if (not !== undefined && not.includes(text)) return broken(walk, `must be none of ${not.join(', ')}`, text);
    if (!text.startsWith(prefix)) return broken(walk, `must start with ${prefix}`, text);
    if (!text.endsWith(suffix)) return broken(walk, `must end with ${suffix}`, text);
    return undefined;
  };
}

export function broken(walk: Walk, rule: string, value: unknown): Violation {
  return { path: pathOf(walk.trail), rule, value };
}

export function brokenAt(walk: Walk, field: string, rule: string, value: unknown): Violation {
  return { path: pathOf([...walk.trail, field]), rule, value };
}

export function pathOf(trail: readonly (string | number)[]): string {
  return trail.reduce<string>(joinPath, '');
}
