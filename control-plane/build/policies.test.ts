import { expect, test } from '@jest/globals';
import type { HttpConnectionManager } from '../../xds/snapshot.ts';
import { managerOf, named, nodeOf, overTheWire, worldOf } from '../testing.ts';
import type { NodeResources } from '../world.ts';
import { build } from './index.ts';

const WEB = `
{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }] } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: w1, labels: { app: web } }, spec: { address: 127.0.0.1, ports: { http: 3000 }, sidecar: {} } }
`;

function resourcesOf(...policies: string[]): NodeResources {
  const world = worldOf([WEB, ...policies].join('\n---\n'));
  const resources = build(world, nodeOf(world, 'default/w1'));
  overTheWire(resources);
  return resources;
}

const inbound = (resources: NodeResources, chain = 'inbound|3000|tls'): HttpConnectionManager =>
  managerOf(named(resources.listeners, 'inbound'), chain);
const types = (manager: HttpConnectionManager): string[] => manager.httpFilters.map((filter) => filter.type.split('.').at(-1)!);

test('without policies there is nothing but the router', () => {
  expect(types(inbound(resourcesOf()))).toEqual(['Router']);
});

test('S7: denials are decided before allowances, on both chains, and never skipped', () => {
  const resources = resourcesOf(
    `{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: allow }, spec: { targetRefs: [{ kind: Service, name: web }],
       rules: [{ from: [{ principals: ["spiffe://cluster.local/ns/default/sa/shop"], namespaces: [ops] }], to: [{ methods: [GET], paths: ["/public*"] }] }] } }`,
    `{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: deny }, spec: { action: DENY, rules: [{ to: [{ paths: [/admin] }] }] } }`,
  );

  for (const chain of ['inbound|3000|tls', 'inbound|plaintext']) {
    const manager = inbound(resources, chain);
    expect(manager.httpFilters.map((filter) => filter.name)).toEqual([
      'envoy.filters.http.rbac.deny',
      'envoy.filters.http.rbac.allow',
      'envoy.filters.http.router',
    ]);
    expect(manager.httpFilters.every((filter) => !filter.isOptional && !filter.disabled)).toBe(true);
    // Rules on paths need one spelling of each path.
    expect(manager).toMatchObject({ mergeSlashes: true, pathWithEscapedSlashes: 'REJECT_REQUEST' });
  }
  const [deny, allow] = inbound(resources).httpFilters;
  expect(deny?.config).toEqual({
    rules: {
      action: 'DENY',
      policies: { 'default/deny/0': { permissions: [{ urlPath: { path: { exact: '/admin' } } }], principals: [{ any: true }] } },
    },
  });
  expect(allow?.config).toEqual({
    rules: {
      action: 'ALLOW',
      policies: {
        'default/allow/0': {
          permissions: [
            {
              andRules: {
                rules: [{ header: { name: ':method', stringMatch: { exact: 'GET' } } }, { urlPath: { path: { prefix: '/public' } } }],
              },
            },
          ],
          principals: [
            {
              andIds: {
                ids: [
                  { authenticated: { principalName: { exact: 'spiffe://cluster.local/ns/default/sa/shop' } } },
                  { authenticated: { principalName: { prefix: 'spiffe://cluster.local/ns/ops/sa/' } } },
                ],
              },
            },
          ],
        },
      },
    },
  });
});

test('an ALLOW policy without rules lets nothing in', () => {
  const resources = resourcesOf('{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: none }, spec: {} }');

  expect(inbound(resources).httpFilters[0]?.config).toEqual({ rules: { action: 'ALLOW', policies: {} } });
});

test('policies for other services and other labels do not apply', () => {
  const resources = resourcesOf(
    '{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: a }, spec: { targetRefs: [{ kind: Service, name: other }] } }',
    '{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: b }, spec: { selector: { matchLabels: { app: other } } } }',
    '{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: c, namespace: elsewhere }, spec: {} }',
  );

  expect(types(inbound(resources))).toEqual(['Router']);
});

test('faults are said per service on the way out, and the filter is there only when one is', () => {
  const plain = resourcesOf();
  const faulty = resourcesOf(
    '{ apiVersion: meshwork.dev/v1alpha1, kind: FaultInjection, metadata: { name: f }, spec: { targetRefs: [{ kind: Service, name: web }], delay: { duration: 1500ms, percent: 0.5 }, abort: { httpStatus: 503, percent: 10 } } }',
  );
  const outbound = (resources: NodeResources): HttpConnectionManager => managerOf(named(resources.listeners, 'outbound'), 'outbound');

  expect(types(outbound(plain))).not.toContain('HTTPFault');
  expect(types(outbound(faulty))[0]).toBe('HTTPFault');
  expect(faulty.routes[0]?.virtualHosts[0]?.perFilterConfig.get('envoy.filters.http.fault')?.config).toEqual({
    delay: { fixedDelay: '1.5s', percentage: { numerator: 5_000, denominator: 'MILLION' } },
    abort: { httpStatus: 503, percentage: { numerator: 100_000, denominator: 'MILLION' } },
  });
});

