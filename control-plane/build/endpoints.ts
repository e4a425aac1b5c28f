/** Load assignments: the instances behind each port of a service, by locality, with what callers must know about each. */
import { memo } from '../../lib/memo.ts';
import type { JsonObject, LbEndpoint, LoadAssignment, Locality, LocalityEndpoints } from '../../xds/snapshot.ts';
import type { BackendPolicySpec } from '../kinds/backend-policy.ts';
import type { EndpointModel, MeshSettings, ServiceModel, World } from '../world.ts';
import { distance, failoverOf, prioritiesOf } from './failover.ts';
import type { Failover } from './failover.ts';
import { outboundCluster } from './names.ts';
import { backendPolicyOf } from './policies.ts';

interface Kept {
  readonly mesh: MeshSettings;
  readonly spec: BackendPolicySpec | undefined;
  /** By the priorities of the localities: callers that see them alike get the same objects. */
  readonly byPriorities: Map<string, readonly LoadAssignment[]>;
}
/** A service that did not change keeps its assignments, so the publisher need not encode them again. */
const kept = memo<ServiceModel, Kept>();

interface Lists {
  /** Places of instances that callers tell apart by their own place. */
  readonly places: readonly Locality[];
  readonly byView: Map<string, readonly LoadAssignment[]>;
}
const perWorld = memo<World, Lists>();

/** The same list for every node from which the instances' places look alike; without `localityFailover` that is every node. */
export function outboundEndpoints(world: World, from: Locality): readonly LoadAssignment[] {
  let lists = perWorld.get(world);
  if (lists === undefined) {
    lists = { places: placesThatMatter(world), byView: new Map() };
    perWorld.set(world, lists);
  }
  // The places are of the world and not of the caller, so a caller cannot make up lists without end.
  const view = lists.places.map((place) => distance(from, place)).join('');
  let list = lists.byView.get(view);
  if (list === undefined) {
    list = [...world.services.values()].flatMap((service) =>
      assignmentsOf(service, backendPolicyOf(world.policies, service)?.spec, world.mesh, from),
    );
    lists.byView.set(view, list);
  }
  return list;
}

function placesThatMatter(world: World): readonly Locality[] {
  const found = new Map<string, Locality>();
  for (const service of world.services.values()) {
    if (failoverOf(backendPolicyOf(world.policies, service)?.spec)?.byCaller !== true) continue;
    for (const { locality } of service.endpoints) found.set(`${locality.region}/${locality.zone}`, locality);
  }
  return [...found.values()];
}

/** Makes and keeps the load assignments of one service as a caller at `from` sees them: a step towards the list of all. */
export function prepareEndpoints(world: World, service: ServiceModel, from: Locality): void {
  assignmentsOf(service, backendPolicyOf(world.policies, service)?.spec, world.mesh, from);
}

function assignmentsOf(
  service: ServiceModel,
  spec: BackendPolicySpec | undefined,
  mesh: MeshSettings,
  from: Locality,
): readonly LoadAssignment[] {
  let before = kept.get(service);
  if (before === undefined || before.mesh !== mesh || before.spec !== spec) {
    before = { mesh, spec, byPriorities: new Map() };
    kept.set(service, before);
  }
  const failover = failoverOf(spec);
  const key = failover === undefined ? '' : prioritiesOf(failover, from, localitiesOf(service)).join();
  let assignments = before.byPriorities.get(key);
  if (assignments === undefined) {
    assignments = service.ports.map((port) => assignment(service, port.port, mesh, failover, from));
    before.byPriorities.set(key, assignments);
  }
  return assignments;
}

function localitiesOf(service: ServiceModel): readonly Locality[] {
  return [...new Map(service.endpoints.map(({ locality }) => [localityKey(locality), locality])).values()];
}

const localityKey = ({ region, zone, subZone }: Locality): string => `${region}/${zone}/${subZone}`;

function assignment(
  service: ServiceModel,
  port: number,
  mesh: MeshSettings,
  failover: Failover | undefined,
  from: Locality,
): LoadAssignment {
  const byLocality = new Map<string, { locality: Locality; endpoints: LbEndpoint[]; weight: number }>();
  for (const endpoint of service.endpoints) {
    if (endpoint.servicePort !== port) continue;
    const key = localityKey(endpoint.locality);
    const group = byLocality.get(key) ?? { locality: endpoint.locality, endpoints: [], weight: 0 };
    group.endpoints.push(lbEndpoint(endpoint, service, mesh));
    group.weight += Math.max(1, endpoint.weight);
    byLocality.set(key, group);
  }
  const groups = [...byLocality.keys()].sort().map((key) => byLocality.get(key)!);
  const priorities = prioritiesOf(
    failover,
    from,
    groups.map(({ locality }) => locality),
  );
  const localities: LocalityEndpoints[] = groups.map((group, index) => ({ ...group, priority: priorities[index]! }));
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
