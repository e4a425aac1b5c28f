import { describe, expect, test } from '@jest/globals';
import { problemLine } from '../testing.ts';
import { KINDS } from './index.ts';
import { apiVersionOf } from './kind.ts';
import { parseResources } from './parse.ts';
import { validateResource } from './validate.ts';

const ORIGIN = { source: 'files', file: 'a.yaml' };
const problemsOf = (text: string): string[] => parseResources(text, ORIGIN).problems.map(problemLine);
const messagesOf = (kind: string, spec: unknown): string[] =>
  validateResource(
    { apiVersion: apiVersionOf(KINDS[kind as keyof typeof KINDS]), kind, metadata: { name: 'x' }, spec },
    { source: 'api' },
  ).problems.map((problem) => `${problem.field}: ${problem.message}`);

describe('documents', () => {
  test('several documents, Lists and JSON become resources that know their lines', () => {
    const text = `# a comment
apiVersion: v1
kind: Service
metadata: { name: a, namespace: shop, labels: { app: a } }
spec: { ports: [{ port: 80 }] }
---
apiVersion: v1
kind: List
items:
  - { apiVersion: v1, kind: Service, metadata: { name: b }, spec: {} }
  - { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "c" }, "spec": {} }
---
---
`;

    const { resources, problems } = parseResources(text, ORIGIN);

    expect(problems).toEqual([]);
    expect(
      resources.map((resource) => [resource.metadata.namespace, resource.metadata.name, resource.origin.line, resource.origin.column]),
    ).toEqual([
      ['shop', 'a', 2, 1],
      ['default', 'b', 10, 5],
      ['default', 'c', 11, 5],
    ]);
  });

  test('documents of a program and of a person stand in one file, each with its line, and so do their problems', () => {
    const machine = (name: string, port = 80): string =>
      JSON.stringify({ apiVersion: 'v1', kind: 'Service', metadata: { name }, spec: { ports: [{ port }] } });
    const person = 'apiVersion: v1\nkind: Service\nmetadata:\n  name: p\nspec:\n  ports:\n    - port: 0\n';
    const parts = [machine('a'), person, machine('b'), machine('c', -1), machine('d')];
    for (const newline of ['\n', '\n\n']) {
      const text = parts.join(`${newline}---\n`);
      const { resources } = parseResources(text, ORIGIN);
      const lineOf = (part: string): number => text.slice(0, text.indexOf(part)).split('\n').length;
      expect(resources.map(({ metadata, origin }) => [metadata.name, origin.line, origin.column])).toEqual([
        ['a', 1, 1],
        ['b', lineOf(parts[2]!), 1],
        ['d', lineOf(parts[4]!), 1],
      ]);
      expect(problemsOf(text).map((line) => line.split(' ')[0])).toEqual([
        `a.yaml:${lineOf(person) + 6}:13`,
        `a.yaml:${lineOf(parts[3]!)}:${parts[3]!.indexOf('-1') + 1}`,
      ]);
    }
  });

  test('a directive belongs to the document behind its line of dashes', () => {
    const text = `%YAML 1.2\n---\n{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: {} }\n`;
    expect(problemsOf(text)).toEqual([]);
    expect(parseResources(text, ORIGIN).resources.map(({ origin }) => origin.line)).toEqual([3]);
  });

  test('a resource carries its spec as written, without defaults', () => {
    const { resources } = parseResources(
      '{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: { ports: [{ port: 80 }] } }',
      ORIGIN,
    );

    expect(resources[0]).toEqual({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'a', namespace: 'default', labels: {}, annotations: {} },
      spec: { ports: [{ port: 80 }] },
      origin: { source: 'files', file: 'a.yaml', line: 1, column: 1 },
    });
  });

  test('what Kubernetes adds to a document is read over', () => {
    const text = `
apiVersion: v1
kind: Service
metadata: { name: a, uid: 1f, resourceVersion: "7", creationTimestamp: null, managedFields: [{ manager: x }] }
spec: { clusterIP: 10.96.0.1, type: NodePort, ports: [{ port: 80, nodePort: 30000, protocol: TCP }], sessionAffinity: None }
status: { loadBalancer: {} }
`;

    expect(problemsOf(text)).toEqual([]);
  });

  test('an EndpointSlice has its fields at the top', () => {
    const { resources, problems } = parseResources(
      '{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: { name: a }, addressType: IPv4, endpoints: [{ addresses: [10.0.0.1] }], ports: [{ port: 80 }] }',
      ORIGIN,
    );

    expect(problems).toEqual([]);
    expect(resources[0]?.spec).toEqual({ addressType: 'IPv4', endpoints: [{ addresses: ['10.0.0.1'] }], ports: [{ port: 80 }] });
  });

  test('a kind that is not ours is left out with a warning; a kind that is misspelt is an error', () => {
    const { resources, problems } = parseResources(
      '{ apiVersion: apps/v1, kind: Deployment, metadata: { name: a } }\n---\n{ apiVersion: v1, kind: Servce, metadata: { name: a } }',
      ORIGIN,
    );

    expect(resources).toEqual([]);
    expect(problems.map((problem) => problem.severity)).toEqual(['warning', undefined]);
    expect(problems[1]?.message).toContain('did you mean "Service"?');
  });

  test('the wrong group of a right kind is named', () => {
    expect(problemsOf('{ apiVersion: meshwork.dev/v1alpha1, kind: HTTPRoute, metadata: { name: a } }')).toEqual([
      'a.yaml:1:15 HTTPRoute default/a apiVersion: must be gateway.networking.k8s.io/v1 for HTTPRoute, received "meshwork.dev/v1alpha1"',
    ]);
  });
});

