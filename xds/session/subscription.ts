/** What one client wants of one type: names, or everything, by the wildcard rules of both protocol modes. */
import { memo } from '../../lib/memo.ts';
import { isFullStateType } from './type-urls.ts';
import { CODES, StreamError, WILDCARD } from './messages.ts';
import type { Scope } from './sent-table.ts';

/** What a request changed. */
export interface SubscriptionChange {
  /** Named in this request: all of them in delta mode, the new ones in state-of-the-world mode. Each must be answered (rule 22). */
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly wildcardAdded: boolean;
  readonly wildcardRemoved: boolean;
}

export function changesAnything({ added, removed, wildcardAdded, wildcardRemoved }: SubscriptionChange): boolean {
  return added.length > 0 || removed.length > 0 || wildcardAdded || wildcardRemoved;
}

/** What all subscriptions of one stream may hold together, in characters of names and what each name costs beside them; what they give up comes back. */
export interface NameBudget {
  leftChars: number;
  /** Of what it holds: names that no resource has. They cost memory of their own, while the others are the resources' own strings. */
  strangeChars: number;
  /** Of the streams of a port together; undefined = no bound. */
  readonly strange?: StrangeNames;
  /** Ends the stream, since it holds more strange names than any other. */
  readonly evict?: () => void;
}

/** The names that no resource has, of many streams together. Beyond the bound the stream that holds most of them goes, whoever asks. */
export class StrangeNames {
  readonly #holders = new Set<NameBudget>();
  #leftChars: number;

  constructor(charsMax: number) {
    this.#leftChars = charsMax;
  }

