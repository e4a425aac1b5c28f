/** `Workload`: one instance of an application that Kubernetes does not know of, with or without a sidecar. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { dnsLabel, ipAddress, port, weight } from './schema.ts';

const localityPart = z.string().max(128).optional();

export const workloadSpec = z.strictObject({
  address: ipAddress,
  /** Port name -> number; Services refer to either. */
  ports: z
    .record(
      z.string().regex(/^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/, { error: 'must be a port name (a-z, 0-9 and dashes inside) or a number' }),
      port,
    )
    .refine((ports) => Object.keys(ports).length <= 64, { error: 'must have at most 64 ports' })
    .optional(),
  /** Share of the requests among the instances of a Service. Default 1; 0 gets none. */
  weight: weight.optional(),
  /** Its identity's last part. Default `default`. */
  serviceAccount: dnsLabel.optional(),
  locality: z.strictObject({ region: localityPart, zone: localityPart, subZone: localityPart }).optional(),
  /** Default true. */
  healthy: z.boolean().optional(),
  /** Draining instances finish what they have and get nothing new. Default false. */
  draining: z.boolean().optional(),
  /** Present = a sidecar stands before it. Defaults 15006, 15001, 15000; bindAddress is the address itself on loopback, else the wildcard. */
  sidecar: z
    .strictObject({
      inboundPort: port.optional(),
      outboundPort: port.optional(),
      bindAddress: ipAddress.optional(),
      adminPort: port.optional(),
    })
    .optional(),
});
export type WorkloadSpec = z.infer<typeof workloadSpec>;

export const workload = {
  group: 'meshwork.dev',
  versions: ['v1alpha1'],
  kind: 'Workload',
  plural: 'workloads',
  summary: 'an instance outside Kubernetes: address, ports, labels, weight, health',
  body: z.strictObject({ spec: workloadSpec }),
} satisfies Kind;
