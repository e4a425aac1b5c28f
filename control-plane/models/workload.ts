/** A Workload resource with its defaults filled in. */
import type { WorkloadSpec } from '../kinds/workload.ts';
import type { Resource, WorkloadModel } from '../world.ts';

export const INBOUND_PORT = 15006;
export const OUTBOUND_PORT = 15001;
export const ADMIN_PORT = 15000;

export function workloadModel(resource: Resource): WorkloadModel {
  const spec = resource.spec as WorkloadSpec;
  return {
    name: resource.metadata.name,
    namespace: resource.metadata.namespace,
    labels: resource.metadata.labels,
    address: spec.address,
    ports: spec.ports ?? {},
    weight: spec.weight ?? 1,
    serviceAccount: spec.serviceAccount ?? 'default',
    locality: { region: spec.locality?.region ?? '', zone: spec.locality?.zone ?? '', subZone: spec.locality?.subZone ?? '' },
    healthy: spec.healthy ?? true,
    draining: spec.draining ?? false,
    sidecar:
      spec.sidecar === undefined
        ? undefined
        : {
            inboundPort: spec.sidecar.inboundPort ?? INBOUND_PORT,
            outboundPort: spec.sidecar.outboundPort ?? OUTBOUND_PORT,
            bindAddress: spec.sidecar.bindAddress ?? defaultBindAddress(spec.address),
            adminPort: spec.sidecar.adminPort ?? ADMIN_PORT,
          },
    origin: resource.origin,
  };
}

/** Loopback stays on loopback; elsewhere the address may be translated on the way, so the sidecar listens on all of the machine's. */
function defaultBindAddress(address: string): string {
  if (address.startsWith('127.') || address === '::1') return address;
  return address.includes(':') ? '::' : '0.0.0.0';
}
