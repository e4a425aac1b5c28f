/** Listeners (LDS): where the proxy accepts connections and which filter chain takes them. */
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { TrafficDirection } from '../gen/envoy/config/core/v3/base_pb.js';
import { type Listener as WireListener, ListenerSchema } from '../gen/envoy/config/listener/v3/listener_pb.js';
import {
  type ListenerFilter,
  ListenerFilterChainMatchPredicateSchema,
  type ListenerFilterSchema,
} from '../gen/envoy/config/listener/v3/listener_components_pb.js';
import { HttpConnectionManagerSchema } from '../gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js';
import type { FilterChain, HttpConnectionManager, Listener, ListenerFilterConfig } from '../snapshot.ts';
import { inside, type Place, refuse, topOf, warnIgnored } from './decoding.ts';
import { fromDuration, nameOf, toDuration } from './duration.ts';
import { decodeMessage, extensionOf, openAs, pack, packExtension } from './extension.ts';
import { decodeFilterChain, encodeFilterChain } from './filter-chain.ts';
import { decodeHttpConnectionManager, newHttpConnectionManager } from './hcm.ts';
import { CONFIG_STYLE, messageJson } from './json.ts';
import { newMessage } from './loose.ts';
import { decodeAddress, encodeAddress } from './parts.ts';
import { checkRules } from './rules.ts';

const LISTENER_FILTERS_TIMEOUT_MS = 15_000;
const BUFFER_BYTES_MAX = 1_048_576;

/** Decodes an LDS resource. Throws DecodeError. */
export function decodeListener(bytes: Uint8Array, warnings: string[] = []): Listener {
  const wire = decodeMessage(ListenerSchema, bytes, topOf('listener', warnings));
  return decodeListenerMessage(wire, topOf(`listener "${wire.name}"`, warnings));
}

/** Static listeners may be without a name; their address stands in. */
export function decodeListenerMessage(wire: WireListener, place: Place): Listener {
  checkRules(ListenerSchema, wire, place);
  refuseUnsupported(wire, place);
  const apiListener = wire.apiListener === undefined ? undefined : decodeApiListener(wire, inside(place, 'api_listener.api_listener'));
  if (wire.address === undefined && apiListener === undefined) refuse(inside(place, 'address'), 'is required');
  const address = wire.address === undefined ? { host: '', port: 0 } : decodeAddress(wire.address, inside(place, 'address'));
  const filterChains = wire.filterChains.map((chain, i) => decodeFilterChain(chain, inside(inside(place, 'filter_chains'), i)));
  checkChains(filterChains, place);
  const defaultFilterChain =
    wire.defaultFilterChain === undefined ? undefined : decodeFilterChain(wire.defaultFilterChain, inside(place, 'default_filter_chain'));
  if (filterChains.length === 0 && defaultFilterChain === undefined && apiListener === undefined) {
    refuse(inside(place, 'filter_chains'), 'a listener needs at least one filter chain');
  }
  const direction = nameOf(TrafficDirection, wire.trafficDirection);
  return {
    name: wire.name === '' ? `${address.host}_${address.port}` : wire.name,
    address,
    ...(wire.additionalAddresses.length === 0
      ? {}
      : {
          additionalAddresses: wire.additionalAddresses.map((item, i) =>
            decodeAddress(item.address, inside(inside(place, 'additional_addresses'), i)),
          ),
        }),
    ...(wire.statPrefix === '' ? {} : { statPrefix: wire.statPrefix }),
    trafficDirection: direction ?? 'UNSPECIFIED',
    filterChains,
    ...(defaultFilterChain === undefined ? {} : { defaultFilterChain }),
    listenerFilters: wire.listenerFilters.map((filter, i) => decodeListenerFilter(filter, inside(inside(place, 'listener_filters'), i))),
    listenerFiltersTimeoutMs: fromDuration(wire.listenerFiltersTimeout, LISTENER_FILTERS_TIMEOUT_MS),
    continueOnListenerFiltersTimeout: wire.continueOnListenerFiltersTimeout,
    useOriginalDst: wire.useOriginalDst ?? false,
    bindToPort: wire.bindToPort ?? wire.deprecatedV1?.bindToPort ?? true,
    perConnectionBufferBytesMax: wire.perConnectionBufferLimitBytes ?? BUFFER_BYTES_MAX,
    ...(apiListener === undefined ? {} : { apiListener }),
  };
}

