/** The TCP proxy: the network filter that sends a connection's bytes to a cluster. */
import { create } from '@bufbuild/protobuf';
import { type TcpProxy as WireProxy, TcpProxySchema } from '../gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.js';
import { NO_HEADER_MUTATIONS, type TcpProxy, type WeightedCluster } from '../snapshot.ts';
import { decodeAccessLogs, encodeAccessLogs } from './access-log.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, toDuration } from './duration.ts';

const IDLE_TIMEOUT_MS = 3_600_000;

export function decodeTcpProxy(wire: WireProxy, place: Place): TcpProxy {
  if (wire.tunnelingConfig !== undefined) refuse(inside(place, 'tunneling_config'), 'is not supported');
  if (wire.onDemand !== undefined) refuse(inside(place, 'on_demand'), 'is not supported');
  if (wire.hashPolicy.length > 0) warn(inside(place, 'hash_policy'), 'is ignored');
  if (wire.maxDownstreamConnectionDuration !== undefined) warn(inside(place, 'max_downstream_connection_duration'), 'is ignored');
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
  switch (specifier.case) {
    case 'cluster':
      if (specifier.value === '') refuse(inside(place, 'cluster'), 'must not be empty');
      return [weighted(specifier.value, 1)];
    case 'weightedClusters':
      return specifier.value.clusters.map(({ name, weight }) => weighted(name, weight));
    case undefined:
      return refuse(place, 'needs cluster or weighted_clusters');
  }
}

function weighted(cluster: string, weight: number): WeightedCluster {
  return { cluster, weight, headerMutations: NO_HEADER_MUTATIONS, perFilterConfig: new Map() };
}

export function newTcpProxy(proxy: TcpProxy): WireProxy {
  const [only, ...others] = proxy.clusters;
  if (only === undefined) throw new TypeError('a TCP proxy needs a cluster');
  const single = others.length === 0;
  return create(TcpProxySchema, {
    statPrefix: proxy.statPrefix,
    clusterSpecifier: single
      ? { case: 'cluster', value: only.cluster }
      : { case: 'weightedClusters', value: { clusters: proxy.clusters.map(({ cluster, weight }) => ({ name: cluster, weight })) } },
    idleTimeout: toDuration(proxy.idleTimeoutMs),
    maxConnectAttempts: proxy.maxConnectAttempts,
    accessLog: encodeAccessLogs(proxy.accessLogs),
  });
}
