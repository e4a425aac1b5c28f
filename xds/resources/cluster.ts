/** Clusters (CDS): where requests go and how connections there are made. */
import { create, type JsonObject as Struct, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  type Cluster as WireCluster,
  Cluster_DiscoveryType as DiscoveryType,
  Cluster_DnsLookupFamily as LookupFamily,
  Cluster_LbSubsetConfigSchema,
  ClusterSchema,
} from '../gen/envoy/config/cluster/v3/cluster_pb.js';
import { ClusterConfigSchema as AggregateSchema } from '../gen/envoy/extensions/clusters/aggregate/v3/cluster_pb.js';
import { ClusterConfigSchema as ForwardProxySchema } from '../gen/envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster_pb.js';
import type { Cluster, JsonObject } from '../snapshot.ts';
import { decodeBalancing, encodeBalancing } from './balancing.ts';
import { inside, type Place, refuse, topOf, warn } from './decoding.ts';
import { fromDuration, fromPercent, nameOf, toDuration, toPercent } from './duration.ts';
import { decodeLoadAssignment, newLoadAssignment } from './endpoint.ts';
import { decodeMessage, openAs, pack, typeOf } from './extension.ts';
import { decodeHealthCheck, encodeHealthCheck } from './health-check.ts';
import { CONFIG_STYLE, messageJson } from './json.ts';
import { newMessage, sorted } from './loose.ts';
import { decodeBreakers, decodeOutlier, encodeBreakers, encodeOutlier } from './outlier.ts';
import { adsSource, decodeMetadata, decodeSource, encodeMetadata } from './parts.ts';
import { checkRules } from './rules.ts';
import { decodeUpstreamTls, encodeUpstreamTls } from './tls.ts';
import { decodeUpstreamHttp, encodeUpstreamHttp } from './upstream-http.ts';

const CONNECT_TIMEOUT_MS = 5_000;
const DNS_REFRESH_MS = 5_000;
const BUFFER_BYTES_MAX = 1_048_576;
const PANIC_THRESHOLD_PERCENT = 50;

/** Decodes a CDS resource. Throws DecodeError. */
export function decodeCluster(bytes: Uint8Array, warnings: string[] = []): Cluster {
  const wire = decodeMessage(ClusterSchema, bytes, topOf('cluster', warnings));
  return decodeClusterMessage(wire, topOf(`cluster "${wire.name}"`, warnings));
}

export function decodeClusterMessage(wire: WireCluster, place: Place): Cluster {
  checkRules(ClusterSchema, wire, place);
  const kind = decodeType(wire, place);
  const loadAssignment = decodeStatic(wire, kind.type, place);
  const common = wire.commonLbConfig;
  const tls = decodeUpstreamTls(wire.transportSocket, inside(place, 'transport_socket'));
  const metadata = decodeMetadata(wire.metadata);
  if (wire.filters.length > 0)
    warn(inside(place, 'filters'), `upstream filters are ignored: ${wire.filters.map(({ name }) => name).join(', ')}`);
  if (wire.upstreamBindConfig !== undefined) warn(inside(place, 'upstream_bind_config'), 'is ignored');
  return {
    name: wire.name,
    altStatName: wire.altStatName,
    ...kind,
    connectTimeoutMs: fromDuration(wire.connectTimeout, CONNECT_TIMEOUT_MS),
    ...decodeBalancing(wire, place),
    ...(wire.lbSubsetConfig === undefined
      ? {}
      : { lbSubset: messageJson(Cluster_LbSubsetConfigSchema, wire.lbSubsetConfig, CONFIG_STYLE) }),
    ...(loadAssignment === undefined ? {} : { loadAssignment }),
    circuitBreakers: decodeBreakers(wire.circuitBreakers, inside(place, 'circuit_breakers')),
    ...(wire.outlierDetection === undefined
      ? {}
      : { outlierDetection: decodeOutlier(wire.outlierDetection, inside(place, 'outlier_detection')) }),
    healthChecks: wire.healthChecks.map((check, i) => decodeHealthCheck(check, inside(inside(place, 'health_checks'), i))),
    ...(tls === undefined ? {} : { tls }),
    tlsMatches: wire.transportSocketMatches.map((match, i) => {
      const matchTls = decodeUpstreamTls(
        match.transportSocket,
        inside(inside(inside(place, 'transport_socket_matches'), i), 'transport_socket'),
      );
      return { name: match.name, match: (match.match ?? {}) as JsonObject, ...(matchTls === undefined ? {} : { tls: matchTls }) };
    }),
    ...decodeUpstreamHttp(wire, place),
    dnsRefreshMs: fromDuration(wire.dnsRefreshRate, DNS_REFRESH_MS),
    respectDnsTtl: wire.respectDnsTtl,
    ...(wire.lrsServer?.configSourceSpecifier.case === 'self' ? { reportsLoad: true as const } : {}),
    dnsLookupFamily: nameOf(LookupFamily, wire.dnsLookupFamily) ?? 'AUTO',
    panicThresholdPercent: fromPercent(common?.healthyPanicThreshold, PANIC_THRESHOLD_PERCENT),
    perConnectionBufferBytesMax: wire.perConnectionBufferLimitBytes ?? BUFFER_BYTES_MAX,
    ...(metadata === undefined ? {} : { metadata }),
  };
}

