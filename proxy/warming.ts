/** Make before break: which of the received resources can be put in force now, and what the others wait for. Pure. */
import type { Cluster, CommonTls, HttpConnectionManager, Listener, RouteConfiguration, Snapshot, VirtualHost } from '../xds/snapshot.ts';

/** One thing that is waited for: `cluster reviews`, `endpoints reviews`, `route 8080`, `secret default`. */
export type Want = `${'cluster' | 'endpoints' | 'route' | 'secret' | 'removal'} ${string}`;

export interface Warmed {
  /** What can be in force. Nothing in it points to a cluster that is still to come. */
  readonly snapshot: Snapshot;
  /** By resource that is held back (`listener a`, `route b`, `virtual host b/c`, `cluster c`) what it waits for. */
  readonly waiting: ReadonlyMap<string, readonly Want[]>;
}

/**
 * `target` is what the sources say, `applied` what is in force. A changed resource whose needs are not met stays at its applied version; a
 * new one is left out; one that is gone stays while something in force needs it. `givenUp` names needs that were waited for long enough.
 */
export function warm(target: Snapshot, applied: Snapshot, givenUp: ReadonlySet<Want>): Warmed {
  const waiting = new Map<string, readonly Want[]>();
  const missing = (wants: readonly Want[]): Want[] => wants.filter((want) => !givenUp.has(want));
  const hold = (resource: string, wants: readonly Want[]): boolean => {
    const left = missing(wants);
    if (left.length > 0) waiting.set(resource, left);
    return left.length > 0;
  };

  const clusters = new Map<string, Cluster>();
  for (const [name, cluster] of target.clusters) {
    const known = applied.clusters.get(name);
    if (known === cluster || !hold(`cluster ${name}`, clusterWants(cluster, target))) clusters.set(name, cluster);
    else if (known !== undefined) clusters.set(name, known);
  }
  const clustersReady = (names: Iterable<string>): Want[] => {
    const wants: Want[] = [];
    for (const name of names) if (!clusters.has(name)) wants.push(`cluster ${name}`);
    return wants;
  };

  const named = <T>(what: string, now: ReadonlyMap<string, T>, old: ReadonlyMap<string, T>, clustersOf: (one: T) => Iterable<string>) => {
    const found = new Map<string, T>();
    for (const [name, one] of now) {
      const known = old.get(name);
      if (known === one || !hold(`${what} ${name}`, clustersReady(clustersOf(one)))) found.set(name, one);
      else if (known !== undefined) found.set(name, known);
    }
    return found;
  };
  const routes = named('route', target.routes, applied.routes, clustersOfRoute);
  const virtualHosts = named('virtual host', target.virtualHosts, applied.virtualHosts, clustersOfVirtualHost);

  const listeners = new Map<string, Listener>();
  for (const [name, listener] of target.listeners) {
    const known = applied.listeners.get(name);
    const wants = known === listener ? [] : listenerWants(listener, target, routes, clustersReady);
    if (!hold(`listener ${name}`, wants)) listeners.set(name, listener);
    else if (known !== undefined) listeners.set(name, known);
  }
  for (const listener of listeners.values()) {
    for (const name of routesOfListener(listener)) {
      const old = applied.routes.get(name);
      if (!routes.has(name) && old !== undefined) routes.set(name, old);
    }
  }

  keepReferenced({ routes, virtualHosts, listeners }, clusters, applied, givenUp, waiting);
  const endpoints = new Map(target.endpoints);
  for (const [name, cluster] of clusters) {
    if (cluster.type !== 'EDS') continue;
    const service = cluster.edsServiceName ?? name;
    const old = applied.endpoints.get(service);
    if (!endpoints.has(service) && old !== undefined) endpoints.set(service, old);
  }
  const secrets = new Map([...applied.secrets, ...target.secrets]);
  for (const name of applied.secrets.keys())
    if (!target.secrets.has(name) && !isSecretUsed(name, clusters, listeners)) secrets.delete(name);
  return {
    snapshot: {
      clusters,
      routes,
      virtualHosts: sameMap(virtualHosts, applied.virtualHosts),
      listeners,
      endpoints,
      secrets: sameMap(secrets, applied.secrets),
    },
    waiting,
  };
}

/** Clusters that are gone from the target and still needed by what is in force stay, for as long as a removal is waited for. */
function keepReferenced(
  next: Pick<Snapshot, 'routes' | 'virtualHosts' | 'listeners'>,
  clusters: Map<string, Cluster>,
  applied: Snapshot,
  givenUp: ReadonlySet<Want>,
  waiting: Map<string, readonly Want[]>,
): void {
  const keep = (name: string): void => {
    const old = applied.clusters.get(name);
    if (old === undefined || clusters.has(name) || givenUp.has(`removal ${name}`)) return;
    clusters.set(name, old);
    waiting.set(`removal of cluster ${name}`, [`removal ${name}`]);
  };
  for (const route of next.routes.values()) for (const name of clustersOfRoute(route)) keep(name);
  for (const host of next.virtualHosts.values()) for (const name of clustersOfVirtualHost(host)) keep(name);
  for (const listener of next.listeners.values()) for (const name of clustersOfListener(listener)) keep(name);
}

