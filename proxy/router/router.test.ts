import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { seededRandom } from '../../lib/random.ts';
import { Wheel } from '../../lib/wheel.ts';
import { NO_HEADER_MUTATIONS } from '../../xds/snapshot.ts';
import type {
  Cluster,
  ForwardAction,
  HeaderMatch,
  LoadAssignment,
  Route,
  RouteConfiguration,
  RouteMatch,
  VirtualHost,
} from '../../xds/snapshot.ts';
import { promised } from '../promised.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { ClusterPool } from '../upstream/cluster-pool.ts';
import { FakeBody, FakeSink, fakeCluster, fakePool, fakeRequest, fakeResponse } from '../upstream/fakes.ts';
import { compileRoutes } from './router.ts';
import type { RouterDeps } from './router.ts';

const cluster = (name: string): Cluster => fakeCluster({ name });

function forward(fields: Partial<ForwardAction> & { cluster?: string } = {}): Route['action'] {
  return {
    kind: 'forward',
    target: { kind: 'cluster', cluster: fields.cluster ?? 'a' },
    clusterNotFoundStatus: 503,
    timeoutMs: 0,
    appendXForwardedHost: false,
    hashPolicies: [],
    mirrors: [],
    upgradeConfigs: [],
    priority: 'DEFAULT',
    ...fields,
  };
}

function route(match: Partial<RouteMatch>, action: Route['action'] = forward(), fields: Partial<Route> = {}): Route {
  return {
    name: '',
    match: {
      path: { kind: 'prefix', value: '/' },
      caseSensitive: true,
      headers: [],
      queryParameters: [],
      runtimeFraction: 1,
      grpcOnly: false,
      ...match,
    },
    action,
    headerMutations: NO_HEADER_MUTATIONS,
    perFilterConfig: new Map(),
    ...fields,
  };
}

function host(routes: readonly Route[], fields: Partial<VirtualHost> = {}): VirtualHost {
  return {
    name: 'all',
    domains: ['*'],
    routes,
    headerMutations: NO_HEADER_MUTATIONS,
    includeRequestAttemptCount: false,
    includeAttemptCountInResponse: false,
    requireTls: 'NONE',
    perFilterConfig: new Map(),
    ...fields,
  };
}

function routes(virtualHosts: readonly VirtualHost[], fields: Partial<RouteConfiguration> = {}): RouteConfiguration {
  return {
    name: 'test',
    virtualHosts,
    headerMutations: NO_HEADER_MUTATIONS,
    validateClusters: false,
    ignorePortInHostMatching: false,
    mostSpecificHeaderMutationsWins: false,
    maxDirectResponseBodyBytes: 4096,
    ...fields,
  };
}

/** Clusters a to d with one endpoint each; what each got is in `sent`. */
function world(config: RouteConfiguration | readonly Route[], deps: Partial<RouterDeps> = {}) {
  const clock = new ManualClock();
  const random = seededRandom(21);
  const registry = createRegistry();
  const sent: { cluster: string; request: ProxyRequest; authority: string; path: string }[] = [];
  const state = { answer: (_cluster: string, _request: ProxyRequest): Promise<ProxyResponse> => Promise.resolve(fakeResponse()) };
  const clusters = new ClusterPool({
    clock,
    random,
    log: silentLog,
    metrics: registry,
    makePool: (endpoint, { name }) =>
      fakePool((request) => {
        sent.push({ cluster: name, request, authority: request.authority, path: request.path });
        expect(endpoint.hostname).toBe(`${name}.internal`);
        return state.answer(name, request);
      }),
  });
  const names = ['a', 'b', 'c', 'd'];
  const assignment = (name: string): LoadAssignment => ({
    clusterName: name,
    localities: [
      {
        locality: { region: '', zone: '', subZone: '' },
        priority: 0,
        endpoints: [{ address: { host: name, port: 80 }, hostname: `${name}.internal`, weight: 1, health: 'HEALTHY', metadata: {} }],
      },
    ],
    overprovisioningFactor: 140,
    dropPercent: 0,
  });
  clusters.apply(new Map(names.map((name) => [name, cluster(name)])), new Map(names.map((name) => [name, assignment(name)])));
  const router = compileRoutes('virtualHosts' in config ? config : routes([host(config)]), {
    clusters,
    clock,
    random,
    wheel: new Wheel(clock, { tickMs: 1 }),
    mirrorsDropped: registry.counter('mirrors_dropped_total'),
    ...deps,
  });
  const send = (fields: Parameters<typeof fakeRequest>[0] = {}): Promise<ProxyResponse> => promised(router.send, fakeRequest(fields));
  /** The cluster that a request goes to. */
  const to = (fields: Parameters<typeof fakeRequest>[0] = {}): string | undefined => router.match(fakeRequest(fields))?.cluster;
  return { clock, registry, sent, state, clusters, router, send, to };
}

