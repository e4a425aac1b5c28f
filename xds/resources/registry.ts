/** Every message type that we know, by name: what an Any can hold and still be understood. */
import type { DescMessage, Registry } from '@bufbuild/protobuf';
import { registry } from '../proto/descriptors.ts';

const TYPE_PREFIX = 'type.googleapis.com/';

export function types(): Registry {
  return registry;
}

export function messageType(typeName: string): DescMessage | undefined {
  return registry.getMessage(typeName);
}

/** `type.googleapis.com/a.b.C` is `a.b.C`; whatever stands before the last slash does not matter. */
export function typeNameOf(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
}

export function typeUrlOf(typeName: string): string {
  return TYPE_PREFIX + typeName;
}
