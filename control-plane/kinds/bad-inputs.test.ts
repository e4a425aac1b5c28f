import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseResources } from './parse.ts';
import { validateResource } from './validate.ts';

const ORIGIN = { source: 'files', file: 'bad.yaml' };
const SERVICE = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' } };

/** What must hold for everything in here: no resource, at least one problem, and back within a second on a busy machine. */
function refused(text: string): string {
  const startMs = performance.now();
  const { resources, problems } = parseResources(text, ORIGIN);
  expect(performance.now() - startMs).toBeLessThan(5_000);
  expect(resources).toEqual([]);
  expect(problems.length).toBeGreaterThan(0);
  return problems.map((problem) => `${problem.field} ${problem.message}`).join('\n');
}

describe('bad input 98: size, depth, repetition', () => {
  test('more than 10 MiB are refused unread', () => {
    expect(refused(`# ${'x'.repeat(10 * 1024 * 1024)}`)).toContain('must be at most 10485760 bytes');
  });

  test.each([
    ['brackets', '['.repeat(100_000)],
    ['braces', '{a: '.repeat(100_000)],
    ['dashes', '- '.repeat(50_000)],
    ['question marks', '? '.repeat(50_000)],
    ['indentation', Array.from({ length: 600 }, (_, depth) => `${' '.repeat(depth)}a:`).join('\n')],
  ])('10,000 levels of %s are refused before anything recurses', (_what, text) => {
    expect(refused(text)).toContain('must not nest deeper than');
  });

  test('a value that nests deeper than any field of ours is refused', () => {
    expect(refused(JSON.stringify({ ...SERVICE, spec: JSON.parse('['.repeat(100) + ']'.repeat(100)) as unknown }))).toContain(
      'must nest at most 64 deep',
    );
  });

  test('anchors that multiply are refused', () => {
    const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 12; level++) lines.push(`a${level}: &a${level} [${`*a${level - 1}, `.repeat(10)}]`);

    expect(refused(lines.join('\n'))).toContain('cannot be expanded');
  });

  test('an anchor that holds itself is refused', () => {
    expect(refused('apiVersion: v1\nkind: Service\nmetadata: &m { name: a, annotations: *m }\nspec: {}')).toMatch(
      /nest at most 64 deep|cannot be expanded/,
    );
  });

  test('a regular expression that backtracks elsewhere is linear here, or refused', () => {
    const route = (value: string) =>
      validateResource(
        {
          apiVersion: 'gateway.networking.k8s.io/v1',
          kind: 'HTTPRoute',
          metadata: { name: 'a' },
          spec: {
            parentRefs: [{ name: 'a', kind: 'Service', group: '' }],
            rules: [{ matches: [{ path: { type: 'RegularExpression', value } }] }],
          },
        },
        ORIGIN,
      ).problems;

    expect(route('(a+)+$')).toEqual([]);
    expect(route('(a)\\1')[0]?.message).toContain('RE2');
    expect(route(`(${'a{1000}'.repeat(100)}){1000}`)[0]?.message).toContain('RE2');
    expect(route('a'.repeat(50_000))[0]?.message).toContain('at most 1024');
  });
});

