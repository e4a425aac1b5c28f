/** Clusters: one per port of every service, one per port of the application itself, and the ways out of the mesh. */
import { isIP } from 'node:net';
import { memo } from '../../lib/memo.ts';
import { parseDurationMs } from '../../lib/duration.ts';
import type {
  CircuitBreakers,
  Cluster,
  ExtensionConfig,
  HealthCheck,
  LbEndpoint,
  LoadAssignment,
  OutlierDetection,
  SanMatch,
  UpstreamTls,
} from '../../xds/snapshot.ts';
import type { BackendPolicySpec } from '../kinds/backend-policy.ts';
import type { MeshSettings, ServiceModel, World } from '../world.ts';
import {
  BUFFER_BYTES_MAX,
  CONNECT_TIMEOUT_MS,
  DEFAULT_CIRCUIT_BREAKERS,
  DEFAULT_OUTLIER_DETECTION,
  INBOUND_CONNECT_TIMEOUT_MS,
  UPSTREAM_IDLE_TIMEOUT_MS,
} from './defaults.ts';
import {
  CERTIFICATE_SECRET,
  hostOf,
  inboundCluster,
  outboundCluster,
  PASSTHROUGH_CLUSTER,
  ROOTS_SECRET,
  sniOf,
  TRACING_CLUSTER,
} from './names.ts';
import { backendPolicyOf } from './policies.ts';

type Spec = BackendPolicySpec | undefined;
interface Kept {
  readonly service: ServiceModel;
  readonly mesh: MeshSettings;
  readonly spec: Spec;
  readonly clusters: readonly Cluster[];
}
/** By the ports of the service, which stay the same object while its endpoints come and go: clusters say of these only whose identities they have. */
const kept = memo<ServiceModel['ports'], Kept>();

const perWorld = memo<World, readonly Cluster[]>();

/** The same list for every node. */
export function outboundClusters(world: World): readonly Cluster[] {
  const known = perWorld.get(world);
  if (known !== undefined) return known;
  const all: Cluster[] = [];
  for (const service of world.services.values())
    all.push(...clustersOf(service, backendPolicyOf(world.policies, service)?.spec, world.mesh));
  if (world.mesh.outboundPassthrough) all.push(PASSTHROUGH);
  if (world.mesh.otlpEndpoint !== '') all.push(tracingCluster(world.mesh.otlpEndpoint));
  perWorld.set(world, all);
  return all;
}

/** Makes and keeps the clusters of one service: a step towards the list of all. */
export function prepareClusters(world: World, service: ServiceModel): void {
  clustersOf(service, backendPolicyOf(world.policies, service)?.spec, world.mesh);
}

function clustersOf(service: ServiceModel, spec: Spec, mesh: MeshSettings): readonly Cluster[] {
  const before = kept.get(service.ports);
  const same = before !== undefined && before.mesh === mesh && before.spec === spec && sameIdentities(before.service, service);
  const clusters = same ? before.clusters : service.ports.map((port) => outbound(service, port, spec, mesh));
  if (!same || before.service !== service) kept.set(service.ports, { service, mesh, spec, clusters });
  return clusters;
}

function sameIdentities(before: ServiceModel, after: ServiceModel): boolean {
  if (before === after) return true;
  if (before.name !== after.name || before.namespace !== after.namespace) return false;
  const [left, right] = [identitiesOf(before), identitiesOf(after)];
  return left.size === right.size && [...left].every((identity) => right.has(identity));
}

/** `80 spiffe://…` for each port and identity. */
function identitiesOf(service: ServiceModel): ReadonlySet<string> {
  const found = new Set<string>();
  for (const { identity, servicePort } of service.endpoints) if (identity !== undefined) found.add(`${servicePort} ${identity}`);
  return found;
}

/** What the application's own sidecar sends inbound requests to. */
export function applicationCluster(targetPort: number, protocol: 'http1' | 'http2'): Cluster {
  const name = inboundCluster(targetPort);
  return {
    ...cluster(name),
    type: 'STATIC',
    connectTimeoutMs: INBOUND_CONNECT_TIMEOUT_MS,
    lbPolicy: balancer('ROUND_ROBIN'),
    protocol,
    loadAssignment: oneEndpoint(name, '127.0.0.1', targetPort),
  };
}

