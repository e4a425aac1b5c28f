/** The flavour for proxyless gRPC clients: a listener per name that they may dial, and nothing in any resource that they refuse. */
import { memo } from '../../lib/memo.ts';
import type {
  Cluster,
  HttpConnectionManager,
  LbEndpoint,
  Listener,
  LoadAssignment,
  Route,
  RouteConfiguration,
  RouteMatch,
} from '../../xds/snapshot.ts';
import type { Build, Node, ServiceModel, World } from '../world.ts';
import { outboundClusters } from './clusters.ts';
import { BUFFER_BYTES_MAX, DEFAULT_CONNECTION_MANAGER, ROUTER_FILTER } from './defaults.ts';
import { outboundEndpoints } from './endpoints.ts';
import { withoutGaps } from './failover.ts';
import { aliases, outboundCluster } from './names.ts';
import { outboundRoutes } from './routes.ts';

/** gRPC has these words for retries and refuses policies with none of them. */
const GRPC_RETRY_ON = ['cancelled', 'deadline-exceeded', 'internal', 'resource-exhausted', 'unavailable'];
/** gRPC makes at most five attempts, the first included. */
const GRPC_RETRIES_MAX = 4;

export const grpcResources: Build = (world, node) => {
  const targets = [...world.services.values()].flatMap((service) =>
    service.ports.filter((port) => port.protocol !== 'tcp').map((port) => ({ service, port: port.port })),
  );
  const names = new Set(targets.map(({ service, port }) => outboundCluster(service, port, world.mesh)));
  return {
    listeners: targets.flatMap(({ service, port }) => listeners(world, node, service, port)),
    routes: routeTables(world, node),
    clusters: outboundClusters(world)
      .filter((cluster) => names.has(cluster.name))
      .map(clusterOf),
    endpoints: outboundEndpoints(world, node.locality)
      .filter((assignment) => names.has(assignment.clusterName))
      .map(assignmentOf),
  };
};

/** `xds:///reviews.default.svc.cluster.local:80` and its shorter forms: the name that is dialled is the listener's. */
function listeners(world: World, node: Node, service: ServiceModel, port: number): Listener[] {
  const apiListener: HttpConnectionManager = {
    ...DEFAULT_CONNECTION_MANAGER,
    statPrefix: 'grpc',
    rdsName: outboundCluster(service, port, world.mesh),
    httpFilters: [ROUTER_FILTER],
    upgradeTypes: [],
  };
  return aliases(service, world.mesh, node.namespace).map((name) => ({
    name: `${name}:${port}`,
    address: { host: '0.0.0.0', port },
    trafficDirection: 'OUTBOUND',
    filterChains: [],
    listenerFilters: [],
    listenerFiltersTimeoutMs: 0,
    continueOnListenerFiltersTimeout: false,
    useOriginalDst: false,
    bindToPort: true,
    perConnectionBufferBytesMax: BUFFER_BYTES_MAX,
    apiListener,
  }));
}

/** One table per target, since a client asks for one name and needs no other's routes. */
function routeTables(world: World, node: Node): RouteConfiguration[] {
  const all = outboundRoutes(world, node.namespace, node.flavour);
  const byHost = new Map(all.virtualHosts.map((host) => [host.name, host]));
  return [...world.services.values()].flatMap((service) =>
    service.ports.flatMap((port) => {
      const cluster = outboundCluster(service, port.port, world.mesh);
      const host = byHost.get(`${cluster.split('||')[1]!}:${port.port}`);
      if (host === undefined || port.protocol === 'tcp') return [];
      return [
        {
          ...all,
          name: cluster,
          virtualHosts: [{ ...host, domains: ['*'], perFilterConfig: new Map(), routes: host.routes.flatMap(routeOf) }],
        },
      ];
    }),
  );
}

