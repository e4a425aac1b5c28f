/** Whether a set of resources fits together: everything that one of them names is there. */
import type {
  DownstreamTls,
  FilterChain,
  HttpConnectionManager,
  Listener,
  NetworkFilter,
  RouteConfiguration,
  SecretRef,
  Snapshot,
  UpstreamTls,
} from './snapshot.ts';

/** What the checks read of a snapshot. Without `secrets` the references to secrets are left unchecked: they are issued per proxy. */
export type Resources = Pick<Snapshot, 'listeners' | 'routes' | 'clusters' | 'endpoints'> & Partial<Pick<Snapshot, 'secrets'>>;

/** One sentence per missing resource, which says what is missing and who names it; empty when all is there. */
export function consistent(snapshot: Resources): readonly string[] {
  const problems: string[] = [];
  const need = (map: ReadonlyMap<string, unknown>, kind: string, name: string, by: string): void => {
    if (!map.has(name)) problems.push(`${kind} "${name}" is missing, named by ${by}`);
  };
  const needSecrets = (tls: DownstreamTls | UpstreamTls | undefined, by: string): void => {
    if (snapshot.secrets === undefined) return;
    for (const name of secretNames(tls)) need(snapshot.secrets, 'secret', name, by);
  };
  for (const listener of snapshot.listeners.values()) {
    const by = `listener "${listener.name}"`;
    for (const chain of chainsOf(listener)) needSecrets(chain.tls, by);
    for (const manager of managersOf(listener)) {
      if (manager.rdsName !== undefined) need(snapshot.routes, 'route', manager.rdsName, by);
      for (const cluster of clustersOfRoutes(manager.routeConfig)) need(snapshot.clusters, 'cluster', cluster, by);
    }
    for (const cluster of clustersOfTcp(listener)) need(snapshot.clusters, 'cluster', cluster, by);
  }
  for (const route of snapshot.routes.values()) {
    for (const cluster of clustersOfRoutes(route)) need(snapshot.clusters, 'cluster', cluster, `route "${route.name}"`);
  }
  for (const cluster of snapshot.clusters.values()) {
    const by = `cluster "${cluster.name}"`;
    if (cluster.type === 'EDS') need(snapshot.endpoints, 'endpoints', cluster.edsServiceName ?? cluster.name, by);
    for (const inner of cluster.aggregateClusters ?? []) need(snapshot.clusters, 'cluster', inner, by);
    needSecrets(cluster.tls, by);
    for (const match of cluster.tlsMatches) needSecrets(match.tls, by);
  }
  return problems;
}

function chainsOf(listener: Listener): readonly FilterChain[] {
  return listener.defaultFilterChain === undefined ? listener.filterChains : [...listener.filterChains, listener.defaultFilterChain];
}

function filtersOf(listener: Listener): readonly NetworkFilter[] {
  return chainsOf(listener).flatMap((chain) => chain.filters);
}

function managersOf(listener: Listener): readonly HttpConnectionManager[] {
  const managers = filtersOf(listener).flatMap((filter) => (filter.kind === 'http' ? [filter.http] : []));
  return listener.apiListener === undefined ? managers : [...managers, listener.apiListener];
}

function clustersOfTcp(listener: Listener): ReadonlySet<string> {
  return new Set(filtersOf(listener).flatMap((filter) => (filter.kind === 'tcp' ? filter.tcp.clusters.map(({ cluster }) => cluster) : [])));
}

/** Each once, in the order in which the routes name them. */
function clustersOfRoutes(routes: RouteConfiguration | undefined): ReadonlySet<string> {
  const names = new Set<string>();
  for (const host of routes?.virtualHosts ?? []) {
    for (const { action } of host.routes) {
      if (action.kind !== 'forward') continue;
      if (action.target.kind === 'cluster') names.add(action.target.cluster);
      if (action.target.kind === 'weighted') for (const { cluster } of action.target.clusters) names.add(cluster);
      for (const { cluster } of action.mirrors) names.add(cluster);
    }
  }
  return names;
}

/** Secrets that must come over ADS; those from elsewhere are not in the snapshot. */
function secretNames(tls: DownstreamTls | UpstreamTls | undefined): readonly string[] {
  if (tls === undefined) return [];
  const refs: readonly SecretRef[] = tls.validation === undefined ? tls.certificates : [...tls.certificates, tls.validation];
  return refs.flatMap((ref) => (ref.kind === 'sds' && ref.source === undefined ? [ref.name] : []));
}
