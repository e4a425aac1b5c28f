/** Load balancing policies: the old `lb_policy` with its settings and the new `load_balancing_policy`, as one thing. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type Cluster as WireCluster,
  Cluster_LbPolicy as LbPolicy,
  type ClusterSchema,
  type Cluster_SlowStartConfig,
  type LoadBalancingPolicy,
} from '../gen/envoy/config/cluster/v3/cluster_pb.js';
import { ClusterProvidedSchema } from '../gen/envoy/extensions/load_balancing_policies/cluster_provided/v3/cluster_provided_pb.js';
import { SlowStartConfigSchema } from '../gen/envoy/extensions/load_balancing_policies/common/v3/common_pb.js';
import {
  type LeastRequest,
  LeastRequestSchema,
} from '../gen/envoy/extensions/load_balancing_policies/least_request/v3/least_request_pb.js';
import { MaglevSchema } from '../gen/envoy/extensions/load_balancing_policies/maglev/v3/maglev_pb.js';
import { RandomSchema } from '../gen/envoy/extensions/load_balancing_policies/random/v3/random_pb.js';
import { RingHash_HashFunction, RingHashSchema } from '../gen/envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash_pb.js';
import { RoundRobinSchema } from '../gen/envoy/extensions/load_balancing_policies/round_robin/v3/round_robin_pb.js';
import { WrrLocalitySchema } from '../gen/envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality_pb.js';
import type { Cluster, ExtensionConfig, JsonObject } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, fromPercent, toDuration, toPercent } from './duration.ts';
import { extensionOf, openAs, pack, packExtension } from './extension.ts';
import { CONFIG_STYLE, messageJson } from './json.ts';
import { newMessage } from './loose.ts';
import { messageType } from './registry.ts';

type Decoded = Pick<Cluster, 'lbPolicy' | 'localityWeighted' | 'slowStart' | 'zoneAware'>;

/** The policies that `lb_policy` can name, by that name. */
const SCHEMAS = {
  ROUND_ROBIN: RoundRobinSchema,
  LEAST_REQUEST: LeastRequestSchema,
  RING_HASH: RingHashSchema,
  RANDOM: RandomSchema,
  MAGLEV: MaglevSchema,
  CLUSTER_PROVIDED: ClusterProvidedSchema,
} as const;

type PolicyName = keyof typeof SCHEMAS;
const NESTING_MAX = 8;
const ZONES_IGNORED = 'is ignored: endpoints are chosen by priority, health and weight, whatever their zone';

export function decodeBalancing(wire: WireCluster, place: Place): Decoded {
  if (wire.loadBalancingPolicy !== undefined) return decodeNew(wire.loadBalancingPolicy, inside(place, 'load_balancing_policy'), 0);
  const common = wire.commonLbConfig?.localityConfigSpecifier;
  if (common?.case === 'zoneAwareLbConfig') warn(inside(place, 'common_lb_config.zone_aware_lb_config'), ZONES_IGNORED);
  const slowStart =
    wire.lbConfig.case === 'roundRobinLbConfig' || wire.lbConfig.case === 'leastRequestLbConfig'
      ? decodeSlowStart(wire.lbConfig.value.slowStartConfig)
      : undefined;
  return {
    lbPolicy: decodeOld(wire, place),
    localityWeighted: common?.case === 'localityWeightedLbConfig',
    ...(slowStart === undefined ? {} : { slowStart }),
    ...(common?.case === 'zoneAwareLbConfig' ? { zoneAware: decodeZoneAware(common.value) } : {}),
  };
}

