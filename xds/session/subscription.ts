/** What one client wants of one type: names, or everything, by the wildcard rules of both protocol modes. */
import { isFullStateType } from './type-urls.ts';
import { CODES, StreamError, WILDCARD } from './messages.ts';

/** What a request changed. */
export interface SubscriptionChange {
  /** Named in this request: all of them in delta mode, the new ones in state-of-the-world mode. Each must be answered (rule 22). */
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly wildcardAdded: boolean;
  readonly wildcardRemoved: boolean;
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
  #names = new Set<string>();
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
    this.#names = names;
    this.#wildcard = wildcard;
    return change;
  }

  /** Delta: adds and removes. `first` = first request for the type on its stream. Throws a StreamError beyond the limits. */
  adjust(subscribe: readonly string[], unsubscribe: readonly string[], first: boolean): SubscriptionChange {
    const before = this.#wildcard;
    if (first && subscribe.length === 0 && this.#legacy) this.#wildcard = true;
    const removed: string[] = [];
    for (const name of unsubscribe) {
      if (name === WILDCARD) this.#wildcard = false;
      else if (this.#names.delete(name)) {
        this.#release(name);
        removed.push(name);
      }
    }
    const added = new Set<string>();
    for (const name of subscribe) {
      if (name === WILDCARD) this.#wildcard = true;
      else {
        if (!this.#names.has(name)) this.#spend(name);
        this.#names.add(name);
        added.add(name);
      }
    }
    this.#limit(this.#names.size);
    return { added: [...added], removed, wildcardAdded: this.#wildcard && !before, wildcardRemoved: !this.#wildcard && before };
  }

  /** Some of these names may have a resource by now; all that are strange when none are given. */
  recognise(names: Iterable<string> = this.#strange): void {
    if (this.#strange.size === 0) return;
    for (const name of names) if (this.#strange.has(name) && this.#exists(name)) this.#familiar(name);
  }

  #spend(name: string): void {
    spend(this.#budget, name);
    if (this.#budget.strange === undefined || this.#exists(name)) return;
    this.#strange.add(name);
    this.#budget.strange.take(this.#budget, cost(name));
  }

  #release(name: string): void {
    this.#budget.leftChars += cost(name);
    if (this.#strange.has(name)) this.#familiar(name);
  }

  #familiar(name: string): void {
    this.#strange.delete(name);
    this.#budget.strange?.giveBack(this.#budget, cost(name));
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

function cost(name: string): number {
  return name.length + ENTRY_CHARS;
}

/** Takes a name out of the budget. Throws a StreamError when it is used up. */
export function spend(budget: NameBudget, name: string): void {
  budget.leftChars -= cost(name);
  if (budget.leftChars < 0)
    throw new StreamError(CODES.resourceExhausted, 'the names that this stream subscribes to are too long together');
}
