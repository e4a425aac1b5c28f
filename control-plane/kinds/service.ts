/** `v1/Service`: a name for a set of instances, with the ports that they answer on. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { dnsLabel, issue, labels, port, portOrName } from './schema.ts';

const servicePort = z.strictObject({
  name: dnsLabel.optional(),
  port,
  targetPort: portOrName.optional(),
  protocol: z.enum(['TCP', 'UDP', 'SCTP']).optional(),
  appProtocol: z.string().max(64).nullish(),
  nodePort: z.int().min(0).max(65535).optional(),
});

export const serviceSpec = z
  .strictObject({
    ports: z.array(servicePort).max(128).optional(),
    selector: labels.nullish(),
    publishNotReadyAddresses: z.boolean().optional(),
    type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']).optional(),
    // What follows is Kubernetes' own business: accepted as written, without effect here.
    clusterIP: z.string().optional(),
    clusterIPs: z.array(z.string()).optional(),
    externalIPs: z.array(z.string()).nullish(),
    externalName: z.string().optional(),
    externalTrafficPolicy: z.string().optional(),
    internalTrafficPolicy: z.string().nullish(),
    ipFamilies: z.array(z.string()).nullish(),
    ipFamilyPolicy: z.string().nullish(),
    loadBalancerIP: z.string().optional(),
    loadBalancerClass: z.string().nullish(),
    loadBalancerSourceRanges: z.array(z.string()).nullish(),
    allocateLoadBalancerNodePorts: z.boolean().nullish(),
    healthCheckNodePort: z.int().optional(),
    sessionAffinity: z.string().optional(),
    sessionAffinityConfig: z.unknown().optional(),
    trafficDistribution: z.string().nullish(),
  })
  .superRefine((spec, context) => {
    const numbers = new Map<string, number>();
    const names = new Map<string, number>();
    for (const [index, entry] of (spec.ports ?? []).entries()) {
      const key = `${entry.protocol ?? 'TCP'} ${entry.port}`;
      const first = numbers.get(key);
      if (first !== undefined) issue(context, ['ports', index, 'port'], `must be unique, and ports[${first}] has the same number`);
      else numbers.set(key, index);
      if (entry.name === undefined) {
        if ((spec.ports ?? []).length > 1) issue(context, ['ports', index], 'must have a name, since the Service has several ports');
        continue;
      }
      const named = names.get(entry.name);
      if (named !== undefined) issue(context, ['ports', index, 'name'], `must be unique, and ports[${named}] has the same name`);
      else names.set(entry.name, index);
    }
  });

export type ServiceSpec = z.infer<typeof serviceSpec>;

export const service = {
  group: '',
  versions: ['v1'],
  kind: 'Service',
  plural: 'services',
  summary: 'a name for a set of instances, with its ports',
  body: z.strictObject({ spec: serviceSpec }),
} satisfies Kind;
