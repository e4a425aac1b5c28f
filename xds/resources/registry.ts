/** Every message type that we know, by name: what an Any can hold and still be understood. */
import { createRegistry, type DescMessage, type Registry } from '@bufbuild/protobuf';
import {
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
} from '@bufbuild/protobuf/wkt';
import { files } from '../gen/files.js';

const TYPE_PREFIX = 'type.googleapis.com/';

let registry: Registry | undefined;

/** Built on first use. */
export function types(): Registry {
  registry ??= createRegistry(
    file_google_protobuf_any,
    file_google_protobuf_duration,
    file_google_protobuf_empty,
    file_google_protobuf_struct,
    file_google_protobuf_timestamp,
    file_google_protobuf_wrappers,
    ...files,
  );
  return registry;
}

export function messageType(typeName: string): DescMessage | undefined {
  return types().getMessage(typeName);
}

/** `type.googleapis.com/a.b.C` is `a.b.C`; whatever stands before the last slash does not matter. */
export function typeNameOf(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
}

export function typeUrlOf(typeName: string): string {
  return TYPE_PREFIX + typeName;
}
