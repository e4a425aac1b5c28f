/** The client's side of xDS over many streams, state of the world or delta: subscriptions and responses in, requests and updates out, no I/O. */
import type { Clock } from '../../lib/clock.ts';
import type { DiscoveryRequest, DiscoveryResponse, Mode, NodeInfo, WireResource } from './messages.ts';
import { sortResponse } from './received.ts';
import type { ReceivedResource } from './received.ts';
import { RequestedType } from './requested-type.ts';
import type { Problem, ResourceStatus } from './requested-type.ts';
import { pushRank, ROUTE_TYPE, shortName, VIRTUAL_HOST_TYPE } from './type-urls.ts';

export type { ReceivedResource } from './received.ts';
export type { Problem, ResourceStatus } from './requested-type.ts';

/** What changed. The owner answers each with `settle`, and gets no other before that: this is the flow control (rule 49). */
export interface ClientUpdate {
  /** `missing`: asked for and not there; `expired`: its time to live is over. Both only remove. */
  readonly cause: 'response' | 'missing' | 'expired';
  readonly typeUrl: string;
  readonly version: string;
  readonly upserts: readonly ReceivedResource[];
  readonly removals: readonly string[];
}

export type ClientEvent =
  | { readonly kind: 'acked'; readonly typeUrl: string; readonly version: string }
  /** `repeated`: the same problems with the same version were told before (rule 17). */
  | {
      readonly kind: 'nacked';
      readonly typeUrl: string;
      readonly version: string;
      readonly problems: readonly Problem[];
      readonly repeated: boolean;
    };

export interface ClientSessionOptions {
  readonly mode: Mode;
  readonly clock: Clock;
  readonly node: NodeInfo;
  readonly onUpdate: (update: ClientUpdate) => void;
  /** Told when `next()` may have something. */
  readonly onWork?: () => void;
  readonly onEvent?: (event: ClientEvent) => void;
  /** How long a requested resource may stay away before it counts as missing; default 15,000 (rule 29). */
  readonly missingMs?: number;
}

interface Job {
  readonly update: ClientUpdate;
  readonly nonce: string;
  /** Which stream it came from: an update that outlives its stream is applied and not answered. */
  readonly epoch: number;
  readonly resources: readonly WireResource[];
  readonly problems: readonly Problem[];
}

export class ClientSession {
  readonly #options: ClientSessionOptions;
  readonly #clock: Clock;
  readonly #types = new Map<string, RequestedType>();
  #mode: Mode;
  #connected = false;
  #nodeSent = false;
  #epoch = 0;
  #queue: (DiscoveryResponse | ClientUpdate)[] = [];
  #current: Job | undefined;
  #cancelTimer: (() => void) | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;

  constructor(options: ClientSessionOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#mode = options.mode;
  }

  get mode(): Mode {
    return this.#mode;
  }

  /** An update waits for its answer; whoever feeds the session should stop reading. */
  get busy(): boolean {
    return this.#current !== undefined;
  }

  /** Names may contain `*` for everything of the type. */
  subscribe(typeUrl: string, names: Iterable<string>): void {
    let type = this.#types.get(typeUrl);
    if (type === undefined) {
      type = new RequestedType(typeUrl);
      this.#types.set(typeUrl, type);
    }
    type.subscribe(names);
    this.#options.onWork?.();
  }

  /** Answers the names whose resources are no longer kept; no update tells of these. */
  unsubscribe(typeUrl: string, names: Iterable<string>): readonly string[] {
    const dropped = this.#types.get(typeUrl)?.unsubscribe(names) ?? [];
    this.#options.onWork?.();
    return dropped;
  }

