/** gRPC server reflection (v1 and v1alpha), so that tools like grpcurl can speak to a control plane without its protos. */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import { describingFiles, serviceNames } from './resources/reflection.ts';

/** `ServerReflectionRequest`: host = 1, file_by_filename = 3, file_containing_symbol = 4, 5 and 6 about extensions, list_services = 7. */
export interface ReflectionRequest {
  readonly field: number;
  readonly text: string;
  /** As it came: the answer repeats it. */
  readonly bytes: Uint8Array;
}

const FILE_BY_NAME = 3;
const FILE_OF_SYMBOL = 4;
const LIST_SERVICES = 7;
const NOT_FOUND = 5;
const UNIMPLEMENTED = 12;

/** Adds reflection to `server`. Extensions of proto2 are not described: xDS has none. */
export function serveReflection(server: Server): void {
  const handle = (call: ServerDuplexStream<ReflectionRequest, Uint8Array>): void => {
    call.on('data', (request: ReflectionRequest) => {
      if (call.write(reflect(request))) return;
      call.pause();
      call.once('drain', () => call.resume());
    });
    call.on('end', () => call.end());
    // A broken stream leaves nothing behind.
    call.on('error', () => undefined);
  };
  const serialize = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
  for (const version of ['v1', 'v1alpha']) {
    server.register(`/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`, handle, serialize, readRequest, 'bidi');
  }
}

function readRequest(bytes: Buffer): ReflectionRequest {
  const reader = new BinaryReader(bytes);
  let request = { field: 0, text: '', bytes };
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === WireType.LengthDelimited && field >= FILE_BY_NAME && field <= LIST_SERVICES) {
      const value = reader.bytes();
      request = { field, text: field === 5 ? '' : Buffer.from(value).toString(), bytes };
    } else reader.skip(wireType, field);
  }
  return request;
}

/** `ServerReflectionResponse`: original_request = 2, file_descriptor_response = 4, list_services_response = 6, error_response = 7. */
function reflect(request: ReflectionRequest): Uint8Array {
  const writer = new BinaryWriter().tag(2, WireType.LengthDelimited).bytes(request.bytes);
  if (request.field === LIST_SERVICES) {
    writer.tag(6, WireType.LengthDelimited).fork();
    for (const name of serviceNames()) writer.tag(1, WireType.LengthDelimited).fork().tag(1, WireType.LengthDelimited).string(name).join();
    return writer.join().finish();
  }
  if (request.field !== FILE_BY_NAME && request.field !== FILE_OF_SYMBOL)
    return failure(writer, UNIMPLEMENTED, 'extensions are not described');
  const files = describingFiles(request.field === FILE_BY_NAME ? 'path' : 'symbol', request.text);
  if (files === undefined) return failure(writer, NOT_FOUND, `nothing is known of ${JSON.stringify(request.text.slice(0, 200))}`);
  writer.tag(4, WireType.LengthDelimited).fork();
  for (const file of files) writer.tag(1, WireType.LengthDelimited).bytes(file);
  return writer.join().finish();
}

/** `ErrorResponse { int32 error_code = 1; string error_message = 2 }`. */
function failure(writer: BinaryWriter, code: number, message: string): Uint8Array {
  writer
    .tag(7, WireType.LengthDelimited)
    .fork()
    .tag(1, WireType.Varint)
    .int32(code)
    .tag(2, WireType.LengthDelimited)
    .string(message)
    .join();
  return writer.finish();
}
