/** `gateway.networking.k8s.io/v1 TCPRoute`: where connections to a port of a Service go. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { backendRef, checkWeights, parentRef } from './route-schema.ts';

const tcpRule = z
  .strictObject({ name: z.string().max(253).optional(), backendRefs: z.array(backendRef).min(1).max(16) })
  .superRefine((value, context) => checkWeights(value.backendRefs, context, ['backendRefs']));

export const tcpRouteSpec = z.strictObject({
  parentRefs: z.array(parentRef).min(1).max(32),
  rules: z.array(tcpRule).min(1).max(16),
  useDefaultGateways: z.string().optional(),
});

export const tcpRoute = {
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1alpha2'],
  kind: 'TCPRoute',
  plural: 'tcproutes',
  summary: 'where TCP connections to a Service go (checked, not applied yet)',
  body: z.strictObject({ spec: tcpRouteSpec }),
} satisfies Kind;
