import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { consistent } from '../../xds/snapshot.ts';
import { managerOf, named, nodeOf, overTheWire, routesFor, worldOf } from '../testing.ts';
import type { NodeResources, World } from '../world.ts';
import { build } from './index.ts';

const SHOP = `
apiVersion: v1
kind: Service
metadata: { name: reviews }
spec: { selector: { app: reviews }, ports: [{ name: http, port: 80, targetPort: http }] }
---
apiVersion: v1
kind: Service
metadata: { name: ratings }
spec: { selector: { app: ratings }, ports: [{ name: http, port: 8080, targetPort: 3000 }, { name: tcp-db, port: 5432, targetPort: db }] }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: r1, labels: { app: reviews, version: v1 } },
  spec: { address: 10.0.0.1, ports: { http: 3000 }, sidecar: {} } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: r2, labels: { app: reviews, version: v2 } },
  spec: { address: 10.0.0.2, ports: { http: 3000 }, serviceAccount: reviews, weight: 3, sidecar: { inboundPort: 16006 } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: legacy, labels: { app: reviews } },
  spec: { address: 10.0.0.3, ports: { http: 8000 } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: rat, labels: { app: ratings } },
  spec: { address: 127.0.0.9, ports: { http: 3000, db: 5000 }, sidecar: { inboundPort: 16007, outboundPort: 16001 } } }
`;
const REVIEWS = 'outbound|80||reviews.default.svc.cluster.local';

function fits(built: NodeResources): readonly string[] {
  const byName = <T extends { readonly name: string }>(list: readonly T[]): Map<string, T> =>
    new Map(list.map((entry) => [entry.name, entry]));
  const secret = { name: '', content: { kind: 'certificate', chainPem: '', keyPem: '' } } as const;
  return consistent({
    listeners: byName(built.listeners),
    routes: byName(built.routes),
    clusters: byName(built.clusters),
    endpoints: new Map(built.endpoints.map((entry) => [entry.clusterName, entry])),
    secrets: new Map([
      ['default', secret],
      ['ROOTCA', secret],
    ]),
  });
}

function built(world: World, key = 'default/r1'): NodeResources {
  const resources = build(world, nodeOf(world, key));
  expect(fits(resources)).toEqual([]);
  return resources;
}

test('endpoints point at the sidecar where there is one and at the application where there is none', () => {
  const assignment = built(worldOf(SHOP)).endpoints.find((entry) => entry.clusterName === REVIEWS);

  const endpoints = assignment?.localities[0]?.endpoints ?? [];
  expect(endpoints.map((entry) => [entry.address.host, entry.address.port, entry.weight])).toEqual([
    ['10.0.0.1', 15006, 1],
    ['10.0.0.2', 16006, 3],
    ['10.0.0.3', 8000, 1],
  ]);
  expect(endpoints[0]?.metadata).toEqual({
    istio: { workload: 'r1;default;reviews;v1;Kubernetes' },
    'envoy.transport_socket_match': { tlsMode: 'istio' },
  });
  expect(endpoints[2]?.metadata['envoy.transport_socket_match']).toBeUndefined();
});

test('D4: a cluster accepts exactly the identities of its instances, over TLS 1.3, and names service and port by SNI', () => {
  const cluster = named(built(worldOf(SHOP)).clusters, REVIEWS);

  expect(cluster.tls).toBeUndefined();
  const [match] = cluster.tlsMatches;
  expect(match?.match).toEqual({ tlsMode: 'istio' });
  expect(match?.tls?.matchSubjectAltNames.map((san) => 'value' in san.match && san.match.value)).toEqual([
    'spiffe://cluster.local/ns/default/sa/default',
    'spiffe://cluster.local/ns/default/sa/reviews',
  ]);
  expect(match?.tls).toMatchObject({ sni: 'outbound_.80_._.reviews.default.svc.cluster.local', minVersion: 'TLSv1_3' });
});

test('a cluster whose service has no known identity accepts none, so endpoints that are ahead of it are refused', () => {
  const world = worldOf(`
apiVersion: v1
kind: Service
metadata: { name: empty }
spec: { selector: { app: nobody }, ports: [{ port: 80 }] }
`);

  const cluster = named(build(world, nodeOf(world, undefined)).clusters, 'outbound|80||empty.default.svc.cluster.local');

  expect(cluster.tlsMatches[0]?.tls?.matchSubjectAltNames).toEqual([
    { type: 'URI', match: { kind: 'exact', value: 'spiffe://cluster.local/ns/default/sa/', ignoreCase: false } },
  ]);
});