  /** A stream is open. The mode may differ from the last stream's. */
  connected(mode: Mode = this.#mode): void {
    this.#epoch += 1;
    this.#mode = mode;
    this.#connected = true;
    this.#nodeSent = false;
    this.#queue = this.#queue.filter((waiting) => 'cause' in waiting);
    for (const type of this.#types.values()) type.restart();
    this.#options.onWork?.();
  }

  /** The stream is gone: what was accepted stays (rule 39), what was not processed is dropped. */
  disconnected(): void {
    this.#epoch += 1;
    this.#connected = false;
    this.#queue = this.#queue.filter((waiting) => 'cause' in waiting);
    for (const type of this.#types.values()) type.restart();
  }

  /** Takes a response of the current stream. */
  receive(response: DiscoveryResponse): void {
    if (!this.#connected) return;
    const type = this.#types.get(response.typeUrl);
    if (type !== undefined) type.unsettled += 1;
    this.#queue.push(response);
    this.#pump();
  }

  /** The owner has applied `update`, all but what `problems` name; a problem without a name rejects it whole. */
  settle(update: ClientUpdate, problems: readonly Problem[] = []): void {
    const job = this.#current;
    if (job === undefined || job.update !== update)
      throw new Error(`cannot settle an update of ${shortName(update.typeUrl)} that is not the current one`);
    this.#current = undefined;
    this.#finish(job, problems);
    this.#pump();
    this.#options.onWork?.();
  }

  /** The next request to send, or undefined. Does-not-exist timers start here. */
  next(): DiscoveryRequest | undefined {
    if (!this.#connected) return undefined;
    for (const type of [...this.#types.values()].sort((a, b) => pushRank(a.typeUrl) - pushRank(b.typeUrl))) {
      const request = type.next(this.#mode);
      if (request === undefined) continue;
      this.#awaitNames(type, request);
      if (this.#nodeSent) return request;
      this.#nodeSent = true;
      return { ...request, node: this.#options.node };
    }
    return undefined;
  }

  status(): { typeUrl: string; version: string; wildcard: boolean; resources: ResourceStatus[] }[] {
    return [...this.#types.values()].map((type) => ({
      typeUrl: type.typeUrl,
      version: type.acceptedVersion,
      wildcard: type.wildcard,
      resources: type.status(),
    }));
  }

  close(): void {
    this.disconnected();
    this.#queue = [];
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#types.clear();
  }

  #pump(): void {
    while (this.#current === undefined) {
      const waiting = this.#queue.shift();
      if (waiting === undefined) return;
      const job = 'cause' in waiting ? this.#localJob(waiting) : this.#responseJob(waiting);
      if (job === undefined) continue;
      this.#current = job;
      this.#options.onUpdate(job.update);
    }
  }

  /** Undefined when nobody needs to hear of the response; it is then answered already. */
  #responseJob(response: DiscoveryResponse): Job | undefined {
    const type = this.#types.get(response.typeUrl);
    if (type === undefined) return undefined;
    const { upserts, removals, heartbeats, problems, news } = sortResponse(type, response);
    for (const resource of heartbeats) this.#refresh(type, resource);
    const update: ClientUpdate = { cause: 'response', typeUrl: type.typeUrl, version: response.versionInfo, upserts, removals };
    const job = { update, nonce: response.nonce, epoch: this.#epoch, resources: response.resources, problems };
    if (news && type.isWanted) return job;
    this.#finish(job, []);
    return undefined;
  }

  #localJob(update: ClientUpdate): Job | undefined {
    const type = this.#types.get(update.typeUrl);
    const removals = update.removals.filter((name) => type?.matches(name) === true);
    if (removals.length === 0) return undefined;
    return { update: { ...update, removals }, nonce: '', epoch: this.#epoch, resources: [], problems: [] };
  }

  #finish(job: Job, ownerProblems: readonly Problem[]): void {
    const { update } = job;
    const type = this.#types.get(update.typeUrl);
    if (type === undefined) return;
    const problems = [...job.problems, ...ownerProblems];
    const bad = new Map(problems.map((problem) => [problem.name, problem.message]));
    const whole = ownerProblems.some((problem) => problem.name === '');
    const repeated = problems.length > 0 && problems.every((problem) => isRepeated(type, update.version, problem));
    const upserted = new Set(update.upserts.flatMap(({ name, aliases = [] }) => [name, ...aliases]));
    const ttls = new Map(job.resources.filter((wire) => wire.ttlMs !== undefined).map((wire) => [wire.name, wire]));
    for (const resource of update.upserts) {
      type.heard(resource.name);
      type.missing.delete(resource.name);
      if (whole || bad.has(resource.name)) continue;
      // Nobody wants it any more: it was given up while its update was looked at.
      if (!type.matches(resource.name, resource.aliases)) continue;
      const before = type.versions.get(resource.name);
      type.accept(resource.name, resource.version, resource.aliases);
      if (type.typeUrl === ROUTE_TYPE && before !== undefined && before !== resource.version)
        this.#types.get(VIRTUAL_HOST_TYPE)?.clear(`${resource.name}/`);
      this.#refresh(type, ttls.get(resource.name) ?? resource);
    }
    for (const resource of job.resources) for (const alias of resource.aliases ?? []) type.heard(alias);
    if (!whole) type.rejections.delete('');
    for (const { name, message } of problems) {
      if (name === '' || type.matches(name)) type.rejections.set(name, { version: update.version, message });
    }
    for (const name of whole ? [] : update.removals) {
      type.heard(name);
      // In the same response another resource may have taken the name over.
      if (upserted.has(name)) continue;
      type.release(name);
      if (type.names.has(name)) type.missing.add(name);
    }
    if (update.cause !== 'response') return;
    if (problems.length === 0) type.acceptedVersion = update.version;
    if (job.epoch === this.#epoch) {
      type.unsettled -= 1;
      type.answer(job.nonce, problems);
    }
    const { typeUrl, version } = update;
    this.#options.onEvent?.(
      problems.length === 0 ? { kind: 'acked', typeUrl, version } : { kind: 'nacked', typeUrl, version, problems, repeated },
    );
  }

  /** Starts or renews the time to live of a resource, or ends it when it came without one (rule 40). */
  #refresh(type: RequestedType, resource: { readonly name: string; readonly ttlMs?: number }): void {
    if (resource.ttlMs === undefined) type.expiryDueMs.delete(resource.name);
    else {
      type.expiryDueMs.set(resource.name, this.#clock.now() + resource.ttlMs);
      this.#wakeAt(this.#clock.now() + resource.ttlMs);
    }
  }

  #awaitNames(type: RequestedType, request: DiscoveryRequest): void {
    const dueMs = this.#clock.now() + (this.#options.missingMs ?? 15_000);
    for (const name of request.mode === 'delta' ? request.subscribe : request.resourceNames) {
      if (name === '*' || type.holds(name) || type.missing.has(name) || type.missingDueMs.has(name) || type.rejections.has(name)) continue;
      type.missingDueMs.set(name, dueMs);
      this.#wakeAt(dueMs);
    }
  }

  #wakeAt(dueMs: number): void {
    if (dueMs >= this.#timerDueMs) return;
    this.#cancelTimer?.();
    this.#timerDueMs = dueMs;
    this.#cancelTimer = this.#clock.after(dueMs - this.#clock.now(), () => {
      this.#timerDueMs = Number.POSITIVE_INFINITY;
      this.#cancelTimer = undefined;
      this.#sweep();
    });
  }

  #sweep(): void {
    const nowMs = this.#clock.now();
    for (const type of this.#types.values()) {
      for (const cause of ['missing', 'expired'] as const) {
        const table = cause === 'missing' ? type.missingDueMs : type.expiryDueMs;
        const removals: string[] = [];
        for (const [name, dueMs] of table) {
          if (dueMs > nowMs) this.#wakeAt(dueMs);
          else removals.push(name);
        }
        for (const name of removals) table.delete(name);
        if (removals.length > 0) this.#queue.push({ cause, typeUrl: type.typeUrl, version: '', upserts: [], removals });
      }
    }
    this.#pump();
  }
}

function isRepeated(type: RequestedType, version: string, problem: Problem): boolean {
  const before = type.rejections.get(problem.name);
  return before !== undefined && before.version === version && before.message === problem.message;
}
