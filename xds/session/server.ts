/** The server's side of one xDS stream, state of the world or delta, aggregated or for one type: messages in, messages out, no I/O. */
import type { Clock } from '../../lib/clock.ts';
import { CODES, StreamError, canonicalNode, factsOf, takesWrappedResources } from './messages.ts';
import type { DiscoveryRequest, DiscoveryResponse, EncodedResource, Mode, NodeInfo, WireResource } from './messages.ts';
import type { ServerEvent, ServerSessionOptions, TypeStatus } from './server-options.ts';
import { ServedType } from './served-type.ts';
import type { Plan, ResourceSet, Verdict } from './served-type.ts';
import type { NameBudget } from './subscription.ts';
import { DEPENDANTS, isDeltaOnlyType, PREREQUISITES, pushRank, REFERRERS, shortName, VIRTUAL_HOST_TYPE } from './type-urls.ts';

export type { ResourceSet } from './served-type.ts';
export type { ServerEvent, ServerSessionOptions, TypeStatus } from './server-options.ts';

export class ServerSession {
  readonly mode: Mode;
  readonly #options: ServerSessionOptions;
  readonly #clock: Clock;
  readonly #types = new Map<string, ServedType>();
  /** The same, in push order. */
  #ordered: readonly ServedType[] = [];
  readonly #budget: NameBudget;
  #node: NodeInfo | undefined;
  #nodeText = '';
  #wrap = false;
  #resources: ResourceSet | undefined;
  #nonce = 0;
  #cancelTimer: (() => void) | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(options: ServerSessionOptions) {
    this.mode = options.mode;
    this.#options = options;
    this.#clock = options.clock;
    const { strangeNames: strange, onEvicted: evict } = options;
    const shared = { ...(strange === undefined ? {} : { strange }), ...(evict === undefined ? {} : { evict }) };
    this.#budget = { leftChars: options.nameCharsMax ?? 16 * 1024 * 1024, strangeChars: 0, ...shared };
  }

  /** From the first request of the stream; undefined before it. */
  get node(): NodeInfo | undefined {
    return this.#node;
  }

  /** Takes a request. Throws a StreamError where the protocol says that the stream must end. */
  receive(request: DiscoveryRequest): void {
    if (this.#closed) return;
    if (request.mode !== this.mode) throw new Error(`cannot give a ${request.mode} request to a ${this.mode} session`);
    this.#identify(request.node);
    const type = this.#type(request.typeUrl);
    const result = type.receive(request);
    if (result === 'stale') {
      this.#emit({ kind: 'stale', typeUrl: type.typeUrl, nonce: request.responseNonce });
      return;
    }
    if (result.verdict !== undefined) this.#emitVerdict(type, result.verdict);
    const { change } = result;
    if (change.added.length > 0 || change.removed.length > 0 || change.wildcardAdded || change.wildcardRemoved) {
      this.#emit({ kind: 'subscribed', typeUrl: type.typeUrl, change });
    }
    this.#options.onWork?.();
  }

  /** Takes a newer set of resources; what was not sent of the older one never is. */
  publish(resources: ResourceSet): void {
    this.#resources = resources;
    for (const type of this.#ordered) type.publish(resources);
    this.#options.onWork?.();
  }

  /** The next message to send, or undefined when nothing is due or everything due waits for an answer. Call it while the stream takes more. */
  next(): DiscoveryResponse | undefined {
    if (this.#closed || this.#resources === undefined) return undefined;
    const nowMs = this.#clock.now();
    for (const type of this.#ordered) {
      if (type.outstanding !== undefined) continue;
      const plan = type.plan();
      if (plan.due) {
        const response = this.#respond(type, plan, nowMs);
        if (response !== undefined) return response;
      }
      const heartbeat = this.#heartbeat(type, nowMs);
      if (heartbeat !== undefined) return heartbeat;
    }
    return undefined;
  }

  /** In push order. What it answers goes with the time: read it at once. */
  status(): readonly TypeStatus[] {
    return this.#ordered;
  }

  /** Names and versions of what the client was sent, or said that it has. */
  *sent(typeUrl: string): Iterable<readonly [name: string, version: string]> {
    for (const [name, { version }] of this.#types.get(typeUrl)?.sent() ?? []) yield [name, version];
  }

  /** Stops the timer; later calls of `next()` give nothing. */
  close(): void {
    this.#closed = true;
    this.#budget.strange?.leave(this.#budget);
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #identify(node: NodeInfo | undefined): void {
    if (this.#node === undefined) {
      if (node === undefined) throw new StreamError(CODES.invalidArgument, 'the first request of a stream must carry a node');
      this.#nodeText = canonicalNode(node);
      if (this.#nodeText.length > NODE_CHARS_MAX) {
        throw new StreamError(
          CODES.resourceExhausted,
          `a node may take at most ${NODE_CHARS_MAX} characters of JSON, received ${this.#nodeText.length}`,
        );
      }
      this.#node = node;
      this.#wrap = this.mode === 'sotw' && takesWrappedResources(node);
      this.#emit({ kind: 'identified', node });
    } else if (node !== undefined && node !== this.#node && canonicalNode(node) !== this.#nodeText) {
      throw new StreamError(
        CODES.invalidArgument,
        `a stream keeps its node: it began as ${quote(this.#node.id)} and now claims ${quote(node.id)}`,
      );
    }
  }

  #type(requested: string): ServedType {
    const fixed = this.#options.typeUrl;
    const typeUrl = requested === '' ? fixed : requested;
    if (typeUrl === undefined) throw new StreamError(CODES.invalidArgument, 'a request on an aggregated stream must carry a type URL');
    if (this.mode === 'sotw' && isDeltaOnlyType(typeUrl))
      throw new StreamError(CODES.invalidArgument, `${shortName(typeUrl)} is served on delta streams only`);
    if (fixed !== undefined && typeUrl !== fixed) {
      throw new StreamError(CODES.invalidArgument, `this method serves ${fixed} only, received ${quote(typeUrl)}`);
    }
    let type = this.#types.get(typeUrl);
    if (type === undefined) {
      const typesMax = this.#options.typesMax ?? 64;
      if (this.#types.size >= typesMax) throw new StreamError(CODES.resourceExhausted, `a stream may ask for at most ${typesMax} types`);
      type = new ServedType(this.mode, typeUrl, this.#options.namesMax ?? 100_000, this.#budget);
      if (this.#resources !== undefined) type.publish(this.#resources);
      this.#types.set(typeUrl, type);
      this.#ordered = [...this.#types.values()].sort((a, b) => pushRank(a.typeUrl) - pushRank(b.typeUrl));
    }
    return type;
  }

  #respond(type: ServedType, plan: Plan, nowMs: number): DiscoveryResponse | undefined {
    const late = type.heldSinceMs !== undefined && nowMs - type.heldSinceMs >= (this.#options.holdMsMax ?? 5_000);
    if (!late && plan.upserts.length > 0 && this.#prerequisitesMissing(type)) return this.#hold(type, nowMs);
    const removalsHeld = !late && plan.removals.length > 0 && this.#referrersUnsettled(type);
    const onlyRemovals = plan.upserts.length === 0 && plan.absents.length === 0;
    if (removalsHeld && onlyRemovals) return this.#hold(type, nowMs);
    if (!removalsHeld && plan.removals.length > 0) type.resumed = false;
    if (this.mode === 'delta') return this.#respondDelta(type, plan, removalsHeld);
    return this.#respondSotw(type, plan, removalsHeld);
  }

  #respondDelta(type: ServedType, plan: Plan, removalsHeld: boolean): DiscoveryResponse {
    const upserts = withinBytes(plan.upserts, this.#options.responseBytesMax ?? 32 * 1024 * 1024);
    const removals = removalsHeld ? [] : plan.removals;
    const { nonce, version } = this.#book(type, upserts, [...plan.absents, ...removals], plan.additions);
    const shared = { mode: 'delta', typeUrl: type.typeUrl, versionInfo: version, nonce } as const;
    if (plan.absents.length === 0) return { ...shared, resources: upserts, removed: removals };
    if (!isDeltaOnlyType(type.typeUrl)) return { ...shared, resources: upserts, removed: [...plan.absents, ...removals] };
    // Of a virtual host that does not exist the client hears by a resource without a body (rule 44).
    const unknown = plan.absents.map((name): WireResource => ({ name, version: '', typeUrl: type.typeUrl, aliases: [name] }));
    return { ...shared, resources: [...upserts, ...unknown], removed: removals };
  }

  #respondSotw(type: ServedType, plan: Plan, removalsHeld: boolean): DiscoveryResponse {
    const upserts = type.fullState ? type.everything() : plan.upserts;
    // What is to go stays in the full state until nothing points at it.
    const held = type.fullState && removalsHeld ? plan.removals.flatMap((name) => type.sentResource(name) ?? []) : [];
    const resources = held.length === 0 ? upserts : [...upserts, ...held];
    const updated = plan.upserts.length > plan.additions;
    const { nonce, version } = this.#book(type, upserts, removalsHeld ? [] : plan.removals, plan.additions);
    const dependant = this.#types.get(DEPENDANTS.get(type.typeUrl) ?? '');
    if (updated && dependant !== undefined) dependant.answerNext = true;
    return { mode: 'sotw', typeUrl: type.typeUrl, versionInfo: version, nonce, resources, wrapped: this.#wrap };
  }

  #book(
    type: ServedType,
    upserts: readonly EncodedResource[],
    gone: readonly string[],
    additions: number,
  ): { nonce: string; version: string } {
    this.#nonce += 1;
    const nonce = String(this.#nonce);
    const version = type.setVersion;
    type.book({ nonce, version, upserts, gone, additions });
    if (this.mode === 'delta' || this.#wrap) this.#schedule(type, upserts);
    this.#emit({ kind: 'sent', typeUrl: type.typeUrl, version, nonce, resources: upserts.length });
    return { nonce, version };
  }

  /** Refreshes the time to live of what the client has: same version, no body (rule 40). */
  #heartbeat(type: ServedType, nowMs: number): DiscoveryResponse | undefined {
    if (type.heartbeatDueMs.size === 0) return undefined;
    const resources: WireResource[] = [];
    for (const [name, dueMs] of type.heartbeatDueMs) {
      const resource = type.sentResource(name);
      if (dueMs > nowMs || resource?.ttlMs === undefined) continue;
      resources.push({ name: resource.name, version: resource.version, typeUrl: type.typeUrl, ttlMs: resource.ttlMs });
      type.heartbeatDueMs.set(name, nowMs + resource.ttlMs / HEARTBEATS_PER_TTL);
      this.#wakeAt(nowMs + resource.ttlMs / HEARTBEATS_PER_TTL);
    }
    if (resources.length === 0) return undefined;
    const { nonce, version } = this.#book(type, [], [], 0);
    const shared = { typeUrl: type.typeUrl, versionInfo: version, nonce, resources };
    return this.mode === 'delta' ? { mode: 'delta', ...shared, removed: [] } : { mode: 'sotw', ...shared, wrapped: true };
  }

  #schedule(type: ServedType, upserts: readonly EncodedResource[]): void {
    if (type.heartbeatDueMs.size === 0 && !factsOf(upserts).hasTtl) return;
    const nowMs = this.#clock.now();
    for (const resource of upserts) {
      if (resource.ttlMs === undefined) type.heartbeatDueMs.delete(resource.name);
      else {
        type.heartbeatDueMs.set(resource.name, nowMs + resource.ttlMs / HEARTBEATS_PER_TTL);
        this.#wakeAt(nowMs + resource.ttlMs / HEARTBEATS_PER_TTL);
      }
    }
  }

  /** New resources of an earlier type are not sent or not answered yet. */
  #prerequisitesMissing(type: ServedType): boolean {
    for (const typeUrl of PREREQUISITES.get(type.typeUrl) ?? []) {
      const earlier = this.#types.get(typeUrl);
      if (earlier === undefined || earlier === type) continue;
      if ((earlier.outstanding?.additions ?? 0) > 0 || earlier.plan().additions > 0) return true;
    }
    return false;
  }

  /** A client that came back with what it had will ask for the types that point at it, even if it has not yet. */
  #referrersUnsettled(type: ServedType): boolean {
    const resumed = type.resumed && this.#options.typeUrl === undefined;
    return (REFERRERS.get(type.typeUrl) ?? []).some((typeUrl) => {
      const referrer = this.#types.get(typeUrl);
      // Most clients never ask for virtual hosts.
      return referrer === undefined ? resumed && typeUrl !== VIRTUAL_HOST_TYPE : !referrer.settled;
    });
  }

  #hold(type: ServedType, nowMs: number): undefined {
    type.heldSinceMs ??= nowMs;
    this.#wakeAt(type.heldSinceMs + (this.#options.holdMsMax ?? 5_000));
    return undefined;
  }

  #wakeAt(dueMs: number): void {
    if (this.#closed || dueMs >= this.#timerDueMs) return;
    this.#cancelTimer?.();
    this.#timerDueMs = dueMs;
    this.#cancelTimer = this.#clock.after(dueMs - this.#clock.now(), () => {
      this.#timerDueMs = Number.POSITIVE_INFINITY;
      this.#cancelTimer = undefined;
      this.#rearm();
      this.#options.onWork?.();
    });
  }

  /** One timer serves all; what it did not fire for is looked up again. */
  #rearm(): void {
    const nowMs = this.#clock.now();
    for (const type of this.#ordered) {
      for (const dueMs of type.heartbeatDueMs.values()) if (dueMs > nowMs) this.#wakeAt(dueMs);
      const holdDueMs = type.heldSinceMs === undefined ? 0 : type.heldSinceMs + (this.#options.holdMsMax ?? 5_000);
      if (holdDueMs > nowMs) this.#wakeAt(holdDueMs);
    }
  }

  #emitVerdict(type: ServedType, verdict: Verdict): void {
    const { nonce, version } = verdict;
    if (verdict.error === undefined) this.#emit({ kind: 'acked', typeUrl: type.typeUrl, version, nonce });
    else this.#emit({ kind: 'nacked', typeUrl: type.typeUrl, version, nonce, message: type.rejection?.message ?? '' });
  }

  #emit(event: ServerEvent): void {
    this.#options.onEvent?.(event);
  }
}

/** A node is kept as long as its stream; Istio's biggest are some ten thousand characters. */
const NODE_CHARS_MAX = 1024 * 1024;

/** A client misses two heartbeats before a resource expires. */
const HEARTBEATS_PER_TTL = 3;

/** As many as fit, and one at least, so that a single big resource still goes out. */
function withinBytes(resources: readonly EncodedResource[], bytesMax: number): readonly EncodedResource[] {
  if (factsOf(resources).bytes <= bytesMax) return resources;
  let bytes = 0;
  for (let index = 0; index < resources.length; index++) {
    bytes += resources[index]!.bytes.length;
    if (bytes > bytesMax && index > 0) return resources.slice(0, index);
  }
  return resources;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
