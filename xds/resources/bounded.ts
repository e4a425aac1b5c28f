/** Counts what a message would become before it is decoded: two bytes on the wire may be an object of hundreds in memory. */
import type { DescField, DescMessage } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { CODES, StreamError } from '../session/messages.ts';

/** As protobuf's own readers have it. */
const DEPTH_MAX = 100;

/** Throws a StreamError when `bytes` hold more than `elementsMax` fields and items at all levels, or nest deeper than 100; what cannot be read is the decoder's to refuse. */
export function boundElements(desc: DescMessage, bytes: Uint8Array, elementsMax: number): void {
  count(desc, bytes, { left: elementsMax, elementsMax, what: desc.name }, 0);
}

interface Budget {
  left: number;
  readonly elementsMax: number;
  readonly what: string;
}

function count(desc: DescMessage, bytes: Uint8Array, budget: Budget, depth: number): void {
  if (depth > DEPTH_MAX) throw new StreamError(CODES.resourceExhausted, `a ${budget.what} may nest at most ${DEPTH_MAX} deep`);
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    spend(budget, 1);
    const [number, wireType] = reader.tag();
    const inner = wireType === WireType.LengthDelimited ? innerOf(fieldsOf(desc).get(number)) : undefined;
    if (inner === undefined) reader.skip(wireType, number);
    else if (inner === 'packed') spend(budget, reader.bytes().length);
    else if (inner.map) countEntry(inner.message, reader.bytes(), budget, depth + 1);
    else count(inner.message, reader.bytes(), budget, depth + 1);
  }
}

/** An entry of a map is a message of key = 1 and value = 2. */
function countEntry(value: DescMessage, bytes: Uint8Array, budget: Budget, depth: number): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    spend(budget, 1);
    const [number, wireType] = reader.tag();
    if (number === 2 && wireType === WireType.LengthDelimited) count(value, reader.bytes(), budget, depth);
    else reader.skip(wireType, number);
  }
}

type Inner = { readonly message: DescMessage; readonly map: boolean } | 'packed' | undefined;

function innerOf(field: DescField | undefined): Inner {
  if (field === undefined) return undefined;
  if (field.fieldKind === 'message') return { message: field.message, map: false };
  if (field.fieldKind === 'map') return field.mapKind === 'message' ? { message: field.message, map: true } : undefined;
  if (field.fieldKind !== 'list') return undefined;
  if (field.listKind === 'message') return { message: field.message, map: false };
  return field.packed ? 'packed' : undefined;
}

const byNumber = new WeakMap<DescMessage, ReadonlyMap<number, DescField>>();

function fieldsOf(desc: DescMessage): ReadonlyMap<number, DescField> {
  let fields = byNumber.get(desc);
  if (fields === undefined) {
    fields = new Map(desc.fields.map((field) => [field.number, field]));
    byNumber.set(desc, fields);
  }
  return fields;
}

function spend(budget: Budget, elements: number): void {
  budget.left -= elements;
  if (budget.left < 0)
    throw new StreamError(CODES.resourceExhausted, `a ${budget.what} may have at most ${budget.elementsMax} fields and items`);
}
