/** Filter chains: which connections they take, their TLS, and the network filters those pass through. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type Filter,
  type FilterSchema,
  type FilterChain as WireChain,
  type FilterChainMatch as WireMatch,
  FilterChainMatch_ConnectionSourceType as SourceType,
  type FilterChainMatchSchema,
  type FilterChainSchema,
} from '../gen/envoy/config/listener/v3/listener_components_pb.js';
import { HttpConnectionManagerSchema } from '../gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js';
import { TcpProxySchema } from '../gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.js';
import type { FilterChain, FilterChainMatch, NetworkFilter } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, nameOf, toDuration } from './duration.ts';
import { extensionOf, openAs, pack, packExtension, typeOf } from './extension.ts';
import { decodeHttpConnectionManager, newHttpConnectionManager } from './hcm.ts';
import { decodeCidr, encodeCidr } from './parts.ts';
import { decodeTcpProxy, newTcpProxy } from './tcp-proxy.ts';
import { decodeDownstreamTls, encodeDownstreamTls } from './tls.ts';

export function decodeFilterChain(wire: WireChain, place: Place): FilterChain {
  if (wire.onDemandConfiguration !== undefined) refuse(inside(place, 'on_demand_configuration'), 'is not supported');
  if (wire.useProxyProto === true)
    refuse(inside(place, 'use_proxy_proto'), 'is not supported; use the listener filter envoy.filters.listener.proxy_protocol');
  const tls = decodeDownstreamTls(wire.transportSocket, inside(place, 'transport_socket'));
  const connectTimeoutMs = fromDuration(wire.transportSocketConnectTimeout);
  if (connectTimeoutMs !== undefined) warn(inside(place, 'transport_socket_connect_timeout'), 'is ignored');
  return {
    name: wire.name,
    match: wire.filterChainMatch === undefined ? {} : decodeMatch(wire.filterChainMatch, inside(place, 'filter_chain_match')),
    ...(tls === undefined ? {} : { tls }),
    filters: wire.filters.map((filter, i) => decodeNetworkFilter(filter, inside(inside(place, 'filters'), i))),
    ...(connectTimeoutMs === undefined ? {} : { transportSocketConnectTimeoutMs: connectTimeoutMs }),
  };
}

function decodeMatch(wire: WireMatch, place: Place): FilterChainMatch {
  if (wire.addressSuffix !== '' || wire.suffixLen !== undefined)
    refuse(inside(place, 'address_suffix'), 'is not supported, by Envoy neither');
  const cidrs = (field: string, ranges: WireMatch['prefixRanges']) =>
    ranges.map((range, i) => decodeCidr(range, inside(inside(place, field), i)));
  const sourceType = nameOf(SourceType, wire.sourceType);
  wire.serverNames.forEach((name, i) => {
    const rest = name.startsWith('*.') ? name.slice(2) : name;
    if (rest === '' || rest.includes('*')) refuse(inside(inside(place, 'server_names'), i), 'must be a name or "*.suffix"', name);
  });
  return {
    ...(wire.destinationPort === undefined ? {} : { destinationPort: wire.destinationPort }),
    ...(wire.prefixRanges.length === 0 ? {} : { prefixRanges: cidrs('prefix_ranges', wire.prefixRanges) }),
    ...(wire.serverNames.length === 0 ? {} : { serverNames: wire.serverNames.map((name) => name.toLowerCase()) }),
    ...(wire.transportProtocol === '' ? {} : { transportProtocol: wire.transportProtocol }),
    ...(wire.applicationProtocols.length === 0 ? {} : { applicationProtocols: wire.applicationProtocols }),
    ...(sourceType === undefined || sourceType === 'ANY' ? {} : { sourceType }),
    ...(wire.sourcePrefixRanges.length === 0 ? {} : { sourcePrefixRanges: cidrs('source_prefix_ranges', wire.sourcePrefixRanges) }),
    ...(wire.directSourcePrefixRanges.length === 0
      ? {}
      : { directSourcePrefixRanges: cidrs('direct_source_prefix_ranges', wire.directSourcePrefixRanges) }),
    ...(wire.sourcePorts.length === 0 ? {} : { sourcePorts: wire.sourcePorts }),
  };
}

function decodeNetworkFilter(wire: Filter, place: Place): NetworkFilter {
  const at = inside(place, 'typed_config');
  if (wire.configType.case === 'configDiscovery')
    return refuse(inside(place, 'config_discovery'), 'is not supported for network filters', wire.name);
  const any = wire.configType.value;
  switch (typeOf(wire.name, any, at)) {
    case HttpConnectionManagerSchema.typeName: {
      const manager = openAs(HttpConnectionManagerSchema, any, at) ?? refuse(at, 'is required', wire.name);
      return { kind: 'http', name: wire.name, http: decodeHttpConnectionManager(manager, at) };
    }
    case TcpProxySchema.typeName: {
      const proxy = openAs(TcpProxySchema, any, at) ?? refuse(at, 'is required', wire.name);
      return { kind: 'tcp', name: wire.name, tcp: decodeTcpProxy(proxy, at) };
    }
    default:
      return { kind: 'other', name: wire.name, extension: extensionOf(wire.name, any, place) };
  }
}

export function encodeFilterChain(chain: FilterChain): MessageInitShape<typeof FilterChainSchema> {
  return {
    name: chain.name,
    ...(Object.keys(chain.match).length === 0 ? {} : { filterChainMatch: encodeMatch(chain.match) }),
    ...(chain.tls === undefined ? {} : { transportSocket: encodeDownstreamTls(chain.tls) }),
    filters: chain.filters.map(encodeNetworkFilter),
    ...(chain.transportSocketConnectTimeoutMs === undefined
      ? {}
      : { transportSocketConnectTimeout: toDuration(chain.transportSocketConnectTimeoutMs) }),
  };
}

function encodeMatch(match: FilterChainMatch): MessageInitShape<typeof FilterChainMatchSchema> {
  return {
    ...(match.destinationPort === undefined ? {} : { destinationPort: match.destinationPort }),
    prefixRanges: match.prefixRanges?.map(encodeCidr) ?? [],
    serverNames: [...(match.serverNames ?? [])],
    transportProtocol: match.transportProtocol ?? '',
    applicationProtocols: [...(match.applicationProtocols ?? [])],
    sourceType: match.sourceType === undefined ? SourceType.ANY : SourceType[match.sourceType],
    sourcePrefixRanges: match.sourcePrefixRanges?.map(encodeCidr) ?? [],
    directSourcePrefixRanges: match.directSourcePrefixRanges?.map(encodeCidr) ?? [],
    sourcePorts: [...(match.sourcePorts ?? [])],
  };
}

function encodeNetworkFilter(filter: NetworkFilter): MessageInitShape<typeof FilterSchema> {
  switch (filter.kind) {
    case 'http':
      return {
        name: filter.name,
        configType: { case: 'typedConfig', value: pack(HttpConnectionManagerSchema, newHttpConnectionManager(filter.http)) },
      };
    case 'tcp':
      return { name: filter.name, configType: { case: 'typedConfig', value: pack(TcpProxySchema, newTcpProxy(filter.tcp)) } };
    case 'other': {
      const any = packExtension(filter.extension);
      return { name: filter.name, ...(any === undefined ? {} : { configType: { case: 'typedConfig', value: any } }) };
    }
  }
}
