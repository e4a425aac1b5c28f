/** The source of workloads that register themselves: each has a lease, renews it by heartbeats, and is gone when it ends. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import { below, secretToken } from '../../lib/random.ts';
import type { Json, JsonObject } from '../../xds/snapshot.ts';
import { validateResource } from '../kinds/validate.ts';
import type { Store } from '../store/store.ts';
import type { Origin, Resource, ServiceModel, Source, SourceState, World } from '../world.ts';
import { documentOf } from './api.ts';
import { createPushedSource } from './state.ts';

/** What a workload says about itself. Checked at the API's door. */
export interface RegistrationRequest {
  /** Service that it is an instance of; made when there is none. Undefined = only `labels` decide. */
  readonly service?: string;
  readonly namespace: string;
  /** Undefined = made from the service's name. */
  readonly name?: string;
  readonly address: string;
  /** Port name -> application port. */
  readonly ports: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly weight: number;
  readonly serviceAccount: string;
  readonly locality?: { readonly region?: string; readonly zone?: string; readonly subZone?: string };
  readonly sidecar?: {
    readonly inboundPort: number;
    readonly outboundPort: number;
    readonly bindAddress: string;
    readonly adminPort: number;
  };
  /** Ports of the service that is made when there is none. Default: 80 for a port named `http`, else the application's own number. */
  readonly servicePorts?: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
  /** False = known, but not yet answering: it gets traffic after a heartbeat says that it is ready. */
  readonly ready: boolean;
  readonly ttlMs: number;
}

export interface Registration extends RegistrationRequest {
  readonly id: string;
  readonly name: string;
  readonly draining: boolean;
}

export interface Registered {
  readonly registration: Registration;
  readonly secret: string;
  readonly changeId: string;
}

/**
 * `gone`: no such lease (it ended, or the control plane forgot); register again. `secret`: not the holder's. `taken`: the name is in use.
 * `full`: too many. `invalid`: the Workload or Service that it would be is not valid.
 */
export type RegistrationProblem = 'gone' | 'secret' | 'taken' | 'full' | 'invalid';

export class RegistrationError extends Error {
  override readonly name = 'RegistrationError';
  readonly reason: RegistrationProblem;
  constructor(reason: RegistrationProblem, message: string) {
    super(message);
    this.reason = reason;
  }
}

export interface Registrations {
  readonly source: Source;
  register(request: RegistrationRequest): Registered;
  /** Renews the lease; a `draining` or `ready` that differs changes the world. */
  heartbeat(id: string, secret: string, state: { readonly draining?: boolean; readonly ready?: boolean }): { readonly ttlMs: number };
  /** Ends the lease at once. */
  remove(id: string, secret: string): { readonly changeId: string };
  /** The registration, for its holder only. */
  holder(id: string, secret: string): Registration;
  list(): readonly Registration[];
  /** Calls `listener` with the id of every lease that ends from now on; the answer stops that. */
  ended(listener: (id: string) => void): () => void;
  /** What the source says now. */
  state(): SourceState;
  /** The catalog's newest world: says which services others define. */
  world(world: World): void;
  close(): void;
}

export interface RegistrationsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: Store;
  /** Notes a change; answers its id and what to call when the catalog has taken it in. */
  readonly change: (resources: readonly string[]) => { readonly id: string; readonly taken: () => void };
}

interface Lease {
  readonly registration: Registration;
  readonly secretHash: string;
  cancel: () => void;
}

const LEASES_MAX = 10_000;
/** After a restart every lease runs at least this long, so that holders can find their way back before anything is removed. */
const GRACE_MS = 45_000;
/** A timer that fires later than this after its time tells of a stopped process, a suspended machine or a long stall. */
const LATE_MS_MAX = 1_000;
const SERVICE_LABEL = 'app';
const ORIGIN: Origin = { source: 'registrations' };