/** An `lb_policy` with its settings as the message that replaced it. */
function decodeOld(wire: WireCluster, place: Place): ExtensionConfig {
  const { lbConfig } = wire;
  const hashing = wire.commonLbConfig?.consistentHashingLbConfig;
  const consistent =
    hashing === undefined
      ? {}
      : {
          consistentHashingLbConfig: {
            useHostnameForHashing: hashing.useHostnameForHashing,
            ...(hashing.hashBalanceFactor === undefined ? {} : { hashBalanceFactor: hashing.hashBalanceFactor }),
          },
        };
  switch (wire.lbPolicy) {
    case LbPolicy.ROUND_ROBIN:
      return policy('ROUND_ROBIN', {});
    case LbPolicy.LEAST_REQUEST: {
      const settings = lbConfig.case === 'leastRequestLbConfig' ? lbConfig.value : undefined;
      const bias = settings?.activeRequestBias;
      return policy('LEAST_REQUEST', {
        ...(settings?.choiceCount === undefined ? {} : { choiceCount: settings.choiceCount }),
        ...(bias === undefined ? {} : { activeRequestBias: { defaultValue: bias.defaultValue, runtimeKey: bias.runtimeKey } }),
      });
    }
    case LbPolicy.RING_HASH: {
      const settings = lbConfig.case === 'ringHashLbConfig' ? lbConfig.value : undefined;
      return policy('RING_HASH', {
        // The old enum starts at XX_HASH = 0, the new one has DEFAULT_HASH before it.
        hashFunction: settings?.hashFunction === 1 ? RingHash_HashFunction.MURMUR_HASH_2 : RingHash_HashFunction.XX_HASH,
        ...(settings?.minimumRingSize === undefined ? {} : { minimumRingSize: settings.minimumRingSize }),
        ...(settings?.maximumRingSize === undefined ? {} : { maximumRingSize: settings.maximumRingSize }),
        ...consistent,
      });
    }
    case LbPolicy.RANDOM:
      return policy('RANDOM', {});
    case LbPolicy.MAGLEV: {
      const size = lbConfig.case === 'maglevLbConfig' ? lbConfig.value.tableSize : undefined;
      return policy('MAGLEV', { ...(size === undefined ? {} : { tableSize: size }), ...consistent });
    }
    case LbPolicy.CLUSTER_PROVIDED:
      return policy('CLUSTER_PROVIDED', {});
    default:
      return refuse(inside(place, 'lb_policy'), 'needs load_balancing_policy to be set', 'LOAD_BALANCING_POLICY_CONFIG');
  }
}

function policy<Name extends PolicyName>(
  name: Name,
  settings: Exclude<MessageInitShape<(typeof SCHEMAS)[Name]>, { $typeName: string }>,
): ExtensionConfig {
  const schema = SCHEMAS[name];
  const message = create(schema as typeof RoundRobinSchema, settings as MessageInitShape<typeof RoundRobinSchema>);
  return { name, type: schema.typeName, config: messageJson(schema, message, CONFIG_STYLE) };
}

/** The first policy of the list that is known, as the protos ask; where none is, the first, for the data plane to refuse by name. */
function decodeNew(wire: LoadBalancingPolicy, place: Place, depth: number): Decoded {
  if (depth > NESTING_MAX) return refuse(place, `nests at most ${NESTING_MAX} policies`);
  const list = inside(place, 'policies');
  const known = wire.policies.findIndex((item) => {
    const type = item.typedExtensionConfig?.typedConfig?.typeUrl ?? '';
    return messageType(type.slice(type.lastIndexOf('/') + 1)) !== undefined;
  });
  const index = Math.max(0, known);
  const at = inside(inside(list, index), 'typed_extension_config');
  const chosen = wire.policies[index]?.typedExtensionConfig;
  if (chosen === undefined) return refuse(list, 'needs at least one policy with a typed_extension_config');
  const wrr = openAs(WrrLocalitySchema, chosen.typedConfig, inside(at, 'typed_config'));
  if (wrr !== undefined) {
    if (wrr.endpointPickingPolicy === undefined) return refuse(inside(at, 'typed_config.endpoint_picking_policy'), 'is required');
    return {
      ...decodeNew(wrr.endpointPickingPolicy, inside(at, 'typed_config.endpoint_picking_policy'), depth + 1),
      localityWeighted: true,
    };
  }
  const extension = extensionOf(chosen.name, chosen.typedConfig, at);
  const name = Object.keys(SCHEMAS).find((word) => SCHEMAS[word as PolicyName].typeName === extension.type);
  const lbPolicy = name === undefined ? extension : { name, type: extension.type, config: ownSettings(extension.config) };
  return { lbPolicy, ...decodeNewExtras(extension, chosen.typedConfig, inside(at, 'typed_config')) };
}

