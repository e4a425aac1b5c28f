/** One cluster as it lives in the proxy: its endpoints, breakers and picker, which outlast every push, and the service that sends to it. */
import type { Registry } from '../../lib/metrics.ts';
import type { Address, Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import { ProxyError } from '../errors.ts';
import { promised } from '../promised.ts';
import type { Picker, ProxyRequest, ProxyResponse, Reply } from '../service.ts';
import { Dispatch } from './dispatch.ts';
import { ClusterStats } from './cluster-stats.ts';
import { endpointKey, poolSettings } from './compile-cluster.ts';
import type { CompiledCluster } from './compile-cluster.ts';
import { DynamicMembers } from './dynamic.ts';
import { Ejections } from './ejections.ts';
import type { Endpoint, Pool } from './endpoint.ts';
import { PriorityLimits } from './limits.ts';
import type { Limits } from './limits.ts';
import { Member } from './member.ts';
import { select } from './selection.ts';
import { Upkeep } from './upkeep.ts';
import type { UpkeepDeps } from './upkeep.ts';

/** What a pool may know of its cluster. `config` is the one in force when the pool is made. */
export interface PoolCluster {
  readonly name: string;
  readonly config: Cluster;
  readonly limits: Limits;
  readonly stats: ClusterStats;
}

export type MakePool = (endpoint: Member, cluster: PoolCluster) => Pool;
export type Priority = 'DEFAULT' | 'HIGH';

export interface ClusterDeps extends UpkeepDeps {
  readonly metrics: Registry;
  readonly makePool: MakePool;
}

/** Slow start and picker: how often weights are brought up to date while somebody warms up. */
const SLOW_START_STEPS = 20;
const SLOW_START_STEP_MS_MIN = 100;
const OVERPROVISIONING = 140;
const NO_ENDPOINTS: LoadAssignment = { clusterName: '', localities: [], overprovisioningFactor: OVERPROVISIONING, dropPercent: 0 };

export class UpstreamCluster {
  readonly name: string;
  readonly stats: ClusterStats;
  readonly limits: PriorityLimits;
  config: Cluster;
  /** An EDS cluster is warm once an assignment came, even an empty one; the others are from the start or their first DNS answer. */
  warm = false;
  /** The one assignment by which membership and health reach requests. */
  picker: Picker = () => undefined;
  panic = false;
  readonly members = new Map<string, Member>();
  readonly #deps: ClusterDeps;
  readonly #find: (name: string) => UpstreamCluster | undefined;
  #compiled: CompiledCluster;
  #assignment: LoadAssignment | undefined = undefined;
  readonly #ejections: Ejections;
  readonly #upkeep: Upkeep;
  readonly #dispatch: Dispatch;
  #dynamic: DynamicMembers | undefined = undefined;
  #stopSlowStart: (() => void) | undefined = undefined;
  readonly #makePool = (member: Member): Pool => this.#deps.makePool(member, this.#poolCluster());
  #closed = false;

  /** `find` answers other clusters by name, for aggregates. */
  constructor(compiled: CompiledCluster, deps: ClusterDeps, find: (name: string) => UpstreamCluster | undefined = () => undefined) {
    this.#deps = deps;
    this.#find = find;
    this.#compiled = compiled;
    this.config = compiled.config;
    this.name = compiled.config.name;
    this.stats = new ClusterStats(deps.metrics, compiled.config.altStatName === '' ? compiled.config.name : compiled.config.altStatName);
    this.limits = new PriorityLimits(this.config.circuitBreakers, this.stats.scope);
    this.#upkeep = new Upkeep(this, deps);
    this.#ejections = new Ejections(this, deps);
    this.#dispatch = new Dispatch(this, deps, this.#ejections);
    this.#ejections.configure(this.config.outlierDetection);
    this.#follow();
  }

  get compiled(): CompiledCluster {
    return this.#compiled;
  }

  /** Share of requests that the control plane wants dropped. */
  get dropPercent(): number {
    return this.#assignment?.dropPercent ?? 0;
  }

  /** The balancer looks at `endpoint.latencyMs`. */
  get needsLatency(): boolean {
    return this.#compiled.kind.needsLatency === true;
  }

  /** Takes a new configuration. Endpoints, connections and counts stay; changed connection settings hold for new connections. */
  configure(compiled: CompiledCluster): void {
    if (compiled.config === this.config) return;
    const renewed = poolSettings(compiled.config) !== poolSettings(this.config);
    this.#compiled = compiled;
    this.config = compiled.config;
    this.limits.apply(this.config.circuitBreakers);
    if (renewed) for (const member of this.members.values()) member.renewPool();
    this.#ejections.configure(this.config.outlierDetection);
    this.#follow();
  }

  /** Takes a new membership. Endpoints are kept by address; those left out get no new requests and finish the old ones. */
  assign(assignment: LoadAssignment): void {
    const before = this.#assignment;
    if (this.warm && assignment === before) return;
    this.#assignment = assignment;
    let changed = !this.warm || before === undefined || frame(before) !== frame(assignment);
    const named = new Set<string>();
    const priorities = new Set<number>();
    let joined = false;
    for (const { locality, priority, endpoints } of assignment.localities) {
      for (const endpoint of endpoints) {
        const key = endpointKey(endpoint.address);
        // The same address twice in an assignment is one endpoint; the first, which has the better priority, counts.
        if (named.has(key)) continue;
        named.add(key);
        let member = this.members.get(key);
        if (member === undefined) {
          joined = true;
          priorities.add(priority);
          member = this.#makeMember(key, endpoint.address);
          this.#upkeep.joined(member);
          this.members.set(key, member);
        }
        if (member.announce(endpoint, locality, priority)) changed = true;
      }
    }
    let left = false;
    for (const [key, member] of this.members) {
      if (named.has(key)) continue;
      left = true;
      priorities.add(member.priority);
      member.removed = true;
      this.members.delete(key);
      member.renewPool();
    }
    this.warm = true;
    // DNS counts its answers by itself.
    if (this.config.type === 'EDS') this.stats.updated(changed || joined || left);
    if (joined || left) {
      this.stats.membershipChanged(priorities.size);
      this.#upkeep.membersChanged();
    }
    // A consistent balancer's table is dear: it is built anew only for what it depends on.
    if (joined || left || changed) this.refresh();
  }

  /** Rebuilds the picker from what is known now. Cheap enough for every change of health. */
  refresh(): void {
    if (this.#closed) return;
    const nowMs = this.#deps.clock.now();
    const members = [...this.members.values()];
    for (const member of members) member.settle(nowMs, this.config.slowStart);
    this.#ejections.setMembers(members);
    const selection = select({
      endpoints: members,
      cluster: this.config,
      localities: this.#assignment?.localities ?? [],
      overprovisioningFactor: this.#assignment?.overprovisioningFactor ?? OVERPROVISIONING,
      balancer: this.#compiled.balancer,
      random: this.#deps.random,
    });
    this.panic = selection.panic;
    const dynamic = this.#dynamic;
    this.picker = dynamic === undefined ? selection.picker : (request) => dynamic.pick(request);
    this.#gauges(members);
    this.#armSlowStart(members, nowMs);
  }

  /** Membership that is in the cluster itself. EDS comes from outside by `assign`. */
  #follow(): void {
    if (this.config.type === 'STATIC') this.assign(this.config.loadAssignment ?? NO_ENDPOINTS);
    if (this.config.type === 'AGGREGATE' || this.config.type === 'DYNAMIC_FORWARD_PROXY') this.warm = true;
    if (this.config.type === 'DYNAMIC_FORWARD_PROXY') {
      this.#dynamic ??= new DynamicMembers(
        (key, address) => {
          const member = this.#makeMember(key, address);
          this.members.set(key, member);
          return member;
        },
        (member) => {
          this.members.delete(member.key);
          member.renewPool();
        },
      );
    } else this.#dynamic = undefined;
    this.#upkeep.configure(this.config);
    this.refresh();
  }

  #makeMember(key: string, address: Address): Member {
    return new Member(key, address, this.#deps.clock.now(), this.#makePool);
  }

  /** Has the bytes of its connections counted, before statistics are read. */
  countBytes(): void {
    for (const member of this.members.values()) member.countBytes();
  }

  /** Requests are under way. */
  busy(): boolean {
    return this.limits.active > 0;
  }

  /** True when a request would find somebody without panic: what an aggregate cluster asks. */
  get available(): boolean {
    const parts = this.config.aggregateClusters;
    if (parts !== undefined) return parts.some((name) => this.#find(name)?.available === true);
    if (this.#dynamic !== undefined) return true;
    for (const member of this.members.values()) if (member.health === 'healthy' || member.health === 'degraded') return true;
    return false;
  }

  /**
   * Sends one attempt: breaker, pick, endpoint; counts until the answer's last byte. With `autoHost` the endpoint's host name becomes the
   * request's authority. Answers are charged to `charged`, the cluster that the route names.
   */
  start(request: ProxyRequest, priority: Priority, autoHost: boolean, reply: Reply, charged = this.stats): void {
    if (this.config.aggregateClusters === undefined) this.#dispatch.attempt(request, priority, autoHost, reply, charged);
    else this.#preferred(request, priority, autoHost, reply, charged);
  }

  /** The same with a promise. Rejects with `ProxyError`. */
  send(request: ProxyRequest, priority: Priority = 'DEFAULT', autoHost = false): Promise<ProxyResponse> {
    return promised((sent, reply) => this.start(sent, priority, autoHost, reply), request);
  }

  /** Lets go of timers and connections; requests under way finish. */
  close(): void {
    this.#closed = true;
    this.#ejections.close();
    this.#upkeep.close();
    this.#stopSlowStart?.();
    for (const member of this.members.values()) member.renewPool();
    this.members.clear();
    this.#gauges([]);
    this.picker = () => undefined;
    this.stats.scope.release();
  }

  /** An aggregate sends through the first cluster that has somebody available, else through the last there is, whose error then tells. */
  #preferred(request: ProxyRequest, priority: Priority, autoHost: boolean, reply: Reply, charged: ClusterStats): void {
    let last: UpstreamCluster | undefined;
    for (const name of this.config.aggregateClusters ?? []) {
      const candidate = this.#find(name);
      if (candidate === undefined) continue;
      last = candidate;
      if (candidate.available) break;
    }
    if (last !== undefined) last.start(request, priority, autoHost, reply, charged);
    else reply.failed(new ProxyError('noHealthyEndpoint', `None of the clusters of aggregate ${this.name} exists.`));
  }

  #poolCluster(): PoolCluster {
    return { name: this.name, config: this.config, limits: this.limits.DEFAULT, stats: this.stats };
  }

  #armSlowStart(members: readonly Member[], nowMs: number): void {
    this.#stopSlowStart?.();
    this.#stopSlowStart = undefined;
    const windowMs = this.config.slowStart?.windowMs ?? 0;
    if (windowMs === 0 || !members.some((member) => member.health === 'healthy' && nowMs - member.addedMs < windowMs)) return;
    this.#stopSlowStart = this.#deps.clock.after(Math.max(SLOW_START_STEP_MS_MIN, windowMs / SLOW_START_STEPS), () => this.refresh());
  }

  #gauges(members: readonly Member[]): void {
    const count = (health: Endpoint['health']): number => members.filter((member) => member.health === health).length;
    const ejected = members.filter((member) => member.ejectedUntilMs > 0).length;
    this.stats.membership(members.length, count('healthy'), count('degraded'), count('draining'), ejected);
  }
}

/** What selection takes from an assignment besides its endpoints. */
function frame(assignment: LoadAssignment): string {
  return JSON.stringify([
    assignment.overprovisioningFactor,
    assignment.localities.map(({ locality, priority, weight }) => [locality, priority, weight]),
  ]);
}
