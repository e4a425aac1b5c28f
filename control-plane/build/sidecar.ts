/** What a sidecar or an Envoy gets. Its listeners are kept for as long as nothing that they are made of changes; its lists are those of its neighbours. */
import { memo } from '../../lib/memo.ts';
import type { Cluster, JsonObject, Listener, RouteConfiguration } from '../../xds/snapshot.ts';
import type { MeshSettings, Node, NodeResources, Resource, ServiceModel, World, WorkloadModel } from '../world.ts';
import { outboundClusters } from './clusters.ts';
import { outboundEndpoints } from './endpoints.ts';
import { applicationPorts, servicesOf } from './inbound-ports.ts';
import { inboundListener, outboundListener } from './listeners.ts';
import { isLazy } from './on-demand.ts';
import { outboundRoutes, outboundRoutesOnDemand } from './routes.ts';

export function sidecarResources(world: World, node: Node): NodeResources {
  const { listeners, clusters } = ownParts(world, node);
  const shared = { listeners, clusters: joined(clusters, outboundClusters(world)), endpoints: outboundEndpoints(world, node.locality) };
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
  /** All that the listeners take from workload and services, as JSON. */
  readonly ports: string;
  readonly listeners: readonly Listener[];
  readonly clusters: readonly Cluster[];
}

/**
 * By the workload, so that a proxy that comes back finds them; and by the metadata of the node, which is one object per stream and stays
 * when the workload changes in what is of no concern here: its weight, its health.
 */
const kept = memo<WorkloadModel | JsonObject, OwnParts>();

function ownParts(world: World, node: Node): Pick<OwnParts, 'listeners' | 'clusters'> {
  const workload = node.workload === undefined ? undefined : world.workloads.get(node.workload);
  const services = node.workload === undefined ? [] : servicesOf(world, node.workload);
  const before = kept.get(node.metadata) ?? (workload === undefined ? undefined : kept.get(workload));
  const known = before !== undefined && sameWorld(before, world) && sameNode(before.node, node) ? before : undefined;
  if (known?.workload === workload && known !== undefined && sameList(known.services, services)) return known;
  const ports = JSON.stringify(applicationPorts(world, workload, node));
  const own = { node, mesh: world.mesh, policies: world.policies, workload, services, ports };
  const same = known !== undefined && known.ports === ports && (known.workload === undefined) === (workload === undefined);
  const made: OwnParts = same ? { ...own, listeners: known.listeners, clusters: known.clusters } : { ...own, ...makeParts(world, node) };
  kept.set(node.metadata, made);
  if (workload !== undefined) kept.set(workload, made);
  return made;
}

function makeParts(world: World, node: Node): Pick<OwnParts, 'listeners' | 'clusters'> {
  const inbound = inboundListener(world, node);
  const outbound = outboundListener(world, node);
  return { listeners: inbound === undefined ? [outbound] : [inbound.listener, outbound], clusters: inbound?.clusters ?? [] };
}

function sameWorld(parts: OwnParts, { mesh, policies }: World): boolean {
  return parts.mesh === mesh && parts.policies === policies;
}

function sameList<T>(left: readonly T[], right: readonly T[]): boolean {
  return left.length === right.length && left.every((item, index) => item === right[index]);
}

function sameNode(left: Node, right: Node): boolean {
  for (const field of Object.keys(left) as (keyof Node)[])
    if (left[field] !== right[field] && JSON.stringify(left[field]) !== JSON.stringify(right[field])) return false;
  return true;
}

const lists = memo<RouteConfiguration, readonly RouteConfiguration[]>();

function listOf(route: RouteConfiguration): readonly RouteConfiguration[] {
  let list = lists.get(route);
  if (list === undefined) {
    list = [route];
    lists.set(route, list);
  }
  return list;
}

/** Clusters of all -> by what stands before them: most applications of a mesh answer on the same few ports. */
const joinedLists = memo<readonly Cluster[], Map<string, readonly Cluster[]>>();

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
