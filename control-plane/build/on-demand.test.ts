import { expect, test } from '@jest/globals';
import { createEncoder } from '../encode.ts';
import { NodeResourceSet } from '../resource-set.ts';
import { managerOf, named, nodeOf, worldOf } from '../testing.ts';
import { decodeOwnVirtualHost, decodeRoute, encodeRoute } from '../../xds/resources/route.ts';
import { ServerSession } from '../../xds/session/server.ts';
import { testNode } from '../../xds/session/testing.ts';
import { VIRTUAL_HOST_TYPE } from '../../xds/session/type-urls.ts';
import { ManualClock } from '../../lib/clock.ts';
import type { Node, World } from '../world.ts';
import { build } from './index.ts';

const SHOP = `
{ apiVersion: v1, kind: Service, metadata: { name: reviews }, spec: { selector: { app: reviews }, ports: [{ name: http, port: 80, targetPort: http }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: ratings, namespace: other }, spec: { selector: { app: ratings },
  ports: [{ name: http, port: 8080, targetPort: 3000 }, { name: tcp-db, port: 5432, targetPort: db }] } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: r1, labels: { app: reviews } }, spec: { address: 10.0.0.1, ports: { http: 3000 }, sidecar: {} } }
`;
const ROUTE = `
---
{ apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: { name: reviews },
  spec: { parentRefs: [{ group: '', kind: Service, name: reviews }], rules: [{ timeouts: { request: 2s }, backendRefs: [{ name: reviews, port: 80 }] }] } }
`;
const REVIEWS = 'outbound/reviews.default.svc.cluster.local:80';

const lazyNode = (world: World, fields: Partial<Node> = {}): Node =>
  nodeOf(world, 'default/r1', { metadata: { MESHWORK_LAZY: true }, ...fields });

test('a lazy node gets a route configuration without services, and each virtual host by every name that it goes by', () => {
  const world = worldOf(SHOP);
  const { routes, listeners, virtualHosts } = build(world, lazyNode(world));
  const found = (host: string): string | undefined => virtualHosts?.find(`outbound/${host}`)?.name;

  expect(decodeRoute(encodeRoute(routes[0]!))).toMatchObject({
    name: 'outbound',
    vhds: true,
    virtualHosts: [{ name: 'allow_any', domains: ['*'] }],
  });
  expect(managerOf(named(listeners, 'outbound'), 'outbound').httpFilters[0]?.name).toBe('envoy.filters.http.on_demand');
  for (const host of ['reviews', 'reviews:80', 'reviews.default', 'reviews.default.svc', 'reviews.default.svc.cluster.local:80'])
    expect([host, found(host)]).toEqual([host, REVIEWS]);
  expect(found('ratings.other')).toBe('outbound/ratings.other.svc.cluster.local:8080');
  expect(found('ratings.other.svc:5432')).toBe('outbound/ratings.other.svc.cluster.local:5432');
  for (const host of ['ratings', 'reviews:81', 'reviews.default.svc.elsewhere', 'reviews.default.pod', 'example.com', '[::1]:80', ''])
    expect([host, found(host)]).toEqual([host, undefined]);
  expect(virtualHosts?.find('inbound/reviews')).toBeUndefined();
});

test('a virtual host by name is the one of the whole table', () => {
  const world = worldOf(SHOP + ROUTE);
  const eager = build(world, nodeOf(world, 'default/r1')).routes[0]!.virtualHosts.find(({ domains }) => domains.includes('reviews'))!;

  expect(build(world, lazyNode(world)).virtualHosts?.find('outbound/reviews')).toEqual({ ...eager, name: REVIEWS });
});

test('an eager node and a proxyless client get what they always got', () => {
  const world = worldOf(SHOP);

  expect(build(world, nodeOf(world, 'default/r1')).virtualHosts).toBeUndefined();
  expect(build(world, lazyNode(world, { flavour: 'grpc' })).virtualHosts).toBeUndefined();
});

test('to an Envoy hosts outside the mesh are answered one by one, since it asks for none that anything matches', () => {
  const open = worldOf(SHOP);
  const closed = worldOf(
    `${SHOP}\n---\n{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { outboundPassthrough: false } }`,
  );
  const envoy = (world: World) => build(world, lazyNode(world, { flavour: 'envoy' }));

  expect(envoy(open).routes[0]!.virtualHosts).toEqual([]);
  expect(envoy(open).virtualHosts?.find('outbound/example.com')).toMatchObject({ name: 'outbound/example.com', domains: ['example.com'] });
  expect(envoy(open).virtualHosts?.find('outbound/example.com')?.routes.at(-1)?.name).toBe('passthrough');
  expect(envoy(closed).virtualHosts?.find('outbound/example.com')?.routes[0]?.action).toMatchObject({ kind: 'direct', status: 502 });
  const inbound = named(envoy(open).listeners, 'inbound').filterChains[0]!.filters[0]!;
  expect(inbound.kind === 'http' && inbound.http.httpFilters.map(({ name }) => name)).toContain('envoy.filters.http.on_demand');
});

test('virtual hosts are encoded when asked for, are the same bytes for all, and a change sends those that were asked for and differ', () => {
  const encoder = createEncoder(build);
  const publish = (world: World, before?: NodeResourceSet): NodeResourceSet =>
    new NodeResourceSet(encoder.encode(world, lazyNode(world)), before, encoder.named(world, lazyNode(world)));
  const before = worldOf(SHOP);
  const first = publish(before);
  const session = new ServerSession({ mode: 'delta', clock: new ManualClock() });
  const ask = (subscribe: string[]): void =>
    session.receive({
      ...{ mode: 'delta', typeUrl: VIRTUAL_HOST_TYPE, subscribe, unsubscribe: [], initialVersions: new Map(), responseNonce: '' },
      node: testNode(),
    });
  const sent = (): string[] => {
    const response = session.next();
    const names = response?.resources.map(({ name, bytes }) => (bytes === undefined ? `${name}?` : name)) ?? [];
    if (response !== undefined)
      session.receive({
        ...{ mode: 'delta', typeUrl: VIRTUAL_HOST_TYPE, subscribe: [], unsubscribe: [], initialVersions: new Map() },
        responseNonce: response.nonce,
      });
    return names;
  };
  session.publish(first);
  ask(['outbound/reviews', 'outbound/ratings.other', 'outbound/example.com']);
  expect(sent()).toEqual([REVIEWS, 'outbound/ratings.other.svc.cluster.local:8080', 'outbound/example.com?']);
  const resource = first.get(VIRTUAL_HOST_TYPE, 'outbound/reviews')!;
  expect(publish(before).get(VIRTUAL_HOST_TYPE, 'outbound/reviews.default')).toBe(resource);
  expect(decodeOwnVirtualHost(resource.bytes).domains.map((domain) => `outbound/${domain}`)).toEqual(
    expect.arrayContaining([...resource.aliases!, REVIEWS]),
  );

  const second = publish(worldOf(SHOP + ROUTE), first);
  session.publish(second);

  expect(second.changedTypes).toContain(VIRTUAL_HOST_TYPE);
  expect(sent()).toEqual([REVIEWS]);
  expect(session.next()).toBeUndefined();
});
