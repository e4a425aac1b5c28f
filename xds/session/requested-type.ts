/** One type as a client sees it: what is wanted, what was accepted, what is still to be said to the server. Both protocol modes share it. */
import { WILDCARD, errorText } from './messages.ts';
import type { DeltaRequest, DiscoveryRequest, Mode, SotwRequest } from './messages.ts';
import { isDeltaOnlyType, isFullStateType } from './type-urls.ts';

/** Something wrong with one resource of an update; an empty name means the whole update. */
export interface Problem {
  readonly name: string;
  readonly message: string;
}

interface Answer {
  readonly nonce: string;
  readonly error: string | undefined;
}

/** Where a resource stands, in CSDS's words. */
export interface ResourceStatus {
  readonly name: string;
  readonly state: 'REQUESTED' | 'DOES_NOT_EXIST' | 'ACKED' | 'NACKED';
  readonly version: string;
  readonly error: string;
}

export class RequestedType {
  readonly typeUrl: string;
  /** LDS and CDS: a state-of-the-world response without a resource deletes it. */
  readonly fullState: boolean;
  readonly names = new Set<string>();
  wildcard = false;
  /** Accepted resources and their versions. They outlive streams. */
  readonly versions = new Map<string, string>();
  /** Aliases of accepted resources, and which resource an alias stands for (rule 26). */
  readonly #aliases = new Map<string, readonly string[]>();
  readonly #holders = new Map<string, string>();
  /** When a name counts as missing; only while connected and asked for. */
  readonly missingDueMs = new Map<string, number>();
  readonly expiryDueMs = new Map<string, number>();
  readonly rejections = new Map<string, { readonly version: string; readonly message: string }>();
  readonly missing = new Set<string>();
  /** Last accepted version of the whole type; state of the world only. */
  acceptedVersion = '';
  /** Responses of this stream that wait for the owner. */
  unsettled = 0;
  #started = false;
  #nonce = '';
  #named = false;
  #changed = false;
  #answers: Answer[] = [];
  /** Names that the server may believe to be subscribed: a request with a stale nonce may have been ignored, an ACK is not. */
  #onStream = new Set<string>();
  /** Given up and wanted again before the server surely knew: it must be made to send them again. */
  readonly #again = new Set<string>();
  #withheld = false;

  constructor(typeUrl: string) {
    this.typeUrl = typeUrl;
    this.fullState = isFullStateType(typeUrl);
  }

  get isWanted(): boolean {
    return this.wildcard || this.names.size > 0;
  }

  matches(name: string, aliases: readonly string[] = this.#aliases.get(name) ?? NO_ALIASES): boolean {
    return this.wildcard || this.names.has(name) || aliases.some((alias) => this.names.has(alias));
  }

  /** Something was accepted under this name, or under a resource that has it as an alias. */
  holds(name: string): boolean {
    return this.versions.has(name) || this.#holders.has(name);
  }

