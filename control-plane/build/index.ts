/** From the world to what one node gets: pure, one builder per flavour of client. */
import type { Build, Node, NodeResources, World } from '../world.ts';
import { outboundClusters } from './clusters.ts';
import { outboundEndpoints } from './endpoints.ts';
import { grpcResources } from './grpc.ts';
import { inboundListener, outboundListener } from './listeners.ts';
import { outboundRoutes } from './routes.ts';

const FLAVOURS = {
  sidecar: sidecarResources,
  // Real Envoys read the same resources.
  envoy: sidecarResources,
  grpc: grpcResources,
} satisfies Record<Node['flavour'], Build>;

/** The same world and node give the same resources, in the same order; parts that did not change are the same objects as before. */
export const build: Build = (world, node) => FLAVOURS[node.flavour](world, node);

function sidecarResources(world: World, node: Node): NodeResources {
  const inbound = inboundListener(world, node);
  return {
    listeners: inbound === undefined ? [outboundListener(world, node)] : [inbound.listener, outboundListener(world, node)],
    routes: [outboundRoutes(world, node.namespace, node.flavour)],
    clusters: [...(inbound?.clusters ?? []), ...outboundClusters(world)],
    endpoints: outboundEndpoints(world),
  };
}
