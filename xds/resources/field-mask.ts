/** Whether a path of a FieldMask names a field: every part a field of the message, and none but the last a list or a map. */
import type { DescMessage } from '@bufbuild/protobuf';
import { BootstrapSchema } from '../gen/envoy/config/bootstrap/v3/bootstrap_pb.js';

export function isBootstrapPath(path: readonly string[]): boolean {
  let message: DescMessage | undefined = BootstrapSchema;
  for (const part of path) {
    const field: DescMessage['fields'][number] | undefined = message?.fields.find((one) => one.name === part);
    if (field === undefined) return false;
    message = field.fieldKind === 'message' ? field.message : undefined;
  }
  return true;
}
