/** The world as it is being merged: takes changed resources one by one and knows what each of them touches. */
import type { Problem, Resource, ServiceModel, World, WorkloadModel } from '../world.ts';
import { DEFAULT_MESH, meshSettings } from './mesh.ts';
import { KeySets, patched } from './order.ts';
import { keyOf, referenceProblems } from './references.ts';
import { serviceProblems } from './service-problems.ts';
import { type ServicePort, selectorOf, serviceModel, servicePorts } from './service.ts';
import { workloadModel } from './workload.ts';

const POLICY_KINDS = new Set(['BackendPolicy', 'AuthorizationPolicy', 'FaultInjection', 'RateLimit']);
const OTHER_ROUTE_KINDS = new Set(['GRPCRoute', 'TCPRoute', 'TLSRoute']);

export const EMPTY_WORLD: World = {
  mesh: DEFAULT_MESH,
  services: new Map(),
  workloads: new Map(),
  httpRoutes: [],
  otherRoutes: [],
  policies: [],
  problems: [],
};

/** `kind namespace/name` -> the resource as it now is, undefined = gone. */
export type Changes = ReadonlyMap<string, Resource | undefined>;

/** Holds the indexes; `apply` answers the next world. What a change does not touch keeps its identity, so builders can keep their results. */
export class WorldState {
  #world: World = EMPTY_WORLD;
  readonly #meshes = new Map<string, Resource>();
  readonly #services = new Map<string, { resource: Resource; ports: readonly ServicePort[] }>();
  readonly #slices = new Map<string, Resource>();
  readonly #workloads = new Map<string, WorkloadModel>();
  /** `namespace label=value` -> workload keys. */
  readonly #workloadsByLabel = new KeySets();
  /** `namespace label=value` of one pair of the selector -> service keys. */
  readonly #servicesByLabel = new KeySets();
  /** `namespace/service` -> slice keys. */
  readonly #slicesByService = new KeySets();
  /** Workload key -> slice keys that refer to it. */
  readonly #slicesByWorkload = new KeySets();
  /** `address port` -> workload keys. */
  readonly #workloadsByPlace = new KeySets();
  readonly #routes = new Map<string, Resource>();
  readonly #otherRoutes = new Map<string, Resource>();
  readonly #policies = new Map<string, Resource>();
  readonly #references = new Map<Resource, readonly Problem[]>();
  /** Service key -> its own problems; services without any are not in it. */
  readonly #serviceProblems = new Map<string, readonly Problem[]>();
  #placeProblems: readonly Problem[] = [];

  get world(): World {
    return this.#world;
  }

