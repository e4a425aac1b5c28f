/** Counts what a message would become before it is decoded: two bytes on the wire may be an object of hundreds in memory. */
import type { DescField, DescMessage } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';
import { FieldWalk } from '../proto/field-walk.ts';
import { CODES, StreamError } from '../session/messages.ts';

/** As protobuf's own readers have it. */
const DEPTH_MAX = 100;

/**
 * How many fields and items `bytes` hold at all levels, beside the `counted` ones of the same message. Throws a StreamError when all are more
 * than `elementsMax`, or nest deeper than 100, and an Error for what cannot be read.
 */
export function boundElements(desc: DescMessage, bytes: Uint8Array, elementsMax: number, counted = 0): number {
  const budget = { left: elementsMax - counted, elementsMax, what: desc.name };
  count(desc, new FieldWalk(bytes), budget, 0);
  return elementsMax - counted - budget.left;
}

interface Budget {
  left: number;
  readonly elementsMax: number;
  readonly what: string;
}

function count(desc: DescMessage, fields: FieldWalk, budget: Budget, depth: number): void {
  if (depth > DEPTH_MAX) throw new StreamError(CODES.resourceExhausted, `a ${budget.what} may nest at most ${DEPTH_MAX} deep`);
  const inners = innersOf(desc);
  while (fields.next()) {
    spend(budget, 1);
    const inner = fields.wireType === WireType.LengthDelimited ? inners.get(fields.number) : undefined;
    if (inner === undefined) continue;
    if (inner === 'packed') spend(budget, fields.to - fields.from);
    else if (inner.map) countEntry(inner.message, inside(fields), budget, depth + 1);
    else count(inner.message, inside(fields), budget, depth + 1);
  }
}

/** An entry of a map is a message of key = 1 and value = 2. */
function countEntry(value: DescMessage, fields: FieldWalk, budget: Budget, depth: number): void {
  while (fields.next()) {
    spend(budget, 1);
    if (fields.number === 2 && fields.wireType === WireType.LengthDelimited) count(value, inside(fields), budget, depth);
  }
}

function inside(fields: FieldWalk): FieldWalk {
  return new FieldWalk(fields.bytes, fields.from, fields.to);
}

type Inner = { readonly message: DescMessage; readonly map: boolean } | 'packed' | undefined;

function innerOf(field: DescField): Inner {
  if (field.fieldKind === 'message') return { message: field.message, map: false };
  if (field.fieldKind === 'map') return field.mapKind === 'message' ? { message: field.message, map: true } : undefined;
  if (field.fieldKind !== 'list') return undefined;
  if (field.listKind === 'message') return { message: field.message, map: false };
  return field.packed ? 'packed' : undefined;
}

const byNumber = new WeakMap<DescMessage, ReadonlyMap<number, Inner>>();

/** What is in the fields of a message, by their numbers. */
function innersOf(desc: DescMessage): ReadonlyMap<number, Inner> {
  let inners = byNumber.get(desc);
  if (inners === undefined) {
    inners = new Map(desc.fields.map((field) => [field.number, innerOf(field)]));
    byNumber.set(desc, inners);
  }
  return inners;
}

function spend(budget: Budget, elements: number): void {
  budget.left -= elements;
  if (budget.left < 0)
    throw new StreamError(CODES.resourceExhausted, `a ${budget.what} may have at most ${budget.elementsMax} fields and items`);
}
