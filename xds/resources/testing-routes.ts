/** Random route configurations, for property tests. */
import * as fc from 'fast-check';
import type {
  ForwardAction,
  HashPolicy,
  HeaderMatch,
  RetryPolicy,
  Route,
  RouteAction,
  RouteConfiguration,
  RouteMatch,
  VirtualHost,
  WeightedCluster,
} from '../snapshot.ts';
import { both, extensions, ms, mutations, names, optional, positiveMs, stringMatches } from './testing-parts.ts';

const perFilterConfigs = fc
  .array(both(extensions, optional({ disabled: fc.constant(true) })), { maxLength: 2 })
  .map((list) => new Map(list.map((item) => [item.name, item])));

const headerMatches: fc.Arbitrary<HeaderMatch> = fc.record({
  name: names,
  match: fc.oneof(
    stringMatches,
    fc.record({ kind: fc.constant('present' as const), present: fc.boolean() }),
    fc.record({ kind: fc.constant('range' as const), start: fc.integer({ min: -5, max: 5 }), end: fc.integer({ min: 6, max: 9 }) }),
  ),
  invert: fc.boolean(),
  treatMissingAsEmpty: fc.boolean(),
});

const routeMatches: fc.Arbitrary<RouteMatch> = both(
  fc.record({
    path: fc.oneof(
      fc.record({ kind: fc.constantFrom('prefix', 'exact', 'segmentPrefix'), value: names.map((name) => `/${name}`) }),
      fc.constant({ kind: 'regex' as const, value: '/a/[0-9]+' }),
      fc.constant({ kind: 'connect' as const }),
    ),
    caseSensitive: fc.boolean(),
    headers: fc.array(headerMatches, { maxLength: 2 }),
    queryParameters: fc.array(fc.record({ name: names, match: stringMatches }), { maxLength: 1 }),
    runtimeFraction: fc.constantFrom(0, 0.01, 0.123456, 0.5, 1),
    grpcOnly: fc.boolean(),
  }),
  optional({ runtimeKey: names }),
);

export const retryPolicies: fc.Arbitrary<RetryPolicy> = both(
  fc.record({
    retryOn: fc.subarray(['5xx', 'reset', 'connect-failure', 'retriable-status-codes']),
    numRetries: fc.integer({ min: 0, max: 9 }),
    retriableStatusCodes: fc.constantFrom([], [503, 429]),
    retriableHeaders: fc.array(headerMatches, { maxLength: 1 }),
    backOffBaseMs: fc.integer({ min: 1, max: 100 }),
    backOffMaxMs: fc.integer({ min: 100, max: 1_000 }),
    previousHosts: fc.boolean(),
    hostSelectionAttemptsMax: fc.integer({ min: 1, max: 9 }),
  }),
  both(
    fc.constantFrom<Pick<RetryPolicy, 'resetHeaders' | 'resetMaxMs'>>(
      { resetHeaders: [], resetMaxMs: 300_000 },
      { resetHeaders: [{ name: 'retry-after', format: 'SECONDS' }], resetMaxMs: 60_000 },
    ),
    optional({ perTryTimeoutMs: positiveMs, perTryIdleTimeoutMs: positiveMs }),
  ),
);

const hashPolicies: fc.Arbitrary<HashPolicy> = fc.oneof(
  names.map((header) => ({ kind: 'header' as const, header, terminal: true })),
  names.map((name) => ({ kind: 'cookie' as const, name, ttlMs: 0, path: '/', terminal: false })),
  names.map((name) => ({ kind: 'query' as const, name, terminal: false })),
  names.map((key) => ({ kind: 'filterState' as const, key, terminal: false })),
  fc.constant({ kind: 'sourceIp' as const, terminal: false }),
);

const weighted: fc.Arbitrary<WeightedCluster> = both(
  fc.record({ cluster: names, weight: fc.integer({ min: 1, max: 100 }), headerMutations: mutations, perFilterConfig: perFilterConfigs }),
  optional({ hostRewriteLiteral: names, metadataMatch: fc.constant({ version: 'v2' }) }),
);