test('a service is found by each of its names, with and without the port that needs none', () => {
  const [routes] = built(worldOf(SHOP)).routes;

  const cluster = (host: string): unknown => {
    const [first] = routesFor(routes!, host);
    return first?.action.kind === 'forward' && first.action.target.kind === 'cluster' ? first.action.target.cluster : undefined;
  };
  for (const name of ['reviews', 'reviews.default', 'reviews.default.svc', 'reviews.default.svc.cluster.local']) {
    expect(cluster(name)).toBe(REVIEWS);
    expect(cluster(`${name}:80`)).toBe(REVIEWS);
  }
  // No port 80 there, so the bare name means the first HTTP port.
  expect(cluster('ratings')).toBe('outbound|8080||ratings.default.svc.cluster.local');
  // A port that the service does not have is a host that the mesh does not know.
  expect(cluster('reviews:81')).toBe('PassthroughCluster');
});

test('a bare name means a service of the caller’s own namespace only', () => {
  const world = worldOf(SHOP);
  const [routes] = build(world, nodeOf(world, undefined, { namespace: 'other' })).routes;

  const domains = routes!.virtualHosts.flatMap((host) => host.domains);

  expect(domains).not.toContain('reviews');
  expect(domains).toContain('reviews.default');
});

test('the inbound listener chooses the application’s port by SNI, and asks for a certificate', () => {
  const world = worldOf(SHOP);
  const resources = built(world, 'default/rat');
  const inbound = named(resources.listeners, 'inbound');

  expect(inbound.address).toEqual({ host: '127.0.0.9', port: 16007 });
  expect(inbound.filterChains.map((chain) => [chain.name, chain.match, chain.tls?.requireClientCertificate])).toEqual([
    ['inbound|3000|tls', { transportProtocol: 'tls', serverNames: ['outbound_.8080_._.ratings.default.svc.cluster.local'] }, true],
    ['inbound|5000|tls', { transportProtocol: 'tls', serverNames: ['outbound_.5432_._.ratings.default.svc.cluster.local'] }, true],
    ['inbound|plaintext', { transportProtocol: 'raw_buffer' }, undefined],
  ]);
  expect(named(resources.clusters, 'inbound|5000||').loadAssignment?.localities[0]?.endpoints[0]?.address).toEqual({
    host: '127.0.0.1',
    port: 5000,
  });
  expect(managerOf(inbound, 'inbound|3000|tls')).toMatchObject({
    forwardClientCert: 'SANITIZE_SET',
    setCurrentClientCertDetails: { uri: true },
  });
});

test('S1: STRICT has no plaintext chain, DISABLE no TLS, and the only port takes any SNI', () => {
  const chains = (mtls: string): unknown => {
    const world = worldOf(
      `${SHOP}\n---\n{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { mtls: ${mtls} } }`,
    );
    return named(built(world, 'default/r1').listeners, 'inbound').filterChains.map((chain) => [chain.name, chain.match]);
  };

  expect(chains('STRICT')).toEqual([['inbound|3000|tls', { transportProtocol: 'tls' }]]);
  expect(chains('DISABLE')).toEqual([['inbound|plaintext', {}]]);
});

test('with mTLS off no endpoint asks for it', () => {
  const world = worldOf(
    `${SHOP}\n---\n{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { mtls: DISABLE } }`,
  );
  const resources = built(world);

  expect(named(resources.clusters, REVIEWS).tlsMatches).toEqual([]);
  expect(JSON.stringify(resources.endpoints)).not.toContain('tlsMode');
});

test('the way out stays on loopback even where the sidecar listens on every address', () => {
  const world = worldOf(SHOP);
  const resources = build(world, nodeOf(world, 'default/r1'));

  expect(named(resources.listeners, 'inbound').address.host).toBe('0.0.0.0');
  expect(named(resources.listeners, 'outbound').address.host).toBe('127.0.0.1');
});

test('a sidecar that the world does not know gets the way out, and a way in when it says its ports', () => {
  const world = worldOf(SHOP);

  const silent = build(world, nodeOf(world, undefined));
  const speaking = build(world, nodeOf(world, undefined, { metadata: { PORTS: { http: 3000, bad: 99_999 } } }));

  expect(silent.listeners.map((listener) => listener.name)).toEqual(['outbound']);
  expect(speaking.listeners.map((listener) => listener.name)).toEqual(['inbound', 'outbound']);
  expect(fits(speaking)).toEqual([]);
});

test('unknown hosts pass through, or are answered with 502 where the mesh is closed', () => {
  const open = built(worldOf(SHOP));
  const closed = built(
    worldOf(
      `${SHOP}\n---\n{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { outboundPassthrough: false } }`,
    ),
  );

  expect(named(open.clusters, 'PassthroughCluster').type).toBe('DYNAMIC_FORWARD_PROXY');
  expect(routesFor(open.routes[0]!, 'example.com').map((route) => route.match.path.kind)).toEqual(['connect', 'prefix']);
  expect(closed.clusters.map((cluster) => cluster.name)).not.toContain('PassthroughCluster');
  expect(routesFor(closed.routes[0]!, 'example.com')[0]?.action).toMatchObject({ kind: 'direct', status: 502 });
});