function clusterWants(cluster: Cluster, target: Snapshot): Want[] {
  const wants: Want[] = [];
  if (cluster.type === 'EDS') {
    const service = cluster.edsServiceName ?? cluster.name;
    if (!target.endpoints.has(service)) wants.push(`endpoints ${service}`);
  }
  for (const name of secretsOfCluster(cluster)) if (!target.secrets.has(name)) wants.push(`secret ${name}`);
  return wants;
}

function listenerWants(
  listener: Listener,
  target: Snapshot,
  routes: ReadonlyMap<string, RouteConfiguration>,
  clustersReady: (names: Iterable<string>) => Want[],
): Want[] {
  const wants = clustersReady(clustersOfListener(listener));
  for (const name of routesOfListener(listener)) if (!routes.has(name)) wants.push(`route ${name}`);
  for (const name of secretsOfListener(listener)) if (!target.secrets.has(name)) wants.push(`secret ${name}`);
  return wants;
}

const ROUTE_CLUSTERS = new WeakMap<RouteConfiguration | VirtualHost, ReadonlySet<string>>();

/** Every cluster that a route configuration names. */
export function clustersOfRoute(route: RouteConfiguration): ReadonlySet<string> {
  let names = ROUTE_CLUSTERS.get(route);
  if (names === undefined) {
    names = new Set(route.virtualHosts.flatMap((host) => [...clustersOfHost(host)]));
    ROUTE_CLUSTERS.set(route, names);
  }
  return names;
}

/** Every cluster that a virtual host names; asked for often of those that VHDS brought. */
export function clustersOfVirtualHost(host: VirtualHost): ReadonlySet<string> {
  let names = ROUTE_CLUSTERS.get(host);
  if (names === undefined) {
    names = clustersOfHost(host);
    ROUTE_CLUSTERS.set(host, names);
  }
  return names;
}

function clustersOfHost(host: VirtualHost): Set<string> {
  const found = new Set<string>();
  for (const { action } of host.routes) {
    if (action.kind !== 'forward') continue;
    if (action.target.kind === 'cluster') found.add(action.target.cluster);
    else if (action.target.kind === 'weighted') for (const choice of action.target.clusters) found.add(choice.cluster);
    for (const mirror of action.mirrors) found.add(mirror.cluster);
  }
  return found;
}

/** Clusters that a listener names itself: in TCP proxies and in route configurations of its own. */
export function clustersOfListener(listener: Listener): ReadonlySet<string> {
  const names = new Set<string>();
  for (const chain of chainsOf(listener)) {
    for (const filter of chain.filters) {
      if (filter.kind === 'tcp') for (const choice of filter.tcp.clusters) names.add(choice.cluster);
      else if (filter.kind === 'http' && filter.http.routeConfig !== undefined)
        for (const name of clustersOfRoute(filter.http.routeConfig)) names.add(name);
    }
  }
  return names;
}

/** Names of the route configurations that a listener takes from RDS. */
export function routesOfListener(listener: Listener): ReadonlySet<string> {
  return new Set(managersOf(listener).flatMap((manager) => (manager.rdsName === undefined ? [] : [manager.rdsName])));
}

export function secretsOfListener(listener: Listener): ReadonlySet<string> {
  return new Set(chainsOf(listener).flatMap((chain) => (chain.tls === undefined ? [] : secretsOf(chain.tls))));
}

export function secretsOfCluster(cluster: Cluster): ReadonlySet<string> {
  return new Set(
    [cluster.tls, ...cluster.tlsMatches.map((match) => match.tls)].flatMap((tls) => (tls === undefined ? [] : secretsOf(tls))),
  );
}

export function managersOf(listener: Listener): HttpConnectionManager[] {
  return chainsOf(listener).flatMap((chain) => chain.filters.flatMap((filter) => (filter.kind === 'http' ? [filter.http] : [])));
}

export function chainsOf(listener: Listener): Listener['filterChains'] {
  return listener.defaultFilterChain === undefined ? listener.filterChains : [...listener.filterChains, listener.defaultFilterChain];
}

function secretsOf(tls: CommonTls): string[] {
  const refs = tls.validation === undefined ? tls.certificates : [...tls.certificates, tls.validation];
  return refs.flatMap((ref) => (ref.kind === 'sds' ? [ref.name] : []));
}

function isSecretUsed(name: string, clusters: ReadonlyMap<string, Cluster>, listeners: ReadonlyMap<string, Listener>): boolean {
  for (const cluster of clusters.values()) if (secretsOfCluster(cluster).has(name)) return true;
  for (const listener of listeners.values()) if (secretsOfListener(listener).has(name)) return true;
  return false;
}

/** The old map where nothing differs, so that what was compiled from it is known to hold. */
function sameMap<T>(made: ReadonlyMap<string, T>, old: ReadonlyMap<string, T>): ReadonlyMap<string, T> {
  if (made.size !== old.size) return made;
  for (const [name, value] of made) if (old.get(name) !== value) return made;
  return old;
}
