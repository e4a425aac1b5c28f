/** One type on one stream as the server sees it: what is wanted, what was sent, what is due. Both protocol modes share it. */
import type { DeltaRequest, EncodedResource, ErrorDetail, Mode, SotwRequest } from './messages.ts';
import { errorText } from './messages.ts';
import { Subscription, spend } from './subscription.ts';
import type { NameBudget, SubscriptionChange } from './subscription.ts';
import { isDeltaOnlyType, isFullStateType } from './type-urls.ts';

/** Everything that one flavour of client may get, immutable; versions change exactly when content does. */
export interface ResourceSet {
  /** Version of all resources of the type together. */
  version(typeUrl: string): string;
  /** By name or alias. */
  get(typeUrl: string, name: string): EncodedResource | undefined;
  names(typeUrl: string): Iterable<string>;
  /**
   * Names that may differ between the set that had `version` and this one (added, changed, removed); undefined when that is not known.
   * It keeps the cost of a push to what changed, whatever the size of the mesh.
   */
  changedSince?(typeUrl: string, version: string): Iterable<string> | undefined;
}

/** What is due. `removals` are known to the client and must go; `absents` were asked for and do not exist. */
export interface Plan {
  readonly upserts: readonly EncodedResource[];
  /** How many of `upserts` the client does not have yet: these are what later types may point at. */
  readonly additions: number;
  readonly removals: readonly string[];
  readonly absents: readonly string[];
  readonly due: boolean;
}

/** What a client has: the resource itself, shared by all streams, or a version alone when only the client told us of it. */
type Sent = EncodedResource | { readonly version: string; readonly bytes?: undefined };

export interface Outstanding {
  readonly nonce: string;
  readonly version: string;
  readonly additions: number;
}

/** An answer to a response. */
export type Verdict = { readonly nonce: string; readonly version: string; readonly error: ErrorDetail | undefined };

export class ServedType {
  readonly typeUrl: string;
  readonly mode: Mode;
  readonly subscription: Subscription;
  /** A state-of-the-world response for LDS and CDS carries all there is. */
  readonly fullState: boolean;
  outstanding: Outstanding | undefined;
  lastNonce = '';
  lastVersion = '';
  ackedVersion = '';
  rejection: { readonly version: string; readonly message: string } | undefined;
  /** The parent type changed something that the client warms again: the next request is answered in full (rule 32). */
  answerNext = false;
  /** The client came back with resources of an earlier stream. */
  resumed = false;
  /** Since when a send waits for other types; undefined = it does not. */
  heldSinceMs: number | undefined;
  readonly sent = new Map<string, Sent>();
  readonly heartbeatDueMs = new Map<string, number>();
  #resources: ResourceSet | undefined;
  #requested = false;
  /** Names whose state may differ from what was sent; a name in `#forced` is answered even when it does not. */
  readonly #pending = new Set<string>();
  readonly #forced = new Set<string>();
  /** Virtual hosts that a client which came back says it has, until the resources say by which names it asked for them. */
  readonly #claimed = new Map<string, string>();
  #answerDue = false;
  #plan: Plan | undefined;

  readonly #budget: NameBudget;

  constructor(mode: Mode, typeUrl: string, namesMax: number, budget: NameBudget) {
    this.mode = mode;
    this.typeUrl = typeUrl;
    this.fullState = mode === 'sotw' && isFullStateType(typeUrl);
    this.subscription = new Subscription(typeUrl, namesMax, budget);
    this.#budget = budget;
  }