const exact = (value: string) => ({ path: { kind: 'exact', value } }) as const;
const prefix = (value: string) => ({ path: { kind: 'prefix', value } }) as const;
const header = (name: string, match: HeaderMatch['match'], invert = false): HeaderMatch => ({
  name,
  match,
  invert,
  treatMissingAsEmpty: false,
});
const equal = (value: string) => ({ kind: 'exact', value, ignoreCase: false }) as const;

test('R1 routes match in list order: exact, segment prefix, prefix and regex, with headers, query and method', () => {
  const { to } = world([
    route({ ...exact('/x'), headers: [header('version', equal('2'))] }, forward({ cluster: 'b' })),
    route({ ...exact('/x'), queryParameters: [{ name: 'debug', match: equal('1') }] }, forward({ cluster: 'c' })),
    route(exact('/x'), forward({ cluster: 'a' })),
    route({ path: { kind: 'regex', value: '/item/[0-9]+' } }, forward({ cluster: 'd' })),
    route({ path: { kind: 'segmentPrefix', value: '/item' }, headers: [header(':method', equal('POST'))] }, forward({ cluster: 'b' })),
    route(prefix('/item'), forward({ cluster: 'c' })),
  ]);

  expect(to({ path: '/x', headers: { Version: '2' } })).toBe('b');
  expect(to({ path: '/x?a=2&debug=1' })).toBe('c');
  expect(to({ path: '/x?debug=2' })).toBe('a');
  expect(to({ path: '/x/y' })).toBeUndefined();
  expect(to({ path: '/item/7?x=1' })).toBe('d');
  expect(to({ path: '/item/7a', method: 'POST' })).toBe('b');
  expect(to({ path: '/items', method: 'POST' })).toBe('c');
});

test('R1 a table of many literal paths answers as a walk through the list would', () => {
  const random = seededRandom(77);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!;
  const segments = ['', 'a', 'ab', 'b', 'c'];
  const path = (): string => `/${Array.from({ length: 1 + Math.floor(random() * 3) }, () => pick(segments)).join('/')}`;
  for (let round = 0; round < 60; round++) {
    const list = Array.from({ length: 20 }, () => ({
      kind: pick(['exact', 'prefix', 'segmentPrefix'] as const),
      value: path(),
      tagged: random() < 0.3,
      cluster: pick(['a', 'b', 'c', 'd']),
    }));
    const { to } = world(
      list.map(({ kind, value, tagged, cluster: name }) =>
        route(
          { path: { kind, value }, headers: tagged ? [header('tag', { kind: 'present', present: true })] : [] },
          forward({ cluster: name }),
        ),
      ),
    );
    for (let i = 0; i < 40; i++) {
      const wanted = path();
      const tag = random() < 0.5;
      const walked = list.find(({ kind, value, tagged }) => {
        if (tagged && !tag) return false;
        if (kind === 'exact') return wanted === value;
        return wanted.startsWith(value) && (kind === 'prefix' || wanted.length === value.length || wanted[value.length] === '/');
      })?.cluster;
      expect([wanted, to({ path: wanted, headers: tag ? { tag: '1' } : {} })]).toEqual([wanted, walked]);
    }
  }
});

test('hosts match exactly, then by longest suffix, longest prefix and *, whatever their case', () => {
  const on = (domains: string[], name: string) => host([route({}, forward({ cluster: name }))], { name: domains[0]!, domains });
  const config = routes([
    on(['*'], 'd'),
    on(['*.b.test'], 'a'),
    on(['*.a.b.test'], 'b'),
    on(['api.*'], 'c'),
    on(['x.a.b.test', 'Web:80'], 'd'),
  ]);
  const { to } = world(config);

  expect(to({ authority: 'X.a.b.TEST' })).toBe('d');
  expect(to({ authority: 'y.a.b.test' })).toBe('b');
  expect(to({ authority: 'z.b.test' })).toBe('a');
  expect(to({ authority: 'api.other' })).toBe('c');
  expect(to({ authority: '.b.test' })).toBe('d');
  expect(to({ authority: 'web:80' })).toBe('d');
  const ported = world({ ...routes([on(['web', '[::1]'], 'a')]), ignorePortInHostMatching: true });
  expect([ported.to({ authority: 'web:8080' }), ported.to({ authority: '[::1]:80' }), ported.to({ authority: '[::1]' })]).toEqual([
    'a',
    'a',
    'a',
  ]);
});