describe('places', () => {
  test('a problem names file, line, column, resource, field, rule and value, and the nearest right word', () => {
    const text = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: reviews }
spec:
  parentRefs: [{ group: "", kind: Service, name: reviews }]
  rules:
    - backendRefs:
        - name: reviews
          weigth: 90
        - { name: other, weight: -1 }
      timeouts: { request: soon }
      filters: [{ type: RequestRedirct }]
`;

    expect(problemsOf(text).sort()).toEqual([
      'a.yaml:10:34 HTTPRoute default/reviews spec.rules[0].backendRefs[1].weight: must be at least 0, received -1',
      'a.yaml:11:28 HTTPRoute default/reviews spec.rules[0].timeouts.request: must be a duration of digits and units (h, m, s, ms) like "1m30s", received "soon"',
      'a.yaml:12:25 HTTPRoute default/reviews spec.rules[0].filters[0].type: must be one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, received "RequestRedirct"; did you mean "RequestRedirect"?',
      'a.yaml:9:11 HTTPRoute default/reviews spec.rules[0].backendRefs[0].weigth: unknown field; did you mean "weight"?',
    ]);
  });

  test('a field that is missing is placed at what should hold it', () => {
    expect(problemsOf('apiVersion: meshwork.dev/v1alpha1\nkind: Workload\nmetadata: { name: a }\nspec: {}\n')).toEqual([
      'a.yaml:4:1 Workload default/a spec.address: is required: must be a string',
    ]);
  });

  test('the parts of a List and values behind an alias are placed too', () => {
    const text = `apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Service
    metadata: { name: a }
    spec: { ports: &ports [{ port: 0 }] }
  - apiVersion: v1
    kind: Service
    metadata: { name: b }
    spec: { ports: *ports }
`;

    expect(problemsOf(text)).toEqual([
      'a.yaml:7:36 Service default/a spec.ports[0].port: must be at least 1, received 0',
      'a.yaml:7:36 Service default/b spec.ports[0].port: must be at least 1, received 0',
    ]);
  });

  test('what is not YAML is told with its place, and the documents beside it are read', () => {
    const { resources, problems } = parseResources(
      'a: [1\n---\n{ apiVersion: v1, kind: Service, metadata: { name: a }, spec: {} }\n',
      ORIGIN,
    );

    expect(problems[0]?.message).toContain('is not valid YAML');
    expect(problems[0]?.origin.line).toBeGreaterThan(0);
    expect(resources).toHaveLength(1);
  });
});

describe('rules', () => {
  const route = (rule: unknown): string[] =>
    messagesOf('HTTPRoute', { parentRefs: [{ group: '', kind: 'Service', name: 'a' }], rules: [rule] });

  test('W4: weights of which every one is zero are refused', () => {
    expect(
      route({
        backendRefs: [
          { name: 'a', weight: 0 },
          { name: 'b', weight: 0 },
        ],
      }),
    ).toEqual([
      'spec.rules[0].backendRefs: must have at least one backend with a weight above zero: all weights are 0, received a list of 2',
    ]);
  });

  test('R4: a regular expression is of RE2', () => {
    expect(route({ matches: [{ path: { type: 'RegularExpression', value: '(?=a)b' } }] })[0]).toContain(
      'must be a regular expression of RE2',
    );
    expect(route({ matches: [{ path: { type: 'RegularExpression', value: '(a+)+$' } }] })).toEqual([]);
  });

  test('a filter has the settings of its type and no others', () => {
    const backendRefs = [{ name: 'a' }];
    expect(route({ backendRefs, filters: [{ type: 'URLRewrite' }] })[0]).toContain('urlRewrite: is required, since type is "URLRewrite"');
    expect(
      route({ backendRefs, filters: [{ type: 'URLRewrite', urlRewrite: {}, requestMirror: { backendRef: { name: 'a', port: 1 } } }] })[0],
    ).toContain('requestMirror: must not be set, since type is "URLRewrite"');
  });

  test('a prefix is replaced only where one is matched', () => {
    const filters = [{ type: 'URLRewrite', urlRewrite: { path: { type: 'ReplacePrefixMatch', replacePrefixMatch: '/' } } }];
    expect(route({ backendRefs: [{ name: 'a' }], matches: [{ path: { type: 'Exact', value: '/a' } }], filters })[0]).toContain(
      'needs PathPrefix matches, and one is Exact',
    );
  });

  test('one try is not longer than all of them', () => {
    expect(route({ backendRefs: [{ name: 'a' }], timeouts: { request: '1s', backendRequest: '2s' } })[0]).toContain(
      'must not be longer than timeouts.request (1s)',
    );
    expect(route({ backendRefs: [{ name: 'a' }], timeouts: { request: '0s', backendRequest: '2s' } })).toEqual([]);
  });

  test('what the Gateway API has and we have not is told apart from a mistake', () => {
    expect(route({ backendRefs: [{ name: 'a' }], sessionPersistence: {} })[0]).toContain('sessionPersistence is not supported by Meshwork');
  });

  test('ports of a Service are unique, and have names where there are several', () => {
    expect(messagesOf('Service', { ports: [{ name: 'a', port: 80 }, { name: 'a', port: 80 }, { port: 81 }] })).toEqual([
      'spec.ports[1].port: must be unique, and ports[0] has the same number, received 80',
      'spec.ports[1].name: must be unique, and ports[0] has the same name, received "a"',
      'spec.ports[2]: must have a name, since the Service has several ports, received an object with port',
    ]);
  });

  test('a Workload’s address is an IP address', () => {
    expect(messagesOf('Workload', { address: 'localhost' })).toEqual([
      'spec.address: must be an IP address (a name is not: endpoints are dialled without DNS), received "localhost"',
    ]);
    expect(messagesOf('Workload', { address: '::1', ports: { http: 3000 } })).toEqual([]);
  });

  test('policies that contradict themselves are refused', () => {
    const targetRefs = [{ kind: 'Service', name: 'a' }];
    expect(messagesOf('BackendPolicy', { targetRefs, loadBalancing: { policy: 'RingHash' } })[0]).toContain('hashOn: is required');
    expect(messagesOf('BackendPolicy', { targetRefs, healthCheck: { http: { path: '/' }, tcp: {} } })[0]).toContain(
      'must have exactly one of',
    );
    expect(messagesOf('BackendPolicy', { targetRefs, healthCheck: { grpc: {} } })[0]).toContain('grpc is not supported');
    expect(messagesOf('FaultInjection', { targetRefs })[0]).toContain('must have a delay, an abort or both');
    expect(messagesOf('AuthorizationPolicy', { action: 'DENY' })[0]).toContain('must have a rule');
    expect(messagesOf('RateLimit', { targetRefs, requests: 1, per: '1ms' })[0]).toContain('must be at least 50ms');
    expect(messagesOf('RateLimit', { targetRefs, requests: 1, per: 'x' })).toHaveLength(1);
    expect(messagesOf('Mesh', { mtls: 'STRCT' })[0]).toContain('did you mean "STRICT"?');
    expect(messagesOf('Mesh', { tracing: { otlpEndpoint: 'https://collector' } })[0]).toContain('must be an http URL');
  });

  test('every kind takes its smallest good document', () => {
    const targetRefs = [{ kind: 'Service', name: 'a' }];
    const parentRefs = [{ group: '', kind: 'Service', name: 'a' }];
    const rules = [{ backendRefs: [{ name: 'a', port: 1 }] }];
    const specs: Record<Exclude<keyof typeof KINDS, 'EndpointSlice'>, unknown> = {
      Service: {},
      HTTPRoute: { parentRefs },
      GRPCRoute: { parentRefs },
      TCPRoute: { parentRefs, rules },
      TLSRoute: { parentRefs, rules },
      Mesh: {},
      Workload: { address: '10.0.0.1' },
      BackendPolicy: { targetRefs },
      AuthorizationPolicy: {},
      FaultInjection: { targetRefs, delay: { duration: '1s' } },
      RateLimit: { targetRefs, requests: 1 },
    };
    for (const [kind, spec] of Object.entries(specs)) expect([kind, messagesOf(kind, spec)]).toEqual([kind, []]);
  });
});