  /** Takes a newer set. The older one's unsent content is never sent: the newest wins. */
  publish(resources: ResourceSet): void {
    const seen = this.#resources?.version(this.typeUrl);
    this.#resources = resources;
    if (this.#claimed.size > 0) this.#bookClaimed(resources);
    if (seen === resources.version(this.typeUrl)) return;
    const changed = seen === undefined ? undefined : resources.changedSince?.(this.typeUrl, seen);
    if (changed === undefined) this.#examineAll();
    else for (const name of changed) this.#examine(name);
    this.#plan = undefined;
  }

  /** Answers what the request says about an earlier response, or undefined. State-of-the-world requests with a stale nonce are `'stale'` and change nothing (rule 11). */
  receive(request: SotwRequest | DeltaRequest): { verdict: Verdict | undefined; change: SubscriptionChange } | 'stale' {
    const first = !this.#requested;
    if (request.mode === 'sotw' && !first && request.responseNonce !== '' && request.responseNonce !== this.lastNonce) return 'stale';
    this.#requested = true;
    const verdict = this.#settle(request);
    const change =
      request.mode === 'sotw'
        ? this.subscription.replace(request.resourceNames)
        : this.subscription.adjust(
            request.subscribe.map((name) => this.#known(name)),
            request.unsubscribe,
            first,
          );
    if (request.mode === 'sotw') this.#applySotw(change, first);
    else this.#applyDelta(change, first ? request.initialVersions : new Map());
    this.#plan = undefined;
    return { verdict, change };
  }

  /** What is due now; computed once per change. */
  plan(): Plan {
    this.#plan ??= this.#makePlan();
    return this.#plan;
  }

  /** Every resource that the client wants and that exists: the body of a full-state response. */
  everything(): EncodedResource[] {
    const found: EncodedResource[] = [];
    for (const name of this.#wantedNames()) {
      const resource = this.#resources?.get(this.typeUrl, name);
      if (resource !== undefined) found.push(resource);
    }
    return found;
  }

  /** The resource under a name as it was last sent: a removal is held back in a full-state response with it. */
  sentResource(name: string): EncodedResource | undefined {
    const sent = this.sent.get(name);
    return sent?.bytes === undefined ? undefined : sent;
  }

  get setVersion(): string {
    return this.#resources?.version(this.typeUrl) ?? '';
  }

  /** Books a response as sent. */
  book(sent: { nonce: string; version: string; upserts: readonly EncodedResource[]; gone: readonly string[]; additions: number }): void {
    for (const name of sent.gone) this.#forget(name);
    for (const resource of sent.upserts) {
      if (this.subscription.matches(resource.name)) this.#settleName(resource.name, resource);
      // A resource is booked under its name and under each alias that was asked for.
      for (const alias of resource.aliases ?? []) if (this.subscription.names.has(alias)) this.#settleName(alias, resource);
    }
    this.#answerDue = false;
    this.#plan = undefined;
    if (sent.upserts.length > 0 || sent.gone.length > 0) this.heldSinceMs = undefined;
    this.lastNonce = sent.nonce;
    this.lastVersion = sent.version;
    this.outstanding = { nonce: sent.nonce, version: sent.version, additions: sent.additions };
  }

  /** Nothing waits to be sent and nothing waits for an answer. */
  get settled(): boolean {
    if (this.outstanding !== undefined) return false;
    const plan = this.plan();
    return plan.upserts.length === 0 && plan.removals.length === 0;
  }

  /** A response is acknowledged by its nonce, and rejected by an error alone (rules 8, 9). */
  #settle(request: SotwRequest | DeltaRequest): Verdict | undefined {
    const { outstanding } = this;
    if (outstanding === undefined || request.responseNonce === '' || request.responseNonce !== outstanding.nonce) return undefined;
    this.outstanding = undefined;
    if (request.error === undefined) {
      this.ackedVersion = outstanding.version;
      this.rejection = undefined;
    } else {
      this.rejection = { version: outstanding.version, message: errorText(request.error.message) };
    }
    return { nonce: outstanding.nonce, version: outstanding.version, error: request.error };
  }

  #applySotw(change: SubscriptionChange, first: boolean): void {
    for (const name of change.removed) this.#forget(name);
    if (change.wildcardRemoved) this.#forgetUnwanted();
    const again = this.answerNext && change.added.length === 0 && !this.subscription.isEmpty;
    this.answerNext = false;
    for (const name of first || again ? this.subscription.names : change.added) this.#force(name);
    if (change.wildcardAdded || again) this.#examineAll();
    if (this.fullState && (first || again || change.added.length > 0 || change.wildcardAdded)) {
      this.#answerDue = !this.subscription.isEmpty;
    }
  }

