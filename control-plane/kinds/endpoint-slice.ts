/** `discovery.k8s.io/v1 EndpointSlice`: addresses behind a Service, as Kubernetes or a user lists them. */
import { isIP } from 'node:net';
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { issue, port } from './schema.ts';

const endpoint = z.strictObject({
  addresses: z.array(z.string().min(1).max(253)).min(1).max(100),
  conditions: z
    .strictObject({ ready: z.boolean().nullish(), serving: z.boolean().nullish(), terminating: z.boolean().nullish() })
    .optional(),
  hostname: z.string().optional(),
  nodeName: z.string().nullish(),
  zone: z.string().nullish(),
  targetRef: z
    .strictObject({
      kind: z.string().optional(),
      name: z.string().optional(),
      namespace: z.string().optional(),
      apiVersion: z.string().optional(),
      uid: z.string().optional(),
      resourceVersion: z.string().optional(),
      fieldPath: z.string().optional(),
    })
    .nullish(),
  hints: z.unknown().optional(),
  deprecatedTopology: z.unknown().optional(),
});

export const endpointSliceBody = z
  .strictObject({
    addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
    endpoints: z.array(endpoint).max(1000).nullish(),
    ports: z
      .array(
        z.strictObject({
          name: z.string().max(63).nullish(),
          port: port.nullish(),
          protocol: z.enum(['TCP', 'UDP', 'SCTP']).nullish(),
          appProtocol: z.string().nullish(),
        }),
      )
      .max(100)
      .nullish(),
  })
  .superRefine((body, context) => {
    const family = body.addressType === 'IPv4' ? 4 : 6;
    if (body.addressType === 'FQDN') {
      issue(context, ['addressType'], 'must be IPv4 or IPv6: endpoints are dialled without DNS');
      return;
    }
    for (const [index, entry] of (body.endpoints ?? []).entries()) {
      for (const [at, address] of entry.addresses.entries()) {
        if (isIP(address) !== family) issue(context, ['endpoints', index, 'addresses', at], `must be an ${body.addressType} address`);
      }
    }
  });

export type EndpointSliceBody = z.infer<typeof endpointSliceBody>;

export const endpointSlice = {
  group: 'discovery.k8s.io',
  versions: ['v1'],
  kind: 'EndpointSlice',
  plural: 'endpointslices',
  summary: 'addresses behind a Service',
  body: endpointSliceBody,
} satisfies Kind;
