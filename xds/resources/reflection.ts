/** What gRPC reflection tells of our services: their names, and the proto files that describe them. */
import { toBinary } from '@bufbuild/protobuf';
import type { DescFile } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { file_envoy_service_cluster_v3_cds } from '../gen/envoy/service/cluster/v3/cds_pb.js';
import { file_envoy_service_discovery_v3_ads } from '../gen/envoy/service/discovery/v3/ads_pb.js';
import { file_envoy_service_endpoint_v3_eds } from '../gen/envoy/service/endpoint/v3/eds_pb.js';
import { file_envoy_service_listener_v3_lds } from '../gen/envoy/service/listener/v3/lds_pb.js';
import { file_envoy_service_load_stats_v3_lrs } from '../gen/envoy/service/load_stats/v3/lrs_pb.js';
import { file_envoy_service_route_v3_rds } from '../gen/envoy/service/route/v3/rds_pb.js';
import { file_envoy_service_secret_v3_sds } from '../gen/envoy/service/secret/v3/sds_pb.js';
import { file_envoy_service_status_v3_csds } from '../gen/envoy/service/status/v3/csds_pb.js';

const SERVED: readonly DescFile[] = [
  file_envoy_service_discovery_v3_ads,
  file_envoy_service_cluster_v3_cds,
  file_envoy_service_endpoint_v3_eds,
  file_envoy_service_listener_v3_lds,
  file_envoy_service_route_v3_rds,
  file_envoy_service_secret_v3_sds,
  file_envoy_service_load_stats_v3_lrs,
  file_envoy_service_status_v3_csds,
];

/** Full names of the services that a control plane may serve. */
export function serviceNames(): string[] {
  return SERVED.flatMap((file) => file.services.map((service) => service.typeName));
}

/** The file that defines a service, method, message or enum by its full name, or the file of that path, with all it imports; undefined for unknown ones. */
export function describingFiles(kind: 'symbol' | 'path', name: string): Uint8Array[] | undefined {
  const all = new Map<string, DescFile>();
  for (const file of SERVED) gather(file, all);
  for (const file of all.values()) {
    if (kind === 'path' ? file.proto.name !== name : !defines(file, name)) continue;
    const needed = new Map<string, DescFile>();
    gather(file, needed);
    return [...needed.values()].map((one) => toBinary(FileDescriptorProtoSchema, one.proto));
  }
  return undefined;
}

/** The file first and then what it imports, each once. */
function gather(file: DescFile, into: Map<string, DescFile>): void {
  const waiting = [file];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (into.has(next.proto.name)) continue;
    into.set(next.proto.name, next);
    waiting.push(...next.dependencies);
  }
}

function defines(file: DescFile, name: string): boolean {
  const service = file.services.some(
    (one) => name === one.typeName || one.methods.some((method) => name === `${one.typeName}.${method.name}`),
  );
  return service || file.messages.some((message) => within(message, name)) || file.enums.some((one) => one.typeName === name);
}

interface MessageTree {
  readonly typeName: string;
  readonly nestedMessages: readonly MessageTree[];
  readonly nestedEnums: readonly { readonly typeName: string }[];
}

function within(message: MessageTree, name: string): boolean {
  if (message.typeName === name) return true;
  if (!name.startsWith(`${message.typeName}.`)) return false;
  return message.nestedMessages.some((inner) => within(inner, name)) || message.nestedEnums.some((inner) => inner.typeName === name);
}
