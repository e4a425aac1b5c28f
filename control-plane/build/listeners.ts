/** The two listeners of a sidecar: outbound for what the application asks for, inbound for what is asked of it. */
import type {
  Cluster,
  DownstreamTls,
  ExtensionConfig,
  FilterChain,
  HttpConnectionManager,
  HttpFilterConfig,
  Listener,
  Route,
  RouteConfiguration,
  VirtualHost,
} from '../../xds/snapshot.ts';
import { NO_HEADER_MUTATIONS } from '../../xds/snapshot.ts';
import type { Node, World, WorkloadModel } from '../world.ts';
import { applicationCluster } from './clusters.ts';
import { BUFFER_BYTES_MAX, DEFAULT_CONNECTION_MANAGER, defaultRetry, ROUTER_FILTER } from './defaults.ts';
import { canonicalOf } from './endpoints.ts';
import { accessLogs, FAULT_FILTER, FORWARD_PROXY_FILTER, onDemandFilters, tracing } from './filters.ts';
import { MATCH_ALL } from './gateway-match.ts';
import { forwardTo, weighted } from './gateway-action.ts';
import { overridesFor, portPolicies, sharedFilters } from './inbound-policies.ts';
import { type ApplicationPort, applicationPorts } from './inbound-ports.ts';
import { CERTIFICATE_SECRET, INBOUND_LISTENER, inboundCluster, OUTBOUND_LISTENER, OUTBOUND_ROUTES, ROOTS_SECRET } from './names.ts';
import { policyIndex } from './policies.ts';

const TLS_INSPECTOR = {
  name: 'envoy.filters.listener.tls_inspector',
  type: 'envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector',
  config: {},
};
/** Time for the first bytes of a connection to tell TLS from plaintext; after it the connection is closed. */
const DETECTION_MS = 10_000;

/** Takes plain requests by Host, absolute-form and CONNECT. */
export function outboundListener(world: World, node: Node): Listener {
  const { mesh, policies } = world;
  const faults = policyIndex(policies).faults.size > 0 ? [FAULT_FILTER] : [];
  const forward = mesh.outboundPassthrough ? [FORWARD_PROXY_FILTER] : [];
  const http: HttpConnectionManager = {
    ...DEFAULT_CONNECTION_MANAGER,
    statPrefix: 'outbound',
    rdsName: OUTBOUND_ROUTES,
    httpFilters: [...onDemandFilters(node), ...faults, ...forward, ROUTER_FILTER],
    accessLogs: accessLogs(mesh),
    tracing: tracing(mesh, serviceNameOf(world, node)),
    upgradeTypes: ['websocket', 'connect'],
  };
  return {
    ...listener(OUTBOUND_LISTENER, loopbackOf(node.bindAddress), node.outboundPort),
    trafficDirection: 'OUTBOUND',
    filterChains: [{ name: 'outbound', match: {}, filters: [{ kind: 'http', name: 'http', http }] }],
  };
}

/** Undefined for a node whose application is not known: nothing can be asked of it. */
export function inboundListener(world: World, node: Node): { listener: Listener; clusters: readonly Cluster[] } | undefined {
  const workload = node.workload === undefined ? undefined : world.workloads.get(node.workload);
  const ports = applicationPorts(world, workload, node);
  if (ports.length === 0) return undefined;
  const { mtls } = world.mesh;
  const chains: FilterChain[] = [];
  if (mtls !== 'DISABLE') for (const port of ports) chains.push(tlsChain(world, node, workload, port, ports.length === 1));
  if (mtls !== 'STRICT') chains.push(plainChain(world, node, workload, ports));
  const made: Listener = {
    ...listener(INBOUND_LISTENER, node.bindAddress, node.inboundPort),
    trafficDirection: 'INBOUND',
    listenerFilters: mtls === 'DISABLE' ? [] : [TLS_INSPECTOR],
    filterChains: chains,
  };
  return { listener: made, clusters: ports.map((port) => applicationCluster(port.targetPort, port.http2 ? 'http2' : 'http1')) };
}

/** Chosen by SNI; the only port also takes connections that name none. */
function tlsChain(world: World, node: Node, workload: WorkloadModel | undefined, port: ApplicationPort, only: boolean): FilterChain {
  const { filters, onPaths } = portPolicies(world, workload, port);
  const http: HttpConnectionManager = {
    ...inboundManager(
      world,
      node,
      filters,
      onPaths,
      routes(inboundCluster(port.targetPort), [virtualHost(node, 'inbound', ['*'], port, NO_OVERRIDES)]),
    ),
    forwardClientCert: 'SANITIZE_SET',
    setCurrentClientCertDetails: { subject: false, cert: false, chain: false, dns: false, uri: true },
  };
  return {
    name: `inbound|${port.targetPort}|tls`,
    match: only ? { transportProtocol: 'tls' } : { transportProtocol: 'tls', serverNames: port.serverNames },
    tls: MESH_TLS,
    filters: [{ kind: 'http', name: 'http', http }],
  };
}

