import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import type { DeltaRequest, EncodedResource } from './messages.ts';
import { ServerSession } from './server.ts';
import { MANY_NAMES, StrangeNames } from './subscription.ts';
import { testNode, testResource, testSet } from './testing.ts';
import { ENDPOINT_TYPE, VIRTUAL_HOST_TYPE } from './type-urls.ts';

const NAMES = Array.from({ length: MANY_NAMES }, (_, index) => `name-${String(index).padStart(2, '0')}`);
/** What one of these names costs: its characters, and a hundred. */
const COST = 107;

function ask(typeUrl: string, subscribe: readonly string[], more: Partial<DeltaRequest> = {}): DeltaRequest {
  const nothing = { unsubscribe: [], initialVersions: new Map<string, string>(), responseNonce: '' };
  return { mode: 'delta', typeUrl, subscribe, node: testNode(), ...nothing, ...more };
}

function begin(strangeNames: StrangeNames): { session: ServerSession; evicted: () => boolean } {
  let evicted = false;
  const session = new ServerSession({ mode: 'delta', clock: new ManualClock(), strangeNames, onEvicted: () => (evicted = true) });
  return { session, evicted: () => evicted };
}

const host = (name: string, version: string): EncodedResource =>
  testResource(VIRTUAL_HOST_TYPE, `r/${name}.default`, version, { version, aliases: [`r/${name}`] });
const endpoints = (names: readonly string[]): EncodedResource[] => names.map((name) => testResource(ENDPOINT_TYPE, name, '1'));

test('names that no resource has are counted in a long list that streams share, too, and no longer once they have one', () => {
  const strange = new StrangeNames(2 * NAMES.length * COST - 1);
  const [first, second, third] = [begin(strange), begin(strange), begin(strange)];

  first.session.publish(testSet([]));
  first.session.receive(ask(ENDPOINT_TYPE, NAMES));
  // All of them come to be: they cost the first stream nothing any more.
  first.session.publish(testSet(endpoints(NAMES)));
  second.session.publish(testSet([]));
  second.session.receive(ask(ENDPOINT_TYPE, NAMES));
  expect([first.evicted(), second.evicted()]).toEqual([false, false]);

  third.session.publish(testSet([]));
  third.session.receive(ask(ENDPOINT_TYPE, NAMES.slice(1)));
  third.session.receive(ask(ENDPOINT_TYPE, ['name-00']));
  expect([first.evicted(), second.evicted(), third.evicted()]).toEqual([false, false, true]);
});

test('a client that comes back with many virtual hosts, which it asked for by an alias, is sent only what changed', () => {
  const session = new ServerSession({ mode: 'delta', clock: new ManualClock() });
  session.publish(testSet(NAMES.map((name) => host(name, name === 'name-07' ? '2' : '1'))));
  const initialVersions = new Map(NAMES.map((name) => [`r/${name}.default`, '1']));
  session.receive(
    ask(
      VIRTUAL_HOST_TYPE,
      NAMES.map((name) => `r/${name}`),
      { initialVersions },
    ),
  );

  expect(session.next()?.resources.map(({ name }) => name)).toEqual(['r/name-07.default']);
  expect(session.next()).toBeUndefined();
});

test('what was asked for by an alias is sent when it changes, also where only its own name is told as changed', () => {
  const session = new ServerSession({ mode: 'delta', clock: new ManualClock() });
  session.publish(testSet([host('a', '1')]));
  session.receive(ask(VIRTUAL_HOST_TYPE, ['r/a']));
  const nonce = session.next()?.nonce;
  session.receive(ask(VIRTUAL_HOST_TYPE, [], { responseNonce: nonce! }));
  expect(session.next()).toBeUndefined();

  const next = testSet([host('a', '2')]);
  next.changedSince = () => ['r/a.default'];
  session.publish(next);

  expect(session.next()?.resources.map(({ name, version }) => `${name}=${version}`)).toEqual(['r/a.default=2']);
});