  take(holder: NameBudget, chars: number): void {
    this.#holders.add(holder);
    holder.strangeChars += chars;
    this.#leftChars -= chars;
    while (this.#leftChars < 0 && this.#holders.size > 0) {
      let largest = holder;
      for (const other of this.#holders) if (other.strangeChars > largest.strangeChars) largest = other;
      this.leave(largest);
      largest.evict?.();
    }
  }

  giveBack(holder: NameBudget, chars: number): void {
    if (!this.#holders.has(holder)) return;
    holder.strangeChars -= chars;
    this.#leftChars += chars;
  }

  /** The stream is over; all that it held comes back. */
  leave(holder: NameBudget): void {
    if (!this.#holders.delete(holder)) return;
    this.#leftChars += holder.strangeChars;
    holder.strangeChars = 0;
  }
}

export class Subscription {
  readonly typeUrl: string;
  readonly #namesMax: number;
  readonly #budget: NameBudget;
  #wildcard = false;
  /** Empty lists mean "everything" only until a name was asked for on this stream (rule 19). */
  #legacy: boolean;
  #names: ReadonlySet<string> = NO_NAMES;
  /** Others hold `#names`, too: the next change is made in a copy. */
  #shared = true;
  /** Whether these names were compared with everybody's since they changed. */
  #compared = true;
  /** Those of them that no resource had when it was last looked. */
  readonly #strange = new Set<string>();
  readonly #exists: (name: string) => boolean;

  constructor(typeUrl: string, namesMax: number, budget: NameBudget, exists: (name: string) => boolean = () => true) {
    this.typeUrl = typeUrl;
    this.#namesMax = namesMax;
    this.#budget = budget;
    this.#exists = exists;
    this.#legacy = isFullStateType(typeUrl);
  }

  get wildcard(): boolean {
    return this.#wildcard;
  }

  get names(): ReadonlySet<string> {
    return this.#names;
  }

  get isEmpty(): boolean {
    return !this.#wildcard && this.#names.size === 0;
  }

  matches(name: string): boolean {
    return this.#wildcard || this.#names.has(name);
  }

  /** What is wanted now; later changes leave it as it is. */
  get scope(): Scope {
    this.#shared = true;
    return this.#wildcard && this.#names.size === 0 ? EVERYTHING : { wildcard: this.#wildcard, names: this.#names };
  }

  /** Takes `all` for its own names when they are the same: a thousand streams that ask for the same names hold them once. */
  share(all: ReadonlySet<string> | undefined): void {
    if (this.#compared || all === undefined) return;
    this.#compared = true;
    if (all.size !== this.#names.size) return;
    for (const name of this.#names) if (!all.has(name)) return;
    this.#names = all;
    this.#shared = true;
  }

  /** State of the world: the list replaces what was wanted. Throws a StreamError beyond the limits. */
  replace(resourceNames: readonly string[]): SubscriptionChange {
    this.#limit(resourceNames.length);
    const names = new Set(resourceNames);
    let wildcard = names.delete(WILDCARD);
    if (resourceNames.length === 0 && this.#legacy) wildcard = true;
    if (resourceNames.length > 0) this.#legacy = false;
    const before = this.#names;
    const change = {
      added: [...names].filter((name) => !before.has(name)),
      removed: [...before].filter((name) => !names.has(name)),
      wildcardAdded: wildcard && !this.#wildcard,
      wildcardRemoved: !wildcard && this.#wildcard,
    };
    for (const name of change.removed) this.#release(name);
    for (const name of change.added) this.#spend(name);
    if (change.added.length + change.removed.length > 0) {
      this.#names = names;
      this.#shared = false;
      this.#compared = false;
    }
    this.#wildcard = wildcard;
    return change;
  }

  /** Delta: adds and removes. `first` = first request for the type on its stream. Throws a StreamError beyond the limits. */
  adjust(subscribe: readonly string[], unsubscribe: readonly string[], first: boolean): SubscriptionChange {
    const before = this.#wildcard;
    if (first && subscribe.length === 0 && this.#legacy) this.#wildcard = true;
    const whole = this.#takeWhole(subscribe, unsubscribe);
    if (whole !== undefined) return whole;
    const removed: string[] = [];
    for (const name of unsubscribe) {
      if (name === WILDCARD) this.#wildcard = false;
      else if (this.#names.has(name)) {
        this.#own().delete(name);
        this.#release(name);
        removed.push(name);
      }
    }
    const added = new Set<string>();
    for (const name of subscribe) {
      if (name === WILDCARD) this.#wildcard = true;
      else {
        if (!this.#names.has(name)) {
          this.#spend(name);
          this.#own().add(name);
        }
        added.add(name);
      }
    }
    this.#limit(this.#names.size);
    return { added: [...added], removed, wildcardAdded: this.#wildcard && !before, wildcardRemoved: !this.#wildcard && before };
  }

  /** A stream that begins with a long list takes the set of all who begin with it. */
  #takeWhole(subscribe: readonly string[], unsubscribe: readonly string[]): SubscriptionChange | undefined {
    if (subscribe.length < MANY_NAMES || unsubscribe.length > 0 || this.#names.size > 0) return undefined;
    const { names, chars } = nameListOf(subscribe);
    if (names.size !== subscribe.length || names.has(WILDCARD)) return undefined;
    spendChars(this.#budget, chars);
    this.#limit(names.size);
    for (const name of names) this.#suspect(name);
    this.#names = names;
    this.#shared = true;
    this.#compared = false;
    return { added: subscribe, removed: [], wildcardAdded: false, wildcardRemoved: false };
  }

  #own(): Set<string> {
    if (this.#shared) this.#names = new Set(this.#names);
    this.#shared = false;
    this.#compared = false;
    return this.#names as Set<string>;
  }

  /** Some of these names may have a resource by now; all that are strange when none are given. */
  recognise(names: Iterable<string> = this.#strange): void {
    if (this.#strange.size === 0) return;
    for (const name of names) if (this.#strange.has(name) && this.#exists(name)) this.#familiar(name);
  }

  #spend(name: string): void {
    spend(this.#budget, name);
    this.#suspect(name);
  }

  #suspect(name: string): void {
    if (this.#budget.strange === undefined || this.#exists(name)) return;
    this.#strange.add(name);
    this.#budget.strange.take(this.#budget, nameCost(name));
  }

  #release(name: string): void {
    this.#budget.leftChars += nameCost(name);
    if (this.#strange.has(name)) this.#familiar(name);
  }

  #familiar(name: string): void {
    this.#strange.delete(name);
    this.#budget.strange?.giveBack(this.#budget, nameCost(name));
  }

  #limit(count: number): void {
    if (count > this.#namesMax) {
      throw new StreamError(
        CODES.resourceExhausted,
        `a stream may subscribe to at most ${this.#namesMax} names of a type, received ${count}`,
      );
    }
  }
}

/** A name is an entry of a set or two, however short it is. */
const ENTRY_CHARS = 100;

/** What a name takes of the budget, in characters. */
export function nameCost(name: string): number {
  return name.length + ENTRY_CHARS;
}

const NO_NAMES: ReadonlySet<string> = new Set();
const EVERYTHING: Scope = { wildcard: true, names: NO_NAMES };

/** Names in one request from which on its list is taken to be shared with other streams. */
export const MANY_NAMES = 64;

interface NameList {
  readonly names: ReadonlySet<string>;
  readonly chars: number;
}
const nameLists = memo<readonly string[], NameList>();

/** One set for all streams whose requests share a list. */
function nameListOf(list: readonly string[]): NameList {
  let known = nameLists.get(list);
  if (known === undefined) {
    known = { names: new Set(list), chars: list.reduce((sum, name) => sum + nameCost(name), 0) };
    nameLists.set(list, known);
  }
  return known;
}

/** Takes a name out of the budget. Throws a StreamError when it is used up. */
export function spend(budget: NameBudget, name: string): void {
  spendChars(budget, nameCost(name));
}

/** The same for many names. */
export function spendChars(budget: NameBudget, chars: number): void {
  budget.leftChars -= chars;
  if (budget.leftChars < 0)
    throw new StreamError(CODES.resourceExhausted, 'the names that this stream subscribes to are too long together');
}
