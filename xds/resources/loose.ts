/** Messages from JSON as people and control planes write it: Envoy accepts more than proto3 JSON, so it is made canonical first. */
import {
  type DescField,
  type DescMessage,
  fromJson,
  type JsonValue,
  type Message,
  type MessageShape,
  ScalarType,
} from '@bufbuild/protobuf';
import type { Json, JsonObject } from '../snapshot.ts';
import { inside, joinPath, type Place, refuse, topOf } from './decoding.ts';
import { TYPED_STRUCTS } from './json.ts';
import { messageType, typeNameOf, types, typeUrlOf } from './registry.ts';

/** Deeper than any real configuration; a bound against a stack that runs out. */
const DEPTH_MAX = 100;
const TYPED_STRUCT = 'xds.type.v3.TypedStruct';

type Canonical = JsonValue | undefined;

/**
 * Reads a message. Enum values match in any case, booleans may be words of YAML 1.1, one value stands for a list of one, durations may be `{seconds, nanos}`, and an Any
 * of an unknown type is kept as a TypedStruct. The paths of unknown fields are added to `unknown`; what else is wrong is a DecodeError.
 */
export function messageFromJson(schema: DescMessage, json: Json, place: Place, unknown: string[]): Message {
  const canonical = message(schema, json, place, { unknown, depth: 0 });
  try {
    return fromJson(schema, canonical ?? {}, { registry: types(), ignoreUnknownFields: true });
  } catch (error) {
    return refuse(place, error instanceof Error ? error.message.replace(/^cannot decode /, 'cannot read ') : String(error));
  }
}

/** A message from JSON that our own code made: an unknown field is a mistake of ours and throws. */
export function newMessage<Desc extends DescMessage>(schema: Desc, json: Json, what: string): MessageShape<Desc> {
  const place = topOf(what);
  const unknown: string[] = [];
  const message = messageFromJson(schema, sorted(json), place, unknown) as MessageShape<Desc>;
  if (unknown.length > 0) refuse(place, `${schema.typeName} has no field ${unknown.join(', ')}`);
  return message;
}

/** The same JSON with the keys of every object in order: maps are written as they iterate, and equal resources must be equal bytes. */
export function sorted<T extends Json>(json: T): T {
  if (Array.isArray(json)) return json.map((item: Json) => sorted(item)) as unknown as T;
  if (typeof json !== 'object' || json === null) return json;
  const out: Record<string, Json> = {};
  for (const key of Object.keys(json).sort()) out[key] = sorted((json as JsonObject)[key]!);
  return out as unknown as T;
}

interface Reading {
  readonly unknown: string[];
  readonly depth: number;
}

function object(schema: DescMessage, json: Json, place: Place, reading: Reading): Canonical {
  if (reading.depth > DEPTH_MAX) return refuse(place, `nests at most ${DEPTH_MAX} messages`);
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return refuse(place, 'must be an object', json);
  const out: { [key: string]: JsonValue } = {};
  for (const [key, value] of Object.entries(json as JsonObject)) {
    if (value === null || key === '@type') continue;
    const field = fieldOf(schema, key);
    if (field === undefined) {
      reading.unknown.push(joinPath(place.path, key));
      continue;
    }
    if (Object.hasOwn(out, field.jsonName)) return refuse(inside(place, key), 'is given twice');
    const canonical = fieldValue(field, value, inside(place, field.name), { unknown: reading.unknown, depth: reading.depth + 1 });
    if (canonical !== undefined) out[field.jsonName] = canonical;
  }
  return out;
}

const fieldIndexes = new WeakMap<DescMessage, ReadonlyMap<string, DescField>>();

function fieldOf(schema: DescMessage, key: string): DescField | undefined {
  let index = fieldIndexes.get(schema);
  if (index === undefined) {
    index = new Map(schema.fields.flatMap((field) => [[field.name, field] as const, [field.jsonName, field] as const]));
    fieldIndexes.set(schema, index);
  }
  return index.get(key);
}

function fieldValue(field: DescField, value: Json, place: Place, reading: Reading): Canonical {
  if (field.fieldKind === 'list') {
    const items: readonly Json[] = Array.isArray(value) ? value : [value];
    return items.map((item, i) => single(field, item, inside(place, i), reading) ?? null);
  }
  if (field.fieldKind !== 'map') return single(field, value, place, reading);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(place, 'must be an object', value);
  const out: { [key: string]: JsonValue } = {};
  for (const [key, item] of Object.entries(value as JsonObject)) {
    const canonical = single(field, item, inside(place, key), reading);
    if (canonical !== undefined) out[key] = canonical;
  }
  return out;
}