function refuseUnsupported(wire: WireListener, place: Place): void {
  for (const [field, set] of [
    ['filter_chain_matcher', wire.filterChainMatcher !== undefined],
    ['udp_listener_config', wire.udpListenerConfig !== undefined],
    ['internal_listener', wire.listenerSpecifier.case === 'internalListener'],
  ] as const) {
    if (set) refuse(inside(place, field), 'is not supported');
  }
  warnIgnored(place, {
    access_log: wire.accessLog.length > 0,
    transparent: wire.transparent === true,
    freebind: wire.freebind === true,
    socket_options: wire.socketOptions.length > 0,
  });
}

function decodeApiListener(wire: WireListener, place: Place): HttpConnectionManager {
  const manager = openAs(HttpConnectionManagerSchema, wire.apiListener?.apiListener, place);
  if (manager === undefined) return refuse(place, 'must be an HttpConnectionManager', wire.apiListener?.apiListener?.typeUrl);
  return decodeHttpConnectionManager(manager, place);
}

/** Two chains that match the same connections leave open which one takes them. */
function checkChains(chains: readonly FilterChain[], place: Place): void {
  const seen = new Map<string, number>();
  chains.forEach((chain, i) => {
    const key = JSON.stringify(chain.match, Object.keys(chain.match).sort().concat('address', 'prefixLength'));
    const other = seen.get(key);
    if (other !== undefined) {
      refuse(
        inside(inside(inside(place, 'filter_chains'), i), 'filter_chain_match'),
        `must differ from that of filter_chains[${other}]`,
        chain.match,
      );
    }
    seen.set(key, i);
  });
}

function decodeListenerFilter(wire: ListenerFilter, place: Place): ListenerFilterConfig {
  if (wire.configType.case === 'configDiscovery')
    return refuse(inside(place, 'config_discovery'), 'is not supported for listener filters', wire.name);
  const extension = extensionOf(wire.name, wire.configType.value, place);
  if (wire.filterDisabled === undefined) return extension;
  return { ...extension, filterDisabled: messageJson(ListenerFilterChainMatchPredicateSchema, wire.filterDisabled, CONFIG_STYLE) };
}

export function encodeListener(listener: Listener): Uint8Array {
  return toBinary(ListenerSchema, newListener(listener));
}

export function newListener(listener: Listener): WireListener {
  const { address, apiListener, defaultFilterChain } = listener;
  const noAddress = apiListener !== undefined && address.host === '';
  return create(ListenerSchema, {
    name: listener.name,
    ...(noAddress ? {} : { address: encodeAddress(address) }),
    additionalAddresses: (listener.additionalAddresses ?? []).map((item) => ({ address: encodeAddress(item) })),
    ...(listener.statPrefix === undefined ? {} : { statPrefix: listener.statPrefix }),
    trafficDirection: TrafficDirection[listener.trafficDirection],
    filterChains: listener.filterChains.map(encodeFilterChain),
    ...(defaultFilterChain === undefined ? {} : { defaultFilterChain: encodeFilterChain(defaultFilterChain) }),
    listenerFilters: listener.listenerFilters.map(encodeListenerFilter),
    listenerFiltersTimeout: toDuration(listener.listenerFiltersTimeoutMs),
    continueOnListenerFiltersTimeout: listener.continueOnListenerFiltersTimeout,
    // Said only when it differs from the default: proxyless gRPC refuses the field on its listeners.
    ...(listener.useOriginalDst ? { useOriginalDst: true } : {}),
    ...(listener.bindToPort ? {} : { bindToPort: false }),
    perConnectionBufferLimitBytes: listener.perConnectionBufferBytesMax,
    ...(apiListener === undefined
      ? {}
      : { apiListener: { apiListener: pack(HttpConnectionManagerSchema, newHttpConnectionManager(apiListener)) } }),
  });
}

function encodeListenerFilter(filter: ListenerFilterConfig): MessageInitShape<typeof ListenerFilterSchema> {
  const any = packExtension(filter);
  return {
    name: filter.name,
    ...(any === undefined ? {} : { configType: { case: 'typedConfig', value: any } }),
    ...(filter.filterDisabled === undefined
      ? {}
      : { filterDisabled: newMessage(ListenerFilterChainMatchPredicateSchema, filter.filterDisabled, `listener filter "${filter.name}"`) }),
  };
}
