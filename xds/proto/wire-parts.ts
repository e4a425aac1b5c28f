/** Descriptors as they lie in the image: the fields of one message, without decoding what is in them. */
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';

/** Field numbers of google.protobuf.FileDescriptorSet, FileDescriptorProto, DescriptorProto and MessageOptions; a name is always field 1. */
export const IMAGE_FILE = 1;
export const NAME = 1;
export const FILE = { name: 1, package: 2, messageType: 4, enumType: 5, service: 6, extension: 7, syntax: 12 } as const;
export const MESSAGE = { name: 1, nestedType: 3, enumType: 4, options: 7 } as const;
export const OPTION_MAP_ENTRY = 7;

/** One field. All views are into the image. */
export interface Part {
  readonly no: number;
  /** The content of a field with a length, else empty. */
  readonly data: Uint8Array;
  /** The content with tag and length before it. */
  readonly whole: Uint8Array;
}

const EMPTY = new Uint8Array();
const decoder = new TextDecoder();

export function* parts(message: Uint8Array): Generator<Part> {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const [no, wireType] = reader.tag();
    let data: Uint8Array = EMPTY;
    if (wireType === WireType.LengthDelimited) data = reader.bytes();
    else reader.skip(wireType, no);
    yield { no, data, whole: message.subarray(start, reader.pos) };
  }
}

export function text(part: Part): string {
  return decoder.decode(part.data);
}
