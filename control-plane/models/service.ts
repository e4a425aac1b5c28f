/** A Service with its ports and the instances behind each of them. */
import { workloadId } from '../../lib/spiffe.ts';
import type { Locality } from '../../xds/snapshot.ts';
import type { EndpointSliceBody } from '../kinds/endpoint-slice.ts';
import type { ServiceSpec } from '../kinds/service.ts';
import type { EndpointModel, Resource, ServiceModel, WorkloadModel } from '../world.ts';

export type ServicePort = ServiceModel['ports'][number];

/** A slice endpoint without a weight of its own counts as one. */
const SLICE_WEIGHT = 1;
const NOWHERE: Locality = { region: '', zone: '', subZone: '' };

/** Protocols that are bytes to us, by port name prefix or appProtocol; all others are HTTP of some version. */
const TCP_WORDS = new Set([
  'tcp',
  'tls',
  'https',
  'kubernetes.io/wss',
  'mysql',
  'mongo',
  'redis',
  'postgres',
  'postgresql',
  'kafka',
  'amqp',
  'smtp',
]);
const HTTP2_WORDS = new Set(['http2', 'h2c', 'kubernetes.io/h2c']);

export function servicePorts(resource: Resource): readonly ServicePort[] {
  const ports = (resource.spec as ServiceSpec).ports ?? [];
  return ports
    .filter((entry) => (entry.protocol ?? 'TCP') === 'TCP')
    .map((entry) => ({
      name: entry.name ?? '',
      port: entry.port,
      targetPort: entry.targetPort ?? entry.port,
      protocol: protocolOf(entry.appProtocol ?? undefined, entry.name),
    }))
    .sort((left, right) => left.port - right.port);
}

/** Undefined for a Service that selects nothing: its endpoints come from EndpointSlices. */
export function selectorOf(resource: Resource): Readonly<Record<string, string>> | undefined {
  const selector = (resource.spec as ServiceSpec).selector ?? undefined;
  return selector === undefined || Object.keys(selector).length === 0 ? undefined : selector;
}

export interface ServiceInputs {
  readonly resource: Resource;
  readonly ports: readonly ServicePort[];
  /** Workloads that the selector finds, in order of their keys. */
  readonly workloads: readonly WorkloadModel[];
  /** EndpointSlices that name the Service, in order of their keys. */
  readonly slices: readonly Resource[];
  /** Any workload by `namespace/name`, for slices that refer to one. */
  readonly workloadByKey: (key: string) => WorkloadModel | undefined;
  readonly trustDomain: string;
}

export function serviceModel(inputs: ServiceInputs): ServiceModel {
  const { resource, ports } = inputs;
  return {
    name: resource.metadata.name,
    namespace: resource.metadata.namespace,
    labels: resource.metadata.labels,
    annotations: resource.metadata.annotations,
    ports,
    selector: selectorOf(resource),
    endpoints: endpointsOf(inputs),
    origin: resource.origin,
  };
}

function endpointsOf(inputs: ServiceInputs): readonly EndpointModel[] {
  // One per address and ports: an instance that restarts under a new name may stand twice for a moment.
  const found = new Map<string, EndpointModel>();
  const add = (endpoint: EndpointModel): void => {
    const key = `${endpoint.servicePort} ${endpoint.address} ${endpoint.port} ${endpoint.targetPort}`;
    const before = found.get(key);
    if (before === undefined || (!before.ready && endpoint.ready)) found.set(key, endpoint);
  };
  const sliced = new Set<string>();
  const unready = (inputs.resource.spec as ServiceSpec).publishNotReadyAddresses === true;
  for (const slice of inputs.slices) addSlice(inputs, slice, unready, add, sliced);
  for (const workload of inputs.workloads) {
    // Readiness of what a slice names is the slice's to say.
    if (sliced.has(`${workload.namespace}/${workload.name}`)) continue;
    for (const port of inputs.ports) {
      const targetPort = typeof port.targetPort === 'number' ? port.targetPort : workload.ports[port.targetPort];
      if (targetPort === undefined) continue;
      const ready = (workload.healthy || unready) && !workload.draining;
      add({
        ...ofWorkload(workload, targetPort, inputs.trustDomain),
        servicePort: port.port,
        ready,
        serving: workload.healthy,
        terminating: workload.draining,
      });
    }
  }
  return [...found.values()].sort(byPlace);
}

function addSlice(
  inputs: ServiceInputs,
  slice: Resource,
  unready: boolean,
  add: (endpoint: EndpointModel) => void,
  sliced: Set<string>,
): void {
  const body = slice.spec as unknown as EndpointSliceBody;
  for (const entry of body.endpoints ?? []) {
    const named =
      entry.targetRef?.name === undefined ? undefined : `${entry.targetRef.namespace ?? slice.metadata.namespace}/${entry.targetRef.name}`;
    const workload = named === undefined ? undefined : inputs.workloadByKey(named);
    if (workload !== undefined) sliced.add(named!);
    const terminating = entry.conditions?.terminating ?? false;
    // Unknown readiness counts as ready (EndpointSlice API); terminating ones are never ready.
    const ready = ((entry.conditions?.ready ?? true) || unready) && !terminating;
    const serving = entry.conditions?.serving ?? ready;
    for (const slicePort of body.ports ?? []) {
      const port = inputs.ports.find((candidate) => candidate.name === (slicePort.name ?? ''));
      if (port === undefined || typeof slicePort.port !== 'number' || (slicePort.protocol ?? 'TCP') !== 'TCP') continue;
      for (const address of entry.addresses) {
        const base =
          workload !== undefined
            ? ofWorkload(workload, slicePort.port, inputs.trustDomain)
            : {
                address,
                port: slicePort.port,
                targetPort: slicePort.port,
                weight: SLICE_WEIGHT,
                locality: typeof entry.zone === 'string' ? { ...NOWHERE, zone: entry.zone } : NOWHERE,
                labels: {},
                workload: undefined,
                identity: undefined,
              };
        add({ ...base, address, servicePort: port.port, ready, serving, terminating });
      }
    }
  }
}

function ofWorkload(workload: WorkloadModel, targetPort: number, trustDomain: string) {
  return {
    address: workload.address,
    port: workload.sidecar?.inboundPort ?? targetPort,
    targetPort,
    weight: workload.weight,
    locality: workload.locality,
    labels: workload.labels,
    workload: `${workload.namespace}/${workload.name}`,
    identity: workload.sidecar === undefined ? undefined : workloadId(trustDomain, workload.namespace, workload.serviceAccount),
  };
}

function byPlace(left: EndpointModel, right: EndpointModel): number {
  return (
    left.servicePort - right.servicePort ||
    (left.address < right.address ? -1 : left.address > right.address ? 1 : 0) ||
    left.port - right.port ||
    left.targetPort - right.targetPort
  );
}

/** `appProtocol` decides, then the port's name up to its first dash (`grpc-api`), then HTTP. */
function protocolOf(appProtocol: string | undefined, name: string | undefined): ServicePort['protocol'] {
  const word = (appProtocol ?? name?.split('-', 1)[0] ?? '').toLowerCase();
  if (TCP_WORDS.has(word)) return 'tcp';
  if (HTTP2_WORDS.has(word)) return 'http2';
  return word === 'grpc' ? 'grpc' : 'http';
}
