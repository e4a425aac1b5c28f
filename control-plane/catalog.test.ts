import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { collectGarbage } from '../lib/heap.ts';
import { silentLog } from '../lib/log.ts';
import { createCatalog, mergeWorld } from './catalog.ts';
import { parseResources } from './kinds/parse.ts';
import { createPushedSource } from './sources/state.ts';
import { problemLine } from './testing.ts';
import type { Resource, Source, SourceState, World } from './world.ts';

const state = (yaml: string, file = 'a.yaml', source = 'files'): SourceState => parseResources(yaml, { source, file });
const one = (yaml: string, file?: string): World => mergeWorld([{ name: 'files', state: state(yaml, file) }]);
const service = (name: string, more = ''): string =>
  `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: http }] ${more} } }`;
const workload = (name: string, app: string, address: string, more = ''): string =>
  `{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: ${name}, labels: { app: ${app} } }, spec: { address: ${address}, ports: { http: 3000 } ${more} } }`;
const yaml = (...documents: string[]): string => documents.join('\n---\n');

describe('endpoints', () => {
  test('a selector finds workloads of its namespace that carry all of its labels and have the port', () => {
    const world = one(
      yaml(
        service('web', ', publishNotReadyAddresses: false'),
        workload('w1', 'web', '10.0.0.1', ', sidecar: {}'),
        workload('w2', 'other', '10.0.0.2'),
        '{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: w3, labels: { app: web } }, spec: { address: 10.0.0.3, ports: { grpc: 9 } } }',
        '{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: w4, namespace: b, labels: { app: web } }, spec: { address: 10.0.0.4, ports: { http: 9 } } }',
      ),
    );

    expect(world.services.get('default/web')?.endpoints).toEqual([
      {
        address: '10.0.0.1',
        port: 15006,
        targetPort: 3000,
        servicePort: 80,
        weight: 1,
        ready: true,
        serving: true,
        terminating: false,
        locality: { region: '', zone: '', subZone: '' },
        labels: { app: 'web' },
        workload: 'default/w1',
        identity: 'spiffe://cluster.local/ns/default/sa/default',
      },
    ]);
  });

  test('health and draining decide readiness', () => {
    const world = one(
      yaml(service('web'), workload('a', 'web', '10.0.0.1', ', healthy: false'), workload('b', 'web', '10.0.0.2', ', draining: true')),
    );

    expect(
      world.services.get('default/web')?.endpoints.map(({ ready, serving, terminating }) => ({ ready, serving, terminating })),
    ).toEqual([
      { ready: false, serving: false, terminating: false },
      { ready: false, serving: true, terminating: true },
    ]);
  });

  test('EndpointSlices bring addresses, and say how ready the workloads are that they name', () => {
    const slice = `{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: { name: web-1, labels: { kubernetes.io/service-name: web } }, addressType: IPv4,
      ports: [{ name: http, port: 3000 }],
      endpoints: [{ addresses: [10.0.0.9], zone: z1 }, { addresses: [10.0.0.1], conditions: { ready: false, serving: true, terminating: true }, targetRef: { kind: Pod, name: w1 } }] }`;
    const world = one(yaml(service('web'), workload('w1', 'web', '10.0.0.1', ', sidecar: {}'), slice));

    expect(world.services.get('default/web')?.endpoints).toMatchObject([
      { address: '10.0.0.1', port: 15006, workload: 'default/w1', ready: false, serving: true, terminating: true },
      { address: '10.0.0.9', port: 3000, workload: undefined, identity: undefined, ready: true, locality: { zone: 'z1' } },
    ]);
  });

  test('an instance that stands twice, under two names, counts once', () => {
    const world = one(yaml(service('web'), workload('old', 'web', '10.0.0.1', ', draining: true'), workload('new', 'web', '10.0.0.1')));

    expect(world.services.get('default/web')?.endpoints).toMatchObject([{ workload: 'default/new', ready: true }]);
  });

  test('the trust domain of the Mesh is part of every identity', () => {
    const world = one(
      yaml(
        service('web'),
        workload('w', 'web', '10.0.0.1', ', sidecar: {}, serviceAccount: web'),
        '{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: m }, spec: { trustDomain: shop.example } }',
      ),
    );

    expect(world.services.get('default/web')?.endpoints[0]?.identity).toBe('spiffe://shop.example/ns/default/sa/web');
  });

  test('protocols come from appProtocol, then from the port’s name', () => {
    const world = one(
      '{ apiVersion: v1, kind: Service, metadata: { name: s }, spec: { ports: [{ name: grpc-api, port: 1 }, { name: mysql, port: 2 }, { name: x, port: 3, appProtocol: kubernetes.io/h2c }, { name: udp, port: 4, protocol: UDP }, { name: plain, port: 5 }] } }',
    );

    expect(world.services.get('default/s')?.ports.map((port) => [port.port, port.protocol])).toEqual([
      [1, 'grpc'],
      [2, 'tcp'],
      [3, 'http2'],
      [5, 'http'],
    ]);
  });
});

