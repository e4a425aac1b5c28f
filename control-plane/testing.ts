/** For tests: worlds out of YAML, nodes of their workloads, and what was built by name. */
import { decodeCluster, encodeCluster } from '../xds/resources/cluster.ts';
import { decodeEndpoints, encodeEndpoints } from '../xds/resources/endpoint.ts';
import { decodeListener, encodeListener } from '../xds/resources/listener.ts';
import { decodeRoute, encodeRoute } from '../xds/resources/route.ts';
import type { HttpConnectionManager, Listener, Route, RouteConfiguration } from '../xds/snapshot.ts';
import { mergeWorld } from './catalog.ts';
import { parseResources } from './kinds/parse.ts';
import type { Node, NodeResources, Problem, World } from './world.ts';

/** The world that this YAML makes. Throws when a document has an error. */
export function worldOf(yaml: string): World {
  const parsed = parseResources(yaml, { source: 'files', file: 'test.yaml' });
  const errors = parsed.problems.filter((problem) => problem.severity !== 'warning');
  if (errors.length > 0) throw new Error(errors.map(problemLine).join('\n'));
  return mergeWorld([{ name: 'files', state: parsed }]);
}

/** `routes.yaml:3:5 HTTPRoute default/reviews spec.rules: message`. */
export function problemLine(problem: Problem): string {
  const { file = problem.origin.source, line, column } = problem.origin;
  const place = line === undefined ? file : `${file}:${line}:${column}`;
  return `${place} ${problem.resource} ${problem.field}: ${problem.message}`;
}

/** The sidecar of a workload `namespace/name`, or a node that the world does not know. */
export function nodeOf(world: World, key: string | undefined, fields: Partial<Node> = {}): Node {
  const workload = key === undefined ? undefined : world.workloads.get(key);
  return {
    id: workload === undefined ? 'stranger.default' : `${workload.name}.${workload.namespace}`,
    cluster: '',
    flavour: 'sidecar',
    namespace: workload?.namespace ?? 'default',
    workload: workload === undefined ? undefined : key,
    labels: workload?.labels ?? {},
    locality: { region: '', zone: '', subZone: '' },
    identity: undefined,
    metadata: {},
    inboundPort: workload?.sidecar?.inboundPort ?? 15006,
    outboundPort: workload?.sidecar?.outboundPort ?? 15001,
    bindAddress: workload?.sidecar?.bindAddress ?? '127.0.0.1',
    ...fields,
  };
}

/** What arrives at the other end of the wire; throws when anything does not survive it. */
export function overTheWire(built: NodeResources): NodeResources {
  return {
    listeners: built.listeners.map((listener) => decodeListener(encodeListener(listener))),
    routes: built.routes.map((route) => decodeRoute(encodeRoute(route))),
    clusters: built.clusters.map((cluster) => decodeCluster(encodeCluster(cluster))),
    endpoints: built.endpoints.map((endpoints) => decodeEndpoints(encodeEndpoints(endpoints))),
  };
}

export function named<T extends { readonly name: string }>(list: readonly T[], name: string): T {
  const found = list.find((entry) => entry.name === name);
  if (found === undefined) throw new Error(`there is no ${name}, only ${list.map((entry) => entry.name).join(', ')}`);
  return found;
}

/** The routes of the virtual host that a Host value finds, exact domains before `*`. */
export function routesFor(configuration: RouteConfiguration, host: string): readonly Route[] {
  const hosts = configuration.virtualHosts;
  const found = hosts.find((entry) => entry.domains.includes(host)) ?? hosts.find((entry) => entry.domains.includes('*'));
  return found?.routes ?? [];
}

export function managerOf(listener: Listener, chain: string): HttpConnectionManager {
  const filter = named(listener.filterChains, chain).filters[0];
  if (filter?.kind !== 'http') throw new Error(`filter chain ${chain} has no HTTP connection manager`);
  return filter.http;
}