function outbound(service: ServiceModel, port: ServiceModel['ports'][number], spec: Spec, mesh: MeshSettings): Cluster {
  const outlier = outlierOf(spec);
  const slow = spec?.slowStart;
  return {
    ...cluster(outboundCluster(service, port.port, mesh)),
    type: 'EDS',
    connectTimeoutMs: ms(spec?.connection?.connectTimeout, CONNECT_TIMEOUT_MS),
    lbPolicy: balancerOf(spec),
    circuitBreakers: breakersOf(spec),
    ...(outlier === undefined ? {} : { outlierDetection: outlier }),
    healthChecks: healthChecksOf(spec),
    tlsMatches: mesh.mtls === 'DISABLE' ? [] : [{ name: 'tlsMode-istio', match: { tlsMode: 'istio' }, tls: meshTls(service, port, mesh) }],
    protocol: port.protocol === 'grpc' || port.protocol === 'http2' ? 'http2' : 'http1',
    maxRequestsPerConnection: spec?.connection?.maxRequestsPerConnection ?? 0,
    idleTimeoutMs: ms(spec?.connection?.idleTimeout, UPSTREAM_IDLE_TIMEOUT_MS),
    ...(slow === undefined
      ? {}
      : {
          slowStart: {
            windowMs: parseDurationMs(slow.window),
            aggression: slow.aggression ?? 1,
            minWeightPercent: slow.minWeightPercent ?? 10,
          },
        }),
    panicThresholdPercent: spec?.loadBalancing?.panicThresholdPercent ?? 0,
    metadata: { istio: { services: [{ host: hostOf(service, mesh), name: service.name, namespace: service.namespace }] } },
  };
}

/** mTLS with exactly the identities that the service's instances have (acceptance rule D4). Where none is known, none is accepted. */
function meshTls(service: ServiceModel, port: ServiceModel['ports'][number], mesh: MeshSettings): UpstreamTls {
  const identities = new Set<string>();
  for (const endpoint of service.endpoints)
    if (endpoint.identity !== undefined && endpoint.servicePort === port.port) identities.add(endpoint.identity);
  // An id that ends with a slash is not valid, so no certificate has it: an endpoint that is ahead of its cluster is refused, not trusted.
  if (identities.size === 0) identities.add(`spiffe://${mesh.trustDomain}/ns/${service.namespace}/sa/`);
  const names: SanMatch[] = [...identities].sort().map((value) => ({ type: 'URI', match: { kind: 'exact', value, ignoreCase: false } }));
  return {
    certificates: [{ kind: 'sds', name: CERTIFICATE_SECRET }],
    validation: { kind: 'sds', name: ROOTS_SECRET },
    matchSubjectAltNames: names,
    alpn: port.protocol === 'grpc' || port.protocol === 'http2' ? ['istio', 'h2'] : ['istio', 'http/1.1'],
    minVersion: 'TLSv1_3',
    maxVersion: 'TLSv1_3',
    sni: sniOf(service, port.port, mesh),
    autoHostSni: false,
  };
}

function balancerOf(spec: Spec): ExtensionConfig {
  const settings = spec?.loadBalancing;
  switch (settings?.policy ?? 'LeastRequest') {
    case 'RoundRobin':
      return balancer('ROUND_ROBIN');
    case 'Random':
      return balancer('RANDOM');
    case 'RingHash':
      return balancer('RING_HASH', settings?.minimumRingSize === undefined ? {} : { minimumRingSize: String(settings.minimumRingSize) });
    case 'Maglev':
      return balancer('MAGLEV');
    case 'LeastRequest':
      return balancer('LEAST_REQUEST', { choiceCount: settings?.choiceCount ?? 2 });
  }
}

const balancer = (type: string, config: ExtensionConfig['config'] = {}): ExtensionConfig => ({ name: type, type, config });

function breakersOf(spec: Spec): Cluster['circuitBreakers'] {
  const limits = spec?.circuitBreaker;
  const { retryBudget: budget, ...base } = DEFAULT_CIRCUIT_BREAKERS;
  const set: CircuitBreakers = {
    ...base,
    maxConnections: limits?.maxConnections ?? base.maxConnections,
    maxPendingRequests: limits?.maxPendingRequests ?? base.maxPendingRequests,
    maxRequests: limits?.maxRequests ?? base.maxRequests,
    maxRetries: limits?.maxRetries ?? base.maxRetries,
  };
  // A budget replaces a plain maximum, so naming the maximum alone switches the budget off.
  if (limits?.maxRetries !== undefined && spec?.retryBudget === undefined) return { default: set, high: set };
  const retryBudget = {
    budgetPercent: spec?.retryBudget?.percent ?? budget!.budgetPercent,
    minRetryConcurrency: spec?.retryBudget?.minRetryConcurrency ?? budget!.minRetryConcurrency,
  };
  const whole = { ...set, retryBudget };
  return { default: whole, high: whole };
}

