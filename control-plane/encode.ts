/** From built resources to the bytes that go out: encoded once per object, one copy per content, whatever the number of proxies. */
import { createHash } from 'node:crypto';
import { memo } from '../lib/memo.ts';
import { encodeCluster } from '../xds/resources/cluster.ts';
import { encodeEndpoints } from '../xds/resources/endpoint.ts';
import { encodeListener } from '../xds/resources/listener.ts';
import { encodeOwnVirtualHost, encodeRoute, virtualHostField } from '../xds/resources/route.ts';
import { encodeSecret } from '../xds/resources/secret.ts';
import type { EncodedResource } from '../xds/session/messages.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, VIRTUAL_HOST_TYPE } from '../xds/session/type-urls.ts';
import type { Locality, Secret, VirtualHost } from '../xds/snapshot.ts';
import { outboundClusters, prepareClusters } from './build/clusters.ts';
import { outboundEndpoints, prepareEndpoints } from './build/endpoints.ts';
import { prepareMemberships, workloadsOf } from './build/inbound-ports.ts';
import { aliasesOf, isLazy } from './build/on-demand.ts';
import { outboundRoutes } from './build/routes.ts';
import { inconsistencies } from './consistent.ts';
import { prepareSet } from './resource-set.ts';
import type { NamedResources } from './resource-set.ts';
import type { Build, Node, NodeResources, World } from './world.ts';

export interface Encoder {
  /** Builds and encodes what a node gets, without secrets. Throws when what was built does not fit together. */
  encode(world: World, node: Node): ReadonlyMap<string, readonly EncodedResource[]>;
  /** Encodes beforehand what all nodes share and what is new in it, with a pause after each resource: take as many steps as time allows. */
  prepare(world: World): Iterator<void, void>;
  /**
   * Makes beforehand what the first of its kind would wait for, and its neighbours share: its route table, its lists as sets. Does nothing for
   * the others. Throws what `encode` throws.
   */
  prepareFor(world: World, node: Node): Iterator<void, void>;
  /** Virtual hosts by name, for a node that asks for them so; each is encoded when it is first asked for. Undefined for the others. */
  named(world: World, node: Node): NamedResources | undefined;
  encodeSecret(secret: Secret): EncodedResource;
}

/** Contents that are remembered for sharing; beyond this the memory starts anew. */
const CONTENTS_MAX = 100_000;
/** Places of nodes for which endpoints are encoded beforehand; of further ones they are encoded when their first node is served. */
const PLACES_MAX = 64;
/** Kinds of nodes, by flavour, namespace and place, for whose first one its lists are made beforehand. */
const KINDS_MAX = 10_000;

/** Who is in no service's namespace gets the virtual hosts that nearly all others get, too. */
const NOBODYS_NAMESPACE = '';

