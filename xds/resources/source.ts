/** Config sources of a bootstrap: a file, the shared stream, or a stream of its own. */
import {
  type ApiConfigSource,
  ApiConfigSource_ApiType as ApiType,
  ApiVersion,
  type ConfigSource as WireSource,
} from '../gen/envoy/config/core/v3/config_source_pb.js';
import type { GrpcService } from '../gen/envoy/config/core/v3/grpc_service_pb.js';
import type { ApiSource, ConfigSource, GrpcTarget } from '../bootstrap.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, nameOf } from './duration.ts';

const INITIAL_FETCH_TIMEOUT_MS = 15_000;

export function decodeConfigSource(wire: WireSource, place: Place): ConfigSource {
  const initialFetchTimeoutMs = fromDuration(wire.initialFetchTimeout, INITIAL_FETCH_TIMEOUT_MS);
  const source = wire.configSourceSpecifier;
  refuseV2(wire.resourceApiVersion, inside(place, 'resource_api_version'));
  switch (source.case) {
    case 'ads':
      return { kind: 'ads', initialFetchTimeoutMs };
    case 'path':
      return { kind: 'path', path: source.value, initialFetchTimeoutMs };
    case 'pathConfigSource': {
      const directory = source.value.watchedDirectory?.path;
      return {
        kind: 'path',
        path: source.value.path,
        ...(directory === undefined ? {} : { watchedDirectory: directory }),
        initialFetchTimeoutMs,
      };
    }
    case 'apiConfigSource':
      return { kind: 'api', api: decodeApiSource(source.value, inside(place, 'api_config_source')), initialFetchTimeoutMs };
    default:
      return refuse(place, 'needs ads, path_config_source or api_config_source', source.case);
  }
}

/** Over gRPC only; REST polling is not supported. */
export function decodeApiSource(wire: ApiConfigSource, place: Place): ApiSource {
  const type = nameOf(ApiType, wire.apiType);
  refuseV2(wire.transportApiVersion, inside(place, 'transport_api_version'));
  const apiType =
    type === 'GRPC' || type === 'AGGREGATED_GRPC'
      ? 'GRPC'
      : type === 'DELTA_GRPC' || type === 'AGGREGATED_DELTA_GRPC'
        ? 'DELTA_GRPC'
        : undefined;
  if (apiType === undefined) return refuse(inside(place, 'api_type'), 'must be GRPC or DELTA_GRPC', type ?? wire.apiType);
  const services = wire.grpcServices.map((service, i) => decodeGrpcTarget(service, inside(inside(place, 'grpc_services'), i)));
  if (wire.clusterNames.length > 0) refuse(inside(place, 'cluster_names'), 'is for REST; gRPC takes grpc_services', wire.clusterNames);
  if (services.length === 0) refuse(inside(place, 'grpc_services'), 'needs at least one item');
  return { apiType, services, setNodeOnFirstMessageOnly: wire.setNodeOnFirstMessageOnly };
}

/** A file that asks for v2 is from before 2021, and what it describes would not be what comes. */
function refuseV2(version: ApiVersion, place: Place): void {
  if (version === ApiVersion.V2) refuse(place, 'must be V3: xDS v2 has been removed from Envoy, and is not spoken here', 'V2');
}

function decodeGrpcTarget(wire: GrpcService, place: Place): GrpcTarget {
  const { targetSpecifier: target } = wire;
  const common = {
    initialMetadata: wire.initialMetadata.map(({ key, value, rawValue }) => ({
      key,
      value: rawValue.length > 0 ? Buffer.from(rawValue).toString('latin1') : value,
    })),
    timeoutMs: fromDuration(wire.timeout, 0),
  };
  switch (target.case) {
    case 'envoyGrpc':
      return { target: { kind: 'cluster', cluster: target.value.clusterName, authority: target.value.authority }, ...common };
    case 'googleGrpc':
      if (
        target.value.channelCredentials !== undefined ||
        target.value.callCredentials.length > 0 ||
        target.value.credentialsFactoryName !== ''
      ) {
        refuse(inside(place, 'google_grpc'), 'credentials are not supported; use envoy_grpc with a cluster that has a transport_socket');
      }
      warn(inside(place, 'google_grpc'), 'is spoken to in plaintext');
      return { target: { kind: 'uri', uri: target.value.targetUri }, ...common };
    case undefined:
      return refuse(place, 'needs envoy_grpc or google_grpc');
  }
}
