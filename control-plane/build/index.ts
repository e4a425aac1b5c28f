/** From the world to what one node gets: pure, one builder per flavour of client. */
import type { Build, Node } from '../world.ts';
import { grpcResources } from './grpc.ts';
import { sidecarResources } from './sidecar.ts';

const FLAVOURS = {
  sidecar: sidecarResources,
  // Real Envoys read the same resources.
  envoy: sidecarResources,
  grpc: grpcResources,
} satisfies Record<Node['flavour'], Build>;

/** The same world and node give the same resources, in the same order; parts that did not change are the same objects as before. */
export const build: Build = (world, node) => FLAVOURS[node.flavour](world, node);
