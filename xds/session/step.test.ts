import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ManualClock } from '../../lib/clock.ts';
import type { DeltaRequest, DiscoveryResponse, EncodedResource } from './messages.ts';
import { ServerSession } from './server.ts';
import type { ResourceSet } from './server.ts';
import { testNode, testResource, testSet } from './testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE } from './type-urls.ts';

const TYPES = [CLUSTER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE];
const NAMES = ['a', 'b', 'c', 'd', 'e'];

/** Version of each name of each type; 0 = not there. */
type Content = readonly (readonly number[])[];
type Action =
  | { readonly do: 'publish'; readonly content: Content }
  | { readonly do: 'ask'; readonly type: number; readonly subscribe: readonly string[]; readonly unsubscribe: readonly string[] }
  | { readonly do: 'answer'; readonly type: number; readonly bad: boolean }
  | { readonly do: 'take' };

const names = fc.uniqueArray(fc.constantFrom('*', ...NAMES), { maxLength: 5 });
const content = fc.array(fc.array(fc.nat(3), { minLength: NAMES.length, maxLength: NAMES.length }), {
  minLength: TYPES.length,
  maxLength: TYPES.length,
});
const type = fc.nat(TYPES.length - 1);
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ do: fc.constant('publish' as const), content }),
  fc.record({ do: fc.constant('ask' as const), type, subscribe: names, unsubscribe: names }),
  { weight: 3, arbitrary: fc.record({ do: fc.constant('answer' as const), type, bad: fc.boolean() }) },
  { weight: 4, arbitrary: fc.constant({ do: 'take' as const }) },
);

function resourcesOf(versions: Content): EncodedResource[] {
  return versions.flatMap((ofType, index) =>
    ofType.flatMap((version, name) => (version === 0 ? [] : [testResource(TYPES[index]!, NAMES[name]!, String(version))])),
  );
}

/** One server with its client's answers; what it sent, as texts. */
class Side {
  readonly #session: ServerSession;
  readonly #nonces = new Map<string, string>();
  readonly #knows: boolean;
  #set: ResourceSet | undefined;
  readonly sent: string[] = [];

  /** `knows`: sets tell what differs from the one before. */
  constructor(knows: boolean, responseBytesMax?: number) {
    this.#session = new ServerSession({
      mode: 'delta',
      clock: new ManualClock(),
      ...(responseBytesMax === undefined ? {} : { responseBytesMax }),
    });
    this.#knows = knows;
    for (const typeUrl of TYPES) this.#receive({ typeUrl, subscribe: typeUrl === CLUSTER_TYPE ? [] : NAMES });
  }

  act(what: Action): void {
    if (what.do === 'publish') {
      this.#set = testSet(resourcesOf(what.content), this.#knows ? this.#set : undefined);
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
    for (let round = 0; round < 100; round++) {
      for (const index of TYPES.keys()) this.act({ do: 'answer', type: index, bad: false });
      const before = this.sent.length;
      this.#take(this.#session.next());
      if (this.sent.length === before) return;
    }
    throw new Error('it never ends');
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
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const [quick, thorough] = [new Side(true), new Side(false)];
      for (const what of actions) {
        quick.act(what);
        thorough.act(what);
      }
      if (quick.sent.some((line) => line.includes('+'))) steps += 1;
      expect(quick.sent).toEqual(thorough.sent);
      expect(quick.held()).toEqual(thorough.held());
    }),
    { numRuns: 1_000 },
  );
  expect(steps).toBeGreaterThan(100);
});

test('responses that are split, and newer sets in between, come to the same end', () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 40 }), content, (actions, last) => {
      const [quick, thorough] = [new Side(true, 12), new Side(false, 12)];
      for (const side of [quick, thorough]) {
        for (const what of actions) side.act(what);
        side.act({ do: 'publish', content: last });
        side.drain();
      }
      expect(quick.held()).toEqual(thorough.held());
    }),
    { numRuns: 1_000 },
  );
});