/** The settings without those that a cluster has fields for, and hashing options in their one present place. */
function ownSettings(config: JsonObject): JsonObject {
  const {
    slowStartConfig: _slow,
    localityLbConfig: _locality,
    localityWeightedLbConfig: _weighted,
    useHostnameForHashing,
    hashBalanceFactor,
    ...rest
  } = config;
  if (useHostnameForHashing === undefined && hashBalanceFactor === undefined) return rest;
  const consistentHashingLbConfig = {
    ...(useHostnameForHashing === undefined ? {} : { useHostnameForHashing }),
    ...(hashBalanceFactor === undefined ? {} : { hashBalanceFactor }),
    ...(rest['consistentHashingLbConfig'] as JsonObject | undefined),
  };
  return { ...rest, consistentHashingLbConfig };
}

function decodeNewExtras(extension: ExtensionConfig, any: Parameters<typeof openAs>[1], place: Place): Omit<Decoded, 'lbPolicy'> {
  if (extension.type === RingHashSchema.typeName || extension.type === MaglevSchema.typeName) {
    return { localityWeighted: extension.config['localityWeightedLbConfig'] !== undefined };
  }
  const message = openAs(LeastRequestSchema, any, place) ?? openAs(RoundRobinSchema, any, place) ?? openAs(RandomSchema, any, place);
  const locality = message?.localityLbConfig?.localityConfigSpecifier;
  if (locality?.case === 'zoneAwareLbConfig') warn(inside(place, 'locality_lb_config.zone_aware_lb_config'), ZONES_IGNORED);
  const slowStart = message !== undefined && 'slowStartConfig' in message ? decodeSlowStart(message.slowStartConfig) : undefined;
  return {
    localityWeighted: locality?.case === 'localityWeightedLbConfig',
    ...(slowStart === undefined ? {} : { slowStart }),
    ...(locality?.case === 'zoneAwareLbConfig' ? { zoneAware: decodeZoneAware(locality.value) } : {}),
  };
}

function decodeSlowStart(
  wire: Pick<Cluster_SlowStartConfig, 'slowStartWindow' | 'aggression' | 'minWeightPercent'> | undefined,
): Cluster['slowStart'] {
  if (wire?.slowStartWindow === undefined) return undefined;
  return {
    windowMs: fromDuration(wire.slowStartWindow),
    aggression: wire.aggression?.defaultValue ?? 1,
    minWeightPercent: fromPercent(wire.minWeightPercent, 10),
  };
}

function decodeZoneAware(wire: {
  routingEnabled?: { value: number } | undefined;
  minClusterSize?: bigint | undefined;
}): NonNullable<Cluster['zoneAware']> {
  return { minClusterSize: Number(wire.minClusterSize ?? 6n), routingEnabledPercent: wire.routingEnabled?.value ?? 100 };
}

type ClusterInit = Exclude<MessageInitShape<typeof ClusterSchema>, { $typeName: string }>;
type Encoded = Pick<ClusterInit, 'lbPolicy' | 'lbConfig' | 'loadBalancingPolicy'> & { consistentHashing?: JsonObject };