function single(field: DescField, value: Json, place: Place, reading: Reading): Canonical {
  if (field.message !== undefined) return message(field.message, value, place, reading);
  if (field.enum !== undefined) {
    if (typeof value !== 'string') return value as JsonValue;
    if (/^-?\d{1,9}$/.test(value)) return Number(value);
    const wanted = value.toUpperCase();
    const found = field.enum.values.find((item) => item.name.toUpperCase() === wanted);
    if (found !== undefined) return found.name;
    return refuse(place, `must be one of ${field.enum.values.map((item) => item.name).join(', ')}`, value);
  }
  if (field.scalar === ScalarType.STRING && typeof value !== 'string') return refuse(place, 'must be a string', value);
  if (field.scalar === ScalarType.BOOL) return bool(value, place);
  if (typeof value === 'object') return refuse(place, 'must be a single value', value);
  return value;
}

function message(schema: DescMessage, value: Json, place: Place, reading: Reading): Canonical {
  switch (schema.typeName) {
    case 'google.protobuf.Any':
      return any(value, place, reading);
    case 'google.protobuf.Duration':
      return duration(value, place);
    case 'google.protobuf.Struct':
      if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(place, 'must be an object', value);
      return value as JsonValue;
    case 'google.protobuf.BoolValue':
      return bool(value, place);
    case 'google.protobuf.StringValue':
      return typeof value === 'string' ? value : refuse(place, 'must be a string', value);
    case 'google.protobuf.Empty':
      return {};
    default:
      return schema.typeName.startsWith('google.protobuf.') ? (value as JsonValue) : object(schema, value, place, reading);
  }
}

/** YAML 1.1 had more words for true and false than 1.2 has, and Envoy reads them all. */
const BOOLEANS: Readonly<Record<string, boolean>> = {
  ...{ true: true, yes: true, on: true, y: true },
  ...{ false: false, no: false, off: false, n: false },
};

function bool(value: Json, place: Place): boolean {
  const read = typeof value === 'string' ? BOOLEANS[value.toLowerCase()] : value;
  return typeof read === 'boolean' ? read : refuse(place, 'must be true or false', value);
}

function duration(value: Json, place: Place): Canonical {
  if (typeof value === 'string') {
    if (!/^-?\d{1,12}(?:\.\d{1,9})?s$/.test(value)) return refuse(place, 'must be a duration in seconds like "0.25s"', value);
    return value;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(place, 'must be a duration like "0.25s"', value);
  const { seconds = 0, nanos = 0, ...rest } = value as JsonObject;
  if (Object.keys(rest).length > 0 || !Number.isInteger(Number(seconds)) || !Number.isInteger(Number(nanos))) {
    return refuse(place, 'must be a duration like "0.25s", or {seconds, nanos}', value);
  }
  const sign = Number(seconds) < 0 || Number(nanos) < 0 ? '-' : '';
  return `${sign}${Math.abs(Number(seconds))}.${String(Math.abs(Number(nanos))).padStart(9, '0')}s`;
}

/** An Any without a type stays empty: old configurations write `typed_config: {}` and mean the filter's name alone. */
function any(value: Json, place: Place, reading: Reading): Canonical {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(place, 'must be an object', value);
  const { '@type': typeUrl, ...rest } = value as JsonObject;
  if (typeUrl === undefined) return Object.keys(rest).length === 0 ? {} : refuse(place, 'needs an "@type"', value);
  if (typeof typeUrl !== 'string' || typeNameOf(typeUrl) === '') return refuse(place, '"@type" must name a message type', typeUrl);
  const typeName = typeNameOf(typeUrl);
  const schema = messageType(typeName);
  if (schema === undefined) return { '@type': typeUrlOf(TYPED_STRUCT), typeUrl, value: rest as JsonValue };
  if (schema.typeName.startsWith('google.protobuf.')) return { '@type': typeUrlOf(typeName), value: (rest['value'] ?? null) as JsonValue };
  const canonical = object(schema, rest, place, { unknown: reading.unknown, depth: reading.depth + 1 }) as { [key: string]: JsonValue };
  if (TYPED_STRUCTS.has(typeName) && canonical['typeUrl'] === undefined) return refuse(place, 'a TypedStruct needs a type_url', value);
  return { '@type': typeUrlOf(typeName), ...canonical };
}