test('one domain in two virtual hosts is refused with both names', () => {
  const config = routes([host([], { name: 'one', domains: ['x'] }), host([], { name: 'two', domains: ['X'] })]);
  expect(() => world(config)).toThrow('routes "test".virtual_hosts "two".domains: "X" belongs to virtual host "one" already');
});

test('R2 without a route the answer is 404 NR and names host and path', async () => {
  const { send } = world([route(exact('/only'))]);
  await expect(send({ authority: 'shop.test', path: '/cart?x=1' })).rejects.toMatchObject({
    code: 'routeNotFound',
    row: { status: 404, flag: 'NR' },
    detail: 'Host "shop.test", path "/cart?x=1".',
  });
});

test('R3 a cluster that does not exist is 503 NC or what the route says, and is found when it comes', async () => {
  const { send, clusters, sent } = world([
    route(prefix('/a'), forward({ cluster: 'later' })),
    route(prefix('/b'), forward({ cluster: 'later', clusterNotFoundStatus: 404 })),
    route(prefix('/c'), forward({ target: { kind: 'header', header: 'X-Cluster' } })),
  ]);
  await expect(send({ path: '/a' })).rejects.toMatchObject({ row: { status: 503, flag: 'NC' }, detail: 'There is no cluster later.' });
  await expect(send({ path: '/b' })).rejects.toMatchObject({ row: { status: 404, flag: 'NC' } });
  await send({ path: '/c', headers: { 'x-cluster': 'b' } });
  expect(sent.map((one) => one.cluster)).toEqual(['b']);

  clusters.apply(new Map([['later', cluster('later')]]), new Map());
  await expect(send({ path: '/a' })).rejects.toMatchObject({ code: 'noHealthyEndpoint' });
});

test('a cluster that a header names is retried within its own budget', async () => {
  const { send, sent, state, clock } = world([route({}, forward({ target: { kind: 'header', header: 'x-cluster' }, retryPolicy: RETRY }))]);
  state.answer = () => Promise.resolve(fakeResponse(sent.length === 1 ? 503 : 200));
  const done = send({ headers: { 'x-cluster': 'c' } });
  for (let i = 0; i < 10; i++) {
    for (let j = 0; j < 20; j++) await Promise.resolve();
    clock.advance(2);
  }
  expect([(await done).status, sent.map((one) => one.cluster)]).toEqual([200, ['c', 'c']]);
});

test('R4 a path of 50 kB against a pattern that ruins backtracking engines takes linear time', () => {
  const { to } = world([route({ path: { kind: 'regex', value: '/(a+)+b' } })]);
  const timeMs = (length: number): number => {
    const startMs = performance.now();
    expect(to({ path: `/${'a'.repeat(length)}` })).toBeUndefined();
    return performance.now() - startMs;
  };
  timeMs(5000);
  expect(Math.min(timeMs(50_000), timeMs(50_000), timeMs(50_000))).toBeLessThan(Math.max(1, Math.min(timeMs(5000), timeMs(5000))) * 60);
});

test('R4 patterns that RE2 does not know are refused with their place', () => {
  expect(() => world([route({ path: { kind: 'regex', value: '(?=x)' } })])).toThrow(
    /^routes "test".virtual_hosts "all".routes\[0\].match: "\(\?=x\)" is not an RE2 pattern/,
  );
});