  /**
   * `sourceProblems`: what the sources say by themselves; they come first in the world's list. Done in small steps, with a pause after each
   * resource; nothing else may be applied before the last one, and until then `world` is the old one.
   */
  *apply(changes: Changes, sourceProblems: readonly Problem[]): Generator<void, World> {
    const before = this.#world;
    const dirty = new Set<string>();
    const workloads = new Map<string, WorkloadModel | undefined>();
    const touched = { routes: false, otherRoutes: false, policies: false, meshes: false, places: false };
    for (const [key, resource] of changes) {
      this.#take(key, resource, dirty, workloads, touched);
      yield;
    }

    const mesh = touched.meshes ? meshSettings(first(this.#meshes)) : before.mesh;
    if (mesh.trustDomain !== before.mesh.trustDomain) for (const key of this.#services.keys()) dirty.add(key);
    const services = patched(before.services, yield* this.#rebuilt(dirty, mesh.trustDomain));
    const httpRoutes = touched.routes ? sorted(this.#routes) : before.httpRoutes;
    const otherRoutes = touched.otherRoutes ? sorted(this.#otherRoutes) : before.otherRoutes;
    const policies = touched.policies ? sorted(this.#policies) : before.policies;
    if (touched.places) this.#placeProblems = this.#places();
    const namesMoved = !sameShape(before.services, services);
    if (namesMoved) this.#references.clear();
    const problems = [
      ...sourceProblems,
      ...this.#meshProblems(),
      ...this.#placeProblems,
      ...[...this.#serviceProblems.keys()].sort().flatMap((key) => this.#serviceProblems.get(key)!),
      ...this.#referenceProblems([...httpRoutes, ...otherRoutes, ...policies], services),
    ];
    this.#world = {
      mesh,
      services,
      workloads: patched(before.workloads, workloads),
      httpRoutes,
      otherRoutes,
      policies,
      problems: sameProblems(before.problems, problems) ? before.problems : problems,
    };
    return this.#world;
  }

  #take(
    kindAndKey: string,
    resource: Resource | undefined,
    dirty: Set<string>,
    workloads: Map<string, WorkloadModel | undefined>,
    touched: { routes: boolean; otherRoutes: boolean; policies: boolean; meshes: boolean; places: boolean },
  ): void {
    const space = kindAndKey.indexOf(' ');
    const kind = kindAndKey.slice(0, space);
    const key = kindAndKey.slice(space + 1);
    if (kind === 'Workload') {
      touched.places = this.#takeWorkload(key, resource, dirty, workloads) || touched.places;
    } else if (kind === 'Service') this.#takeService(key, resource, dirty);
    else if (kind === 'EndpointSlice') this.#takeSlice(key, resource, dirty);
    else if (kind === 'HTTPRoute') touched.routes = put(this.#routes, key, resource);
    else if (kind === 'Mesh') touched.meshes = put(this.#meshes, key, resource);
    else if (OTHER_ROUTE_KINDS.has(kind)) touched.otherRoutes = put(this.#otherRoutes, kindAndKey, resource);
    else if (POLICY_KINDS.has(kind)) touched.policies = put(this.#policies, kindAndKey, resource);
  }

  /** Answers whether it stands at another place than before. */
  #takeWorkload(key: string, resource: Resource | undefined, dirty: Set<string>, changes: Map<string, WorkloadModel | undefined>): boolean {
    const before = this.#workloads.get(key);
    const after = resource === undefined ? undefined : workloadModel(resource);
    for (const model of [before, after]) {
      if (model === undefined) continue;
      for (const service of this.#selecting(model)) dirty.add(service);
    }
    for (const slice of this.#slicesByWorkload.get(key)) dirty.add(serviceOfSlice(this.#slices.get(slice)!));
    if (before !== undefined) {
      for (const label of labelKeys(before.namespace, before.labels)) this.#workloadsByLabel.delete(label, key);
      for (const place of placesOf(before)) this.#workloadsByPlace.delete(place, key);
    }
    if (after === undefined) this.#workloads.delete(key);
    else {
      this.#workloads.set(key, after);
      for (const label of labelKeys(after.namespace, after.labels)) this.#workloadsByLabel.add(label, key);
      for (const place of placesOf(after)) this.#workloadsByPlace.add(place, key);
    }
    changes.set(key, after);
    return before === undefined || after === undefined || placesOf(before).join() !== placesOf(after).join();
  }

  #takeService(key: string, resource: Resource | undefined, dirty: Set<string>): void {
    const before = this.#services.get(key)?.resource;
    if (before !== undefined) for (const label of selectorKey(before)) this.#servicesByLabel.delete(label, key);
    if (resource === undefined) this.#services.delete(key);
    else {
      const ports = servicePorts(resource);
      const old = this.#services.get(key)?.ports;
      this.#services.set(key, { resource, ports: old !== undefined && JSON.stringify(old) === JSON.stringify(ports) ? old : ports });
      for (const label of selectorKey(resource)) this.#servicesByLabel.add(label, key);
    }
    dirty.add(key);
  }

  #takeSlice(key: string, resource: Resource | undefined, dirty: Set<string>): void {
    const before = this.#slices.get(key);
    if (before !== undefined) {
      dirty.add(serviceOfSlice(before));
      this.#slicesByService.delete(serviceOfSlice(before), key);
      for (const workload of workloadsOfSlice(before)) this.#slicesByWorkload.delete(workload, key);
    }
    if (resource === undefined) {
      this.#slices.delete(key);
      return;
    }
    this.#slices.set(key, resource);
    dirty.add(serviceOfSlice(resource));
    this.#slicesByService.add(serviceOfSlice(resource), key);
    for (const workload of workloadsOfSlice(resource)) this.#slicesByWorkload.add(workload, key);
  }

  /** Services whose selector this workload fits. */
  #selecting(workload: WorkloadModel): string[] {
    const found: string[] = [];
    for (const label of labelKeys(workload.namespace, workload.labels)) {
      for (const key of this.#servicesByLabel.get(label)) {
        const service = this.#services.get(key);
        if (service !== undefined && fits(selectorOf(service.resource), workload)) found.push(key);
      }
    }
    return found;
  }

  *#rebuilt(dirty: ReadonlySet<string>, trustDomain: string): Generator<void, Map<string, ServiceModel | undefined>> {
    const rebuilt = new Map<string, ServiceModel | undefined>();
    for (const key of dirty) {
      this.#serviceProblems.delete(key);
      const service = this.#services.get(key);
      rebuilt.set(key, service === undefined ? undefined : this.#serviceModel(key, service, trustDomain));
      yield;
    }
    return rebuilt;
  }

  #serviceModel(key: string, service: { resource: Resource; ports: readonly ServicePort[] }, trustDomain: string): ServiceModel {
    const selector = selectorOf(service.resource);
    const label = selectorKey(service.resource)[0];
    const candidates = label === undefined ? [] : [...this.#workloadsByLabel.get(label)].sort().map((name) => this.#workloads.get(name)!);
    const workloads = candidates.filter((workload) => fits(selector, workload));
    const problems = serviceProblems(service.resource, workloads);
    if (problems.length > 0) this.#serviceProblems.set(key, problems);
    return serviceModel({
      ...service,
      workloads,
      slices: [...this.#slicesByService.get(key)].sort().map((name) => this.#slices.get(name)!),
      workloadByKey: (name) => this.#workloads.get(name),
      trustDomain,
    });
  }

  #meshProblems(): Problem[] {
    const winner = first(this.#meshes);
    return sorted(this.#meshes)
      .filter((mesh) => mesh !== winner)
      .map((mesh) => ({
        origin: mesh.origin,
        resource: `Mesh ${keyOf(mesh)}`,
        field: '',
        message: `there must be one Mesh only, and ${placeOf(winner!)} has another; this one has no effect`,
      }));
  }

  /** Acceptance rule D9: two workloads on one address and port are told apart by nothing. */
  #places(): Problem[] {
    const problems: Problem[] = [];
    for (const [place, keys] of this.#workloadsByPlace.entries()) {
      if (keys.size < 2) continue;
      const [winner, ...others] = [...keys].sort();
      const firstModel = this.#workloads.get(winner!)!;
      for (const key of others) {
        const model = this.#workloads.get(key)!;
        const [address, port] = place.split(' ');
        problems.push({
          origin: model.origin,
          resource: `Workload ${key}`,
          field: 'spec.address',
          message: `must not share ${address} port ${port} with another instance: Workload ${winner} at ${placeOf(firstModel)} has it too`,
        });
      }
    }
    return problems.sort((left, right) => (left.resource + left.message < right.resource + right.message ? -1 : 1));
  }

  #referenceProblems(resources: readonly Resource[], services: ReadonlyMap<string, ServiceModel>): Problem[] {
    const alive = new Set(resources);
    for (const resource of this.#references.keys()) if (!alive.has(resource)) this.#references.delete(resource);
    return resources.flatMap((resource) => {
      let problems = this.#references.get(resource);
      if (problems === undefined) {
        problems = referenceProblems(resource, services);
        this.#references.set(resource, problems);
      }
      return problems;
    });
  }
}

function put(map: Map<string, Resource>, key: string, resource: Resource | undefined): true {
  if (resource === undefined) map.delete(key);
  else map.set(key, resource);
  return true;
}

function first(map: ReadonlyMap<string, Resource>): Resource | undefined {
  const key = [...map.keys()].sort()[0];
  return key === undefined ? undefined : map.get(key);
}

const sorted = (map: ReadonlyMap<string, Resource>): readonly Resource[] => [...map.keys()].sort().map((key) => map.get(key)!);

const labelKeys = (namespace: string, labels: Readonly<Record<string, string>>): string[] =>
  Object.entries(labels).map(([name, value]) => `${namespace} ${name}=${value}`);

/** One pair is enough to find candidates by; the first in order, so that it is always the same. */
function selectorKey(resource: Resource): string[] {
  const selector = selectorOf(resource);
  return selector === undefined ? [] : labelKeys(resource.metadata.namespace, selector).sort().slice(0, 1);
}

function fits(selector: Readonly<Record<string, string>> | undefined, workload: WorkloadModel): boolean {
  if (selector === undefined) return false;
  for (const name of Object.keys(selector)) if (workload.labels[name] !== selector[name]) return false;
  return true;
}

const serviceOfSlice = (slice: Resource): string =>
  `${slice.metadata.namespace}/${slice.metadata.labels['kubernetes.io/service-name'] ?? ''}`;

function workloadsOfSlice(slice: Resource): string[] {
  const endpoints = (slice.spec['endpoints'] ?? []) as readonly {
    readonly targetRef?: { readonly name?: string; readonly namespace?: string } | null;
  }[];
  return endpoints.flatMap((entry) =>
    entry.targetRef?.name === undefined ? [] : [`${entry.targetRef.namespace ?? slice.metadata.namespace}/${entry.targetRef.name}`],
  );
}

function placesOf(workload: WorkloadModel): string[] {
  const ports = new Set(Object.values(workload.ports));
  if (workload.sidecar !== undefined) ports.add(workload.sidecar.inboundPort);
  return [...ports].map((port) => `${workload.address} ${port}`);
}

/** Whether the same services have the same ports: what references are checked against. */
function sameShape(before: ReadonlyMap<string, ServiceModel>, after: ReadonlyMap<string, ServiceModel>): boolean {
  if (before === after) return true;
  if (before.size !== after.size) return false;
  for (const [key, service] of after) if (before.get(key)?.ports !== service.ports) return false;
  return true;
}

function sameProblems(before: readonly Problem[], after: readonly Problem[]): boolean {
  return before.length === after.length && before.every((problem, index) => problem === after[index]);
}

/** `routes.yaml:12:3`, or the name of the source. */
export function placeOf(of: { readonly origin: Resource['origin'] }): string {
  const { file, line, column, source } = of.origin;
  if (file === undefined) return source;
  return line === undefined ? file : `${file}:${line}:${column ?? 1}`;
}
