/** The simulation's resources as the sidecar's warming sees them. */
import { EMPTY_SNAPSHOT } from '../../xds/snapshot.ts';
import type { Cluster, Listener, LoadAssignment, RouteConfiguration, Snapshot } from '../../xds/snapshot.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '../../xds/session/type-urls.ts';

/** Content of a resource: when it was written, and the names that it points at. */
export interface Content {
  readonly epoch: number;
  readonly refs: readonly string[];
}

const made = new WeakMap<Content, object>();

/** The least that warming looks at; the same object for the same content, as the sidecar's store has it. */
export function asResource(typeUrl: string, name: string, content: Content): object {
  let resource = made.get(content);
  if (resource === undefined) {
    if (typeUrl === CLUSTER_TYPE) resource = { name, type: 'EDS', tlsMatches: [] };
    else if (typeUrl === ENDPOINT_TYPE) resource = { clusterName: name, localities: [] };
    else if (typeUrl === LISTENER_TYPE) {
      const filters = content.refs.map((rdsName) => ({ kind: 'http', http: { rdsName } }));
      resource = { name, filterChains: [{ filters }] };
    } else {
      const routes = content.refs.map((cluster) => ({ action: { kind: 'forward', target: { kind: 'cluster', cluster }, mirrors: [] } }));
      resource = { name, virtualHosts: [{ routes }] };
    }
    made.set(content, resource);
  }
  return resource;
}

export function asSnapshot(of: (typeUrl: string) => ReadonlyMap<string, Content>): Snapshot {
  const all = <T>(typeUrl: string): ReadonlyMap<string, T> =>
    new Map([...of(typeUrl)].map(([name, content]) => [name, asResource(typeUrl, name, content) as T]));
  return {
    ...EMPTY_SNAPSHOT,
    clusters: all<Cluster>(CLUSTER_TYPE),
    endpoints: all<LoadAssignment>(ENDPOINT_TYPE),
    listeners: all<Listener>(LISTENER_TYPE),
    routes: all<RouteConfiguration>(ROUTE_TYPE),
  };
}

/** One type of what is in force, by name. */
export function inForceOf(snapshot: Snapshot, typeUrl: string): ReadonlyMap<string, object> {
  const { clusters, endpoints, listeners, routes } = snapshot;
  return { [CLUSTER_TYPE]: clusters, [ENDPOINT_TYPE]: endpoints, [LISTENER_TYPE]: listeners, [ROUTE_TYPE]: routes }[typeUrl]!;
}