function decodeType(wire: WireCluster, place: Place): Pick<Cluster, 'type' | 'edsServiceName' | 'aggregateClusters'> {
  const kind = wire.clusterDiscoveryType;
  if (kind.case === 'clusterType') return decodeCustomType(kind.value, inside(place, 'cluster_type'));
  const type = nameOf(DiscoveryType, kind.value ?? DiscoveryType.STATIC);
  if (type === undefined) return refuse(inside(place, 'type'), 'is not known', kind.value);
  if (type !== 'EDS') {
    if (wire.edsClusterConfig !== undefined) refuse(inside(place, 'eds_cluster_config'), 'must only be set with type EDS');
    return { type };
  }
  const eds = wire.edsClusterConfig;
  const at = inside(place, 'eds_cluster_config');
  const source = decodeSource(eds?.edsConfig, inside(at, 'eds_config'));
  if (source === undefined) refuse(inside(at, 'eds_config'), 'is required for an EDS cluster');
  if (source?.kind === 'path')
    refuse(inside(at, 'eds_config'), 'endpoints from a file of their own are not supported; use load_assignment or ADS', source.path);
  if (source?.kind === 'cluster') warn(inside(at, 'eds_config'), `endpoints are asked for over ADS, not from cluster ${source.cluster}`);
  // The name of a cluster in a federation is no name of endpoints (rule 51).
  if (wire.name.startsWith('xdstp:') && (eds?.serviceName ?? '') === '')
    refuse(inside(at, 'service_name'), 'is required, since the cluster has an xdstp name', wire.name);
  return { type, edsServiceName: eds?.serviceName === undefined || eds.serviceName === '' ? wire.name : eds.serviceName };
}

type CustomType = Extract<WireCluster['clusterDiscoveryType'], { case: 'clusterType' }>['value'];

function decodeCustomType(wire: CustomType, place: Place): Pick<Cluster, 'type' | 'aggregateClusters'> {
  const at = inside(place, 'typed_config');
  const aggregate = openAs(AggregateSchema, wire.typedConfig, at);
  if (aggregate !== undefined) return { type: 'AGGREGATE', aggregateClusters: aggregate.clusters };
  if (openAs(ForwardProxySchema, wire.typedConfig, at) !== undefined) return { type: 'DYNAMIC_FORWARD_PROXY' };
  const type = typeOf(wire.name, wire.typedConfig, at);
  return refuse(at, 'cluster type is not supported', type === '' ? wire.name : type);
}

/** Endpoints in the cluster itself, and what each type asks of them. */
function decodeStatic(wire: WireCluster, type: Cluster['type'], place: Place): Cluster['loadAssignment'] {
  const at = inside(place, 'load_assignment');
  const assignment = wire.loadAssignment === undefined ? undefined : decodeLoadAssignment(wire.loadAssignment, at, type === 'STATIC');
  if (type === 'LOGICAL_DNS') {
    const endpoints = assignment?.localities.flatMap((locality) => locality.endpoints) ?? [];
    if (assignment?.localities.length !== 1 || endpoints.length !== 1)
      refuse(at, 'LOGICAL_DNS clusters take one locality with one endpoint', endpoints.length);
  }
  if (type === 'STRICT_DNS' && assignment === undefined) refuse(at, 'is required for a STRICT_DNS cluster');
  if (type === 'ORIGINAL_DST' && assignment !== undefined) refuse(at, 'must not be set with type ORIGINAL_DST');
  return assignment;
}

export function encodeCluster(cluster: Cluster): Uint8Array {
  return toBinary(ClusterSchema, newCluster(cluster));
}