const forwards: fc.Arbitrary<ForwardAction> = both(
  fc.record({
    target: fc.oneof(
      names.map((cluster) => ({ kind: 'cluster' as const, cluster })),
      names.map((header) => ({ kind: 'header' as const, header })),
      fc
        .array(weighted, { minLength: 1, maxLength: 3 })
        .map((clusters) => ({ kind: 'weighted' as const, clusters, randomHeader: 'x-random' })),
    ),
    clusterNotFoundStatus: fc.constantFrom(503, 404, 500),
    timeoutMs: ms,
    appendXForwardedHost: fc.boolean(),
    hashPolicies: fc.array(hashPolicies, { maxLength: 2 }),
    mirrors: fc.array(
      both(
        fc.record({ cluster: names, fraction: fc.constantFrom(0.5, 1), disableShadowHostSuffix: fc.boolean() }),
        optional({ runtimeKey: names }),
      ),
      {
        maxLength: 1,
      },
    ),
    upgradeConfigs: fc.constantFrom<ForwardAction['upgradeConfigs']>(
      [],
      [{ type: 'websocket', enabled: false }],
      [{ type: 'connect', enabled: true, terminates: true }],
    ),
    priority: fc.constantFrom('DEFAULT', 'HIGH'),
  }),
  optional({
    idleTimeoutMs: ms,
    maxStreamDurationMs: ms,
    retryPolicy: retryPolicies,
    prefixRewrite: fc.constant('/new'),
    regexRewrite: fc.constant({ pattern: '^/old', substitution: '/new' }),
    hostRewrite: fc.constantFrom(
      { kind: 'literal' as const, value: 'h' },
      { kind: 'auto' as const },
      { kind: 'header' as const, header: 'x-h' },
    ),
    metadataMatch: fc.constant({ version: 'v1' }),
  }),
);

const actions: fc.Arbitrary<RouteAction> = fc.oneof(
  forwards.map((forward) => ({ kind: 'forward' as const, ...forward })),
  fc.record({
    kind: fc.constant('direct' as const),
    status: fc.integer({ min: 200, max: 599 }),
    body: fc.uint8Array({ maxLength: 8 }).map((bytes) => Uint8Array.from(bytes)),
  }),
  fc.constant({ kind: 'direct' as const, status: 404, bodyFrom: { kind: 'file' as const, path: '/404.html' } }),
  fc.constant({ kind: 'nonForwarding' as const }),
  both(
    fc.record({
      httpsRedirect: fc.boolean(),
      status: fc.constantFrom(301 as const, 302 as const, 303 as const, 307 as const, 308 as const),
      stripQuery: fc.boolean(),
    }),
    optional({ hostRedirect: names, portRedirect: fc.integer({ min: 1, max: 65_535 }), pathRedirect: fc.constant('/x') }),
  ).map((redirect) => ({ kind: 'redirect' as const, redirect })),
);

const routes: fc.Arbitrary<Route> = both(
  fc.record({ name: names, match: routeMatches, action: actions, headerMutations: mutations, perFilterConfig: perFilterConfigs }),
  optional({ metadata: fc.constant({ istio: { config: '/x' } }) }),
);

export const virtualHosts: fc.Arbitrary<VirtualHost> = both(
  fc.record({
    name: names,
    domains: names.map((name) => [name, `*.${name}`]),
    routes: fc.array(routes, { maxLength: 3 }),
    headerMutations: mutations,
    includeRequestAttemptCount: fc.boolean(),
    includeAttemptCountInResponse: fc.boolean(),
    requireTls: fc.constantFrom('NONE', 'EXTERNAL_ONLY', 'ALL'),
    perFilterConfig: perFilterConfigs,
  }),
  optional({ retryPolicy: retryPolicies }),
);

export const routeConfigurations: fc.Arbitrary<RouteConfiguration> = both(
  fc.record({
    name: names,
    virtualHosts: fc
      .uniqueArray(virtualHosts, { maxLength: 3, selector: (host) => host.name })
      .map((hosts) => hosts.map((host) => ({ ...host, domains: host.domains.map((domain) => `${domain}.${host.name}`) }))),
    headerMutations: mutations,
    validateClusters: fc.boolean(),
    ignorePortInHostMatching: fc.boolean(),
    mostSpecificHeaderMutationsWins: fc.boolean(),
    maxDirectResponseBodyBytes: fc.integer({ min: 16, max: 10_000 }),
  }),
  optional({ vhds: fc.constant(true as const) }),
);