  /** Takes note of an accepted resource. */
  accept(name: string, version: string, aliases: readonly string[] = NO_ALIASES): void {
    if (this.#aliases.has(name)) this.#dropAliases(name);
    this.versions.set(name, version);
    this.rejections.delete(name);
    if (aliases.length === 0) return;
    this.#aliases.set(name, aliases);
    for (const alias of aliases) this.#holders.set(alias, name);
  }

  /** The server no longer speaks of a resource by this name, but perhaps by another. */
  release(name: string): void {
    const holder = this.#holders.get(name);
    this.#holders.delete(name);
    if (holder !== undefined && !this.names.has(holder) && !this.#isAskedFor(holder)) this.forget(holder);
    this.forget(name);
  }

  /** An update of the parent clears the table: what is wanted below it is asked for anew, and must be sent again (rule 44). */
  clear(prefix: string): void {
    for (const name of this.versions.keys()) if (name.startsWith(prefix)) this.forget(name);
    for (const name of this.names) {
      if (!name.startsWith(prefix)) continue;
      this.missing.delete(name);
      this.#changed = true;
      if (this.#onStream.has(name)) this.#again.add(name);
    }
  }

  subscribe(names: Iterable<string>): void {
    for (const name of names) {
      if (name === WILDCARD) {
        this.#changed ||= !this.wildcard;
        this.wildcard = true;
      } else if (!this.names.has(name)) {
        this.names.add(name);
        this.#changed = true;
        if (this.#onStream.has(name) && !this.wildcard) this.#again.add(name);
      }
    }
  }

  /** Answers the names whose resources are no longer kept. */
  unsubscribe(names: Iterable<string>): string[] {
    for (const name of names) {
      if (name === WILDCARD) {
        this.#changed ||= this.wildcard;
        this.wildcard = false;
      } else if (this.names.delete(name)) {
        this.#changed = true;
        this.missingDueMs.delete(name);
        this.missing.delete(name);
        this.#again.delete(name);
      }
    }
    const dropped = [...this.versions.keys()].filter((name) => !this.matches(name));
    for (const name of dropped) this.forget(name);
    return dropped;
  }

  /** The server has spoken of a name. */
  heard(name: string): void {
    this.missingDueMs.delete(name);
    this.#again.delete(name);
  }

  forget(name: string): void {
    this.#dropAliases(name);
    this.versions.delete(name);
    this.expiryDueMs.delete(name);
    this.rejections.delete(name);
  }

  /** A new stream, or none: nonces never survive, versions do (rules 3, 4). */
  restart(): void {
    this.#started = false;
    this.#nonce = '';
    this.#named = false;
    this.#answers = [];
    this.#onStream.clear();
    this.#again.clear();
    this.#withheld = false;
    this.missingDueMs.clear();
    this.unsettled = 0;
  }

  /** Answers a response: without an error it is an ACK. */
  answer(nonce: string, problems: readonly Problem[]): void {
    const error = problems.length === 0 ? undefined : errorText(problems.map(sentence).join('; '));
    this.#answers.push({ nonce, error });
  }

  /** The next request for this type, or undefined. */
  next(mode: Mode): DiscoveryRequest | undefined {
    if (mode === 'sotw' && isDeltaOnlyType(this.typeUrl)) return undefined;
    return mode === 'delta' ? this.#nextDelta() : this.#nextSotw();
  }

  status(): ResourceStatus[] {
    const found: ResourceStatus[] = [];
    for (const name of new Set([...this.names, ...this.versions.keys(), ...this.rejections.keys()])) {
      if (this.#holders.has(name)) continue;
      const rejection = this.rejections.get(name);
      const version = this.versions.get(name);
      const state =
        rejection !== undefined ? 'NACKED' : version !== undefined ? 'ACKED' : this.missing.has(name) ? 'DOES_NOT_EXIST' : 'REQUESTED';
      found.push({ name, state, version: version ?? '', error: rejection?.message ?? '' });
    }
    return found;
  }

  #nextDelta(): DeltaRequest | undefined {
    const empty = {
      mode: 'delta',
      typeUrl: this.typeUrl,
      subscribe: [],
      unsubscribe: [],
      initialVersions: NONE,
      responseNonce: '',
    } as const;
    if (!this.#started) {
      if (!this.isWanted) return undefined;
      this.#started = true;
      this.#changed = false;
      // The empty list is what every server understands as "everything"; the star came later.
      const legacy = this.wildcard && this.names.size === 0 && this.fullState;
      const subscribe = legacy ? [] : this.#list();
      for (const name of this.#list()) this.#onStream.add(name);
      return { ...empty, subscribe, initialVersions: new Map(this.versions) };
    }
    // An answer carries no subscription changes, and a change carries no nonce (rule 13).
    const answer = this.#answers.shift();
    if (answer !== undefined) return { ...empty, responseNonce: answer.nonce, ...errorField(answer) };
    if (!this.#changed) return undefined;
    this.#changed = false;
    const wanted = new Set(this.#list());
    const subscribe = [...wanted].filter((name) => !this.#onStream.has(name) || this.#again.has(name));
    this.#again.clear();
    const unsubscribe = [...this.#onStream].filter((name) => !wanted.has(name));
    for (const name of subscribe) this.#onStream.add(name);
    for (const name of unsubscribe) this.#onStream.delete(name);
    return subscribe.length + unsubscribe.length === 0 ? undefined : { ...empty, subscribe, unsubscribe };
  }

  #nextSotw(): SotwRequest | undefined {
    const answer = this.#answers.shift();
    if (answer !== undefined) this.#nonce = answer.nonce;
    else if (!this.#started) {
      if (!this.isWanted) return undefined;
    } else if (!this.#changed || this.unsettled > 0) {
      // A change that was made while a response is being processed goes out with its answer: alone it would carry a stale nonce.
      return undefined;
    }
    this.#started = true;
    // Two requests, without and with the names: to the server they are then new, and new names are always sent (rule 22).
    this.#withheld = this.#again.size > 0 && !this.#withheld;
    this.#changed = this.#withheld;
    const legacy = this.wildcard && this.names.size === 0 && this.fullState && !this.#named;
    const resourceNames = legacy ? [] : this.#list().filter((name) => !this.#withheld || !this.#again.has(name));
    if (resourceNames.length > 0) this.#named = true;
    if (answer !== undefined) this.#onStream = new Set(resourceNames);
    else for (const name of resourceNames) this.#onStream.add(name);
    return {
      mode: 'sotw',
      typeUrl: this.typeUrl,
      versionInfo: this.acceptedVersion,
      resourceNames,
      responseNonce: this.#nonce,
      ...errorField(answer),
    };
  }

  #isAskedFor(name: string): boolean {
    return this.#aliases.get(name)?.some((alias) => this.names.has(alias) && this.#holders.get(alias) === name) === true;
  }

  #dropAliases(name: string): void {
    for (const alias of this.#aliases.get(name) ?? NO_ALIASES) if (this.#holders.get(alias) === name) this.#holders.delete(alias);
    this.#aliases.delete(name);
  }

  #list(): string[] {
    return this.wildcard ? [WILDCARD, ...this.names] : [...this.names];
  }
}

const NO_ALIASES: readonly string[] = [];
const NONE: ReadonlyMap<string, string> = new Map();

/** Status code of every NACK: the resource is at fault, not the stream. */
const INVALID_ARGUMENT = 3;

function errorField(answer: Answer | undefined): { error?: { code: number; message: string } } {
  return answer?.error === undefined ? {} : { error: { code: INVALID_ARGUMENT, message: answer.error } };
}

function sentence(problem: Problem): string {
  return problem.name === '' ? problem.message : `${problem.name}: ${problem.message}`;
}