describe('bad input 99: values', () => {
  test.each([
    [
      '__proto__ as a field',
      '{ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" }, "spec": { "__proto__": { "ports": [] } } }',
      '__proto__',
    ],
    ['__proto__ as a label', '{ apiVersion: v1, kind: Service, metadata: { name: a, labels: { __proto__: x } }, spec: {} }', '__proto__'],
    ['__proto__ as the kind', '{ apiVersion: v1, kind: __proto__, metadata: { name: a }, spec: {} }', 'must be one of'],
    ['constructor as the kind', '{ apiVersion: v1, kind: constructor, metadata: { name: a }, spec: {} }', 'must be one of'],
    [
      'the same field twice',
      'apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: {}\nspec: {}',
      'must not name the same field twice',
    ],
    [
      'the same field twice in JSON',
      '{"apiVersion":"v1","kind":"Service","kind":"Service","metadata":{"name":"a"}}',
      'must not name the same field twice',
    ],
    ['port 0', '{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { ports: [{ port: 0 }] } }', 'at least 1'],
    ['port 70000', '{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { ports: [{ port: 70000 }] } }', 'at most 65535'],
    [
      'a port with a fraction',
      '{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { ports: [{ port: 80.5 }] } }',
      'a whole number',
    ],
    ['a port that is no number', '{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { ports: [{ port: .nan }] } }', 'must be'],
    ['an unknown field', '{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { prots: [] } }', 'did you mean "ports"?'],
    [
      'a weight of 2^32',
      '{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: a }, spec: { address: 10.0.0.1, weight: 4294967296 } }',
      'at most 1000000',
    ],
    [
      'a negative duration',
      '{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: a }, spec: { requestTimeout: -1s } }',
      'must be a duration',
    ],
    ['no name', '{ apiVersion: v1, kind: Service, metadata: {}, spec: {} }', 'is required'],
    ['a name with a slash', '{ apiVersion: v1, kind: Service, metadata: { name: a/b }, spec: {} }', 'must be a DNS name'],
    [
      'a header value with a line end',
      '{ apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: { name: a }, spec: { parentRefs: [{ name: a }], rules: [{ filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x, value: "a\\r\\nb: c" }] } }] }] } }',
      'printable ASCII',
    ],
    [
      'a header that frames the message',
      '{ apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: { name: a }, spec: { parentRefs: [{ name: a }], rules: [{ filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: Transfer-Encoding, value: chunked }] } }] }] } }',
      'must not be a header that frames',
    ],
    ['text', 'hello', 'must be an object'],
    ['a list', '[1, 2]', 'must be an object'],
    ['a binary tag', 'spec: !!binary x\nkind: Service\napiVersion: v1', ''],
  ])('%s is refused with its rule', (_what, text, words) => {
    expect(refused(text)).toContain(words);
  });

  test('nothing that is read reaches into JavaScript’s own objects', () => {
    parseResources('{ "__proto__": { "polluted": true }, "constructor": { "prototype": { "polluted": true } } }', ORIGIN);
    validateResource(JSON.parse('{ "__proto__": { "polluted": true } }'), ORIGIN);

    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  test('values that are no JSON at all are refused by the door for API writes', () => {
    for (const value of [undefined, null, 1, 'x', [], () => 1, new Date(0)]) {
      const { resource, problems } = validateResource(value, { source: 'api' });
      expect(resource).toBeUndefined();
      expect(problems.length).toBeGreaterThan(0);
    }
  });

  test('a document with very many mistakes answers with a bounded list', () => {
    const ports = Array.from({ length: 100 }, () => ({ prot: 1 }));

    const { problems } = validateResource({ ...SERVICE, spec: { ports } }, ORIGIN);

    expect(problems.length).toBeLessThanOrEqual(50);
  });
});

describe('anything at all', () => {
  const GOOD = {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'HTTPRoute',
    metadata: { name: 'a', labels: { app: 'a' } },
    spec: {
      parentRefs: [{ group: '', kind: 'Service', name: 'a', port: 80 }],
      rules: [
        {
          matches: [{ path: { type: 'PathPrefix', value: '/a' }, headers: [{ name: 'x', value: 'y' }], method: 'GET' }],
          filters: [{ type: 'RequestHeaderModifier', requestHeaderModifier: { set: [{ name: 'x', value: 'y' }] } }],
          backendRefs: [{ name: 'a', port: 80, weight: 1 }],
          timeouts: { request: '10s', backendRequest: '1s' },
          retry: { attempts: 2, codes: [503], backoff: '25ms' },
        },
      ],
    },
  };

  test('property: text of any kind gives resources and problems, never an exception', () => {
    const pieces = fc.constantFrom(
      'apiVersion: v1\n',
      'kind: Service\n',
      'metadata:\n',
      '  name: a\n',
      'spec: {}\n',
      '---\n',
      '- ',
      '{',
      '}',
      '[',
      ']',
      '&a ',
      '*a',
      '<<: ',
      '!!int ',
      '? ',
      ': ',
      '"',
      "'",
      '|\n',
      '\t',
      '%YAML 1.2\n',
    );
    const text = fc.array(fc.oneof(pieces, fc.string({ maxLength: 8 })), { maxLength: 40 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (input) => {
        const { resources, problems } = parseResources(input, ORIGIN);
        for (const problem of problems) expect(problem.message).not.toBe('');
        for (const resource of resources) expect(resource.metadata.name).not.toBe('');
      }),
      { numRuns: 500 },
    );
  });

  test('property: a good document with one value replaced by anything is taken or refused with a place, never an exception', () => {
    const paths: (string | number)[][] = [];
    const walk = (value: unknown, path: (string | number)[]): void => {
      paths.push(path);
      if (typeof value === 'object' && value !== null)
        for (const key of Object.keys(value))
          walk((value as Record<string, unknown>)[key], [...path, Array.isArray(value) ? Number(key) : key]);
    };
    walk(GOOD, []);
    const replaced = (path: readonly (string | number)[], by: unknown): unknown => {
      if (path.length === 0) return by;
      const copy = structuredClone(GOOD) as unknown;
      let at = copy as Record<string | number, unknown>;
      for (const part of path.slice(0, -1)) at = at[part] as Record<string | number, unknown>;
      at[path.at(-1)!] = by;
      return copy;
    };
    expect(validateResource(GOOD, ORIGIN).problems).toEqual([]);
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.anything(), (path, by) => {
        const { resource, problems } = validateResource(replaced(path, by), ORIGIN);
        expect((resource === undefined) === problems.some((problem) => problem.severity !== 'warning') || problems.length > 0).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});
