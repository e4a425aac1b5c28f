/** What a sidecar or an Envoy gets. Its listeners are kept for as long as nothing that they are made of changes, its lists are those of its neighbours. */
import type { Cluster, JsonObject, Listener, RouteConfiguration } from '../../xds/snapshot.ts';
import type { MeshSettings, Node, NodeResources, Resource, ServiceModel, World, WorkloadModel } from '../world.ts';
import { outboundClusters } from './clusters.ts';
import { outboundEndpoints } from './endpoints.ts';
import { servicesOf } from './inbound-ports.ts';
import { inboundListener, outboundListener } from './listeners.ts';
import { isLazy } from './on-demand.ts';
import { outboundRoutes, outboundRoutesOnDemand } from './routes.ts';

export function sidecarResources(world: World, node: Node): NodeResources {
  const { listeners, clusters } = ownParts(world, node);
  const shared = { listeners, clusters: joined(clusters, outboundClusters(world)), endpoints: outboundEndpoints(world) };
  if (!isLazy(node)) return { ...shared, routes: listOf(outboundRoutes(world, node.namespace, node.flavour)) };
  const virtualHosts = outboundRoutesOnDemand(world, node.namespace, node.flavour);
  return { ...shared, routes: listOf(virtualHosts.configuration), virtualHosts };
}

/** All that the listeners of a node are made of, and what was made. */
interface OwnParts {
  readonly node: Node;
  readonly mesh: MeshSettings;
  readonly policies: readonly Resource[];
  readonly workload: WorkloadModel | undefined;
  readonly services: readonly ServiceModel[];
  readonly listeners: readonly Listener[];
  readonly clusters: readonly Cluster[];
}

/** By the workload, so that a proxy that comes back finds them; by the metadata of a node that the world does not know, one object per stream. */
const kept = new WeakMap<WorkloadModel | JsonObject, OwnParts>();

function ownParts(world: World, node: Node): Pick<OwnParts, 'listeners' | 'clusters'> {
  const { mesh, policies } = world;
  const workload = node.workload === undefined ? undefined : world.workloads.get(node.workload);
  const services = node.workload === undefined ? [] : servicesOf(world, node.workload);
  const before = kept.get(workload ?? node.metadata);
  const same =
    before !== undefined &&
    before.mesh === mesh &&
    before.policies === policies &&
    before.workload === workload &&
    before.services.length === services.length &&
    before.services.every((service, index) => service === services[index]) &&
    sameNode(before.node, node);
  if (same) return before;
  const inbound = inboundListener(world, node);
  const outbound = outboundListener(world, node);
  const listeners = inbound === undefined ? [outbound] : [inbound.listener, outbound];
  const made: OwnParts = { node, mesh, policies, workload, services, listeners, clusters: inbound?.clusters ?? [] };
  kept.set(workload ?? node.metadata, made);
  return made;
}

function sameNode(left: Node, right: Node): boolean {
  for (const field of Object.keys(left) as (keyof Node)[])
    if (left[field] !== right[field] && JSON.stringify(left[field]) !== JSON.stringify(right[field])) return false;
  return true;
}

const lists = new WeakMap<RouteConfiguration, readonly RouteConfiguration[]>();

function listOf(route: RouteConfiguration): readonly RouteConfiguration[] {
  let list = lists.get(route);
  if (list === undefined) {
    list = [route];
    lists.set(route, list);
  }
  return list;
}

/** Clusters of all -> by what stands before them: most applications of a mesh answer on the same few ports. */
const joinedLists = new WeakMap<readonly Cluster[], Map<string, readonly Cluster[]>>();

function joined(own: readonly Cluster[], all: readonly Cluster[]): readonly Cluster[] {
  const known = joinedLists.get(all) ?? new Map<string, readonly Cluster[]>();
  joinedLists.set(all, known);
  // An application's cluster is made of its port and protocol alone.
  const key = own.map((cluster) => `${cluster.name} ${cluster.protocol}`).join();
  let list = known.get(key);
  if (list === undefined) {
    list = [...own, ...all];
    known.set(key, list);
  }
  return list;
}
