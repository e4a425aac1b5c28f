import { describe, expect, test } from '@jest/globals';
import type { Route } from '../../xds/snapshot.ts';
import { named, nodeOf, overTheWire, routesFor, worldOf } from '../testing.ts';
import type { Node } from '../world.ts';
import { build } from './index.ts';

const SERVICES = ['web', 'web-v1', 'web-v2']
  .map(
    (name) =>
      `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80 }] } }`,
  )
  .join('\n---\n');

/** Routes of Service `web` that these rules make. */
function routesOf(rules: string, more = '', clientNamespace = 'default', flavour: Node['flavour'] = 'sidecar'): readonly Route[] {
  const world = worldOf(`${SERVICES}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web }
spec:
  parentRefs: [{ group: "", kind: Service, name: web }]
  rules: ${rules}
${more}`);
  const resources = build(world, nodeOf(world, undefined, { namespace: clientNamespace, flavour }));
  expect(overTheWire(resources).routes).toEqual(resources.routes);
  return routesFor(resources.routes[0]!, 'web.default');
}

const forward = (route: Route | undefined): Extract<Route['action'], { kind: 'forward' }> => {
  if (route?.action.kind !== 'forward') throw new Error(`not a forwarding route: ${JSON.stringify(route)}`);
  return route.action;
};
const cluster = (name: string): string => `outbound|80||${name}.default.svc.cluster.local`;

test('R1: exact before longest prefix before regular expression before everything; then method, headers, query parameters', () => {
  const routes = routesOf(`
    - { matches: [{ path: { type: RegularExpression, value: "/a.*" } }], backendRefs: [{ name: web }] }
    - { matches: [{ path: { value: / } }], backendRefs: [{ name: web }] }
    - { matches: [{ path: { value: /a } }], backendRefs: [{ name: web }] }
    - { matches: [{ path: { value: /a }, queryParams: [{ name: q, value: "1" }] }], backendRefs: [{ name: web }] }
    - { matches: [{ path: { value: /a }, headers: [{ name: X-A, value: "1" }] }], backendRefs: [{ name: web }] }
    - { matches: [{ path: { value: /a }, method: GET }], backendRefs: [{ name: web }] }
    - { matches: [{ path: { value: /a/long } }, { path: { type: Exact, value: /a } }], backendRefs: [{ name: web }] }
`);

  expect(routes.map((route) => route.name)).toEqual([
    'default/web/6/1',
    'default/web/6/0',
    'default/web/5/0',
    'default/web/4/0',
    'default/web/3/0',
    'default/web/2/0',
    'default/web/0/0',
    'default/web/1/0',
  ]);
});

test('a prefix ends at a segment, and the empty one takes everything', () => {
  const routes = routesOf('[{ matches: [{ path: { value: /api/ } }, {}], backendRefs: [{ name: web }] }]');

  expect(routes.map((route) => route.match.path)).toEqual([
    { kind: 'segmentPrefix', value: '/api' },
    { kind: 'prefix', value: '/' },
  ]);
});

test('of two matches on one header the first counts, whatever the case', () => {
  const [route] = routesOf(
    '[{ matches: [{ headers: [{ name: X-A, value: one }, { name: x-a, value: two }] }], backendRefs: [{ name: web }] }]',
  );

  expect(route?.match.headers).toEqual([
    { name: 'x-a', match: { kind: 'exact', value: 'one', ignoreCase: false }, invert: false, treatMissingAsEmpty: false },
  ]);
});

test('W3: weights split the requests, and a weight of zero gets none', () => {
  const [route] = routesOf('[{ backendRefs: [{ name: web-v1, weight: 90 }, { name: web-v2, weight: 10 }, { name: web, weight: 0 }] }]');

  const { target } = forward(route);
  expect(target.kind === 'weighted' && target.clusters.map((entry) => [entry.cluster, entry.weight])).toEqual([
    [cluster('web-v1'), 90],
    [cluster('web-v2'), 10],
  ]);
});

