/** gRPC health checking (grpc.health.v1) for any server of ours: Check, and Watch with every change. */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { Server, ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import type { Watch } from '../lib/watch.ts';

/** Values of HealthCheckResponse.ServingStatus. */
const STATUS = { SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 } as const;
export type HealthStatus = keyof typeof STATUS;

/** Service name to whether it serves; the empty name is the whole server. */
export type ServiceHealth = ReadonlyMap<string, boolean>;

interface HealthRequest {
  readonly service: string;
}

const NOT_FOUND = 5;

/** `HealthCheckRequest { string service = 1 }` and `HealthCheckResponse { ServingStatus status = 1 }`; the protos ship with no package here. */
export const HEALTH_CODEC = {
  requestSerialize: (service: string): Buffer => Buffer.from(new BinaryWriter().tag(1, WireType.LengthDelimited).string(service).finish()),
  /** An object, since grpc-js takes a message that is falsy for none at all. */
  requestDeserialize: (bytes: Buffer): HealthRequest => {
    const reader = new BinaryReader(bytes);
    let service = '';
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (field === 1) service = reader.string();
      else reader.skip(wireType, field);
    }
    return { service };
  },
  responseSerialize: (status: HealthStatus): Buffer => Buffer.from([(1 << 3) | WireType.Varint, STATUS[status]]),
  responseDeserialize: (bytes: Buffer): HealthStatus => {
    const reader = new BinaryReader(bytes);
    reader.tag();
    const value = reader.int32();
    return (Object.keys(STATUS) as HealthStatus[]).find((name) => STATUS[name] === value) ?? 'SERVICE_UNKNOWN';
  },
} as const;

/** Adds the health service to `server`. Check answers NOT_FOUND for a service that is not in the map; Watch says SERVICE_UNKNOWN and goes on. */
export function serveHealth(server: Server, health: Watch<ServiceHealth>): void {
  const { requestDeserialize, responseSerialize } = HEALTH_CODEC;
  const check = (call: ServerUnaryCall<HealthRequest, HealthStatus>, done: sendUnaryData<HealthStatus>): void => {
    const serves = health.current.get(call.request.service);
    if (serves === undefined) done({ code: NOT_FOUND, details: `no service ${JSON.stringify(call.request.service.slice(0, 200))} here` });
    else done(null, serves ? 'SERVING' : 'NOT_SERVING');
  };
  const watch = (call: ServerWritableStream<HealthRequest, HealthStatus>): void => {
    let told: HealthStatus | undefined;
    let writing = false;
    const tell = (): void => {
      const serves = health.current.get(call.request.service);
      const status = serves === undefined ? 'SERVICE_UNKNOWN' : serves ? 'SERVING' : 'NOT_SERVING';
      // One message at a time: a client that does not read gets the newest state when it does.
      if (writing || status === told) return;
      told = status;
      writing = true;
      call.write(status, () => {
        writing = false;
        tell();
      });
    };
    const stop = health.subscribe(tell);
    call.on('cancelled', stop);
    call.on('error', stop);
    call.on('close', stop);
    tell();
  };
  server.register('/grpc.health.v1.Health/Check', check, responseSerialize, requestDeserialize, 'unary');
  server.register('/grpc.health.v1.Health/Watch', watch, responseSerialize, requestDeserialize, 'serverStream');
}
