/** Load assignments (EDS): made for many thousand endpoints, so neither JSON nor a path is made for an endpoint that is fine. */
import { create, toBinary } from '@bufbuild/protobuf';
import { isIP } from 'node:net';
import { HealthStatus } from '../gen/envoy/config/core/v3/health_check_pb.js';
import { type ClusterLoadAssignment, ClusterLoadAssignmentSchema } from '../gen/envoy/config/endpoint/v3/endpoint_pb.js';
import type { Endpoint, LbEndpoint as WireEndpoint, LocalityLbEndpoints } from '../gen/envoy/config/endpoint/v3/endpoint_components_pb.js';
import type { Address, JsonObject, LbEndpoint, LoadAssignment, Locality, LocalityEndpoints } from '../snapshot.ts';
import { inside, type Place, refuse, topOf, warn } from './decoding.ts';
import { fromFractionPercent, toFraction } from './duration.ts';
import { decodeMessage } from './extension.ts';
import { decodeAddress, encodeAddress, encodeMetadata } from './parts.ts';
import { checkRules } from './rules.ts';

const OVERPROVISIONING_PERCENT = 140;
const NO_METADATA: JsonObject = Object.freeze({});
const NO_LOCALITY: Locality = Object.freeze({ region: '', zone: '', subZone: '' });
const WEIGHT_SUM_MAX = 0xffff_ffff;
const HEALTH: readonly LbEndpoint['health'][] = ['UNKNOWN', 'HEALTHY', 'UNHEALTHY', 'DRAINING', 'TIMEOUT', 'DEGRADED'];

/** Decodes an EDS resource: addresses are IP addresses or pipes there, as Envoy asks. Throws DecodeError. */
export function decodeEndpoints(bytes: Uint8Array, warnings: string[] = []): LoadAssignment {
  const first = topOf('endpoints', warnings);
  const wire = decodeMessage(ClusterLoadAssignmentSchema, bytes, first);
  const place = topOf(`endpoints "${wire.clusterName}"`, warnings);
  checkRules(ClusterLoadAssignmentSchema, wire, place);
  return decodeLoadAssignment(wire, place, true);
}

/** From a message whose rules are checked; `ipOnly` is false for clusters that resolve names. */
export function decodeLoadAssignment(wire: ClusterLoadAssignment, place: Place, ipOnly: boolean): LoadAssignment {
  const drops = wire.policy?.dropOverloads ?? [];
  const dropped = drops.reduce((sum, drop) => sum + fromFractionPercent(drop.dropPercentage), 0);
  const localities: LocalityEndpoints[] = [];
  for (let i = 0; i < wire.endpoints.length; i++) localities.push(decodeLocality(wire, i, place, ipOnly));
  checkLocalityWeights(localities, place);
  return {
    clusterName: wire.clusterName,
    localities,
    overprovisioningFactor: wire.policy?.overprovisioningFactor ?? OVERPROVISIONING_PERCENT,
    dropPercent: Math.min(100, dropped),
  };
}

function decodeLocality(assignment: ClusterLoadAssignment, index: number, place: Place, ipOnly: boolean): LocalityEndpoints {
  const wire = assignment.endpoints[index]!;
  const at = (): Place => inside(inside(place, 'endpoints'), index);
  if (wire.lbConfig.case === 'ledsClusterLocalityConfig') refuse(at(), 'leds_cluster_locality_config is not supported');
  const items = wire.lbConfig.case === 'loadBalancerEndpoints' ? wire.lbConfig.value.lbEndpoints : wire.lbEndpoints;
  const endpoints: LbEndpoint[] = [];
  let weights = 0;
  for (let i = 0; i < items.length; i++) {
    const endpoint = decodeEndpoint(items[i]!, assignment.namedEndpoints, ipOnly, () => inside(inside(at(), 'lb_endpoints'), i));
    weights += endpoint.weight;
    endpoints.push(endpoint);
  }
  if (weights > WEIGHT_SUM_MAX) refuse(at(), `the weights of a locality add up to at most ${WEIGHT_SUM_MAX}`, weights);
  const { locality } = wire;
  return {
    locality: locality === undefined ? NO_LOCALITY : { region: locality.region, zone: locality.zone, subZone: locality.subZone },
    ...(wire.loadBalancingWeight === undefined ? {} : { weight: wire.loadBalancingWeight }),
    priority: wire.priority,
    endpoints,
  };
}