/** Plaintext names no SNI, so the Host decides between ports, and with it whose policies count; the first takes what names none of them. */
function plainChain(world: World, node: Node, workload: WorkloadModel | undefined, ports: readonly ApplicationPort[]): FilterChain {
  const policies = ports.map((port) => portPolicies(world, workload, port));
  const shared = sharedFilters(policies);
  const hosts = ports.flatMap((port, index) => {
    const overrides = overridesFor(policies[index]!, shared);
    if (index === 0) return [virtualHost(node, 'inbound', ['*'], port, overrides)];
    return port.hosts.length === 0 ? [] : [virtualHost(node, `inbound|${port.targetPort}`, port.hosts, port, overrides)];
  });
  const onPaths = policies.some((entry) => entry.onPaths);
  const http = inboundManager(world, node, shared, onPaths, routes('inbound', hosts));
  const match = world.mesh.mtls === 'DISABLE' ? {} : { transportProtocol: 'raw_buffer' };
  return { name: 'inbound|plaintext', match, filters: [{ kind: 'http', name: 'http', http }] };
}

function inboundManager(
  world: World,
  node: Node,
  filters: readonly HttpFilterConfig[],
  onPaths: boolean,
  routeConfig: RouteConfiguration,
): HttpConnectionManager {
  return {
    ...DEFAULT_CONNECTION_MANAGER,
    statPrefix: 'inbound',
    routeConfig,
    // An Envoy that asks for clusters by name asks for the application's own, too.
    httpFilters: [...(node.flavour === 'envoy' ? onDemandFilters(node) : []), ...filters, ROUTER_FILTER],
    accessLogs: accessLogs(world.mesh),
    tracing: tracing(world.mesh, serviceNameOf(world, node)),
    ...(onPaths ? { mergeSlashes: true, pathWithEscapedSlashes: 'REJECT_REQUEST' as const } : {}),
  };
}

const NO_OVERRIDES: ReadonlyMap<string, ExtensionConfig> = new Map();

function virtualHost(
  node: Node,
  name: string,
  domains: readonly string[],
  port: ApplicationPort,
  perFilterConfig: ReadonlyMap<string, ExtensionConfig>,
): VirtualHost {
  const action = forwardTo([weighted(inboundCluster(port.targetPort), 1)], { timeoutMs: 0, retry: defaultRetry(node.flavour, 'inbound') });
  const route: Route = {
    name: 'default',
    match: MATCH_ALL,
    action: { kind: 'forward', ...action },
    headerMutations: NO_HEADER_MUTATIONS,
    perFilterConfig: NO_OVERRIDES,
  };
  return {
    name,
    domains,
    routes: [route],
    headerMutations: NO_HEADER_MUTATIONS,
    includeRequestAttemptCount: false,
    includeAttemptCountInResponse: false,
    requireTls: 'NONE',
    perFilterConfig,
  };
}

function routes(name: string, virtualHosts: readonly VirtualHost[]): RouteConfiguration {
  return {
    name,
    virtualHosts,
    headerMutations: NO_HEADER_MUTATIONS,
    validateClusters: false,
    ignorePortInHostMatching: false,
    mostSpecificHeaderMutationsWins: false,
    maxDirectResponseBodyBytes: 4_096,
  };
}

/** Both secrets come by SDS; a caller without a certificate of the mesh is refused. */
const MESH_TLS: DownstreamTls = {
  certificates: [{ kind: 'sds', name: CERTIFICATE_SECRET }],
  validation: { kind: 'sds', name: ROOTS_SECRET },
  matchSubjectAltNames: [],
  alpn: ['h2', 'http/1.1', 'istio'],
  minVersion: 'TLSv1_3',
  maxVersion: 'TLSv1_3',
  requireClientCertificate: true,
};

function listener(name: string, host: string, port: number): Omit<Listener, 'trafficDirection' | 'filterChains'> {
  return {
    name,
    address: { host, port },
    listenerFilters: [],
    listenerFiltersTimeoutMs: DETECTION_MS,
    continueOnListenerFiltersTimeout: false,
    useOriginalDst: false,
    bindToPort: true,
    perConnectionBufferBytesMax: BUFFER_BYTES_MAX,
  };
}

/** The way out is for the application beside the proxy alone: on a wildcard it would be an open proxy. */
function loopbackOf(bindAddress: string): string {
  if (bindAddress === '0.0.0.0') return '127.0.0.1';
  return bindAddress === '::' ? '::1' : bindAddress;
}

/** `reviews.default`, as Istio names services in traces. */
function serviceNameOf(world: World, node: Node): string {
  const workload = node.workload === undefined ? undefined : world.workloads.get(node.workload);
  const { canonicalName } = canonicalOf(workload?.labels ?? node.labels, workload?.name ?? (node.cluster || node.id));
  return `${canonicalName}.${node.namespace}`;
}
