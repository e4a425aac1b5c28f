/** The node that a client claims to be, between core.v3.Node and our own type. */
import { create } from '@bufbuild/protobuf';
import { NodeSchema } from '../gen/envoy/config/core/v3/base_pb.js';
import type { Node } from '../gen/envoy/config/core/v3/base_pb.js';
import type { JsonObject } from '../snapshot.ts';
import type { NodeInfo } from '../session/messages.ts';

export function nodeInfo(node: Node): NodeInfo {
  const version = node.userAgentVersionType;
  const build = version.case === 'userAgentBuildVersion' ? version.value.version : undefined;
  return {
    id: node.id,
    cluster: node.cluster,
    metadata: (node.metadata ?? {}) as JsonObject,
    locality: { region: node.locality?.region ?? '', zone: node.locality?.zone ?? '', subZone: node.locality?.subZone ?? '' },
    userAgentName: node.userAgentName,
    userAgentVersion:
      version.case === 'userAgentVersion'
        ? version.value
        : build === undefined
          ? ''
          : `${build.majorNumber}.${build.minorNumber}.${build.patch}`,
    clientFeatures: node.clientFeatures,
  };
}

export function nodeMessage(node: NodeInfo): Node {
  return create(NodeSchema, {
    id: node.id,
    cluster: node.cluster,
    metadata: node.metadata as never,
    locality: { region: node.locality.region, zone: node.locality.zone, subZone: node.locality.subZone },
    userAgentName: node.userAgentName,
    userAgentVersionType: { case: 'userAgentVersion', value: node.userAgentVersion },
    clientFeatures: [...node.clientFeatures],
  });
}