test('header matches follow Envoy: missing headers, inversion, ranges and presence', () => {
  const goes = (match: HeaderMatch, headers: Record<string, string>): boolean =>
    world([route({ headers: [match] })]).to({ headers }) === 'a';

  expect(goes(header('x', equal('1'), true), { x: '2' })).toBe(true);
  expect(goes(header('x', equal('1'), true), {})).toBe(false);
  expect(goes({ ...header('x', equal('1'), true), treatMissingAsEmpty: true }, {})).toBe(true);
  expect(goes(header('x', { kind: 'present', present: false }), {})).toBe(true);
  expect(goes(header('x', { kind: 'present', present: true }, true), {})).toBe(true);
  expect(goes(header('x', { kind: 'range', start: 1, end: 10 }), { x: '9' })).toBe(true);
  expect(goes(header('x', { kind: 'range', start: 1, end: 10 }), { x: '10' })).toBe(false);
  expect(goes(header('x', { kind: 'suffix', value: 'AB', ignoreCase: true }), { x: 'cab' })).toBe(true);
  expect(goes(header('x', { kind: 'regex', value: 'a.c' }), { x: 'abc' })).toBe(true);
});

test('case-insensitive paths, gRPC only, CONNECT and a fraction of requests', () => {
  expect(world([route({ ...prefix('/API'), caseSensitive: false })]).to({ path: '/api/x' })).toBe('a');
  const grpc = world([route({ grpcOnly: true })]);
  expect([
    grpc.to({ headers: { 'content-type': 'application/grpc+proto' } }),
    grpc.to({ headers: { 'content-type': 'application/grpcx' } }),
  ]).toEqual(['a', undefined]);
  expect(world([route({ path: { kind: 'connect' } })]).to({ upgrade: 'connect', method: 'CONNECT', path: '' })).toBe('a');
  const some = world([route({ runtimeFraction: 0.2 })]);
  const hits = Array.from({ length: 5000 }, () => some.to()).filter((name) => name === 'a').length;
  expect(Math.abs(hits - 1000)).toBeLessThan(150);
});

function split(weights: Readonly<Record<string, number>>, randomHeader?: string): Route['action'] {
  const clusters = Object.entries(weights).map(([name, weight]) => ({
    cluster: name,
    weight,
    headerMutations: NO_HEADER_MUTATIONS,
    perFilterConfig: new Map(),
  }));
  return forward({ target: { kind: 'weighted', clusters, ...(randomHeader === undefined ? {} : { randomHeader }) } });
}