test('the share of a backend that does not exist is answered with 500, the others keep theirs', () => {
  const [failing, rest] = routesOf('[{ backendRefs: [{ name: web-v1, weight: 3 }, { name: web-v9, weight: 1 }] }]');

  expect(failing?.match.runtimeFraction).toBe(0.25);
  expect(failing?.action).toMatchObject({ kind: 'direct', status: 500 });
  expect(forward(rest).target).toEqual({ kind: 'cluster', cluster: cluster('web-v1') });
});

test('a rule whose backends are all missing, or that has none, is answered with 500 and leaves the others alone', () => {
  const routes = routesOf(`
    - { matches: [{ path: { type: Exact, value: /gone } }], backendRefs: [{ name: web-v9 }] }
    - { matches: [{ path: { type: Exact, value: /none } }] }
    - { backendRefs: [{ name: web }] }
`);

  expect(routes.map((route) => route.action.kind)).toEqual(['direct', 'direct', 'forward']);
});

test('a request that no rule matches has no route', () => {
  const routes = routesOf('[{ matches: [{ path: { value: /only } }], backendRefs: [{ name: web }] }]');

  expect(routes).toHaveLength(1);
});

describe('timeouts and retries', () => {
  test('a rule that says nothing has no timeout and retries only what is safe for its data plane', () => {
    const sidecar = forward(routesOf('[{ backendRefs: [{ name: web }] }]')[0]);
    const envoy = forward(routesOf('[{ backendRefs: [{ name: web }] }]', '', 'default', 'envoy')[0]);

    expect(sidecar.timeoutMs).toBe(0);
    // Our sidecar repeats after a reset only what may happen twice; an Envoy would repeat a POST.
    expect(sidecar.retryPolicy?.retryOn).toEqual(['connect-failure', 'refused-stream', 'reset-before-request', 'reset']);
    expect(envoy.retryPolicy?.retryOn).toEqual(['connect-failure', 'refused-stream', 'reset-before-request']);
    expect(envoy.retryPolicy).toMatchObject({ numRetries: 2, previousHosts: true });
  });

  test('a rule says how long, how often and on which codes', () => {
    const action = forward(
      routesOf(
        '[{ backendRefs: [{ name: web }], timeouts: { request: 2s, backendRequest: 500ms }, retry: { attempts: 3, codes: [502, 503], backoff: 10ms } }]',
      )[0],
    );

    expect(action.timeoutMs).toBe(2_000);
    expect(action.retryPolicy).toMatchObject({
      numRetries: 3,
      perTryTimeoutMs: 500,
      retriableStatusCodes: [502, 503],
      backOffBaseMs: 10,
      backOffMaxMs: 100,
    });
    expect(action.retryPolicy?.retryOn.slice(-2)).toEqual(['reset', 'retriable-status-codes']);
  });

  test('the mesh’s request timeout holds where a rule names none', () => {
    const more = '---\n{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { requestTimeout: 7s } }';

    expect(forward(routesOf('[{ backendRefs: [{ name: web }] }]', more)[0]).timeoutMs).toBe(7_000);
    expect(forward(routesOf('[{ backendRefs: [{ name: web }], timeouts: { request: 0s } }]', more)[0]).timeoutMs).toBe(0);
  });
});

