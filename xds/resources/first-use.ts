/** Makes ready what encodes the largest messages, a message type at a time: the protobuf library compiles a type with all that it can hold when it is first encoded, tens of milliseconds for a cluster. */
import { create, toBinary } from '@bufbuild/protobuf';
import type { DescMessage } from '@bufbuild/protobuf';
import { CircuitBreakersSchema } from '../gen/envoy/config/cluster/v3/circuit_breaker_pb.js';
import { ClusterSchema } from '../gen/envoy/config/cluster/v3/cluster_pb.js';
import { OutlierDetectionSchema } from '../gen/envoy/config/cluster/v3/outlier_detection_pb.js';
import { AddressSchema } from '../gen/envoy/config/core/v3/address_pb.js';
import { TransportSocketSchema } from '../gen/envoy/config/core/v3/base_pb.js';
import { ConfigSourceSchema } from '../gen/envoy/config/core/v3/config_source_pb.js';
import { GrpcServiceSchema } from '../gen/envoy/config/core/v3/grpc_service_pb.js';
import { HealthCheckSchema } from '../gen/envoy/config/core/v3/health_check_pb.js';
import { ClusterLoadAssignmentSchema } from '../gen/envoy/config/endpoint/v3/endpoint_pb.js';
import { FilterChainSchema } from '../gen/envoy/config/listener/v3/listener_components_pb.js';
import { ListenerSchema } from '../gen/envoy/config/listener/v3/listener_pb.js';
import { RouteConfigurationSchema } from '../gen/envoy/config/route/v3/route_pb.js';
import { RouteActionSchema, RouteMatchSchema, RouteSchema, VirtualHostSchema } from '../gen/envoy/config/route/v3/route_components_pb.js';
import { HttpConnectionManagerSchema } from '../gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js';
import { CommonTlsContextSchema, UpstreamTlsContextSchema } from '../gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.js';

/** What is held by others comes before them. */
const TYPES: readonly DescMessage[] = [
  AddressSchema,
  TransportSocketSchema,
  GrpcServiceSchema,
  ConfigSourceSchema,
  HealthCheckSchema,
  OutlierDetectionSchema,
  CircuitBreakersSchema,
  ClusterLoadAssignmentSchema,
  CommonTlsContextSchema,
  UpstreamTlsContextSchema,
  ClusterSchema,
  RouteMatchSchema,
  RouteActionSchema,
  RouteSchema,
  VirtualHostSchema,
  RouteConfigurationSchema,
  FilterChainSchema,
  ListenerSchema,
  HttpConnectionManagerSchema,
];

/** One type a step. */
export function* firstUse(): Generator<void, void> {
  for (const type of TYPES) {
    toBinary(type, create(type));
    yield;
  }
}
