/** Which ports an application answers on, and by which names callers ask for each of them. */
import { memo } from '../../lib/memo.ts';
import { atOnce } from '../../lib/slices.ts';
import type { Node, ServiceModel, World, WorkloadModel } from '../world.ts';
import { aliases, sniOf } from './names.ts';

export interface ApplicationPort {
  readonly targetPort: number;
  /** SNI values of the services that stand for it. */
  readonly serverNames: readonly string[];
  /** Host values of the same, with their ports. */
  readonly hosts: readonly string[];
  readonly serviceNames: readonly string[];
  /** Whether callers speak HTTP/2 to it. */
  readonly http2: boolean;
}

/** In order of port numbers. Ports that the workload names count even if no service does. */
export function applicationPorts(world: World, workload: WorkloadModel | undefined, node: Node): readonly ApplicationPort[] {
  if (workload === undefined)
    return declaredPorts(node).map((targetPort) => ({ targetPort, serverNames: [], hosts: [], serviceNames: [], http2: false }));
  const key = `${workload.namespace}/${workload.name}`;
  const found = new Map<number, { serverNames: string[]; hosts: string[]; serviceNames: string[]; http2: boolean }>();
  const at = (targetPort: number) => {
    const known = found.get(targetPort) ?? { serverNames: [], hosts: [], serviceNames: [], http2: false };
    found.set(targetPort, known);
    return known;
  };
  for (const port of Object.values(workload.ports)) at(port);
  for (const service of servicesOf(world, key)) {
    for (const endpoint of service.endpoints) {
      if (endpoint.workload !== key) continue;
      const port = service.ports.find((entry) => entry.port === endpoint.servicePort)!;
      const entry = at(endpoint.targetPort);
      entry.serverNames.push(sniOf(service, port.port, world.mesh));
      entry.hosts.push(...aliases(service, world.mesh, service.namespace).map((name) => `${name}:${port.port}`));
      entry.serviceNames.push(service.name);
      if (port.protocol === 'grpc' || port.protocol === 'http2') entry.http2 = true;
    }
  }
  return [...found.entries()].sort(([left], [right]) => left - right).map(([targetPort, entry]) => ({ targetPort, ...entry }));
}

type Memberships = ReadonlyMap<string, readonly ServiceModel[]>;

/** One pass per set of services serves every node. */
const memberships = memo<ReadonlyMap<string, ServiceModel>, Memberships>();

/** Works out who stands behind which service, with a pause after each service. */
export function* prepareMemberships(world: World): Generator<void, Memberships> {
  const known = memberships.get(world.services);
  if (known !== undefined) return known;
  const byWorkload = new Map<string, ServiceModel[]>();
  for (const service of world.services.values()) {
    for (const key of workloadsOf(service)) {
      const list = byWorkload.get(key);
      if (list === undefined) byWorkload.set(key, [service]);
      else list.push(service);
    }
    yield;
  }
  memberships.set(world.services, byWorkload);
  return byWorkload;
}

/** Services that a workload `namespace/name` stands behind. */
export function servicesOf(world: World, workloadKey: string): readonly ServiceModel[] {
  const known = memberships.get(world.services) ?? atOnce(prepareMemberships(world));
  return known.get(workloadKey) ?? [];
}

const workloads = memo<ServiceModel, readonly string[]>();

/** Instances of a service, by key `namespace/name`; kept for as long as the service stays the same object. */
export function workloadsOf(service: ServiceModel): readonly string[] {
  let keys = workloads.get(service);
  if (keys === undefined) {
    keys = [...new Set(service.endpoints.flatMap((endpoint) => endpoint.workload ?? []))];
    workloads.set(service, keys);
  }
  return keys;
}

/** What a sidecar says of its application while the world does not know it: `PORTS: {http: 3000}` in its metadata. */
function declaredPorts(node: Node): number[] {
  const ports = node.metadata['PORTS'];
  if (typeof ports !== 'object' || ports === null) return [];
  const numbers = Object.values(ports).filter(
    (port): port is number => typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65535,
  );
  return [...new Set(numbers)].sort((left, right) => left - right).slice(0, 64);
}