describe('R8: filters', () => {
  test('headers are set, added and removed, on requests and responses, for a rule and for one backend', () => {
    const [route] = routesOf(`
    - filters:
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Set, value: a }], add: [{ name: X-Add, value: b }], remove: [X-Gone] } }
        - { type: ResponseHeaderModifier, responseHeaderModifier: { remove: [Server] } }
      backendRefs: [{ name: web, filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Backend, value: web }] } }] }]
`);

    expect(route?.headerMutations.requestAdd.map((option) => [option.name, option.append])).toEqual([
      ['x-set', 'OVERWRITE_IF_EXISTS_OR_ADD'],
      ['x-add', 'APPEND_IF_EXISTS_OR_ADD'],
    ]);
    expect(route?.headerMutations.requestRemove).toEqual(['x-gone']);
    expect(route?.headerMutations.responseRemove).toEqual(['server']);
    const { target } = forward(route);
    expect(target.kind === 'weighted' && target.clusters[0]?.headerMutations.requestAdd[0]?.name).toBe('x-backend');
  });

  test('a modifier that sets Host is a host rewrite, since xDS takes no Host among header mutations', () => {
    const [whole, one] = routesOf(`
    - { filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: Host, value: a.example }, { name: X-A, value: b }], remove: [Host] } }], backendRefs: [{ name: web }] }
    - { backendRefs: [{ name: web, filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: host, value: c.example }] } }] }] }
`);

    expect(forward(whole).hostRewrite).toEqual({ kind: 'literal', value: 'a.example' });
    expect(whole?.headerMutations.requestAdd.map(({ name }) => name)).toEqual(['x-a']);
    expect(whole?.headerMutations.requestRemove).toEqual([]);
    const { target } = forward(one);
    expect(target.kind === 'weighted' && target.clusters[0]).toMatchObject({ hostRewriteLiteral: 'c.example' });
  });

  test('prefixes are replaced without leaving or doubling a slash', () => {
    const rewrite = (prefix: string, replacement: string): unknown => {
      const [route] = routesOf(
        `[{ matches: [{ path: { value: ${prefix} } }], filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: "${replacement}" } } }], backendRefs: [{ name: web }] }]`,
      );
      const { prefixRewrite, regexRewrite } = forward(route);
      return prefixRewrite ?? regexRewrite;
    };

    expect(rewrite('/foo', '/xyz')).toBe('/xyz');
    expect(rewrite('/foo', '/xyz/')).toBe('/xyz');
    expect(rewrite('/', '/xyz')).toBe('/xyz/');
    expect(rewrite('/foo.bar', '/')).toEqual({ pattern: '^/foo\\.bar/*', substitution: '/' });
    expect(rewrite('/foo', '')).toEqual({ pattern: '^/foo/*', substitution: '/' });
  });

  test('host and full path are rewritten', () => {
    const [route] = routesOf(
      '[{ filters: [{ type: URLRewrite, urlRewrite: { hostname: other.example, path: { type: ReplaceFullPath, replaceFullPath: /all } } }], backendRefs: [{ name: web }] }]',
    );

    expect(forward(route)).toMatchObject({
      hostRewrite: { kind: 'literal', value: 'other.example' },
      regexRewrite: { pattern: '^.*$', substitution: '/all' },
    });
  });

  test('redirects name no port that the scheme implies', () => {
    const redirect = (settings: string): unknown =>
      routesOf(`[{ filters: [{ type: RequestRedirect, requestRedirect: ${settings} }] }]`)[0]?.action;

    expect(redirect('{ scheme: https, port: 443, statusCode: 301 }')).toEqual({
      kind: 'redirect',
      redirect: { httpsRedirect: false, schemeRedirect: 'https', status: 301, stripQuery: false },
    });
    expect(redirect('{ hostname: new.example, port: 8443, path: { type: ReplaceFullPath, replaceFullPath: /x } }')).toEqual({
      kind: 'redirect',
      redirect: {
        httpsRedirect: false,
        hostRedirect: 'new.example',
        portRedirect: 8443,
        pathRedirect: '/x',
        status: 302,
        stripQuery: false,
      },
    });
  });

  test('R7: mirrors name a cluster and a share, and keep the host', () => {
    const [route] = routesOf(
      '[{ filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: web-v2, port: 80 }, percent: 12.5 } }], backendRefs: [{ name: web }] }]',
    );

    expect(forward(route).mirrors).toEqual([{ cluster: cluster('web-v2'), fraction: 0.125, disableShadowHostSuffix: true }]);
  });
});

