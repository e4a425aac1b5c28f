/** A connected proxy as the builders see it: what is proven wins over what the world says, and that over what the proxy claims. */
import { parseSpiffeId, workloadOf } from '../lib/spiffe.ts';
import type { NodeInfo } from '../xds/session/messages.ts';
import type { Locality } from '../xds/snapshot.ts';
import { claimedWorkload } from './identity.ts';
import type { Caller } from './identity.ts';
import type { Node, World } from './world.ts';

const INBOUND_PORT = 15006;
const OUTBOUND_PORT = 15001;

/** Looks the workload up by the node's id; the claim has been checked against the caller's identity before. */
export function nodeOf(world: World, info: NodeInfo, caller: Caller): Node {
  const claimed = claimedWorkload(info);
  const key = claimed === undefined ? undefined : `${claimed.namespace}/${claimed.name}`;
  const workload = key === undefined ? undefined : world.workloads.get(key);
  const { sidecar } = workload ?? {};
  return {
    id: info.id,
    cluster: info.cluster,
    flavour: flavourOf(info),
    namespace: namespaceOf(info, caller, claimed?.namespace),
    workload: workload === undefined ? undefined : key,
    labels: workload?.labels ?? textMap(info.metadata['LABELS']),
    locality: workload !== undefined && isPlace(workload.locality) ? workload.locality : info.locality,
    identity: caller.identity,
    metadata: info.metadata,
    inboundPort: sidecar?.inboundPort ?? portOf(info.metadata['INBOUND_PORT']) ?? INBOUND_PORT,
    outboundPort: sidecar?.outboundPort ?? portOf(info.metadata['OUTBOUND_PORT']) ?? OUTBOUND_PORT,
    bindAddress: sidecar?.bindAddress ?? '127.0.0.1',
  };
}

/** Clients of gRPC's own xDS and Envoy name themselves; everyone else is one of our sidecars. */
function flavourOf(info: NodeInfo): Node['flavour'] {
  const { FLAVOUR: said, GENERATOR: generator } = info.metadata;
  if (said === 'sidecar' || said === 'envoy' || said === 'grpc') return said;
  if (generator === 'grpc' || info.userAgentName.startsWith('gRPC')) return 'grpc';
  return info.userAgentName === 'envoy' ? 'envoy' : 'sidecar';
}

function namespaceOf(info: NodeInfo, caller: Caller, claimed: string | undefined): string {
  const proven = caller.identity === undefined ? undefined : workloadOf(parseSpiffeId(caller.identity))?.namespace;
  const said = info.metadata['NAMESPACE'];
  return proven ?? (typeof said === 'string' ? said : (claimed ?? 'default'));
}

/** Who says nothing of where a workload is leaves that to the node itself. */
function isPlace({ region, zone, subZone }: Locality): boolean {
  return region !== '' || zone !== '' || subZone !== '';
}

function portOf(value: unknown): number | undefined {
  const port = Number(value);
  return Number.isInteger(port) && port > 0 && port < 65_536 ? port : undefined;
}

function textMap(value: unknown): Readonly<Record<string, string>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {};
  return Object.fromEntries(Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
}