/** Rewrites, redirects and direct answers are for HTTP; a gRPC client would fail the call, so it must not be given such a route. */
function routeOf(route: Route): Route[] {
  const { action } = route;
  if (action.kind !== 'forward') return [];
  const matches = matchesOf(route.match);
  if (matches.length === 0) return [];
  const { retryPolicy, ...rest } = action;
  const codes = new Set(retryPolicy?.retryOn ?? []);
  const retryOn = GRPC_RETRY_ON.filter((word) => codes.has(word));
  const numRetries = Math.min(GRPC_RETRIES_MAX, retryPolicy?.numRetries ?? 0);
  const { perTryTimeoutMs: _unsupported, ...retry } = retryPolicy ?? { perTryTimeoutMs: 0 };
  const kept =
    retryOn.length > 0 && numRetries > 0 && retryPolicy !== undefined
      ? { retryPolicy: { ...(retry as typeof retryPolicy), retryOn, numRetries, previousHosts: false } }
      : {};
  const deadline = rest.timeoutMs > 0 ? { maxStreamDurationMs: rest.timeoutMs } : {};
  return matches.map((match) => ({ ...route, match, action: { ...rest, ...kept, mirrors: [], upgradeConfigs: [], ...deadline } }));
}

/**
 * A match in the words that gRPC has: a prefix that ends at a segment's border is the path itself and what is below it. A call is a POST
 * without a query, so matches for other methods, for queries and for tunnels never hold, and none of them may be sent.
 */
function matchesOf(match: RouteMatch): RouteMatch[] {
  const { path, headers } = match;
  if (match.queryParameters.length > 0 || path.kind === 'connect') return [];
  const method = headers.find((header) => header.name === ':method');
  if (method !== undefined && !takesPost(method)) return [];
  const rest = method === undefined ? match : { ...match, headers: headers.filter((header) => header !== method) };
  if (path.kind !== 'segmentPrefix') return [rest];
  return [
    { ...rest, path: { kind: 'exact', value: path.value } },
    { ...rest, path: { kind: 'prefix', value: `${path.value}/` } },
  ];
}

function takesPost({ match, invert }: RouteMatch['headers'][number]): boolean {
  return match.kind === 'exact' && (match.value === 'POST') !== invert;
}

const clusters = memo<Cluster, Cluster>();

/** Round robin or ring hash, no TLS (a client has no certificate from us), outlier detection by rate only. */
function clusterOf(cluster: Cluster): Cluster {
  const known = clusters.get(cluster);
  if (known !== undefined) return known;
  const { outlierDetection: _outlier, slowStart: _slowStart, ...rest } = cluster;
  const ring = cluster.lbPolicy.type === 'RING_HASH';
  const made: Cluster = {
    ...rest,
    lbPolicy: ring ? cluster.lbPolicy : { name: 'ROUND_ROBIN', type: 'ROUND_ROBIN', config: {} },
    tlsMatches: [],
    healthChecks: [],
    protocol: 'http2',
    reportsLoad: true,
  };
  clusters.set(cluster, made);
  return made;
}

const assignments = memo<LoadAssignment, LoadAssignment>();

/** Only what takes requests: gRPC refuses weights of zero and knows no draining. Every locality has its weight, or it would get nothing. */
function assignmentOf(assignment: LoadAssignment): LoadAssignment {
  const known = assignments.get(assignment);
  if (known !== undefined) return known;
  const left = assignment.localities
    .map((group) => ({ ...group, endpoints: group.endpoints.filter((endpoint: LbEndpoint) => endpoint.health === 'HEALTHY') }))
    .filter((group) => group.endpoints.length > 0);
  // A priority of which nobody is left would be a gap.
  const priorities = withoutGaps(left.map((group) => group.priority));
  const localities = left.map((group, index) => ({
    ...group,
    priority: priorities[index]!,
    weight: group.endpoints.reduce((sum, endpoint) => sum + endpoint.weight, 0),
  }));
  const made = { ...assignment, localities };
  assignments.set(assignment, made);
  return made;
}
