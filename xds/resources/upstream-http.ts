/** The HTTP side of a cluster: protocol, connection reuse, server names, in the new place and the deprecated one. */
import { create } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { type Cluster as WireCluster, Cluster_ClusterProtocolSelection as Selection } from '../gen/envoy/config/cluster/v3/cluster_pb.js';
import { type HttpProtocolOptions, HttpProtocolOptionsSchema } from '../gen/envoy/extensions/upstreams/http/v3/http_protocol_options_pb.js';
import type { Cluster } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, toDuration } from './duration.ts';
import { openAs, pack } from './extension.ts';

const OPTIONS_KEY = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
const IDLE_TIMEOUT_MS = 3_600_000;

type Decoded = Pick<Cluster, 'protocol' | 'maxRequestsPerConnection' | 'idleTimeoutMs' | 'autoSni' | 'autoSanValidation'>;

export function decodeUpstreamHttp(wire: WireCluster, place: Place): Decoded {
  const at = inside(inside(place, 'typed_extension_protocol_options'), OPTIONS_KEY);
  const any = wire.typedExtensionProtocolOptions[OPTIONS_KEY];
  const options = openAs(HttpProtocolOptionsSchema, any, at);
  if (any !== undefined && options === undefined) refuse(at, `must be a ${HttpProtocolOptionsSchema.typeName}`, any.typeUrl);
  for (const key of Object.keys(wire.typedExtensionProtocolOptions)) {
    if (key !== OPTIONS_KEY) warn(inside(place, 'typed_extension_protocol_options'), `${key} is ignored`);
  }
  const common = options?.commonHttpProtocolOptions ?? wire.commonHttpProtocolOptions;
  const names = options?.upstreamHttpProtocolOptions ?? wire.upstreamHttpProtocolOptions;
  if (names !== undefined && names.overrideAutoSniHeader !== '')
    refuse(inside(at, 'upstream_http_protocol_options.override_auto_sni_header'), 'is not supported');
  if (options !== undefined && options.httpFilters.some((filter) => !filter.name.endsWith('upstream_codec'))) {
    warn(inside(at, 'http_filters'), 'upstream HTTP filters are ignored');
  }
  return {
    protocol: options === undefined ? oldProtocol(wire) : newProtocol(options, at),
    maxRequestsPerConnection: common?.maxRequestsPerConnection ?? wire.maxRequestsPerConnection ?? 0,
    idleTimeoutMs: fromDuration(common?.idleTimeout, IDLE_TIMEOUT_MS),
    ...(names?.autoSni === true ? { autoSni: true } : {}),
    ...(names?.autoSanValidation === true ? { autoSanValidation: true } : {}),
  };
}

function oldProtocol(wire: WireCluster): Cluster['protocol'] {
  if (wire.protocolSelection === Selection.USE_DOWNSTREAM_PROTOCOL) return 'downstream';
  return wire.http2ProtocolOptions === undefined ? 'http1' : 'http2';
}

function newProtocol(options: HttpProtocolOptions, place: Place): Cluster['protocol'] {
  const chosen = options.upstreamProtocolOptions;
  switch (chosen.case) {
    case 'explicitHttpConfig': {
      const config = chosen.value.protocolConfig;
      if (config.case === 'http3ProtocolOptions') return refuse(inside(place, 'explicit_http_config'), 'HTTP/3 is not supported');
      return config.case === 'http2ProtocolOptions' ? 'http2' : 'http1';
    }
    case 'useDownstreamProtocolConfig':
      return 'downstream';
    case 'autoConfig':
      return 'auto';
    case undefined:
      return refuse(place, 'needs explicit_http_config, use_downstream_protocol_config or auto_config');
  }
}

export function encodeUpstreamHttp(cluster: Cluster): { [key: string]: Any } {
  const options = create(HttpProtocolOptionsSchema, {
    commonHttpProtocolOptions: {
      idleTimeout: toDuration(cluster.idleTimeoutMs),
      ...(cluster.maxRequestsPerConnection === 0 ? {} : { maxRequestsPerConnection: cluster.maxRequestsPerConnection }),
    },
    ...(cluster.autoSni === true || cluster.autoSanValidation === true
      ? { upstreamHttpProtocolOptions: { autoSni: cluster.autoSni ?? false, autoSanValidation: cluster.autoSanValidation ?? false } }
      : {}),
    upstreamProtocolOptions: PROTOCOLS[cluster.protocol],
  });
  return { [OPTIONS_KEY]: pack(HttpProtocolOptionsSchema, options) };
}

const PROTOCOLS = {
  http1: { case: 'explicitHttpConfig', value: { protocolConfig: { case: 'httpProtocolOptions', value: {} } } },
  http2: { case: 'explicitHttpConfig', value: { protocolConfig: { case: 'http2ProtocolOptions', value: {} } } },
  downstream: { case: 'useDownstreamProtocolConfig', value: { httpProtocolOptions: {}, http2ProtocolOptions: {} } },
  auto: { case: 'autoConfig', value: { httpProtocolOptions: {}, http2ProtocolOptions: {} } },
} as const;
