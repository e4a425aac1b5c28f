/** One type on one stream as the server sees it: what is wanted, what was sent, what is due. Both protocol modes share it. */
import { claimedByAlias, replacedName } from './aliases.ts';
import { Answered } from './answered.ts';
import type { DeltaRequest, EncodedResource, Mode, SotwRequest } from './messages.ts';
import type { ResourceSet } from './resource-set.ts';
import type { TypeStatus, Verdict } from './server-options.ts';
import { SentTable } from './sent-table.ts';
import type { Sent } from './sent-table.ts';
import { charsOf, claimHolds, startPlan } from './start.ts';
import { NOTHING_DUE, joinedSteps, planOf, stepBetween } from './step.ts';
import type { Plan, Step } from './step.ts';
import { MANY_NAMES, Subscription, changesAnything, spend, spendChars } from './subscription.ts';
import type { NameBudget, SubscriptionChange } from './subscription.ts';
import { isDeltaOnlyType, isFullStateType } from './type-urls.ts';

export type { ResourceSet } from './resource-set.ts';
export type { Plan } from './step.ts';
export type { Outstanding, Verdict } from './server-options.ts';

export class ServedType extends Answered implements TypeStatus {
  readonly typeUrl: string;
  readonly mode: Mode;
  readonly subscription: Subscription;
  /** A state-of-the-world response for LDS and CDS carries all there is. */
  readonly fullState: boolean;
  /** The parent type changed something that the client warms again: the next request is answered in full (rule 32). */
  answerNext = false;
  /** The client came back with resources of an earlier stream. */
  resumed = false;
  /** Since when a send waits for other types; undefined = it does not. */
  heldSinceMs: number | undefined;
  readonly #sent: SentTable;
  readonly heartbeatDueMs = new Map<string, number>();
  #resources: ResourceSet | undefined;
  #requested = false;
  /** Names whose state may differ from what was sent; a name in `#forced` is answered even when it does not. */
  readonly #pending = new Set<string>();
  readonly #forced = new Set<string>();
  /** What is pending is a step from one set to another, and nothing else: then no name is looked at for this stream alone. */
  #step: Step | undefined;
  /** The client has nothing yet, and all that it asks for is to be answered. */
  #starting = false;
  #startedWithAll = false;
  /** The client came back and said that it has this; it was not looked at yet. */
  #claim: ReadonlyMap<string, string> | undefined;
  /** Virtual hosts that a client which came back says it has, until the resources say by which names it asked for them. */
  readonly #claimed = new Map<string, string>();
  #answerDue = false;
  #plan: Plan | undefined;
  readonly #budget: NameBudget;
  constructor(mode: Mode, typeUrl: string, namesMax: number, budget: NameBudget) {
    super();
    this.mode = mode;
    this.typeUrl = typeUrl;
    this.fullState = mode === 'sotw' && isFullStateType(typeUrl);
    this.subscription = new Subscription(typeUrl, namesMax, budget, (name) => this.#resources?.get(typeUrl, name) !== undefined);
    this.#sent = new SentTable(typeUrl);
    this.#budget = budget;
  }

  /** Takes a newer set. The older one's unsent content is never sent: the newest wins. */
  publish(resources: ResourceSet): void {
    const before = this.#resources;
    this.#resources = resources;
    if (this.#claimed.size > 0) this.#bookClaimed(resources);
    if (before?.version(this.typeUrl) === resources.version(this.typeUrl)) return;
    const changed = before === undefined ? undefined : resources.changedSince?.(this.typeUrl, before.version(this.typeUrl));
    this.subscription.recognise(changed);
    this.#plan = undefined;
    // What is asked for and what was claimed is looked at when the plan is made.
    if (this.#starting || this.#claim !== undefined) return;
    const step = before === undefined ? undefined : stepBetween(this.typeUrl, before, resources);
    if (step !== undefined && this.#step !== undefined) this.#step = joinedSteps(this.#step, step);
    else if (step !== undefined && this.#hasAllOf(step.from)) this.#step = step;
    else {
      this.#unfold();
      if (changed === undefined) this.#examineAll();
      else for (const name of changed) this.#examine(name);
    }
  }

  /** Answers what the request says about an earlier response, or undefined. State-of-the-world requests with a stale nonce are `'stale'` and change nothing (rule 11). */
  receive(request: SotwRequest | DeltaRequest): { verdict: Verdict | undefined; change: SubscriptionChange } | 'stale' {
    const first = !this.#requested;
    if (request.mode === 'sotw' && !first && request.responseNonce !== '' && request.responseNonce !== this.lastNonce) return 'stale';
    this.#requested = true;
    const verdict = this.settle(request);
    const change =
      request.mode === 'sotw'
        ? this.subscription.replace(request.resourceNames)
        : this.subscription.adjust(
            // Long lists are shared with other streams already.
            request.subscribe.length >= MANY_NAMES ? request.subscribe : request.subscribe.map((name) => this.#known(name)),
            request.unsubscribe,
            first,
          );
    if (first || this.answerNext || changesAnything(change)) {
      this.#unfold();
      this.#plan = undefined;
    }
    if (request.mode === 'sotw') this.#applySotw(change, first);
    else if (!first || !this.#begin(request.initialVersions, change))
      this.#applyDelta(change, first ? request.initialVersions : NO_VERSIONS);
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
    const sent = this.#sent.get(name);
    return sent?.bytes === undefined ? undefined : sent;
  }

  /** What the client has, or says that it has. */
  sent(): Iterable<readonly [name: string, sent: Sent]> {
    if (this.#claim !== undefined) this.#unfold();
    return this.#sent.entries();
  }

  get setVersion(): string {
    return this.#resources?.version(this.typeUrl) ?? '';
  }

  /** Books a response as sent. */
  book(sent: { nonce: string; version: string; upserts: readonly EncodedResource[]; gone: readonly string[]; additions: number }): void {
    const shared = this.#step !== undefined || this.#starting;
    const whole = shared && this.#plan?.upserts === sent.upserts && this.#plan.removals.length === sent.gone.length;
    if (whole) this.#allSent();
    else this.#bookNames(sent.upserts, sent.gone);
    this.#answerDue = false;
    this.#plan = undefined;
    if (sent.upserts.length > 0 || sent.gone.length > 0) this.heldSinceMs = undefined;
    this.lastNonce = sent.nonce;
    this.lastVersion = sent.version;
    this.outstanding = { nonce: sent.nonce, version: sent.version, additions: sent.additions };
  }

  #bookNames(upserts: readonly EncodedResource[], gone: readonly string[]): void {
    this.#unfold();
    // First, since another resource may take over a name that is given up.
    for (const name of gone) this.#forget(name);
    for (const resource of upserts) {
      if (this.subscription.matches(resource.name)) this.#settleName(resource.name, resource);
      // A resource is booked under its name and under each alias that was asked for.
      for (const alias of resource.aliases ?? []) if (this.subscription.names.has(alias)) this.#settleName(alias, resource);
    }
  }

  /** Nothing waits to be sent and nothing waits for an answer. */
  get settled(): boolean {
    if (this.outstanding !== undefined) return false;
    const plan = this.plan();
    return plan.upserts.length === 0 && plan.removals.length === 0;
  }

  get wildcard(): boolean {
    return this.subscription.wildcard;
  }

  get names(): ReadonlySet<string> {
    return this.subscription.names;
  }

  /** Puts off what a first request asks for, where all streams that begin alike may share it. */
  #begin(initialVersions: ReadonlyMap<string, string>, change: SubscriptionChange): boolean {
    if (initialVersions.size === 0) {
      this.#starting = change.removed.length === 0 && !this.subscription.isEmpty;
      this.#startedWithAll = this.subscription.wildcard;
      return this.#starting;
    }
    this.resumed = true;
    // A claim may be under names that were asked for by an alias: those are looked at one by one.
    if (initialVersions.size < MANY_NAMES || change.removed.length > 0 || isDeltaOnlyType(this.typeUrl)) return false;
    spendChars(this.#budget, charsOf(initialVersions));
    this.#claim = initialVersions;
    return true;
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
    for (const [name, version] of initialVersions) {
      const matched = this.subscription.matches(name);
      // What was asked for by an alias is known by it once the resources are.
      if (!matched && !(isDeltaOnlyType(this.typeUrl) && this.subscription.names.size > 0)) continue;
      spend(this.#budget, name);
      spend(this.#budget, version);
      if (matched) this.#hold(name, version);
      else this.#claimed.set(name, version);
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

  #bookClaimed(resources: ResourceSet): void {
    for (const { name, alias, sent } of claimedByAlias(this.typeUrl, resources, this.#claimed, this.subscription)) {
      this.#sent.set(alias ?? name, sent);
      if (alias === undefined) this.#pending.add(name);
      else this.#forced.delete(alias);
    }
    this.#claimed.clear();
    this.#plan = undefined;
  }

  #makePlan(): Plan {
    const resources = this.#resources;
    if (resources === undefined) return NOTHING_DUE;
    const shared = this.#sharedPlan(resources);
    if (shared !== undefined) return shared;
    this.#unfold();
    const upserts = new Map<string, EncodedResource>();
    const removals = new Set<string>();
    const absents: string[] = [];
    let additions = 0;
    for (const name of this.#pending) {
      const resource = resources.get(this.typeUrl, name);
      const sent = this.#sent.get(name);
      const replaced = this.mode === 'delta' ? replacedName(this.typeUrl, resources, sent, this.subscription) : undefined;
      if (replaced !== undefined) removals.add(replaced);
      if (resource !== undefined) {
        if (this.#forced.has(name) || replaced !== undefined || sent?.version !== resource.version) {
          if (sent === undefined && !upserts.has(resource.name)) additions += 1;
          upserts.set(resource.name, resource);
        } else this.#pending.delete(name);
      } else if (this.mode === 'sotw' && !this.fullState) {
        // Outside LDS and CDS absence says nothing in this mode; the parent's ceasing to refer is the deletion (rule 27).
        this.#forget(name);
      } else if (sent !== undefined) removals.add(name);
      else if (this.#forced.has(name) && this.mode === 'delta') absents.push(name);
      else this.#forget(name);
    }
    const due = this.#answerDue || upserts.size > 0 || removals.size > 0 || absents.length > 0;
    if (this.#pending.size === 0) {
      this.#shareAll(resources);
      if (!due) return NOTHING_DUE;
    }
    return { upserts: [...upserts.values()], additions, removals: [...removals], absents, due };
  }

  /** The resource's own string for a name: a thousand streams ask for the same thousand names, each in a copy of its own. */
  #known(name: string): string {
    const resource = this.#resources?.get(this.typeUrl, name);
    return resource?.name === name ? resource.name : name;
  }

  /** Nothing is pending, so the client has what it wants of this set: that is one table and one list of names for all such streams. */
  #shareAll(resources: ResourceSet): void {
    this.subscription.share(resources.nameSet?.(this.typeUrl));
    this.#sent.rebase(resources, this.subscription.scope);
  }

  /** The client has what it wants of a set, no more and no less, and nothing is pending. State of the world has rules of its own. */
  #hasAllOf(resources: ResourceSet): boolean {
    return this.mode === 'delta' && this.#pending.size === 0 && this.#sent.isAllOf(resources, this.subscription);
  }

  /** What is due, where that is the same for all streams that are as far as this one. */
  #sharedPlan(resources: ResourceSet): Plan | undefined {
    const { typeUrl, subscription } = this;
    if (this.#answerDue) return undefined;
    if (this.#starting || this.#claim !== undefined) subscription.share(resources.nameSet?.(typeUrl));
    if (this.#starting) return startPlan(typeUrl, resources, subscription.scope);
    if (this.#claim !== undefined) {
      if (!claimHolds(typeUrl, resources, this.#claim, subscription.scope)) return undefined;
      this.#allSent();
      return NOTHING_DUE;
    }
    const plan = this.#step === undefined ? undefined : planOf(typeUrl, this.#step, subscription.scope);
    if (plan?.due === false) this.#allSent();
    return plan;
  }

  /** The client has what it wants of the newest set. */
  #allSent(): void {
    this.#sent.rebase(this.#resources!, this.subscription.scope);
    this.#step = undefined;
    this.#starting = false;
    this.#claim = undefined;
  }

  /** Back to names: something is pending beside what all share. */
  #unfold(): void {
    const { subscription } = this;
    const [step, starting, claim] = [this.#step, this.#starting, this.#claim];
    this.#step = undefined;
    this.#starting = false;
    this.#claim = undefined;
    if (step !== undefined) for (const name of step.changed) this.#examine(name);
    for (const [name, version] of claim ?? []) if (subscription.matches(name)) this.#hold(name, version);
    if (!starting && claim === undefined) return;
    for (const name of subscription.names) {
      if (claim?.has(name) === true) this.#pending.add(name);
      else this.#force(name);
    }
    if (subscription.wildcard) this.#examineAll();
    // Asking for everything is answered even when there is nothing, or nothing wanted any more.
    if (starting && this.#startedWithAll) this.#answerDue = true;
  }

  #hold(name: string, version: string): void {
    const resource = this.#resources?.get(this.typeUrl, name);
    this.#sent.set(this.#known(name), resource?.version === version && resource.name === name ? resource : { version });
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
    for (const [name] of this.#sent.entries()) this.#pending.add(name);
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
    this.#sent.delete(name);
    this.heartbeatDueMs.delete(name);
  }

  #forgetUnwanted(): void {
    for (const [name] of [...this.#sent.entries()]) if (!this.subscription.matches(name)) this.#forget(name);
    for (const name of this.#pending) if (!this.subscription.matches(name)) this.#forget(name);
  }

  #settleName(name: string, resource: EncodedResource): void {
    this.#sent.set(name === resource.name ? resource.name : name, resource);
    this.#pending.delete(name);
    this.#forced.delete(name);
  }
}

const NO_VERSIONS: ReadonlyMap<string, string> = new Map();