function decodeEndpoint(wire: WireEndpoint, named: { readonly [name: string]: Endpoint }, ipOnly: boolean, at: () => Place): LbEndpoint {
  const host = wire.hostIdentifier;
  const endpoint = host.case === 'endpoint' ? host.value : host.case === 'endpointName' ? named[host.value] : undefined;
  if (endpoint === undefined) {
    return refuse(at(), host.case === 'endpointName' ? `endpoint_name must be a key of named_endpoints` : 'needs an endpoint', host.value);
  }
  const metadata = wire.metadata?.filterMetadata;
  return {
    address: decodeEndpointAddress(endpoint, ipOnly, at),
    hostname: endpoint.hostname,
    weight: wire.loadBalancingWeight ?? 1,
    health: HEALTH[wire.healthStatus] ?? 'UNKNOWN',
    metadata: metadata === undefined ? NO_METADATA : (metadata as JsonObject),
  };
}

function decodeEndpointAddress(endpoint: Endpoint, ipOnly: boolean, at: () => Place): Address {
  const wire = endpoint.address?.address;
  if (endpoint.additionalAddresses.length > 0) warn(at(), 'additional_addresses are ignored');
  // The common case first, without a Place.
  if (wire?.case === 'socketAddress' && wire.value.protocol === 0 && wire.value.portSpecifier.case === 'portValue') {
    const { address } = wire.value;
    if (ipOnly && isIP(address) === 0) {
      refuse(
        inside(at(), 'endpoint.address.socket_address.address'),
        'must be an IP address (names need STRICT_DNS or LOGICAL_DNS)',
        address,
      );
    }
    return { host: address, port: wire.value.portSpecifier.value };
  }
  return decodeAddress(endpoint.address, inside(at(), 'endpoint.address'));
}

function checkLocalityWeights(localities: readonly LocalityEndpoints[], place: Place): void {
  const sums = new Map<number, number>();
  for (const { priority, weight = 0 } of localities) sums.set(priority, (sums.get(priority) ?? 0) + weight);
  for (const [priority, sum] of sums) {
    if (sum > WEIGHT_SUM_MAX)
      refuse(inside(place, 'endpoints'), `the weights of priority ${priority} add up to at most ${WEIGHT_SUM_MAX}`, sum);
  }
}

export function encodeEndpoints(assignment: LoadAssignment): Uint8Array {
  return toBinary(ClusterLoadAssignmentSchema, newLoadAssignment(assignment));
}

export function newLoadAssignment(assignment: LoadAssignment): ClusterLoadAssignment {
  return create(ClusterLoadAssignmentSchema, {
    clusterName: assignment.clusterName,
    endpoints: assignment.localities.map(encodeLocality),
    policy: {
      overprovisioningFactor: assignment.overprovisioningFactor,
      dropOverloads: assignment.dropPercent === 0 ? [] : [{ category: 'drop', dropPercentage: toFraction(assignment.dropPercent / 100) }],
    },
  });
}

type LocalityInit = Partial<Pick<LocalityLbEndpoints, 'priority' | 'loadBalancingWeight'>> & {
  locality: { region: string; zone: string; subZone: string };
  lbEndpoints: ReturnType<typeof encodeEndpoint>[];
};

function encodeLocality(group: LocalityEndpoints): LocalityInit {
  return {
    locality: { region: group.locality.region, zone: group.locality.zone, subZone: group.locality.subZone },
    ...(group.weight === undefined ? {} : { loadBalancingWeight: group.weight }),
    priority: group.priority,
    lbEndpoints: group.endpoints.map(encodeEndpoint),
  };
}

function encodeEndpoint(endpoint: LbEndpoint) {
  const metadata = encodeMetadata(endpoint.metadata);
  return {
    hostIdentifier: { case: 'endpoint' as const, value: { address: encodeAddress(endpoint.address), hostname: endpoint.hostname } },
    healthStatus: HealthStatus[endpoint.health],
    loadBalancingWeight: endpoint.weight,
    ...(metadata === undefined ? {} : { metadata }),
  };
}