export function newCluster(cluster: Cluster): WireCluster {
  const { consistentHashing, ...balancing } = encodeBalancing(cluster);
  const metadata = encodeMetadata(cluster.metadata);
  return create(ClusterSchema, {
    name: cluster.name,
    altStatName: cluster.altStatName,
    ...encodeType(cluster),
    connectTimeout: toDuration(cluster.connectTimeoutMs),
    ...balancing,
    commonLbConfig: {
      ...encodeCommonLb(cluster, balancing.loadBalancingPolicy === undefined),
      ...(consistentHashing === undefined ? {} : { consistentHashingLbConfig: consistentHashing }),
    },
    ...(cluster.lbSubset === undefined
      ? {}
      : { lbSubsetConfig: newMessage(Cluster_LbSubsetConfigSchema, cluster.lbSubset, `cluster "${cluster.name}": lb_subset_config`) }),
    ...(cluster.loadAssignment === undefined ? {} : { loadAssignment: newLoadAssignment(cluster.loadAssignment) }),
    circuitBreakers: encodeBreakers(cluster.circuitBreakers),
    ...(cluster.outlierDetection === undefined ? {} : { outlierDetection: encodeOutlier(cluster.outlierDetection) }),
    healthChecks: cluster.healthChecks.map(encodeHealthCheck),
    ...(cluster.tls === undefined ? {} : { transportSocket: encodeUpstreamTls(cluster.tls) }),
    transportSocketMatches: cluster.tlsMatches.map(({ name, match, tls }) => ({
      name,
      match: sorted(match) as Struct,
      transportSocket: encodeUpstreamTls(tls),
    })),
    typedExtensionProtocolOptions: encodeUpstreamHttp(cluster),
    // Envoy warns of the field wherever it is set, and its default says the same.
    ...(cluster.dnsRefreshMs === DNS_REFRESH_MS ? {} : { dnsRefreshRate: toDuration(cluster.dnsRefreshMs) }),
    respectDnsTtl: cluster.respectDnsTtl,
    ...(cluster.reportsLoad ? { lrsServer: { configSourceSpecifier: { case: 'self' as const, value: {} } } } : {}),
    dnsLookupFamily: LookupFamily[cluster.dnsLookupFamily],
    perConnectionBufferLimitBytes: cluster.perConnectionBufferBytesMax,
    ...(metadata === undefined ? {} : { metadata }),
  });
}

type ClusterInit = Exclude<MessageInitShape<typeof ClusterSchema>, { $typeName: string }>;

function encodeType(cluster: Cluster): Pick<ClusterInit, 'clusterDiscoveryType' | 'edsClusterConfig'> {
  switch (cluster.type) {
    case 'AGGREGATE': {
      const typedConfig = pack(AggregateSchema, create(AggregateSchema, { clusters: [...(cluster.aggregateClusters ?? [])] }));
      return { clusterDiscoveryType: { case: 'clusterType', value: { name: 'envoy.clusters.aggregate', typedConfig } } };
    }
    case 'DYNAMIC_FORWARD_PROXY': {
      const cache = { name: 'default', dnsLookupFamily: LookupFamily[cluster.dnsLookupFamily] };
      const typedConfig = pack(
        ForwardProxySchema,
        create(ForwardProxySchema, { clusterImplementationSpecifier: { case: 'dnsCacheConfig', value: cache } }),
      );
      return { clusterDiscoveryType: { case: 'clusterType', value: { name: 'envoy.clusters.dynamic_forward_proxy', typedConfig } } };
    }
    case 'EDS': {
      const serviceName = cluster.edsServiceName === undefined || cluster.edsServiceName === cluster.name ? '' : cluster.edsServiceName;
      return {
        clusterDiscoveryType: { case: 'type', value: DiscoveryType.EDS },
        edsClusterConfig: { edsConfig: adsSource(), serviceName },
      };
    }
    default:
      return { clusterDiscoveryType: { case: 'type', value: DiscoveryType[cluster.type] } };
  }
}

/** A `load_balancing_policy` says by itself how localities count. */
function encodeCommonLb(
  cluster: Cluster,
  withLocalities: boolean,
): Exclude<NonNullable<ClusterInit['commonLbConfig']>, { $typeName: string }> {
  const { zoneAware } = cluster;
  return {
    healthyPanicThreshold: toPercent(cluster.panicThresholdPercent),
    ...(!withLocalities
      ? {}
      : cluster.localityWeighted
        ? { localityConfigSpecifier: { case: 'localityWeightedLbConfig', value: {} } }
        : zoneAware === undefined
          ? {}
          : {
              localityConfigSpecifier: {
                case: 'zoneAwareLbConfig',
                value: { minClusterSize: BigInt(zoneAware.minClusterSize), routingEnabled: toPercent(zoneAware.routingEnabledPercent) },
              },
            }),
  };
}
