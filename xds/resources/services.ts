/** The gRPC services of xDS as grpc-js takes them: the discovery services with our own codec, any other by its descriptor. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescMethod, DescService, Message } from '@bufbuild/protobuf';
import type { MethodDefinition } from '@grpc/grpc-js';
import { ClusterDiscoveryService } from '../gen/envoy/service/cluster/v3/cds_pb.js';
import { AggregatedDiscoveryService } from '../gen/envoy/service/discovery/v3/ads_pb.js';
import { EndpointDiscoveryService } from '../gen/envoy/service/endpoint/v3/eds_pb.js';
import { ListenerDiscoveryService } from '../gen/envoy/service/listener/v3/lds_pb.js';
import { RouteDiscoveryService, VirtualHostDiscoveryService } from '../gen/envoy/service/route/v3/rds_pb.js';
import { SecretDiscoveryService } from '../gen/envoy/service/secret/v3/sds_pb.js';
import type { DeltaRequest, DeltaResponse, Mode, SotwRequest, SotwResponse } from '../session/messages.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, VIRTUAL_HOST_TYPE } from '../session/type-urls.ts';
import {
  decodeDeltaRequest,
  decodeDeltaResponse,
  decodeSotwRequest,
  decodeSotwResponse,
  encodeDeltaRequest,
  encodeDeltaResponse,
  encodeSotwRequest,
  encodeSotwResponse,
} from './discovery.ts';

/** One bidirectional method of a discovery service. */
export interface DiscoveryMethod {
  readonly mode: Mode;
  /** Undefined for the aggregated service, where each request names its type. */
  readonly typeUrl: string | undefined;
  readonly definition: MethodDefinition<SotwRequest | DeltaRequest, SotwResponse | DeltaResponse>;
}

/** Every streaming method: aggregated and per type, state of the world and delta. The unary Fetch methods are not served. */
export function discoveryMethods(): readonly DiscoveryMethod[] {
  const services: readonly [DescService, string | undefined][] = [
    [AggregatedDiscoveryService, undefined],
    [ClusterDiscoveryService, CLUSTER_TYPE],
    [EndpointDiscoveryService, ENDPOINT_TYPE],
    [ListenerDiscoveryService, LISTENER_TYPE],
    [RouteDiscoveryService, ROUTE_TYPE],
    [VirtualHostDiscoveryService, VIRTUAL_HOST_TYPE],
    [SecretDiscoveryService, SECRET_TYPE],
  ];
  return services.flatMap(([service, typeUrl]) =>
    service.methods
      .filter((method) => method.methodKind === 'bidi_streaming')
      .map((method) => {
        const mode: Mode = method.input.name === 'DeltaDiscoveryRequest' ? 'delta' : 'sotw';
        return { mode, typeUrl, definition: { ...shape(method), ...CODECS[mode] } };
      }),
  );
}

const CODECS = {
  sotw: {
    requestSerialize: encodeSotwRequest,
    requestDeserialize: decodeSotwRequest,
    responseSerialize: encodeSotwResponse,
    responseDeserialize: decodeSotwResponse,
  },
  delta: {
    requestSerialize: encodeDeltaRequest,
    requestDeserialize: decodeDeltaRequest,
    responseSerialize: encodeDeltaResponse,
    responseDeserialize: decodeDeltaResponse,
  },
} as const satisfies Record<Mode, object> as unknown as Record<
  Mode,
  Pick<
    MethodDefinition<SotwRequest | DeltaRequest, SotwResponse | DeltaResponse>,
    'requestSerialize' | 'requestDeserialize' | 'responseSerialize' | 'responseDeserialize'
  >
>;

/** A generated service as a grpc-js service definition, keyed by method name (`fetchClientStatus`). */
export function grpcService(service: DescService): Record<string, MethodDefinition<Message, Message>> {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      {
        ...shape(method),
        requestSerialize: (message: Message) => Buffer.from(toBinary(method.input, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
        responseSerialize: (message: Message) => Buffer.from(toBinary(method.output, create(method.output, message))),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}

function shape(method: DescMethod): { path: string; requestStream: boolean; responseStream: boolean } {
  const { methodKind } = method;
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: methodKind === 'bidi_streaming' || methodKind === 'client_streaming',
    responseStream: methodKind === 'bidi_streaming' || methodKind === 'server_streaming',
  };
}