test('a rate limit stands before the application', () => {
  const resources = resourcesOf(
    '{ apiVersion: meshwork.dev/v1alpha1, kind: RateLimit, metadata: { name: l }, spec: { targetRefs: [{ kind: Service, name: web }], requests: 100, per: 1m, burst: 200 } }',
  );

  expect(types(inbound(resources))).toEqual(['LocalRateLimit', 'Router']);
  expect(inbound(resources).httpFilters[0]?.config).toMatchObject({
    tokenBucket: { maxTokens: 200, tokensPerFill: 100, fillInterval: '60s' },
  });
});

test('access log and tracing follow the Mesh resource', () => {
  const mesh = (spec: string): HttpConnectionManager =>
    inbound(resourcesOf(`{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: m }, spec: ${spec} }`));

  expect(inbound(resourcesOf()).accessLogs).toEqual([]);
  expect(mesh('{ accessLog: text }').accessLogs[0]?.config).toEqual({ path: '/dev/stdout' });
  expect(mesh('{ accessLog: json }').accessLogs[0]?.config).toHaveProperty(
    ['logFormat', 'jsonFormat', 'response_flags'],
    '%RESPONSE_FLAGS%',
  );
  expect(mesh('{ tracing: { samplingPercent: 50 } }').tracing).toMatchObject({ randomSamplingPercent: 50, serviceName: 'web.default' });
  expect(mesh('{ tracing: { samplingPercent: 50 } }').tracing?.provider).toBeUndefined();
});

test('an OTLP endpoint gets a cluster, and the spans its address', () => {
  const resources = resourcesOf(
    '{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: m }, spec: { tracing: { otlpEndpoint: "http://127.0.0.1:4318/" } } }',
  );

  expect(named(resources.clusters, 'otlp').loadAssignment?.localities[0]?.endpoints[0]?.address).toEqual({ host: '127.0.0.1', port: 4318 });
  expect(inbound(resources).tracing?.provider?.config).toMatchObject({
    httpService: { httpUri: { uri: 'http://127.0.0.1:4318/v1/traces', cluster: 'otlp' } },
  });
});

const TWO = `
{ apiVersion: v1, kind: Service, metadata: { name: api }, spec: { selector: { app: two }, ports: [{ name: http, port: 80, targetPort: 3000 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: admin }, spec: { selector: { app: two }, ports: [{ name: http, port: 81, targetPort: 4000 }] } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: two, labels: { app: two } }, spec: { address: 127.0.0.1, ports: { api: 3000, admin: 4000 }, sidecar: {} } }
`;

function twoPorts(...policies: string[]): NodeResources {
  const world = worldOf([TWO, ...policies].join('\n---\n'));
  const resources = build(world, nodeOf(world, 'default/two'));
  expect(named(overTheWire(resources).listeners, 'inbound').filterChains).toHaveLength(3);
  return resources;
}
const hostOf = (resources: NodeResources, name: string) =>
  named(inbound(resources, 'inbound|plaintext').routeConfig?.virtualHosts ?? [], name).perFilterConfig;

test('a policy for one service of an instance leaves its other ports alone, on mTLS and in plaintext', () => {
  const resources = twoPorts(
    '{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: a }, spec: { targetRefs: [{ kind: Service, name: admin }] } }',
    '{ apiVersion: meshwork.dev/v1alpha1, kind: RateLimit, metadata: { name: l }, spec: { targetRefs: [{ kind: Service, name: api }], requests: 5 } }',
  );

  expect(types(inbound(resources, 'inbound|3000|tls'))).toEqual(['LocalRateLimit', 'Router']);
  expect(types(inbound(resources, 'inbound|4000|tls'))).toEqual(['RBAC', 'Router']);
  expect(types(inbound(resources, 'inbound|plaintext'))).toEqual(['RBAC', 'LocalRateLimit', 'Router']);
  expect([...hostOf(resources, 'inbound')].map(([name, config]) => [name, config.disabled])).toEqual([
    ['envoy.filters.http.rbac.allow', true],
  ]);
  expect([...hostOf(resources, 'inbound|4000')].map(([name, config]) => [name, config.disabled])).toEqual([
    ['envoy.filters.http.local_ratelimit', true],
  ]);
});

test('ports in a rule are the application’s, and are decided where the rule is built', () => {
  const resources = twoPorts(
    '{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: a }, spec: { rules: [{ to: [{ ports: [3000] }, { ports: [4000], methods: [GET] }] }] } }',
  );
  const rulesOf = (chain: string): unknown => inbound(resources, chain).httpFilters[0]?.config['rules'];

  expect(rulesOf('inbound|3000|tls')).toEqual({
    action: 'ALLOW',
    policies: { 'default/a/0': { permissions: [{ any: true }], principals: [{ any: true }] } },
  });
  expect(rulesOf('inbound|4000|tls')).toEqual({
    action: 'ALLOW',
    policies: {
      'default/a/0': { permissions: [{ header: { name: ':method', stringMatch: { exact: 'GET' } } }], principals: [{ any: true }] },
    },
  });
  expect(hostOf(resources, 'inbound').size).toBe(0);
  expect(hostOf(resources, 'inbound|4000').get('envoy.filters.http.rbac.allow')?.config).toEqual({
    rbac: { rules: rulesOf('inbound|4000|tls') },
  });
});