test('W1 W3 a 90/10 split holds within 1.5 points over 10,000 requests, and weight 0 gets exactly nothing', () => {
  const { to } = world([route({}, split({ a: 90, c: 0, b: 10, d: 0 }))]);
  const counts: Record<string, number> = {};
  for (let i = 0; i < 10_000; i++) {
    const name = to()!;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  expect(Object.keys(counts).sort()).toEqual(['a', 'b']);
  expect(Math.abs(counts['a']! / 10_000 - 0.9)).toBeLessThan(0.015);
});

test('W4 weights that add up to nothing are refused', () => {
  expect(() => world([route({}, split({ a: 0, b: 0 }))])).toThrow(
    'routes "test".virtual_hosts "all".routes[0].weighted_clusters: the sum of the weights must be above 0',
  );
});

test('W6 new weights hold from the swap on, and requests under way are not touched', async () => {
  const before = world([route({}, split({ a: 90, b: 10 }))]);
  const finish: (() => void)[] = [];
  before.state.answer = () => new Promise((resolve) => finish.push(() => resolve(fakeResponse())));
  const running = Array.from({ length: 50 }, () => before.send());
  const after = compileRoutes(routes([host([route({}, split({ a: 50, b: 50 }))])]), {
    clusters: before.clusters,
    clock: before.clock,
    random: seededRandom(5),
    wheel: new Wheel(before.clock),
    mirrorsDropped: before.registry.counter('mirrors_dropped_total'),
  });

  let toB = 0;
  for (let i = 0; i < 10_000; i++) if (after.match(fakeRequest())!.cluster === 'b') toB++;
  finish.forEach((done) => done());

  expect((await Promise.all(running)).every((response) => response.status === 200)).toBe(true);
  expect(Math.abs(toB / 10_000 - 0.5)).toBeLessThan(0.025);
});

test('a header may decide the split', () => {
  const { to } = world([route({}, split({ a: 10, b: 90 }, 'X-Draw'))]);
  expect([to({ headers: { 'x-draw': '9' } }), to({ headers: { 'x-draw': '10' } }), to({ headers: { 'x-draw': '105' } })]).toEqual([
    'a',
    'b',
    'a',
  ]);
});

test.each([
  [{ prefixRewrite: '/v2' }, { kind: 'prefix', value: '/v1' }, '/v1/items?q=1', '/v2/items?q=1'],
  [{ prefixRewrite: '/' }, { kind: 'segmentPrefix', value: '/old' }, '/old/items', '/items'],
  [{ prefixRewrite: '/' }, { kind: 'segmentPrefix', value: '/old' }, '/old?x=1', '/?x=1'],
  [{ prefixRewrite: '/new' }, { kind: 'segmentPrefix', value: '/old' }, '/old', '/new'],
  [{ prefixRewrite: '/whole' }, { kind: 'exact', value: '/x' }, '/x?y', '/whole?y'],
  [
    { regexRewrite: { pattern: '^/u/([^/]+)/(.*)$', substitution: '/\\2/of/\\1' } },
    { kind: 'prefix', value: '/u' },
    '/u/ann/cart?z',
    '/cart/of/ann?z',
  ],
] as const)('R8 the path is rewritten by %j and the original is told', async (rewrite, path, from, wanted) => {
  const { send, sent } = world([route({ path }, forward(rewrite))]);
  await send({ path: from });
  expect([sent[0]!.path, sent[0]!.request.headers.get('x-envoy-original-path')]).toEqual([wanted, from]);
});

test('the host is rewritten to a text, to a header or to the endpoint, and the old one passed on when asked', async () => {
  const authorityOf = async (fields: Partial<ForwardAction>): Promise<[string, string | undefined]> => {
    const { send, sent } = world([route({}, forward(fields))]);
    await send({ authority: 'old.test', headers: { 'x-host': 'from-header' } });
    return [sent[0]!.authority, sent[0]!.request.headers.get('x-forwarded-host')];
  };
  expect(await authorityOf({ hostRewrite: { kind: 'literal', value: 'new.test' }, appendXForwardedHost: true })).toEqual([
    'new.test',
    'old.test',
  ]);
  expect(await authorityOf({ hostRewrite: { kind: 'header', header: 'X-Host' } })).toEqual(['from-header', undefined]);
  expect(await authorityOf({ hostRewrite: { kind: 'auto' } })).toEqual(['a.internal', undefined]);
});

const TO_HTTPS = { httpsRedirect: true, stripQuery: false, status: 301 } as const;
const PLAIN = { httpsRedirect: false, stripQuery: false, status: 302 } as const;
test.each([
  [TO_HTTPS, 'http://shop.test:80/a?b=1', 'https://shop.test/a?b=1'],
  [TO_HTTPS, 'http://shop.test:8080/a', 'https://shop.test:8080/a'],
  [{ ...PLAIN, hostRedirect: 'new.test' }, 'http://shop.test:8080/a', 'http://new.test/a'],
  [{ ...PLAIN, hostRedirect: 'new.test', portRedirect: 8443, schemeRedirect: 'https' }, 'http://shop.test/a', 'https://new.test:8443/a'],
  [{ ...PLAIN, portRedirect: 80 }, 'http://shop.test:8080/a', 'http://shop.test/a'],
  [{ ...PLAIN, pathRedirect: '/there' }, 'http://shop.test/a?b=1', 'http://shop.test/there?b=1'],
  [{ ...PLAIN, pathRedirect: '/there', stripQuery: true, status: 308 }, 'http://shop.test/a?b=1', 'http://shop.test/there'],
  [{ ...PLAIN, prefixRewrite: '/new' }, 'http://shop.test/old/x', 'http://shop.test/new/x'],
  [{ ...PLAIN, prefixRewrite: '/' }, 'http://[::1]:90/old/x', 'http://[::1]:90/x'],
] as const)('R8 the redirect %j of %s points to %s', async (redirect, from, wanted) => {
  const { send, sent } = world([
    route({ path: { kind: 'segmentPrefix', value: '/old' } }, { kind: 'redirect', redirect }),
    route({}, { kind: 'redirect', redirect }),
  ]);
  const [, scheme, authority, path] = /^(https?):\/\/([^/]+)(.*)$/.exec(from)!;

  const response = await send({ scheme: scheme!, authority: authority!, path: path! });

  expect([response.status, response.headers.get('location')]).toEqual([redirect.status, wanted]);
  expect(sent).toEqual([]);
});

test('a virtual host may demand https', async () => {
  const { router, sent } = world(routes([host([route({})], { requireTls: 'ALL' })]));
  const response = await promised(router.send, fakeRequest({ authority: 'x.test', path: '/a' }));
  expect([response.status, response.headers.get('location'), sent.length]).toEqual([301, 'https://x.test/a', 0]);
  await promised(router.send, fakeRequest({ scheme: 'https' }));
  expect(sent).toHaveLength(1);
});

test('a direct response is made here, with its headers', async () => {
  const direct = { kind: 'direct', status: 418, body: Buffer.from('teapot') } as const;
  const add = {
    name: 'x-made',
    value: '%RESPONSE_CODE% %ROUTE_NAME%',
    append: 'OVERWRITE_IF_EXISTS_OR_ADD',
    keepEmptyValue: false,
  } as const;
  const { send } = world([route({}, direct, { name: 'tea', headerMutations: { ...NO_HEADER_MUTATIONS, responseAdd: [add] } })]);
  const response = await send();
  expect([response.status, response.body?.whole?.toString(), response.headers.get('x-made')]).toEqual([418, 'teapot', '418 tea']);
});

test('headers are removed, added, appended and overwritten at every level, the outer level last unless configured otherwise', async () => {
  const option = (
    name: string,
    value: string,
    append: 'APPEND_IF_EXISTS_OR_ADD' | 'ADD_IF_ABSENT' | 'OVERWRITE_IF_EXISTS_OR_ADD' | 'OVERWRITE_IF_EXISTS',
  ) => ({
    name,
    value,
    append,
    keepEmptyValue: false,
  });
  const outer = { ...NO_HEADER_MUTATIONS, requestAdd: [option('level', 'outer', 'OVERWRITE_IF_EXISTS_OR_ADD')] };
  const inner = {
    ...NO_HEADER_MUTATIONS,
    requestRemove: ['Secret'],
    requestAdd: [
      option('level', 'inner', 'OVERWRITE_IF_EXISTS_OR_ADD'),
      option('X-From', '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(X-Request-Id)% %PROTOCOL%%%', 'APPEND_IF_EXISTS_OR_ADD'),
      option('Kept', 'new', 'ADD_IF_ABSENT'),
      option('Absent', 'new', 'OVERWRITE_IF_EXISTS'),
      option('Empty', '%REQ(nothing)%', 'APPEND_IF_EXISTS_OR_ADD'),
    ],
  };
  for (const mostSpecificHeaderMutationsWins of [false, true]) {
    const { send, sent } = world({
      ...routes([host([route({}, forward(), { headerMutations: inner })])]),
      headerMutations: outer,
      mostSpecificHeaderMutationsWins,
    });
    await send({ headers: { Secret: '1', Kept: 'old', 'x-request-id': 'r1' } });
    expect(sent[0]!.request.headers.fields.filter((_, i) => i % 3 !== 1)).toEqual(
      ['Kept', 'old', 'x-request-id', 'r1'].concat(
        mostSpecificHeaderMutationsWins
          ? ['level', 'inner', 'X-From', '10.1.1.1 r1 HTTP/1.1%']
          : ['level', 'outer', 'X-From', '10.1.1.1 r1 HTTP/1.1%'],
      ),
    );
  }
});

test('mutations that framing owns, and formats that do not exist, are refused with their place', () => {
  const adding = (name: string, value: string) => () =>
    world([
      route({}, forward(), {
        headerMutations: { ...NO_HEADER_MUTATIONS, requestAdd: [{ name, value, append: 'ADD_IF_ABSENT', keepEmptyValue: false }] },
      }),
    ]);
  expect(adding('Content-Length', '1')).toThrow(
    /routes\[0\].request_headers_to_add\[0\]: must be a header name that framing does not own, received "Content-Length"/,
  );
  expect(adding('x', '%NOPE%')).toThrow(/unknown operator %NOPE%/);
  expect(adding('x', '%DYNAMIC_METADATA(a)%')).toThrow(/DYNAMIC_METADATA% is not supported/);
});

test('R6 x-envoy control headers change retries and time-outs of one request and go no further; without trust they only go', async () => {
  const asked = {
    'x-envoy-retry-on': '5xx,nonsense',
    'x-envoy-max-retries': '2',
    'x-envoy-upstream-rq-timeout-ms': '9000',
    'X-Envoy-Other': 'kept',
  };
  for (const honourControls of [true, false]) {
    const { send, sent, state, clock } = world([route({})], { honourControls });
    state.answer = () => Promise.resolve(fakeResponse(503));
    const done = send({ headers: asked });
    for (let i = 0; i < 40; i++) {
      for (let j = 0; j < 20; j++) await Promise.resolve();
      clock.advance(20);
    }
    await done;

    expect(sent).toHaveLength(honourControls ? 3 : 1);
    // The request is one object for all tries; the last one was told what was left of the 9 s.
    const told = sent[0]!.request.headers.get('x-envoy-expected-rq-timeout-ms');
    if (honourControls) expect(told).toMatch(/^8[0-9]{3}$/);
    else expect(told).toBeUndefined();
    for (const name of ['x-envoy-retry-on', 'x-envoy-max-retries', 'x-envoy-upstream-rq-timeout-ms'])
      expect(sent[0]!.request.headers.has(name)).toBe(false);
    expect(sent[0]!.request.headers.get('x-envoy-other')).toBe('kept');
  }
});

const RETRY = {
  retryOn: ['5xx'],
  numRetries: 1,
  retriableStatusCodes: [],
  retriableHeaders: [],
  backOffBaseMs: 1,
  backOffMaxMs: 1,
  resetHeaders: [],
  resetMaxMs: 0,
  previousHosts: false,
  hostSelectionAttemptsMax: 1,
};

test('T15 attempt counts and the expected time-out are told when configured', async () => {
  const { send, sent, state, clock } = world(
    routes([
      host([route({}, forward({ timeoutMs: 5000 }))], {
        includeRequestAttemptCount: true,
        includeAttemptCountInResponse: true,
        retryPolicy: { ...RETRY, perTryTimeoutMs: 700 },
      }),
    ]),
  );
  const counts: (string | undefined)[] = [];
  state.answer = (_, request) => {
    counts.push(request.headers.get('x-envoy-attempt-count'));
    return Promise.resolve(fakeResponse(counts.length === 1 ? 503 : 200));
  };
  const done = send();
  for (let i = 0; i < 10; i++) {
    for (let j = 0; j < 20; j++) await Promise.resolve();
    clock.advance(2);
  }

  expect((await done).headers.get('x-envoy-attempt-count')).toBe('2');
  expect(counts).toEqual(['1', '2']);
  expect(sent[0]!.request.headers.get('x-envoy-expected-rq-timeout-ms')).toBe('700');
});

test('T6 the route time-out covers all attempts, and is counted', async () => {
  const { send, state, clock, registry, sent } = world([
    route({}, forward({ timeoutMs: 1000, retryPolicy: { ...RETRY, numRetries: 9, perTryTimeoutMs: 300 } })),
  ]);
  state.answer = (_, request) => new Promise((_resolve, reject) => (request.abort = reject));
  const done = send().catch((error: unknown) => error);
  for (let i = 0; i < 1100; i++) {
    clock.advance(1);
    for (let j = 0; j < 20; j++) await Promise.resolve();
  }

  expect(await done).toMatchObject({ code: 'upstreamTimeout' });
  expect(sent.length).toBe(4);
  const counted = (name: string): number => registry.counter(`envoy_cluster_upstream_rq_${name}`, { envoy_cluster_name: 'a' }).value;
  expect([counted('timeout'), counted('per_try_timeout')]).toEqual([1, 3]);
  expect(clock.pending).toBe(0);
});

test('R7 copies never delay or fail the primary; the shadow host only where configured', async () => {
  const mirrors = [
    { cluster: 'b', fraction: 1, disableShadowHostSuffix: false },
    { cluster: 'c', fraction: 1, disableShadowHostSuffix: true },
    { cluster: 'missing', fraction: 1, disableShadowHostSuffix: true },
  ];
  const { send, sent, state, registry } = world([route({}, forward({ mirrors }))]);
  state.answer = (name) =>
    name === 'b' ? new Promise(() => undefined) : name === 'c' ? Promise.reject(new Error('down')) : Promise.resolve(fakeResponse(201));

  expect((await send({ authority: 'x.test:80' })).status).toBe(201);

  expect(sent.map((one) => `${one.cluster} ${one.authority}`).toSorted()).toEqual(['a x.test:80', 'b x.test-shadow:80', 'c x.test:80']);
  expect(registry.counter('mirrors_dropped_total').value).toBe(1);
});

test('R7 a streamed body is copied while it passes, and not at all when it is large', async () => {
  for (const { size, way } of [10, 70_000].flatMap((bytes) => [
    { size: bytes, way: 'data' as const },
    { size: bytes, way: 'lend' as const },
  ])) {
    const { send, sent, state } = world([route({}, forward({ mirrors: [{ cluster: 'b', fraction: 1, disableShadowHostSuffix: true }] }))]);
    const sink = new FakeSink();
    state.answer = (name, request) => {
      if (name === 'a') request.body!.pipe(sink);
      return Promise.resolve(fakeResponse());
    };
    const body = new FakeBody();
    await send({ method: 'POST', body });
    const chunk = Buffer.alloc(size, 120);
    body.sink![way]!(chunk);
    chunk.fill(0);
    body.sink!.end(undefined);
    await Promise.resolve();

    expect([sink.text.length, sink.ended]).toEqual([size, true]);
    const copy = sent.find((one) => one.cluster === 'b')?.request.body?.whole?.toString();
    expect(copy).toBe(size === 10 ? 'x'.repeat(10) : undefined);
  }
});

test('hash policies combine header, query, address and cookie; a missing cookie with a life is made', async () => {
  const { send, sent } = world([
    route(
      prefix('/h'),
      forward({
        hashPolicies: [
          { kind: 'header', header: 'User', terminal: true },
          { kind: 'sourceIp', terminal: false },
        ],
      }),
    ),
    route(prefix('/c'), forward({ hashPolicies: [{ kind: 'cookie', name: 'sid', ttlMs: 60_000, path: '/', terminal: false }] })),
    route(prefix('/q'), forward({ hashPolicies: [{ kind: 'query', name: 'k', terminal: false }] })),
  ]);
  const hashOf = async (fields: Parameters<typeof fakeRequest>[0]): Promise<bigint | undefined> => {
    await send(fields);
    return sent.at(-1)!.request.info.hash;
  };

  expect(await hashOf({ path: '/h', headers: { user: 'abc' } })).toBe(0x44bc2cf5ad770999n);
  expect(await hashOf({ path: '/h' })).toBe(await hashOf({ path: '/h' }));
  expect(await hashOf({ path: '/q?k=abc' })).toBe(0x44bc2cf5ad770999n);
  expect(await hashOf({ path: '/q' })).toBeUndefined();

  const made = (await send({ path: '/c' })).headers.get('set-cookie')!;
  expect(made).toMatch(/^sid="[0-9a-f]{16}"; Max-Age=60; Path=\/; HttpOnly$/);
  const first = sent.at(-1)!.request.info.hash;
  const again = await send({ path: '/c', headers: { cookie: `other=1; ${made.split(';')[0]!}` } });
  expect([again.headers.has('set-cookie'), sent.at(-1)!.request.info.hash]).toEqual([false, first]);
});

test('filters are composed per route with their overrides, and for requests without a route too', async () => {
  const seen: string[] = [];
  const extension = (type: string) => ({ name: 'f', type, config: {} });
  const config = routes([
    host([route(exact('/a')), route(exact('/b'), forward(), { perFilterConfig: new Map([['f', extension('inner')]]) })], {
      perFilterConfig: new Map([['f', extension('outer')]]),
    }),
  ]);
  const { send } = world(config, {
    filters: (overrides) => (next) => (request, reply) => {
      seen.push(`${request.path} ${overrides.get('f')?.type ?? 'none'}`);
      next(request, reply);
    },
  });
  await send({ path: '/a' });
  await send({ path: '/b' });
  await send({ path: '/c' }).catch(() => undefined);
  expect(seen).toEqual(['/a outer', '/b inner', '/c none']);
});

test('a route tells its name, virtual host and cluster', async () => {
  const { router } = world([route({}, forward({ cluster: 'b' }), { name: 'checkout' })]);
  const request = fakeRequest();
  await promised(router.send, request);
  expect(request.info).toMatchObject({ routeName: 'checkout', virtualHostName: 'all', clusterName: 'b', attemptCount: 1 });
  expect([...router.clusters]).toEqual(['b']);
});

test('a route may switch an upgrade off', async () => {
  const { send, sent } = world([route({}, forward({ upgradeConfigs: [{ type: 'WebSocket', enabled: false }] }))]);
  await expect(send({ upgrade: 'websocket' })).rejects.toMatchObject({ code: 'upgradeFailed', row: { status: 403 } });
  await send({});
  expect(sent).toHaveLength(1);
});
