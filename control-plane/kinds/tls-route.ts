/** `gateway.networking.k8s.io/v1 TLSRoute`: where TLS connections go, by the server name that they ask for. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { backendRef, checkWeights, parentRef } from './route-schema.ts';

const tlsRule = z
  .strictObject({ name: z.string().max(253).optional(), backendRefs: z.array(backendRef).min(1).max(16) })
  .superRefine((value, context) => checkWeights(value.backendRefs, context, ['backendRefs']));

export const tlsRouteSpec = z.strictObject({
  parentRefs: z.array(parentRef).min(1).max(32),
  hostnames: z.array(z.string().min(1).max(253)).max(16).optional(),
  rules: z.array(tlsRule).min(1).max(16),
  useDefaultGateways: z.string().optional(),
});

export const tlsRoute = {
  group: 'gateway.networking.k8s.io',
  versions: ['v1', 'v1alpha3', 'v1alpha2'],
  kind: 'TLSRoute',
  plural: 'tlsroutes',
  summary: 'where TLS connections go by server name (checked, not applied yet)',
  body: z.strictObject({ spec: tlsRouteSpec }),
} satisfies Kind;