  #applyDelta(change: SubscriptionChange, initialVersions: ReadonlyMap<string, string>): void {
    for (const name of change.removed) {
      // A name dropped from inside the wildcard is answered: the client no longer knows whether it still exists (rule 20).
      if (this.subscription.wildcard) this.#force(name);
      else this.#forget(name);
    }
    if (change.wildcardRemoved) this.#forgetUnwanted();
    if (initialVersions.size > 0) this.resumed = true;
    for (const [name, version] of initialVersions) {
      const matched = this.subscription.matches(name);
      // What was asked for by an alias is known by it once the resources are.
      if (!matched && !(isDeltaOnlyType(this.typeUrl) && this.subscription.names.size > 0)) continue;
      spend(this.#budget, name);
      spend(this.#budget, version);
      if (!matched) {
        this.#claimed.set(name, version);
        continue;
      }
      const resource = this.#resources?.get(this.typeUrl, name);
      this.sent.set(this.#known(name), resource?.version === version && resource.name === name ? resource : { version });
    }
    for (const name of change.added) {
      if (initialVersions.has(name)) this.#examine(name);
      else this.#force(name);
    }
    if (this.#claimed.size > 0 && this.#resources !== undefined) this.#bookClaimed(this.#resources);
    if (change.wildcardAdded) {
      this.#examineAll();
      this.#answerDue = initialVersions.size === 0;
    }
  }

  /** Resources that a client which comes back has under names that it asked for by an alias. */
  #bookClaimed(resources: ResourceSet): void {
    for (const [name, version] of this.#claimed) {
      const resource = resources.get(this.typeUrl, name);
      const aliases = resource?.name === name ? (resource.aliases ?? []) : [];
      for (const alias of aliases) {
        if (!this.subscription.names.has(alias)) continue;
        this.sent.set(alias, resource?.version === version ? resource : { version });
        this.#forced.delete(alias);
      }
      // What is gone meanwhile is told by the name that the client has it under.
      if (resource === undefined) {
        this.sent.set(name, { version });
        this.#pending.add(name);
      }
    }
    this.#claimed.clear();
    this.#plan = undefined;
  }

  /** The name of what was sent under a name, where no wanted resource is called so any more: the client must let go of it by that name. */
  #replaced(name: string): string | undefined {
    const before = this.sent.get(name);
    if (this.mode !== 'delta' || before?.bytes === undefined) return undefined;
    const now = this.#resources?.get(this.typeUrl, before.name);
    if (now?.name !== before.name) return before.name;
    const wanted = this.subscription.matches(now.name) || now.aliases?.some((alias) => this.subscription.names.has(alias)) === true;
    return wanted ? undefined : before.name;
  }

  #makePlan(): Plan {
    const resources = this.#resources;
    if (resources === undefined) return NOTHING;
    const upserts = new Map<string, EncodedResource>();
    const removals = new Set<string>();
    const absents: string[] = [];
    let additions = 0;
    for (const name of this.#pending) {
      const resource = resources.get(this.typeUrl, name);
      const sent = this.sent.get(name);
      const replaced = this.#replaced(name);
      if (replaced !== undefined) removals.add(replaced);
      if (resource !== undefined) {
        if (this.#forced.has(name) || replaced !== undefined || sent?.version !== resource.version) {
          if (sent === undefined && !upserts.has(resource.name)) additions += 1;
          upserts.set(resource.name, resource);
        } else {
          this.#pending.delete(name);
          this.#share(name, resource);
        }
      } else if (this.mode === 'sotw' && !this.fullState) {
        // Outside LDS and CDS absence says nothing in this mode; the parent's ceasing to refer is the deletion (rule 27).
        this.#forget(name);
      } else if (sent !== undefined) removals.add(name);
      else if (this.#forced.has(name) && this.mode === 'delta') absents.push(name);
      else this.#forget(name);
    }
    const due = this.#answerDue || upserts.size > 0 || removals.size > 0 || absents.length > 0;
    return { upserts: [...upserts.values()], additions, removals: [...removals], absents, due };
  }

  /** The resource's own string for a name: a thousand streams ask for the same thousand names, each in a copy of its own. */
  #known(name: string): string {
    const resource = this.#resources?.get(this.typeUrl, name);
    return resource?.name === name ? resource.name : name;
  }

  /** What the client told us that it has turns out to be what we have, too: one object for all streams instead. */
  #share(name: string, resource: EncodedResource): void {
    if (resource.name !== name || this.sent.get(name) === resource) return;
    this.sent.delete(name);
    this.sent.set(resource.name, resource);
  }

  #wantedNames(): Iterable<string> {
    if (!this.subscription.wildcard) return this.subscription.names;
    const all = new Set(this.#resources?.names(this.typeUrl) ?? []);
    for (const name of this.subscription.names) {
      const resource = this.#resources?.get(this.typeUrl, name);
      if (resource !== undefined) all.add(resource.name);
    }
    return all;
  }

  #examineAll(): void {
    for (const name of this.#wantedNames()) this.#pending.add(name);
    for (const name of this.subscription.names) this.#pending.add(name);
    for (const name of this.sent.keys()) this.#pending.add(name);
  }

  #examine(name: string): void {
    if (this.subscription.matches(name)) this.#pending.add(name);
    const aliases = this.#resources?.get(this.typeUrl, name)?.aliases;
    if (aliases !== undefined) for (const alias of aliases) if (this.subscription.names.has(alias)) this.#pending.add(alias);
  }

  #force(name: string): void {
    this.#pending.add(name);
    this.#forced.add(name);
  }

  #forget(name: string): void {
    this.#pending.delete(name);
    this.#forced.delete(name);
    this.sent.delete(name);
    this.heartbeatDueMs.delete(name);
  }

  #forgetUnwanted(): void {
    for (const name of this.sent.keys()) if (!this.subscription.matches(name)) this.#forget(name);
    for (const name of this.#pending) if (!this.subscription.matches(name)) this.#forget(name);
  }

  #settleName(name: string, resource: EncodedResource): void {
    this.sent.set(name === resource.name ? resource.name : name, resource);
    this.#pending.delete(name);
    this.#forced.delete(name);
  }
}

const NOTHING: Plan = { upserts: [], additions: 0, removals: [], absents: [], due: false };