test('a consumer’s route counts in its own namespace only, and instead of the service’s', () => {
  const consumer = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: mine, namespace: other }
spec:
  parentRefs: [{ group: "", kind: Service, name: web, namespace: default }]
  rules: [{ backendRefs: [{ name: web-v2, namespace: default }] }]
`;
  const rules = '[{ backendRefs: [{ name: web-v1 }] }]';

  expect(forward(routesOf(rules, consumer)[0]).target).toMatchObject({ cluster: cluster('web-v1') });
  expect(forward(routesOf(rules, consumer, 'other')[0]).target).toMatchObject({ cluster: cluster('web-v2') });
});

test('a parent that names a port leaves the other ports alone', () => {
  const world = worldOf(`
{ apiVersion: v1, kind: Service, metadata: { name: two }, spec: { ports: [{ name: http, port: 80 }, { name: http-b, port: 81 }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: two }
spec:
  parentRefs: [{ group: "", kind: Service, name: two, port: 81 }]
  rules: [{ matches: [{ path: { value: /x } }], backendRefs: [{ name: two, port: 80 }] }]
`);
  const [routes] = build(world, nodeOf(world, undefined)).routes;

  expect(routesFor(routes!, 'two:80').map((route) => route.name)).toEqual(['default']);
  expect(forward(routesFor(routes!, 'two:81')[0]).target).toEqual({
    kind: 'cluster',
    cluster: 'outbound|80||two.default.svc.cluster.local',
  });
});

test('a GRPCRoute matches by service and method, and only gRPC', () => {
  const world = worldOf(`${SERVICES}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: web }
spec:
  parentRefs: [{ group: "", kind: Service, name: web }]
  rules:
    - { matches: [{ method: { service: shop.Cart } }], backendRefs: [{ name: web-v1 }] }
    - { matches: [{ method: { service: shop.Cart, method: Add } }], backendRefs: [{ name: web-v2 }] }
    - { matches: [{ method: { method: Ping } }], backendRefs: [{ name: web }] }
`);
  const routes = routesFor(build(world, nodeOf(world, undefined)).routes[0]!, 'web');

  expect(routes.map((route) => route.match.path)).toEqual([
    { kind: 'exact', value: '/shop.Cart/Add' },
    { kind: 'prefix', value: '/shop.Cart/' },
    { kind: 'regex', value: '/[^/]+/Ping' },
  ]);
  expect(routes.every((route) => route.match.grpcOnly)).toBe(true);
});

test('a BackendPolicy sets balancing, limits, ejection and health checks of its service alone', () => {
  const world = worldOf(`${SERVICES}
---
apiVersion: meshwork.dev/v1alpha1
kind: BackendPolicy
metadata: { name: web }
spec:
  targetRefs: [{ kind: Service, name: web }]
  loadBalancing: { policy: RingHash, hashOn: { header: X-User }, minimumRingSize: 2048, panicThresholdPercent: 50 }
  circuitBreaker: { maxRequests: 10 }
  connection: { connectTimeout: 1s, maxRequestsPerConnection: 100 }
  outlierDetection: { consecutive5xx: 3, baseEjectionTime: 1m, maxEjectionPercent: 10, alwaysEjectOne: false }
  healthCheck: { http: { path: /healthz }, interval: 5s }
  retryBudget: { percent: 50 }
`);
  const resources = build(world, nodeOf(world, undefined));
  const policed = named(overTheWire(resources).clusters, cluster('web'));

  expect(policed.lbPolicy).toMatchObject({ name: 'RING_HASH' });
  expect(policed.circuitBreakers.default).toMatchObject({
    maxRequests: 10,
    maxConnections: 100_000,
    retryBudget: { budgetPercent: 50, minRetryConcurrency: 3 },
  });
  expect(policed).toMatchObject({ connectTimeoutMs: 1_000, maxRequestsPerConnection: 100, panicThresholdPercent: 50 });
  expect(policed.outlierDetection).toMatchObject({
    consecutive5xx: 3,
    baseEjectionTimeMs: 60_000,
    maxEjectionTimeMs: 300_000,
    maxEjectionPercent: 10,
    alwaysEjectOneEndpoint: false,
  });
  expect(policed.healthChecks).toMatchObject([{ intervalMs: 5_000, check: { kind: 'http', path: '/healthz' } }]);
  expect(forward(routesFor(resources.routes[0]!, 'web')[0]).hashPolicies).toEqual([{ kind: 'header', header: 'x-user', terminal: false }]);

  const plain = named(resources.clusters, cluster('web-v1'));
  expect(plain.lbPolicy).toEqual({ name: 'LEAST_REQUEST', type: 'LEAST_REQUEST', config: { choiceCount: 2 } });
  expect(plain.outlierDetection).toMatchObject({ consecutive5xx: 5, alwaysEjectOneEndpoint: true, maxEjectionPercent: 50 });
});