/** `lb_policy` for what it can name (every client reads it); `load_balancing_policy` for the rest. */
export function encodeBalancing(cluster: Cluster): Encoded {
  const { lbPolicy } = cluster;
  if (!Object.hasOwn(SCHEMAS, lbPolicy.name)) return encodeNew(cluster);
  const slowStartConfig = encodeSlowStart(cluster.slowStart);
  const slow = slowStartConfig === undefined ? {} : { slowStartConfig };
  switch (lbPolicy.name as PolicyName) {
    case 'ROUND_ROBIN':
      return {
        lbPolicy: LbPolicy.ROUND_ROBIN,
        ...(slowStartConfig === undefined ? {} : { lbConfig: { case: 'roundRobinLbConfig', value: slow } }),
      };
    case 'LEAST_REQUEST': {
      const {
        choiceCount,
        activeRequestBias: bias,
        enableFullScan,
        selectionMethod,
      } = newMessage(LeastRequestSchema, lbPolicy.config, 'LEAST_REQUEST');
      // Younger than lb_policy's settings.
      if (enableFullScan !== undefined || selectionMethod !== 0) return encodeNew(cluster);
      const settings = {
        ...(choiceCount === undefined ? {} : { choiceCount }),
        ...(bias === undefined ? {} : { activeRequestBias: bias }),
        ...slow,
      };
      return {
        lbPolicy: LbPolicy.LEAST_REQUEST,
        ...(Object.keys(settings).length === 0 ? {} : { lbConfig: { case: 'leastRequestLbConfig', value: settings } }),
      };
    }
    case 'RING_HASH': {
      const { hashFunction, minimumRingSize, maximumRingSize } = newMessage(RingHashSchema, lbPolicy.config, 'RING_HASH');
      const value = {
        hashFunction: hashFunction === RingHash_HashFunction.MURMUR_HASH_2 ? (1 as const) : (0 as const),
        ...(minimumRingSize === undefined ? {} : { minimumRingSize }),
        ...(maximumRingSize === undefined ? {} : { maximumRingSize }),
      };
      return { lbPolicy: LbPolicy.RING_HASH, lbConfig: { case: 'ringHashLbConfig', value }, ...hashingOf(lbPolicy) };
    }
    case 'MAGLEV': {
      const { tableSize } = newMessage(MaglevSchema, lbPolicy.config, 'MAGLEV');
      return {
        lbPolicy: LbPolicy.MAGLEV,
        ...(tableSize === undefined ? {} : { lbConfig: { case: 'maglevLbConfig', value: { tableSize } } }),
        ...hashingOf(lbPolicy),
      };
    }
    case 'RANDOM':
      return { lbPolicy: LbPolicy.RANDOM };
    case 'CLUSTER_PROVIDED':
      return { lbPolicy: LbPolicy.CLUSTER_PROVIDED };
  }
}

function hashingOf(lbPolicy: ExtensionConfig): { consistentHashing?: JsonObject } {
  const hashing = lbPolicy.config['consistentHashingLbConfig'];
  return hashing === undefined ? {} : { consistentHashing: hashing as JsonObject };
}

function encodeNew(cluster: Cluster): Encoded {
  const slowStartConfig = cluster.lbPolicy.name === 'LEAST_REQUEST' ? encodeSlowStart(cluster.slowStart) : undefined;
  const typedConfig =
    slowStartConfig === undefined
      ? packExtension(cluster.lbPolicy)
      : pack(LeastRequestSchema, withSlowStart(cluster.lbPolicy.config, slowStartConfig));
  const own = { typedExtensionConfig: { name: cluster.lbPolicy.name, ...(typedConfig === undefined ? {} : { typedConfig }) } };
  if (!cluster.localityWeighted) return { lbPolicy: LbPolicy.LOAD_BALANCING_POLICY_CONFIG, loadBalancingPolicy: { policies: [own] } };
  const wrr = create(WrrLocalitySchema, { endpointPickingPolicy: { policies: [own] } });
  const wrapped = {
    typedExtensionConfig: { name: 'envoy.load_balancing_policies.wrr_locality', typedConfig: pack(WrrLocalitySchema, wrr) },
  };
  return { lbPolicy: LbPolicy.LOAD_BALANCING_POLICY_CONFIG, loadBalancingPolicy: { policies: [wrapped] } };
}

function withSlowStart(config: JsonObject, slowStart: MessageInitShape<typeof SlowStartConfigSchema>): LeastRequest {
  const message = newMessage(LeastRequestSchema, config, 'LEAST_REQUEST');
  message.slowStartConfig = create(SlowStartConfigSchema, slowStart);
  return message;
}

function encodeSlowStart(slowStart: Cluster['slowStart']) {
  if (slowStart === undefined) return undefined;
  return {
    slowStartWindow: toDuration(slowStart.windowMs),
    aggression: { defaultValue: slowStart.aggression, runtimeKey: 'upstream.slow_start.aggression' },
    minWeightPercent: toPercent(slowStart.minWeightPercent),
  };
}
