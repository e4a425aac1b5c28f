/** The TCP proxy: the network filter that sends a connection's bytes to a cluster. */
import { create } from '@bufbuild/protobuf';
import { type TcpProxy as WireProxy, TcpProxySchema } from '../gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.js';
import { type JsonObject, NO_HEADER_MUTATIONS, type TcpProxy, type WeightedCluster } from '../snapshot.ts';
import { decodeAccessLogs, encodeAccessLogs } from './access-log.ts';
import { inside, type Place, refuse, warnIgnored } from './decoding.ts';
import { fromDuration, toDuration } from './duration.ts';
import { decodeLbMetadata, encodeLbMetadata } from './parts.ts';

const IDLE_TIMEOUT_MS = 3_600_000;

export function decodeTcpProxy(wire: WireProxy, place: Place): TcpProxy {
  if (wire.tunnelingConfig !== undefined) refuse(inside(place, 'tunneling_config'), 'is not supported');
  if (wire.onDemand !== undefined) refuse(inside(place, 'on_demand'), 'is not supported');
  warnIgnored(place, {
    hash_policy: wire.hashPolicy.length > 0,
    max_downstream_connection_duration: wire.maxDownstreamConnectionDuration !== undefined,
  });
  return {
    statPrefix: wire.statPrefix,
    clusters: decodeClusters(wire, place),
    idleTimeoutMs: fromDuration(wire.idleTimeout, IDLE_TIMEOUT_MS),
    maxConnectAttempts: wire.maxConnectAttempts ?? 1,
    accessLogs: decodeAccessLogs(wire.accessLog, inside(place, 'access_log')),
  };
}

function decodeClusters(wire: WireProxy, place: Place): readonly WeightedCluster[] {
  const specifier = wire.clusterSpecifier;
  const shared = decodeLbMetadata(wire.metadataMatch);
  switch (specifier.case) {
    case 'cluster':
      if (specifier.value === '') refuse(inside(place, 'cluster'), 'must not be empty');
      return [weighted(specifier.value, 1, shared)];
    case 'weightedClusters':
      return specifier.value.clusters.map(({ name, weight, metadataMatch }) =>
        weighted(name, weight, metadataMatch === undefined ? shared : { ...shared, ...decodeLbMetadata(metadataMatch) }),
      );
    case undefined:
      return refuse(place, 'needs cluster or weighted_clusters');
  }
}

function weighted(cluster: string, weight: number, metadataMatch: JsonObject | undefined): WeightedCluster {
  const labels = metadataMatch === undefined ? {} : { metadataMatch };
  return { cluster, weight, headerMutations: NO_HEADER_MUTATIONS, perFilterConfig: new Map(), ...labels };
}

export function newTcpProxy(proxy: TcpProxy): WireProxy {
  const [only, ...others] = proxy.clusters;
  if (only === undefined) throw new TypeError('a TCP proxy needs a cluster');
  const single = others.length === 0;
  return create(TcpProxySchema, {
    statPrefix: proxy.statPrefix,
    clusterSpecifier: single
      ? { case: 'cluster', value: only.cluster }
      : { case: 'weightedClusters', value: { clusters: proxy.clusters.map(encodeWeighted) } },
    ...(single && only.metadataMatch !== undefined ? { metadataMatch: encodeLbMetadata(only.metadataMatch)! } : {}),
    idleTimeout: toDuration(proxy.idleTimeoutMs),
    maxConnectAttempts: proxy.maxConnectAttempts,
    accessLog: encodeAccessLogs(proxy.accessLogs),
  });
}

function encodeWeighted({ cluster, weight, metadataMatch }: WeightedCluster) {
  const metadata = encodeLbMetadata(metadataMatch);
  return { name: cluster, weight, ...(metadata === undefined ? {} : { metadataMatch: metadata }) };
}