test('draining, unhealthy and weightless instances get nothing new but stay known', () => {
  const world = worldOf(`
apiVersion: v1
kind: Service
metadata: { name: s }
spec: { selector: { app: s }, ports: [{ port: 80, targetPort: 1 }] }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: a, labels: { app: s } }, spec: { address: 10.0.0.1, draining: true } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: b, labels: { app: s } }, spec: { address: 10.0.0.2, healthy: false } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: c, labels: { app: s } }, spec: { address: 10.0.0.3, weight: 0 } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: d, labels: { app: s } }, spec: { address: 10.0.0.4 } }
`);

  const [assignment] = build(world, nodeOf(world, undefined)).endpoints;

  expect(assignment?.localities[0]?.endpoints.map((endpoint) => endpoint.health)).toEqual(['DRAINING', 'UNHEALTHY', 'DRAINING', 'HEALTHY']);
});

test('X8: an endpoint that changes leaves every other resource the same object', () => {
  const before = built(worldOf(SHOP));
  const world = worldOf(SHOP);
  const same = build(world, nodeOf(world, 'default/r1'));
  expect(same).toEqual(before);

  const first = build(world, nodeOf(world, 'default/r1'));
  const second = build(world, nodeOf(world, 'default/r2'));
  for (const [index, assignment] of first.endpoints.entries()) expect(second.endpoints[index]).toBe(assignment);
  expect(second.routes[0]).toBe(first.routes[0]);
  expect(second.clusters.filter((cluster) => cluster.type === 'EDS')).toEqual(first.clusters.filter((cluster) => cluster.type === 'EDS'));
});

test('everything that is built survives the wire', () => {
  const world = worldOf(SHOP);
  for (const key of ['default/r1', 'default/rat']) {
    const resources = built(world, key);
    const arrived = overTheWire(resources);

    expect(arrived.endpoints).toEqual(resources.endpoints);
    expect(arrived.routes).toEqual(resources.routes);
    expect(arrived.clusters.map((cluster) => cluster.name)).toEqual(resources.clusters.map((cluster) => cluster.name));
    expect(arrived.listeners.map((listener) => listener.filterChains.map((chain) => chain.match))).toEqual(
      resources.listeners.map((listener) => listener.filterChains.map((chain) => chain.match)),
    );
  }
});

test('the flavour for gRPC clients has nothing that they refuse', () => {
  const world = worldOf(SHOP);
  const resources = build(world, nodeOf(world, undefined, { flavour: 'grpc' }));

  expect(fits(resources)).toEqual([]);
  expect(resources.listeners.map((listener) => listener.name)).toContain('reviews.default.svc.cluster.local:80');
  for (const listener of resources.listeners) {
    expect(listener.apiListener?.httpFilters.map((filter) => filter.name)).toEqual(['envoy.filters.http.router']);
    expect(listener.apiListener?.xffNumTrustedHops).toBe(0);
    expect(listener.listenerFilters).toEqual([]);
  }
  for (const cluster of resources.clusters) {
    expect(cluster.type).toBe('EDS');
    expect(['ROUND_ROBIN', 'RING_HASH']).toContain(cluster.lbPolicy.name);
    expect(cluster.tlsMatches).toEqual([]);
  }
  for (const group of resources.endpoints.flatMap((assignment) => assignment.localities)) expect(group.weight).toBeGreaterThan(0);
  expect(overTheWire(resources).clusters).toHaveLength(resources.clusters.length);
});

test('property: equal worlds build equal resources, whatever order they were written in, and every set fits together', () => {
  const instance = fc.record({
    app: fc.constantFrom('reviews', 'ratings', 'web'),
    sidecar: fc.boolean(),
    weight: fc.integer({ min: 0, max: 5 }),
    draining: fc.boolean(),
    zone: fc.constantFrom('a', 'b'),
  });
  const mesh = fc.constantFrom('STRICT', 'PERMISSIVE', 'DISABLE');
  fc.assert(
    fc.property(fc.array(instance, { maxLength: 8 }), mesh, fc.infiniteStream(fc.nat()), (instances, mtls, random) => {
      const documents = [
        SHOP,
        `{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { mtls: ${mtls} } }`,
        ...instances.map((entry, index) => {
          const { app, sidecar, zone, ...rest } = entry;
          const spec = {
            address: `10.1.0.${index}`,
            ports: { http: 3000 },
            locality: { zone },
            ...rest,
            ...(sidecar ? { sidecar: {} } : {}),
          };
          return JSON.stringify({
            apiVersion: 'meshwork.dev/v1alpha1',
            kind: 'Workload',
            metadata: { name: `i${index}`, labels: { app } },
            spec,
          });
        }),
      ];
      const shuffled = documents.map((text) => ({ text, at: random.next().value ?? 0 })).sort((left, right) => left.at - right.at);
      const one = worldOf(documents.join('\n---\n'));
      const other = worldOf(shuffled.map((entry) => entry.text).join('\n---\n'));

      const first = build(one, nodeOf(one, 'default/rat'));

      expect(build(other, nodeOf(other, 'default/rat'))).toEqual(first);
      expect(fits(first)).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
