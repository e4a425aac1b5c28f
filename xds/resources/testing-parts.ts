/** Random small parts of resources, for property tests. */
import * as fc from 'fast-check';
import { type Address, type ExtensionConfig, type HeaderMutations, NO_HEADER_MUTATIONS, type StringMatch } from '../snapshot.ts';

export const names = fc.stringMatching(/^[a-z][a-z0-9-]{0,12}$/);
export const ms = fc.integer({ min: 0, max: 10_000_000 });
export const positiveMs = fc.integer({ min: 1, max: 10_000_000 });
export const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
export const percent = fc.integer({ min: 0, max: 100 });

/** An object of these arbitraries, some of whose keys may be absent. */
export function optional<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<Partial<T>> {
  return fc.record(model, { requiredKeys: [] }) as unknown as fc.Arbitrary<Partial<T>>;
}

export function both<A extends object, B extends object>(a: fc.Arbitrary<A>, b: fc.Arbitrary<B>): fc.Arbitrary<A & B> {
  return fc.tuple(a, b).map(([left, right]) => ({ ...left, ...right }));
}

export const addresses: fc.Arbitrary<Address> = fc.oneof(
  fc.record({ host: fc.ipV4(), port: fc.integer({ min: 0, max: 65_535 }) }),
  fc.record({ host: fc.constant('::1'), port: fc.integer({ min: 0, max: 65_535 }) }),
  names.map((name) => ({ host: `/run/${name}.sock`, port: 0, pipe: true as const })),
);

export const stringMatches: fc.Arbitrary<StringMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom('exact', 'prefix', 'suffix', 'contains'), value: names, ignoreCase: fc.boolean() }),
  names.map((name) => ({ kind: 'regex' as const, value: `${name}.*` })),
);

export const json: fc.Arbitrary<ExtensionConfig['config']> = fc.dictionary(
  names,
  fc.oneof(names, fc.boolean(), fc.integer({ min: -1_000, max: 1_000 })),
  { maxKeys: 3 },
);

/** Of known types, and of types that nobody here knows. */
export const extensions: fc.Arbitrary<ExtensionConfig> = fc.oneof(
  names.map((name) => ({ name, type: 'envoy.extensions.filters.http.cors.v3.Cors', config: {} })),
  fc.tuple(names, fc.integer({ min: 1, max: 9 })).map(([name, bytes]) => {
    return { name, type: 'envoy.extensions.filters.http.buffer.v3.Buffer', config: { maxRequestBytes: bytes } };
  }),
  fc.tuple(names, json).map(([name, config]) => ({ name, type: `example.${name.replace(/-/g, '_')}.Config`, config })),
);

export const mutations: fc.Arbitrary<HeaderMutations> = fc.oneof(
  fc.constant(NO_HEADER_MUTATIONS),
  names.map((name) => ({
    requestAdd: [{ name, value: 'x', append: 'OVERWRITE_IF_EXISTS_OR_ADD' as const, keepEmptyValue: false }],
    requestRemove: [`x-${name}`],
    responseAdd: [{ name, value: '', append: 'ADD_IF_ABSENT' as const, keepEmptyValue: true }],
    responseRemove: [],
  })),
);
