import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ManualClock } from '../../lib/clock.ts';
import type { DeltaRequest, DiscoveryResponse, EncodedResource } from './messages.ts';
import { ServerSession } from './server.ts';
import type { ResourceSet } from './server.ts';
import { MANY_NAMES } from './subscription.ts';
import { testNode, testResource, testSet } from './testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE } from './type-urls.ts';

const TYPES = [CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE];
/** So many that lists of all of them are shared. */
const NAMES = Array.from({ length: MANY_NAMES + 2 }, (_, index) => `name-${String(index).padStart(2, '0')}`);

const DRAIN_ROUNDS = 40;

/** Version of all names of a type, and those that have another; 0 = not there. */
interface OfType {
  readonly all: number;
  readonly others: readonly (readonly [name: string, version: number])[];
}
type Content = readonly OfType[];
type Action =
  | { readonly do: 'publish'; readonly content: Content }
  | { readonly do: 'ask'; readonly type: number; readonly subscribe: readonly string[]; readonly unsubscribe: readonly string[] }
  | { readonly do: 'answer'; readonly type: number; readonly bad: boolean }
  | { readonly do: 'take' };

const version = fc.nat(2);
const some = fc.uniqueArray(fc.constantFrom('*', ...NAMES.slice(0, 4), 'nowhere'), { maxLength: 4 });
const names = fc.oneof({ weight: 3, arbitrary: some }, fc.constant(NAMES));
const ofType: fc.Arbitrary<OfType> = fc.record({
  all: version,
  others: fc.array(fc.tuple(fc.constantFrom(...NAMES.slice(0, 5)), version), { maxLength: 3 }),
});
const content = fc.array(ofType, { minLength: TYPES.length, maxLength: TYPES.length });
const type = fc.nat(TYPES.length - 1);
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ do: fc.constant('publish' as const), content }),
  fc.record({ do: fc.constant('ask' as const), type, subscribe: names, unsubscribe: names }),
  { weight: 3, arbitrary: fc.record({ do: fc.constant('answer' as const), type, bad: fc.boolean() }) },
  { weight: 4, arbitrary: fc.constant({ do: 'take' as const }) },
);
/** What the client has when it comes, and what is published already. */
const beginning = fc.record({ has: fc.option(content), before: fc.option(content), late: fc.boolean(), everything: fc.boolean() });

function resourcesOf(versions: Content): EncodedResource[] {
  return versions.flatMap(({ all, others }, index) => {
    const byName = new Map(NAMES.map((name) => [name, all]));
    for (const [name, other] of others) byName.set(name, other);
    return [...byName].flatMap(([name, one]) => (one === 0 ? [] : [testResource(TYPES[index]!, name, String(one))]));
  });
}

/** A set as the control plane makes them: it tells what differs from the one before, and one object has the names while they stay. */
function knowingSet(resources: readonly EncodedResource[], previous: ResourceSet | undefined): ResourceSet {
  const set = testSet(resources, previous);
  const bySize = new Map<string, ReadonlySet<string>>();
  set.nameSet = (typeUrl) => {
    const before = previous?.nameSet?.(typeUrl);
    const now = bySize.get(typeUrl) ?? new Set(set.names(typeUrl));
    const same = before !== undefined && before.size === now.size && [...now].every((name) => before.has(name));
    bySize.set(typeUrl, same ? before : now);
    return bySize.get(typeUrl)!;
  };
  return set;
}

type Beginning = typeof beginning extends fc.Arbitrary<infer T> ? T : never;

/** One server with its client's answers; what it sent, as texts. */
class Side {
  readonly #clock = new ManualClock();
  readonly #session: ServerSession;
  readonly #nonces = new Map<string, string>();
  readonly #knows: boolean;
  #set: ResourceSet | undefined;
  readonly sent: string[] = [];