describe('precedence and problems', () => {
  const lines = (world: World): string[] => world.problems.map(problemLine);

  test('D9: the same name in two files names both, and the first source counts', () => {
    const files = state(service('web'), 'one.yaml');
    const api = state(service('web').replace('port: 80', 'port: 81'), 'two.yaml', 'other');

    const world = mergeWorld([
      { name: 'files', state: files },
      { name: 'other', state: api },
    ]);

    expect(world.services.get('default/web')?.ports[0]?.port).toBe(80);
    expect(lines(world)).toEqual([
      'two.yaml:1:1 Service default/web metadata.name: must be unique, and one.yaml:1:1 has a Service of the same name; that one counts, the one at two.yaml:1:1 is left out',
    ]);
  });

  test('when the first source lets go of a resource, the second one’s takes its place', async () => {
    const first = createPushedSource('first', state(service('web'), 'one.yaml'));
    const second = createPushedSource('second', state(service('web').replace('port: 80', 'port: 81'), 'two.yaml'));
    const catalog = createCatalog([first, second], { log: silentLog });
    const stop = new AbortController();
    const running = catalog.run(stop.signal);
    await catalog.ready;
    expect(catalog.world.current.problems).toHaveLength(1);

    await new Promise<void>((taken) => first.set({ resources: [], problems: [] }, taken));

    expect(catalog.world.current.services.get('default/web')?.ports[0]?.port).toBe(81);
    expect(catalog.world.current.problems).toEqual([]);
    stop.abort();
    await running;
  });

  test('D9: two workloads on one address and port name both', () => {
    const world = one(yaml(workload('a', 'x', '10.0.0.1'), workload('b', 'y', '10.0.0.1')));

    expect(lines(world)).toEqual([
      'a.yaml:3:1 Workload default/b spec.address: must not share 10.0.0.1 port 3000 with another instance: Workload default/a at a.yaml:1:1 has it too',
    ]);
  });

  test('a second Mesh has no effect and is told so', () => {
    const mesh = (name: string, mtls: string): string =>
      `{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: ${name} }, spec: { mtls: ${mtls} } }`;
    const world = one(yaml(mesh('b', 'DISABLE'), mesh('a', 'STRICT')));

    expect(world.mesh.mtls).toBe('STRICT');
    expect(lines(world)[0]).toContain('Mesh default/b : there must be one Mesh only, and a.yaml:3:1 has another');
  });

  test('names that lead nowhere are told with the nearest one that is there, and nothing else stops', () => {
    const world = one(
      yaml(
        service('reviews'),
        `{ apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: { name: r }, spec: { parentRefs: [{ group: "", kind: Service, name: reviews, port: 81 }, { name: reviews }], rules: [{ backendRefs: [{ name: revews }, { name: reviews, port: 8080 }] }] } }`,
        '{ apiVersion: meshwork.dev/v1alpha1, kind: RateLimit, metadata: { name: l }, spec: { requests: 1, targetRefs: [{ kind: Service, name: review }] } }',
        '{ apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: { name: t }, spec: { parentRefs: [{ group: "", kind: Service, name: reviews }], rules: [{ backendRefs: [{ name: reviews }] }] } }',
      ),
    );

    expect(world.problems.map((problem) => `${problem.severity ?? 'error'} ${problem.field}: ${problem.message}`)).toEqual([
      'error spec.parentRefs[0].port: must be a port of Service default/reviews (80), received 81',
      'warning spec.parentRefs[1]: is a Gateway, and a mesh route is attached to a Service: this parent has no effect here; to attach it to the Service of that name, set group: "" and kind: Service',
      'error spec.rules[0].backendRefs[0].name: must name a Service that exists: there is no default/revews; did you mean "reviews"?; its share of the requests is answered with 500',
      'error spec.rules[0].backendRefs[1].port: must be a port of Service default/reviews (80), received 8080; its share of the requests is answered with 500',
      "warning : TCPRoute is checked but not applied yet: connections go to the Service's own endpoints",
      'error spec.targetRefs[0].name: must name a Service that exists: there is no default/review; did you mean "reviews"?',
    ]);
    expect(world.httpRoutes).toHaveLength(1);
  });

  test('what a Service says that leads nowhere is a warning', () => {
    const world = one(
      yaml(
        '{ apiVersion: v1, kind: Service, metadata: { name: s }, spec: { selector: { app: s }, ports: [{ name: a, port: 1, targetPort: web }, { name: b, port: 2, protocol: UDP }] } }',
        workload('w', 's', '10.0.0.1'),
        '{ apiVersion: v1, kind: Service, metadata: { name: x }, spec: { type: ExternalName, externalName: example.com } }',
      ),
    );

    expect(world.problems.map((problem) => `${problem.severity} ${problem.resource} ${problem.field}: ${problem.message}`)).toEqual([
      'warning Service default/s spec.ports[0].targetPort: names the port "web", which none of the 1 selected workloads has (theirs: http)',
      'warning Service default/s spec.ports[1].protocol: is UDP, which is not proxied: this port is left out',
      'warning Service default/x spec.type: is ExternalName, which is not routed: requests to its name leave the mesh as to any unknown host',
    ]);
  });

  test('a source that fails leaves its last state, and the others go on', async () => {
    const failing: Source = {
      name: 'failing',
      async *watch() {
        yield state(service('web'));
        throw new Error('the disk is gone');
      },
    };
    const other = createPushedSource('other', state(service('ratings')));
    const catalog = createCatalog([failing, other], { log: silentLog });
    const stop = new AbortController();
    const running = catalog.run(stop.signal);
    await catalog.ready;

    expect([...catalog.world.current.services.keys()]).toEqual(['default/ratings', 'default/web']);
    expect(catalog.resources().map((resource) => resource.metadata.name)).toEqual(['ratings', 'web']);
    stop.abort();
    await running;
  });
});