export function createEncoder(build: Build): Encoder {
  const byObject = memo<object, EncodedResource>();
  /** Of those who were built a whole route table. */
  const flavours = new Set<Node['flavour']>(['sidecar']);
  /** Nodes that are built the same list get the same list of bytes, and compare it once. */
  const byList = memo<readonly object[], readonly EncodedResource[]>();
  let byContent = new Map<string, EncodedResource>();
  const places = new Map<string, Locality>();
  /** What was prepared last, to its end: after an outage that is asked for every few proxies. */
  let prepared: { readonly world: World; readonly places: number; readonly flavours: number } | undefined;
  /** Two nodes that get the same content get the same object, so its frames are made once too. */
  const shared = (resource: EncodedResource): EncodedResource => {
    const key = `${resource.typeUrl} ${resource.version} ${resource.name}`;
    const there = byContent.get(key);
    if (there !== undefined) return there;
    if (byContent.size >= CONTENTS_MAX) byContent = new Map();
    byContent.set(key, resource);
    return resource;
  };
  const one = <T extends object>(typeUrl: string, resource: T, name: string, encode: (resource: T) => Uint8Array): EncodedResource => {
    let found = byObject.get(resource);
    if (found === undefined) {
      const bytes = encode(resource);
      found = shared({ name, version: versionOf(bytes), typeUrl, bytes });
      byObject.set(resource, found);
    }
    return found;
  };
  const encoded = <T extends object>(
    typeUrl: string,
    resources: readonly T[],
    nameOf: (resource: T) => string,
    encode: (resource: T) => Uint8Array,
  ): readonly EncodedResource[] => {
    let list = byList.get(resources);
    if (list !== undefined) return list;
    list = resources.map((resource) => one(typeUrl, resource, nameOf(resource), encode));
    byList.set(resources, list);
    return list;
  };
  const virtualHost = (host: VirtualHost): EncodedResource => {
    let found = byObject.get(host);
    if (found === undefined) {
      const bytes = encodeOwnVirtualHost(host);
      found = shared({ name: host.name, version: versionOf(bytes), typeUrl: VIRTUAL_HOST_TYPE, bytes, aliases: aliasesOf(host) });
      byObject.set(host, found);
    }
    return found;
  };
  const byTable = memo<object, NamedResources>();
  let tables = 0;
  /** Kinds of nodes that were prepared for the newest world. */
  let kinds: { readonly world: World; readonly known: Set<string> } | undefined;
  const placeOf = ({ locality: { region, zone } }: Node): string => `${region}/${zone}`;
  /** In parts, of which each waits until it is asked for. */
  function* parts(built: NodeResources): Generator<[typeUrl: string, list: readonly EncodedResource[]]> {
    yield [CLUSTER_TYPE, encoded(CLUSTER_TYPE, built.clusters, (cluster) => cluster.name, encodeCluster)];
    yield [ENDPOINT_TYPE, encoded(ENDPOINT_TYPE, built.endpoints, (endpoints) => endpoints.clusterName, encodeEndpoints)];
    yield [LISTENER_TYPE, encoded(LISTENER_TYPE, built.listeners, (listener) => listener.name, encodeListener)];
    yield [ROUTE_TYPE, encoded(ROUTE_TYPE, built.routes, (route) => route.name, encodeRoute)];
  }
  return {
    encode(world, node) {
      if (places.size < PLACES_MAX) places.set(placeOf(node), node.locality);
      if (node.flavour !== 'grpc' && !isLazy(node)) flavours.add(node.flavour);
      const built = build(world, node);
      check(built, node);
      return new Map(parts(built));
    },
    *prepareFor(world, node) {
      if (kinds?.world !== world) kinds = { world, known: new Set() };
      const kind = JSON.stringify([node.flavour, isLazy(node), node.namespace, placeOf(node)]);
      if (kinds.known.has(kind) || kinds.known.size >= KINDS_MAX) return;
      kinds.known.add(kind);
      const built = build(world, node);
      yield;
      check(built, node);
      yield;
      for (const [, list] of parts(built)) {
        yield;
        prepareSet(list);
        yield;
      }
    },
    *prepare(world) {
      const now = { world, places: places.size, flavours: flavours.size };
      if (prepared?.world === world && prepared.places === now.places && prepared.flavours === now.flavours) return;
      const from = [NOWHERE, ...places.values()];
      for (const service of world.services.values()) {
        prepareClusters(world, service);
        for (const place of from) prepareEndpoints(world, service, place);
        workloadsOf(service);
        yield;
      }
      yield* prepareMemberships(world);
      for (const cluster of outboundClusters(world)) {
        if (byObject.get(cluster) !== undefined) continue;
        one(CLUSTER_TYPE, cluster, cluster.name, encodeCluster);
        yield;
      }
      for (const list of new Set(from.map((place) => outboundEndpoints(world, place)))) {
        for (const endpoints of list) {
          if (byObject.get(endpoints) !== undefined) continue;
          one(ENDPOINT_TYPE, endpoints, endpoints.clusterName, encodeEndpoints);
          yield;
        }
      }
      for (const flavour of flavours) {
        for (const host of outboundRoutes(world, NOBODYS_NAMESPACE, flavour).virtualHosts) {
          virtualHostField(host);
          yield;
        }
      }
      prepared = now;
    },
    named(world, node) {
      const virtualHosts = isLazy(node) ? build(world, node).virtualHosts : undefined;
      if (virtualHosts === undefined) return undefined;
      let found = byTable.get(virtualHosts);
      if (found === undefined) {
        tables += 1;
        const get = (name: string): EncodedResource | undefined => {
          const host = virtualHosts.find(name);
          return host === undefined ? undefined : virtualHost(host);
        };
        found = { typeUrl: VIRTUAL_HOST_TYPE, version: `table-${tables}`, get };
        byTable.set(virtualHosts, found);
      }
      return found;
    },
    encodeSecret(secret) {
      const bytes = encodeSecret(secret);
      return { name: secret.name, version: versionOf(bytes), typeUrl: SECRET_TYPE, bytes };
    },
  };
}

const NOWHERE: Locality = { region: '', zone: '', subZone: '' };

/** A push never points at what it does not hold: a proxy would answer such requests with errors. */
function check(built: NodeResources, node: Node): void {
  const found = inconsistencies(built, 3);
  if (found.length > 0) throw new Error(`what was built for ${node.id} does not fit together: ${found.join('; ')}`);
}

/** A hash of the content, the same in every process. */
function versionOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('base64url').slice(0, 22);
}
