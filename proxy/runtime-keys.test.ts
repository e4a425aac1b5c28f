import { expect, test } from '@jest/globals';
import { EMPTY_SNAPSHOT } from '../xds/snapshot.ts';
import type { RouteConfiguration, Snapshot } from '../xds/snapshot.ts';
import { EMPTY_RUNTIME } from './runtime.ts';
import type { Compile, Runtime } from './runtime.ts';
import { withRuntimeKeys } from './runtime-keys.ts';
import { createRuntimeLayers } from './runtime-layers.ts';

const route = (...routes: object[]): RouteConfiguration => ({ name: 'r', virtualHosts: [{ routes }] }) as unknown as RouteConfiguration;
const snapshotOf = (configuration: RouteConfiguration): Snapshot => ({ ...EMPTY_SNAPSHOT, routes: new Map([['r', configuration]]) });

/** Compiles again and again; answers what the compiler was given each time, and what it was told was there before. */
function compiler(layers: ReturnType<typeof createRuntimeLayers>) {
  const given: { routes: unknown; before: unknown }[] = [];
  const inner: Compile = (snapshot, _clusters, previous) => {
    given.push({ routes: snapshot.routes.get('r'), before: previous.snapshot.routes.get('r') });
    return { snapshot, listeners: new Map() };
  };
  const compile = withRuntimeKeys(inner, layers);
  let current: Runtime = EMPTY_RUNTIME;
  return {
    given,
    compile: (snapshot: Snapshot): Runtime => (current = compile(snapshot, undefined as never, current)),
  };
}

test('keys that have values take the place of defaults, in routes, mirrors and the settings of filters', () => {
  const layers = createRuntimeLayers([
    {
      name: 'base',
      values: { a: 25, b: { c: 50 }, on: true, count: 7, struct: { numerator: 5, denominator: 'TEN_THOUSAND' }, text: 'no number' },
    },
  ]);
  const { given, compile } = compiler(layers);
  const settings = new Map([
    [
      'filter',
      {
        config: {
          share: { defaultValue: { numerator: 1 }, runtimeKey: 'struct' },
          enabled: { defaultValue: false, runtimeKey: 'on' },
          count: { defaultValue: 1, runtimeKey: 'count' },
          unset: { defaultValue: 3, runtimeKey: 'nowhere' },
          odd: { defaultValue: 4, runtimeKey: 'text' },
        },
      },
    ],
  ]);
  const configuration = route({
    match: { runtimeFraction: 1, runtimeKey: 'a' },
    action: { mirrors: [{ cluster: 'x', fraction: 0, runtimeKey: 'b.c' }] },
    perFilterConfig: settings,
  });

  const { snapshot } = compile(snapshotOf(configuration));

  const [made] = (given[0]!.routes as { virtualHosts: { routes: Record<string, unknown>[] }[] }).virtualHosts[0]!.routes;
  expect(made).toMatchObject({ match: { runtimeFraction: 0.25 }, action: { mirrors: [{ fraction: 0.5 }] } });
  expect((made!['perFilterConfig'] as typeof settings).get('filter')!.config).toMatchObject({
    share: { defaultValue: { numerator: 500, denominator: 'MILLION' } },
    enabled: { defaultValue: true },
    count: { defaultValue: 7 },
    unset: { defaultValue: 3 },
    odd: { defaultValue: 4 },
  });
  // What is in force is known by what was received.
  expect(snapshot.routes.get('r')).toBe(configuration);
});

test('virtual hosts that came by name get the values, too, and are known by what was received', () => {
  const given: unknown[] = [];
  const inner: Compile = (snapshot) => {
    given.push(snapshot.virtualHosts.get('r/a'));
    return { snapshot, listeners: new Map() };
  };
  const compile = withRuntimeKeys(inner, createRuntimeLayers([{ name: 'base', values: { a: 25 } }]));
  const [host] = route({ match: { runtimeFraction: 1, runtimeKey: 'a' } }).virtualHosts;
  const { snapshot } = compile({ ...EMPTY_SNAPSHOT, virtualHosts: new Map([['r/a', host!]]) }, undefined as never, EMPTY_RUNTIME);

  expect(given).toMatchObject([{ routes: [{ match: { runtimeFraction: 0.25 } }] }]);
  expect(snapshot.virtualHosts.get('r/a')).toBe(host);
});

test('what names no key is the same object, and a value that changed makes a new one once', () => {
  const layers = createRuntimeLayers([]);
  const { given, compile } = compiler(layers);
  const without = snapshotOf(route({ match: { runtimeFraction: 0.5 } }));
  compile(without);
  expect(given[0]!.routes).toBe(without.routes.get('r'));

  const keyed = snapshotOf(route({ match: { runtimeFraction: 0.5, runtimeKey: 'share' } }));
  compile(keyed);
  layers.modify('share', '10');
  compile(keyed);
  layers.modify('other', '1');
  compile(keyed);

  expect(given.slice(1).map(({ routes }) => (routes as RouteConfiguration).virtualHosts[0]!.routes[0]!.match.runtimeFraction)).toEqual([
    0.5, 0.1, 0.1,
  ]);
  expect(given[3]!.routes).toBe(given[2]!.routes);
  expect(given[3]!.before).toBe(given[2]!.routes);
});

test('an admin layer is there without layers, and with layers only when they name one', () => {
  const none = createRuntimeLayers([]);
  expect(none.names).toEqual([]);
  none.modify('a', '1');
  expect([none.names, none.get('a'), none.overrides]).toEqual([['admin'], '1', 1]);
  const fixed = createRuntimeLayers([{ name: 'base', values: { a: 1 } }]);
  expect(() => fixed.modify('a', '2')).toThrow('No admin layer specified');
  const layers = createRuntimeLayers([
    { name: 'base', values: { a: 1 } },
    { name: 'mine', values: undefined },
  ]);
  layers.modify('a', '2');
  expect([layers.names, layers.get('a')]).toEqual([['base', 'mine'], '2']);
});
