/** Extensions: what stands in an Any, unwrapped from TypedStruct, as our ExtensionConfig and back. */
import {
  create,
  type DescMessage,
  fromBinary,
  type JsonObject as Struct,
  type Message,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type Any, AnySchema } from '@bufbuild/protobuf/wkt';
import { TypedStructSchema } from '../gen/xds/type/v3/typed_struct_pb.js';
import type { ExtensionConfig, Json, JsonObject } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { BYTES_KEY, CONFIG_STYLE, messageJson, TYPED_STRUCTS } from './json.ts';
import { messageFromJson, newMessage, sorted } from './loose.ts';
import { typeOfName } from './names.ts';
import { messageType, typeNameOf, typeUrlOf } from './registry.ts';
import { checkRules } from './rules.ts';

/** An opened Any: a message of a known type, the fields of a TypedStruct, or bytes that nobody here can read. */
type Opened =
  | { readonly kind: 'message'; readonly type: string; readonly schema: DescMessage; readonly message: Message }
  | { readonly kind: 'struct'; readonly type: string; readonly value: JsonObject }
  | { readonly kind: 'bytes'; readonly type: string; readonly bytes: Uint8Array };

/** Undefined for an absent or empty Any. Checks Envoy's rules on a known type. */
function open(any: Any | undefined, place: Place): Opened | undefined {
  if (any === undefined || any.typeUrl === '') return undefined;
  const type = typeNameOf(any.typeUrl);
  const schema = messageType(type);
  if (schema === undefined) return { kind: 'bytes', type, bytes: any.value };
  const message = decodeMessage(schema, any.value, place);
  if (!TYPED_STRUCTS.has(type)) {
    checkRules(schema, message, place);
    return { kind: 'message', type, schema, message };
  }
  const { typeUrl, value = {} } = message as MessageShape<typeof TypedStructSchema>;
  const innerType = typeNameOf(typeUrl);
  const inner = messageType(innerType);
  if (inner === undefined || TYPED_STRUCTS.has(innerType)) return { kind: 'struct', type: innerType, value: value as JsonObject };
  const unknown: string[] = [];
  const read = messageFromJson(inner, value as Json, place, unknown);
  for (const path of unknown) warn({ ...place, path: '' }, `unknown field ${path} is ignored`);
  checkRules(inner, read, place);
  return { kind: 'message', type: innerType, schema: inner, message: read };
}

/** Bytes to a message, with a DecodeError where they are not one. */
export function decodeMessage<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array, place: Place): MessageShape<Desc> {
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    return refuse(place, `the bytes are no ${schema.typeName}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The message of an Any that must be of this type, or undefined when it is of another one or absent. */
export function openAs<Desc extends DescMessage>(schema: Desc, any: Any | undefined, place: Place): MessageShape<Desc> | undefined {
  const opened = open(any, place);
  return opened?.kind === 'message' && opened.type === schema.typeName ? (opened.message as MessageShape<Desc>) : undefined;
}

/** The type an Any holds, seen through TypedStruct; the one that the name implies when there is no Any; else empty. */
export function typeOf(name: string, any: Any | undefined, place: Place): string {
  if (any === undefined || any.typeUrl === '') return typeOfName(name) ?? '';
  const type = typeNameOf(any.typeUrl);
  if (!TYPED_STRUCTS.has(type)) return type;
  const schema = messageType(type);
  return schema === undefined
    ? type
    : typeNameOf((decodeMessage(schema, any.value, place) as MessageShape<typeof TypedStructSchema>).typeUrl);
}

/** An extension by name and Any. Unknown types keep their name and what could be read, for the data plane to accept or refuse. */
export function extensionOf(name: string, any: Any | undefined, place: Place): ExtensionConfig {
  const opened = open(any, inside(place, 'typed_config'));
  if (opened === undefined) return { name, type: typeOfName(name) ?? '', config: {} };
  switch (opened.kind) {
    case 'message':
      return { name, type: opened.type, config: messageJson(opened.schema, opened.message, CONFIG_STYLE) };
    case 'struct':
      return { name, type: opened.type, config: opened.value };
    case 'bytes':
      return {
        name,
        type: opened.type,
        config: opened.bytes.length === 0 ? {} : { [BYTES_KEY]: Buffer.from(opened.bytes).toString('base64') },
      };
  }
}

/** The Any of an extension: its own message where the type is known, else a TypedStruct, or the bytes that came. */
export function packExtension(extension: ExtensionConfig): Any | undefined {
  if (extension.type === '') return undefined;
  const schema = messageType(extension.type);
  const bytes = extension.config[BYTES_KEY];
  if (typeof bytes === 'string') return create(AnySchema, { typeUrl: typeUrlOf(extension.type), value: Buffer.from(bytes, 'base64') });
  if (schema === undefined) {
    const struct = create(TypedStructSchema, { typeUrl: typeUrlOf(extension.type), value: sorted(extension.config) as Struct });
    return pack(TypedStructSchema, struct);
  }
  return pack(schema, newMessage(schema, extension.config, `extension "${extension.name}"`));
}

export function pack<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): Any {
  return create(AnySchema, { typeUrl: typeUrlOf(schema.typeName), value: toBinary(schema, message) });
}