  /** `knows`: sets tell what differs from the one before. */
  constructor(knows: boolean, { has, before, late, everything }: Beginning, responseBytesMax?: number) {
    this.#session = new ServerSession({
      mode: 'delta',
      clock: this.#clock,
      ...(responseBytesMax === undefined ? {} : { responseBytesMax }),
    });
    this.#knows = knows;
    if (before !== null && !late) this.act({ do: 'publish', content: before });
    const held = has === null ? [] : resourcesOf(has);
    for (const typeUrl of TYPES) {
      const initialVersions = new Map(held.filter((one) => one.typeUrl === typeUrl).map((one) => [one.name, one.version]));
      this.#receive({ typeUrl, subscribe: typeUrl === CLUSTER_TYPE ? [] : everything ? NAMES : NAMES.slice(1), initialVersions });
    }
    if (before !== null && late) this.act({ do: 'publish', content: before });
  }

  act(what: Action): void {
    if (what.do === 'publish') {
      const resources = resourcesOf(what.content);
      this.#set = this.#knows ? knowingSet(resources, this.#set) : testSet(resources);
      this.#session.publish(this.#set);
    } else if (what.do === 'ask') this.#receive({ typeUrl: TYPES[what.type]!, subscribe: what.subscribe, unsubscribe: what.unsubscribe });
    else if (what.do === 'answer') {
      const typeUrl = TYPES[what.type]!;
      const responseNonce = this.#nonces.get(typeUrl);
      if (responseNonce === undefined) return;
      this.#nonces.delete(typeUrl);
      this.#receive({ typeUrl, responseNonce, ...(what.bad ? { error: { code: 3, message: 'no' } } : {}) });
    } else this.#take(this.#session.next());
    this.sent.push(
      this.#session
        .status()
        .map((status) => `${status.state} ${status.settled}`)
        .join(),
    );
  }

  /** Takes and acknowledges until nothing is due. */
  drain(): void {
    for (let round = 0; round < DRAIN_ROUNDS; round++) {
      for (const index of TYPES.keys()) this.act({ do: 'answer', type: index, bad: false });
      const before = this.sent.length;
      this.#take(this.#session.next());
      // What waits for types that were never asked for waits for some seconds only.
      if (this.sent.length === before) this.#clock.advance(6_000);
    }
    expect(this.#session.status().every((status) => status.settled)).toBe(true);
  }

  held(): string[] {
    return TYPES.map((typeUrl) =>
      [...this.#session.sent(typeUrl)]
        .map(([name, version]) => `${name}=${version}`)
        .sort()
        .join(),
    );
  }

  #take(response: DiscoveryResponse | undefined): void {
    if (response?.mode !== 'delta') return;
    this.#nonces.set(response.typeUrl, response.nonce);
    const parts = response.resources.map((resource) => `${resource.name}=${resource.version}`);
    this.sent.push(`${response.typeUrl} ${response.nonce} +${parts.sort().join()} -${[...response.removed].sort().join()}`);
  }

  #receive(request: Partial<DeltaRequest> & { typeUrl: string }): void {
    const whole = {
      mode: 'delta' as const,
      subscribe: [],
      unsubscribe: [],
      initialVersions: new Map(),
      responseNonce: '',
      node: testNode(),
    };
    this.#session.receive({ ...whole, ...request });
  }
}

test('a client is sent the same, whether what differs is known by steps or every name is looked at', () => {
  let steps = 0;
  fc.assert(
    fc.property(beginning, fc.array(action, { maxLength: 40 }), (start, actions) => {
      const [quick, thorough] = [new Side(true, start), new Side(false, start)];
      for (const what of actions) {
        quick.act(what);
        thorough.act(what);
      }
      if (quick.sent.some((line) => line.includes('+'))) steps += 1;
      expect(quick.sent).toEqual(thorough.sent);
      expect(quick.held()).toEqual(thorough.held());
    }),
    { numRuns: 400 },
  );
  expect(steps).toBeGreaterThan(100);
});

test('responses that are split, and newer sets in between, come to the same end', () => {
  fc.assert(
    fc.property(beginning, fc.array(action, { maxLength: 30 }), content, (start, actions, last) => {
      const [quick, thorough] = [new Side(true, start, 500), new Side(false, start, 500)];
      for (const side of [quick, thorough]) {
        for (const what of actions) side.act(what);
        side.act({ do: 'publish', content: last });
        side.drain();
      }
      expect(quick.held()).toEqual(thorough.held());
    }),
    { numRuns: 400 },
  );
});