/** Makes the source and takes up the leases that the store remembers. */
export function createRegistrations(deps: RegistrationsDeps): Registrations {
  const { clock, store, log } = deps;
  const leases = new Map<string, Lease>();
  const listeners = new Set<(id: string) => void>();
  let foreign: ReadonlyMap<string, ServiceModel> = new Map();
  let emitted = new Map<string, { readonly text: string; readonly resource: Resource }>();
  /** The catalog knows a change by the object, so what is equal stays the same object. */
  const resources = (): readonly Resource[] => {
    const next = new Map<string, { readonly text: string; readonly resource: Resource }>();
    for (const resource of resourcesOf(
      [...leases.values()].map((lease) => lease.registration),
      foreign,
    )) {
      const key = `${resource.kind} ${resource.metadata.namespace}/${resource.metadata.name}`;
      const text = JSON.stringify(resource);
      const before = emitted.get(key);
      next.set(key, before?.text === text ? before : { text, resource });
    }
    emitted = next;
    return [...next.values()].map((entry) => entry.resource);
  };
  const pushed = createPushedSource('registrations', { resources: [], problems: [] });
  let last: readonly Resource[] = [];
  const emit = (taken?: () => void): void => {
    last = resources();
    pushed.set({ resources: last, problems: [] }, taken);
  };
  const drop = (lease: Lease, why: string): string => {
    lease.cancel();
    leases.delete(lease.registration.id);
    try {
      store.delete('leases', lease.registration.id);
    } catch (error) {
      // It is gone all the same; after a restart it would come back for one grace period.
      log.error('The end of a lease could not be stored.', { workload: workloadKey(lease.registration), error });
    }
    log.info(`A registration ended: ${why}.`, { workload: workloadKey(lease.registration) });
    const change = deps.change([`Workload ${workloadKey(lease.registration)}`]);
    emit(change.taken);
    for (const listener of listeners) listener(lease.registration.id);
    return change.id;
  };
  const arm = (lease: Lease, ms: number): void => {
    lease.cancel();
    const dueMs = clock.now() + ms;
    lease.cancel = clock.after(ms, () => {
      // A timer that comes late means that this process stood still, and heartbeats wait unread: their senders are not to blame.
      if (clock.now() - dueMs > LATE_MS_MAX) arm(lease, lease.registration.ttlMs);
      else drop(lease, 'its lease was not renewed in time');
    });
  };
  const found = (id: string, secret: string): Lease => {
    const lease = leases.get(id);
    if (lease === undefined)
      throw new RegistrationError('gone', `there is no lease ${id}; it has ended, or the control plane has forgotten it: register again`);
    if (!sameHash(hashOf(secret), lease.secretHash)) throw new RegistrationError('secret', `the secret is not the one of lease ${id}`);
    return lease;
  };
  for (const { key, value } of store.list('leases')) {
    const { registration, secretHash } = value as unknown as { registration: Registration; secretHash: string };
    const lease: Lease = { registration, secretHash, cancel: () => undefined };
    leases.set(key, lease);
    arm(lease, Math.max(registration.ttlMs, GRACE_MS));
  }
  emit();
  const save = (lease: Lease): void =>
    store.put('leases', lease.registration.id, { registration: lease.registration, secretHash: lease.secretHash } as unknown as Json);
  return {
    source: pushed,
    register(request) {
      const registration = nameRegistration(request, leases, deps.random);
      for (const made of resourcesOf([registration], foreign)) {
        const [problem] = validateResource(documentOf(made), ORIGIN).problems;
        if (problem !== undefined)
          throw new RegistrationError('invalid', `${problem.resource} would not be valid: ${problem.field} ${problem.message}`);
      }
      const secret = secretToken();
      const lease: Lease = { registration, secretHash: hashOf(secret), cancel: () => undefined };
      save(lease);
      leases.set(registration.id, lease);
      arm(lease, registration.ttlMs);
      const change = deps.change([`Workload ${workloadKey(registration)}`]);
      emit(change.taken);
      log.info('A workload registered.', { workload: workloadKey(registration), address: registration.address });
      return { registration, secret, changeId: change.id };
    },
    heartbeat(id, secret, state) {
      const lease = found(id, secret);
      const { draining = lease.registration.draining, ready = lease.registration.ready } = state;
      if (draining !== lease.registration.draining || ready !== lease.registration.ready) {
        const next: Lease = { ...lease, registration: { ...lease.registration, draining, ready } };
        save(next);
        lease.cancel();
        leases.set(id, next);
        arm(next, next.registration.ttlMs);
        emit(deps.change([`Workload ${workloadKey(next.registration)}`]).taken);
        return { ttlMs: next.registration.ttlMs };
      }
      arm(lease, lease.registration.ttlMs);
      return { ttlMs: lease.registration.ttlMs };
    },
    remove: (id, secret) => ({ changeId: drop(found(id, secret), 'its holder ended it') }),
    holder: (id, secret) => found(id, secret).registration,
    list: () => [...leases.values()].map((lease) => lease.registration),
    ended(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    state: () => ({ resources: last, problems: [] }),
    world(world) {
      foreign = new Map([...world.services].filter(([, service]) => service.origin.source !== ORIGIN.source));
      const next = resources();
      if (next.length !== last.length || next.some((resource, index) => resource !== last[index])) emit();
    },
    close() {
      for (const lease of leases.values()) lease.cancel();
    },
  };
}

function nameRegistration(request: RegistrationRequest, leases: ReadonlyMap<string, Lease>, random: Random): Registration {
  if (leases.size >= LEASES_MAX) throw new RegistrationError('full', `there are ${LEASES_MAX} registrations already`);
  const names = new Set([...leases.values()].map((lease) => workloadKey(lease.registration)));
  const suffix = (): string => Array.from({ length: 5 }, () => 'bcdfghjklmnpqrstvwxz2456789'[below(random, 27)]).join('');
  let name = request.name ?? `${(request.service ?? 'workload').slice(0, 57)}-${suffix()}`;
  if (request.name === undefined) while (names.has(`${request.namespace}/${name}`)) name = `${name.slice(0, -5)}${suffix()}`;
  if (names.has(`${request.namespace}/${name}`))
    throw new RegistrationError('taken', `a workload ${request.namespace}/${name} is registered already; its lease has to end first`);
  return { ...request, name, id: secretToken(12), draining: false };
}

/** One Workload per lease, and one Service for each service name that nobody else defines. Sorted, so that equal leases give equal resources. */
function resourcesOf(registrations: readonly Registration[], foreign: ReadonlyMap<string, ServiceModel>): readonly Resource[] {
  const made = new Map<string, Resource>();
  const workloads: Resource[] = [];
  for (const registration of registrations.toSorted((left, right) => (workloadKey(left) < workloadKey(right) ? -1 : 1))) {
    const key = `${registration.namespace}/${registration.service ?? ''}`;
    const defined = registration.service === undefined ? undefined : foreign.get(key);
    const takesCalls = Object.keys(registration.ports).length > 0;
    if (registration.service !== undefined && takesCalls && defined === undefined && !made.has(key))
      made.set(key, implicitService(registration, registration.service));
    workloads.push(workloadOf(registration, defined));
  }
  return [...made.values(), ...workloads];
}

function workloadOf(registration: Registration, service: ServiceModel | undefined): Resource {
  const fromService = service?.selector ?? (registration.service === undefined ? {} : { [SERVICE_LABEL]: registration.service });
  const spec: Record<string, Json> = {
    address: registration.address,
    ports: { ...registration.ports },
    weight: registration.weight,
    serviceAccount: registration.serviceAccount,
  };
  if (registration.locality !== undefined) spec['locality'] = { ...registration.locality };
  if (registration.sidecar !== undefined) spec['sidecar'] = { ...registration.sidecar };
  if (registration.draining) spec['draining'] = true;
  if (registration.ready === false) spec['healthy'] = false;
  return resource('meshwork.dev/v1alpha1', 'Workload', registration, registration.name, { ...fromService, ...registration.labels }, spec);
}

function implicitService(registration: Registration, name: string): Resource {
  const named = Object.entries(registration.ports).map(([port, number]) => ({
    name: port,
    port: port === 'http' ? 80 : number,
    protocol: port === 'tcp' || port === 'grpc' || port === 'http2' ? port : 'http',
  }));
  const ports = (registration.servicePorts ?? named).map((port) => ({
    name: port.name,
    port: port.port,
    targetPort: port.name,
    protocol: 'TCP',
    appProtocol: port.protocol,
  }));
  return resource('v1', 'Service', registration, name, {}, { selector: { [SERVICE_LABEL]: name }, ports });
}

function resource(
  apiVersion: string,
  kind: string,
  { namespace }: Registration,
  name: string,
  labels: Readonly<Record<string, string>>,
  spec: JsonObject,
): Resource {
  return { apiVersion, kind, metadata: { name, namespace, labels, annotations: {} }, spec, origin: ORIGIN };
}

function workloadKey(registration: Registration): string {
  return `${registration.namespace}/${registration.name}`;
}

function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('base64url');
}

function sameHash(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