function outlierOf(spec: Spec): OutlierDetection | undefined {
  const set = spec?.outlierDetection;
  const base = DEFAULT_OUTLIER_DETECTION;
  if (set?.enabled === false) return undefined;
  if (set === undefined) return base;
  const baseEjectionTimeMs = ms(set.baseEjectionTime, base.baseEjectionTimeMs);
  return {
    ...base,
    consecutive5xx: set.consecutive5xx === 0 ? base.consecutive5xx : (set.consecutive5xx ?? base.consecutive5xx),
    enforcingConsecutive5xxPercent: set.consecutive5xx === 0 ? 0 : 100,
    consecutiveGatewayFailure:
      (set.consecutiveGatewayFailures ?? 0) === 0 ? base.consecutiveGatewayFailure : set.consecutiveGatewayFailures!,
    enforcingConsecutiveGatewayFailurePercent: (set.consecutiveGatewayFailures ?? 0) === 0 ? 0 : 100,
    intervalMs: ms(set.interval, base.intervalMs),
    baseEjectionTimeMs,
    maxEjectionTimeMs: Math.max(baseEjectionTimeMs, ms(set.maxEjectionTime, base.maxEjectionTimeMs)),
    maxEjectionPercent: set.maxEjectionPercent ?? base.maxEjectionPercent,
    alwaysEjectOneEndpoint: set.alwaysEjectOne ?? base.alwaysEjectOneEndpoint,
    enforcingSuccessRatePercent: set.successRate === undefined ? 0 : 100,
    successRateMinimumHosts: set.successRate?.minimumHosts ?? base.successRateMinimumHosts,
    successRateRequestVolume: set.successRate?.requestVolume ?? base.successRateRequestVolume,
    successRateStdevFactor: set.successRate?.stdevFactor ?? base.successRateStdevFactor,
  };
}

function healthChecksOf(spec: Spec): readonly HealthCheck[] {
  const set = spec?.healthCheck;
  if (set === undefined) return [];
  const intervalMs = ms(set.interval, 10_000);
  const common = {
    intervalMs,
    noTrafficIntervalMs: Math.max(intervalMs, 60_000),
    timeoutMs: ms(set.timeout, 1_000),
    healthyThreshold: set.healthyThreshold ?? 1,
    unhealthyThreshold: set.unhealthyThreshold ?? 3,
  };
  if (set.http !== undefined) {
    const expectedStatuses = (set.http.expectedStatuses ?? [200]).map((status) => ({ start: status, end: status + 1 }));
    return [{ ...common, check: { kind: 'http', path: set.http.path, host: set.http.host ?? '', expectedStatuses } }];
  }
  return [{ ...common, check: { kind: 'tcp' } }];
}

/** What every cluster has in common. */
function cluster(name: string): Omit<Cluster, 'type'> {
  return {
    name,
    altStatName: '',
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    lbPolicy: balancer('LEAST_REQUEST', { choiceCount: 2 }),
    circuitBreakers: { default: DEFAULT_CIRCUIT_BREAKERS, high: DEFAULT_CIRCUIT_BREAKERS },
    healthChecks: [],
    tlsMatches: [],
    protocol: 'http1',
    maxRequestsPerConnection: 0,
    idleTimeoutMs: UPSTREAM_IDLE_TIMEOUT_MS,
    dnsRefreshMs: 5_000,
    respectDnsTtl: false,
    dnsLookupFamily: 'V4_PREFERRED',
    panicThresholdPercent: 0,
    localityWeighted: false,
    perConnectionBufferBytesMax: BUFFER_BYTES_MAX,
  };
}

/** Hosts that the mesh does not know, dialled by the name that the request gives. Envoy takes such a cluster only if TLS, were there any, checked that name. */
const PASSTHROUGH: Cluster = {
  ...cluster(PASSTHROUGH_CLUSTER),
  type: 'DYNAMIC_FORWARD_PROXY',
  lbPolicy: balancer('CLUSTER_PROVIDED'),
  autoSni: true,
  autoSanValidation: true,
};

/** Where spans go. Plain HTTP, as the Mesh kind demands: there are no roots here to check a receiver's certificate by. */
function tracingCluster(endpoint: string): Cluster {
  const url = new URL(endpoint);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return {
    ...cluster(TRACING_CLUSTER),
    type: isIP(host) === 0 ? 'STRICT_DNS' : 'STATIC',
    loadAssignment: oneEndpoint(TRACING_CLUSTER, host, url.port === '' ? 80 : Number(url.port)),
  };
}

function oneEndpoint(clusterName: string, host: string, port: number): LoadAssignment {
  const endpoints: LbEndpoint[] = [{ address: { host, port }, hostname: '', weight: 1, health: 'HEALTHY', metadata: {} }];
  return {
    clusterName,
    localities: [{ locality: { region: '', zone: '', subZone: '' }, priority: 0, endpoints }],
    overprovisioningFactor: 140,
    dropPercent: 0,
  };
}

const ms = (text: string | undefined, fallback: number): number => (text === undefined ? fallback : parseDurationMs(text));
