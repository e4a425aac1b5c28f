/** Messages as proto3 JSON: camelCase for our own configuration objects, snake_case and without secrets for config dumps. */
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromBinary,
  getOption,
  hasOption,
  type Message,
  ScalarType,
  toJson,
} from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { sensitive } from '../gen/udpa/annotations/sensitive_pb.js';
import type { Json, JsonObject } from '../snapshot.ts';
import { messageType, typeNameOf, typeUrlOf } from './registry.ts';

export interface JsonStyle {
  readonly names: 'camel' | 'proto';
  /** Replaces what the protos mark as sensitive by `[redacted]`. */
  readonly redact: boolean;
}

export const CONFIG_STYLE: JsonStyle = { names: 'camel', redact: false };
export const DUMP_STYLE: JsonStyle = { names: 'proto', redact: true };

/** Stands in the JSON of an Any whose type is not known: the bytes as they came. */
export const BYTES_KEY = '@bytes';

export const TYPED_STRUCTS: ReadonlySet<string> = new Set(['xds.type.v3.TypedStruct', 'udpa.type.v1.TypedStruct']);
const REDACTED = '[redacted]';

type Fields = Record<string, unknown>;

/** What is set, as JSON; fields with implicit presence that hold their zero value are left out. Never throws for unknown types. */
export function messageJson(schema: DescMessage, message: Message, style: JsonStyle): JsonObject {
  const json: Record<string, Json> = {};
  for (const field of schema.fields) {
    const value = valueOf(field, message as unknown as Fields);
    if (value === undefined) continue;
    json[style.names === 'camel' ? field.jsonName : field.name] = fieldJson(field, value, style);
  }
  return json;
}

/** The value of a field that is set, else undefined. */
function valueOf(field: DescField, fields: Fields): unknown {
  if (field.oneof !== undefined) {
    const choice = fields[field.oneof.localName] as { case?: string; value?: unknown };
    return choice.case === field.localName ? choice.value : undefined;
  }
  const value = fields[field.localName];
  if (field.fieldKind === 'list') return (value as unknown[]).length === 0 ? undefined : value;
  if (field.fieldKind === 'map') return Object.keys(value as object).length === 0 ? undefined : value;
  if (field.fieldKind === 'message' || field.presence !== IMPLICIT) return value;
  const zero = value === '' || value === 0 || value === 0n || value === false || (value instanceof Uint8Array && value.length === 0);
  return zero ? undefined : value;
}

// google.protobuf.FeatureSet.FieldPresence.IMPLICIT: zero and absent are the same.
const IMPLICIT = 2;

function fieldJson(field: DescField, value: unknown, style: JsonStyle): Json {
  const hidden = style.redact && hasOption(field, sensitive) && getOption(field, sensitive);
  const inner = (item: unknown): Json => {
    if (hidden) return redacted(field, item);
    if (field.message !== undefined) return anyMessageJson(field.message, item, style);
    if (field.enum !== undefined) return enumJson(field.enum, item as number);
    return scalarJson(field.scalar, item);
  };
  if (field.fieldKind === 'list') return (value as unknown[]).map(inner);
  if (field.fieldKind !== 'map') return inner(value);
  const json: Record<string, Json> = {};
  for (const [key, item] of Object.entries(value as Fields).sort(([a], [b]) => (a < b ? -1 : 1))) json[key] = inner(item);
  return json;
}

/** A file's name is no secret and helps; what it holds is. */
function redacted(field: DescField, value: unknown): Json {
  if (field.message?.typeName !== 'envoy.config.core.v3.DataSource') return REDACTED;
  const { specifier } = value as { specifier: { case?: string; value?: unknown } };
  if (specifier.case === 'filename') return { filename: String(specifier.value) };
  if (specifier.case === 'inlineBytes') return { inline_bytes: Buffer.from(REDACTED).toString('base64') };
  return { inline_string: REDACTED };
}

function anyMessageJson(schema: DescMessage, value: unknown, style: JsonStyle): Json {
  if (schema.typeName === 'google.protobuf.Any') return anyJson(value as Any, style);
  if (!schema.typeName.startsWith('google.protobuf.')) return messageJson(schema, value as Message, style);
  if (schema.typeName === 'google.protobuf.Struct') return value as JsonObject;
  // Wrappers are plain values as fields, and messages inside a oneof or a list.
  const wrapped = schema.fields.length === 1 && schema.fields[0]!.name === 'value' ? schema.fields[0]! : undefined;
  if (wrapped?.scalar !== undefined) {
    const plain = typeof value === 'object' && value !== null && '$typeName' in value ? (value as unknown as Fields)['value'] : value;
    return scalarJson(wrapped.scalar, plain);
  }
  return toJson(schema, value as Message) as Json;
}

/** `@type` beside the fields; a TypedStruct is shown as the message it stands for. */
export function anyJson(any: Any, style: JsonStyle): JsonObject {
  const typeName = typeNameOf(any.typeUrl);
  const schema = messageType(typeName);
  const message = schema === undefined ? undefined : tryDecode(schema, any.value);
  if (schema === undefined || message === undefined) {
    // What cannot be read cannot be searched for secrets either.
    return { '@type': any.typeUrl, [BYTES_KEY]: style.redact ? REDACTED : base64(any.value) };
  }
  if (style.names === 'camel' && TYPED_STRUCTS.has(typeName)) {
    const { typeUrl, value } = message as unknown as { typeUrl: string; value?: JsonObject };
    return { '@type': typeUrlOf(typeNameOf(typeUrl)), ...value };
  }
  const json = anyMessageJson(schema, message, style);
  return schema.typeName.startsWith('google.protobuf.')
    ? { '@type': any.typeUrl, value: json }
    : { '@type': any.typeUrl, ...(json as JsonObject) };
}

function tryDecode(schema: DescMessage, bytes: Uint8Array): Message | undefined {
  try {
    return fromBinary(schema, bytes);
  } catch {
    // Shown as bytes: a dump must not fail because of one extension.
    return undefined;
  }
}

function enumJson(schema: DescEnum, value: number): Json {
  return schema.value[value]?.name ?? value;
}

function scalarJson(type: ScalarType | undefined, value: unknown): Json {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof Uint8Array) return base64(value);
  if ((type === ScalarType.DOUBLE || type === ScalarType.FLOAT) && !Number.isFinite(value))
    return Number.isNaN(value) ? 'NaN' : (value as number) > 0 ? 'Infinity' : '-Infinity';
  return value as Json;
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}