describe('changes', () => {
  test('what a change does not touch keeps its identity', async () => {
    const base = state(yaml(service('web'), service('ratings'), workload('w', 'web', '10.0.0.1'), workload('r', 'ratings', '10.0.0.2')));
    const source = createPushedSource('files', base);
    const catalog = createCatalog([source], { log: silentLog });
    const stop = new AbortController();
    const running = catalog.run(stop.signal);
    await catalog.ready;
    const before = catalog.world.current;

    const changed = state(workload('w', 'web', '10.0.0.1', ', draining: true')).resources[0]!;
    await new Promise<void>((taken) =>
      source.set({ ...base, resources: base.resources.map((entry) => (entry.metadata.name === 'w' ? changed : entry)) }, taken),
    );

    const after = catalog.world.current;
    expect(after.services.get('default/web')?.endpoints[0]?.terminating).toBe(true);
    expect(after.services.get('default/ratings')).toBe(before.services.get('default/ratings'));
    expect(after.services.get('default/web')?.ports).toBe(before.services.get('default/web')?.ports);
    expect(after.httpRoutes).toBe(before.httpRoutes);
    expect(after.mesh).toBe(before.mesh);
    stop.abort();
    await running;
  });

  test('a state that says the same makes no new world', async () => {
    const base = state(service('web'));
    const source = createPushedSource('files', base);
    const catalog = createCatalog([source], { log: silentLog });
    const stop = new AbortController();
    const running = catalog.run(stop.signal);
    await catalog.ready;
    const before = catalog.world.current;

    await new Promise<void>((taken) => source.set({ ...base }, taken));

    expect(catalog.world.current).toBe(before);
    stop.abort();
    await running;
  });

  test('property, D8: after any sequence of changes the world is the one that the last states make', async () => {
    const pool: Resource[] = [
      ...['web', 'ratings'].flatMap((app) => [
        ...state(service(app)).resources,
        ...[1, 2, 3].flatMap((index) => [
          ...state(workload(`${app}-${index}`, app, `10.0.0.${index}`, ', sidecar: {}')).resources,
          ...state(workload(`${app}-${index}`, index === 2 ? 'ratings' : app, `10.0.0.${index + 3}`)).resources,
        ]),
      ]),
      ...state(
        '{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: { name: s, labels: { kubernetes.io/service-name: web } }, addressType: IPv4, ports: [{ name: http, port: 1 }], endpoints: [{ addresses: [10.9.9.9], targetRef: { name: web-1 } }] }',
      ).resources,
      ...state('{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: m }, spec: { trustDomain: other } }').resources,
      ...state(
        '{ apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: { name: r }, spec: { parentRefs: [{ group: "", kind: Service, name: web }], rules: [{ backendRefs: [{ name: ratings }] }] } }',
      ).resources,
    ];
    const someState = fc.subarray(pool).map((resources): SourceState => ({ resources, problems: [] }));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.nat(1), someState), { minLength: 1, maxLength: 6 }), async (steps) => {
        const sources = [
          createPushedSource('a', { resources: [], problems: [] }),
          createPushedSource('b', { resources: [], problems: [] }),
        ];
        const last: SourceState[] = [
          { resources: [], problems: [] },
          { resources: [], problems: [] },
        ];
        const catalog = createCatalog(sources, { log: silentLog });
        const stop = new AbortController();
        const running = catalog.run(stop.signal);
        await catalog.ready;

        for (const [index, next] of steps) {
          last[index] = next;
          await new Promise<void>((taken) => sources[index]!.set(next, taken));
        }

        const fresh = mergeWorld([
          { name: 'a', state: last[0]! },
          { name: 'b', state: last[1]! },
        ]);
        expect(catalog.world.current).toEqual(fresh);
        expect([...catalog.world.current.services.keys()]).toEqual([...fresh.services.keys()]);
        expect([...catalog.world.current.workloads.keys()]).toEqual([...fresh.workloads.keys()]);
        stop.abort();
        await running;
      }),
      { numRuns: 200 },
    );
  });
});

test('worlds that are merged of the same resources and dropped, as each dry run does, leave nothing behind in them', () => {
  const held = state(yaml(...Array.from({ length: 200 }, (_, index) => service(`s-${index}`))));
  const merge = (times: number): void => {
    for (let time = 0; time < times; time++) expect(mergeWorld([{ name: 'files', state: held }]).services.size).toBe(200);
  };
  const heapMiB = (): number => {
    collectGarbage();
    return process.memoryUsage().heapUsed / 2 ** 20;
  };
  merge(200);
  const beforeMiB = heapMiB();
  merge(1_000);
  expect(heapMiB() - beforeMiB).toBeLessThan(2);
});
