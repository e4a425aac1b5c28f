/** Whether what was built for a node fits together: nothing may point at what is not in the same push. */
import { memo } from '../lib/memo.ts';
import type { FilterChain, HttpConnectionManager, Listener, RouteConfiguration } from '../xds/snapshot.ts';
import type { NodeResources } from './world.ts';

interface Reference {
  readonly from: string;
  readonly to: string;
}

interface ListenerReferences {
  readonly routes: readonly Reference[];
  readonly clusters: readonly Reference[];
}

/** Parts that did not change are the same objects, so what they point at is found once. */
const clustersOfRoutes = memo<RouteConfiguration, readonly Reference[]>();
const ofListeners = memo<Listener, ListenerReferences>();

/** Pairs of lists in which everything that the first points at is in the second; most nodes share their lists with others. */
const fitting = new WeakMap<object, WeakSet<object>>();
const namesOfLists = memo<readonly object[], ReadonlySet<string>>();

/** One sentence for each reference that leads nowhere, at most `max`; empty = consistent. */
export function inconsistencies(resources: NodeResources, max = 10): readonly string[] {
  const found: string[] = [];
  const routes = new Set(resources.routes.map((route) => route.name));
  const clusters = namesOf(resources.clusters, (cluster) => cluster.name);
  const once = (from: object, to: object, look: () => void): void => {
    if (fitting.get(from)?.has(to) === true) return;
    const before = found.length;
    look();
    if (found.length > before || found.length >= max) return;
    const fits = fitting.get(from) ?? new WeakSet();
    fits.add(to);
    fitting.set(from, fits);
  };
  const check = (references: readonly Reference[], known: ReadonlySet<string>, what: string): void => {
    for (const { from, to } of references)
      if (!known.has(to) && found.length < max) found.push(`${from} points at the ${what} ${JSON.stringify(to)}, which is not there`);
  };
  for (const listener of resources.listeners) {
    const references = listenerReferences(listener);
    check(references.routes, routes, 'route configuration');
    check(references.clusters, clusters, 'cluster');
  }
  for (const route of resources.routes) once(route, resources.clusters, () => check(routeReferences(route), clusters, 'cluster'));
  once(resources.clusters, resources.endpoints, () => {
    const assigned = namesOf(resources.endpoints, (endpoints) => endpoints.clusterName);
    for (const cluster of resources.clusters) {
      if (cluster.type === 'EDS')
        check([{ from: `cluster ${cluster.name}`, to: cluster.edsServiceName ?? cluster.name }], assigned, 'load assignment');
      if (cluster.type === 'AGGREGATE')
        check(
          (cluster.aggregateClusters ?? []).map((to) => ({ from: `cluster ${cluster.name}`, to })),
          clusters,
          'cluster',
        );
    }
  });
  return found;
}

function namesOf<T extends object>(list: readonly T[], nameOf: (item: T) => string): ReadonlySet<string> {
  let names = namesOfLists.get(list);
  if (names === undefined) {
    names = new Set(list.map(nameOf));
    namesOfLists.set(list, names);
  }
  return names;
}

function listenerReferences(listener: Listener): ListenerReferences {
  let references = ofListeners.get(listener);
  if (references === undefined) {
    const from = `listener ${listener.name}`;
    const chains: readonly FilterChain[] =
      listener.defaultFilterChain === undefined ? listener.filterChains : [...listener.filterChains, listener.defaultFilterChain];
    const filters = chains.flatMap((chain) => chain.filters);
    const managers: HttpConnectionManager[] = filters.flatMap((filter) => (filter.kind === 'http' ? filter.http : []));
    if (listener.apiListener !== undefined) managers.push(listener.apiListener);
    references = {
      routes: managers.flatMap((manager) => (manager.rdsName === undefined ? [] : { from, to: manager.rdsName })),
      clusters: [
        ...managers.flatMap((manager) =>
          manager.routeConfig === undefined ? [] : routeReferences(manager.routeConfig).map(({ to }) => ({ from, to })),
        ),
        ...filters.flatMap((filter) => (filter.kind === 'tcp' ? filter.tcp.clusters.map(({ cluster }) => ({ from, to: cluster })) : [])),
      ],
    };
    ofListeners.set(listener, references);
  }
  return references;
}

function routeReferences(route: RouteConfiguration): readonly Reference[] {
  let references = clustersOfRoutes.get(route);
  if (references === undefined) {
    const names = new Set<string>();
    for (const { action } of route.virtualHosts.flatMap((host) => host.routes)) {
      if (action.kind !== 'forward') continue;
      if (action.target.kind === 'cluster') names.add(action.target.cluster);
      if (action.target.kind === 'weighted') for (const { cluster } of action.target.clusters) names.add(cluster);
      for (const mirror of action.mirrors) names.add(mirror.cluster);
    }
    references = [...names].map((to) => ({ from: `route configuration ${route.name}`, to }));
    clustersOfRoutes.set(route, references);
  }
  return references;
}
