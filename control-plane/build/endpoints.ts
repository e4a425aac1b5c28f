/** Load assignments: the instances behind each port of a service, by locality, with what callers must know about each. */
import type { JsonObject, LbEndpoint, LoadAssignment, LocalityEndpoints } from '../../xds/snapshot.ts';
import type { EndpointModel, MeshSettings, ServiceModel, World } from '../world.ts';
import { outboundCluster } from './names.ts';

interface Kept {
  readonly mesh: MeshSettings;
  readonly assignments: readonly LoadAssignment[];
}
/** A service that did not change keeps its assignments, so the publisher need not encode them again. */
const kept = new WeakMap<ServiceModel, Kept>();

const perWorld = new WeakMap<World, readonly LoadAssignment[]>();

/** The same list for every node. */
export function outboundEndpoints(world: World): readonly LoadAssignment[] {
  const known = perWorld.get(world);
  if (known !== undefined) return known;
  const all: LoadAssignment[] = [];
  for (const service of world.services.values()) all.push(...assignmentsOf(service, world.mesh));
  perWorld.set(world, all);
  return all;
}

/** Makes and keeps the load assignments of one service: a step towards the list of all. */
export function prepareEndpoints(world: World, service: ServiceModel): void {
  assignmentsOf(service, world.mesh);
}

function assignmentsOf(service: ServiceModel, mesh: MeshSettings): readonly LoadAssignment[] {
  const before = kept.get(service);
  if (before !== undefined && before.mesh === mesh) return before.assignments;
  const assignments = service.ports.map((port) => assignment(service, port.port, mesh));
  kept.set(service, { mesh, assignments });
  return assignments;
}

function assignment(service: ServiceModel, port: number, mesh: MeshSettings): LoadAssignment {
  const byLocality = new Map<string, { first: EndpointModel; endpoints: LbEndpoint[]; weight: number }>();
  for (const endpoint of service.endpoints) {
    if (endpoint.servicePort !== port) continue;
    const { region, zone, subZone } = endpoint.locality;
    const key = `${region}/${zone}/${subZone}`;
    const group = byLocality.get(key) ?? { first: endpoint, endpoints: [], weight: 0 };
    group.endpoints.push(lbEndpoint(endpoint, service, mesh));
    group.weight += Math.max(1, endpoint.weight);
    byLocality.set(key, group);
  }
  const localities: LocalityEndpoints[] = [...byLocality.keys()].sort().map((key) => {
    const group = byLocality.get(key)!;
    return { locality: group.first.locality, weight: group.weight, priority: 0, endpoints: group.endpoints };
  });
  return { clusterName: outboundCluster(service, port, mesh), localities, overprovisioningFactor: 140, dropPercent: 0 };
}

function lbEndpoint(endpoint: EndpointModel, service: ServiceModel, mesh: MeshSettings): LbEndpoint {
  return {
    address: { host: endpoint.address, port: endpoint.port },
    hostname: '',
    // The wire has no weight of zero: an endpoint that shall get nothing new is one that drains.
    weight: Math.max(1, endpoint.weight),
    health: healthOf(endpoint),
    metadata: metadataOf(endpoint, service, mesh),
  };
}

function healthOf(endpoint: EndpointModel): LbEndpoint['health'] {
  if (endpoint.terminating) return 'DRAINING';
  if (!endpoint.ready) return 'UNHEALTHY';
  return endpoint.weight === 0 ? 'DRAINING' : 'HEALTHY';
}

/** `istio.workload` is Istio's `name;namespace;canonical service;canonical revision;cluster`, from which metrics take their destination labels. */
function metadataOf(endpoint: EndpointModel, service: ServiceModel, mesh: MeshSettings): JsonObject {
  const name = endpoint.workload?.slice(endpoint.workload.indexOf('/') + 1) ?? '';
  const namespace = endpoint.workload?.slice(0, endpoint.workload.indexOf('/')) ?? service.namespace;
  const { canonicalName, canonicalRevision } = canonicalOf(endpoint.labels, name === '' ? service.name : name);
  const metadata: JsonObject = {
    istio: { workload: `${name};${namespace};${canonicalName};${canonicalRevision};Kubernetes` },
  };
  if (endpoint.identity === undefined || mesh.mtls === 'DISABLE') return metadata;
  return { ...metadata, 'envoy.transport_socket_match': { tlsMode: 'istio' } };
}

/** The service and version that an instance says it is, by the labels that Istio reads, in Istio's order. */
export function canonicalOf(
  labels: Readonly<Record<string, string>>,
  fallback: string,
): { canonicalName: string; canonicalRevision: string } {
  return {
    canonicalName: labels['service.istio.io/canonical-name'] ?? labels['app.kubernetes.io/name'] ?? labels['app'] ?? fallback,
    canonicalRevision:
      labels['service.istio.io/canonical-revision'] ?? labels['app.kubernetes.io/version'] ?? labels['version'] ?? 'latest',
  };
}
