/** `gateway.networking.k8s.io/v1 GRPCRoute`: which calls to a Service go where, by gRPC service and method. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import {
  checkFilterRepeats,
  checkFilterUnion,
  checkWeights,
  routeFields,
  ruleFields,
  SHARED_FILTERS,
  sharedFilterFields,
} from './route-schema.ts';
import { headerName, issue, regex } from './schema.ts';

const methodMatch = z
  .strictObject({
    type: z.enum(['Exact', 'RegularExpression']).optional(),
    service: z.string().min(1).max(1024).optional(),
    method: z.string().min(1).max(1024).optional(),
  })
  .superRefine((match, context) => {
    if (match.service === undefined && match.method === undefined) issue(context, [], 'must name a service, a method or both');
    for (const [field, value] of [
      ['service', match.service],
      ['method', match.method],
    ] as const) {
      if (value === undefined) continue;
      const exact = field === 'service' ? /^[A-Za-z_][\w.]*$/ : /^[A-Za-z_]\w*$/;
      if (match.type === 'RegularExpression') {
        if (!regex.safeParse(value).success) issue(context, [field], 'must be a regular expression of RE2');
      } else if (!exact.test(value)) issue(context, [field], 'must be a protobuf identifier');
    }
  });

const grpcMatch = z.strictObject({
  method: methodMatch.optional(),
  headers: z
    .array(
      z
        .strictObject({ type: z.enum(['Exact', 'RegularExpression']).optional(), name: headerName, value: z.string().min(1).max(4096) })
        .superRefine((match, context) => {
          if (match.type === 'RegularExpression' && !regex.safeParse(match.value).success)
            issue(context, ['value'], 'must be a regular expression of RE2');
        }),
    )
    .max(16)
    .optional(),
});
export type GrpcRouteMatch = z.infer<typeof grpcMatch>;

const filter = z
  .strictObject({
    type: z.enum(Object.keys(SHARED_FILTERS) as (keyof typeof SHARED_FILTERS)[]),
    ...sharedFilterFields,
  })
  .superRefine((value, context) => checkFilterUnion(value, SHARED_FILTERS, context));

const grpcRule = z
  .strictObject({
    ...ruleFields,
    matches: z.array(grpcMatch).max(64).optional(),
    filters: z.array(filter).max(16).optional(),
  })
  .superRefine((value, context) => {
    checkWeights(value.backendRefs, context, ['backendRefs']);
    checkFilterRepeats(value.filters ?? [], context, ['filters']);
  });
export type GrpcRule = z.infer<typeof grpcRule>;

export const grpcRouteSpec = z.strictObject({
  ...routeFields,
  rules: z.array(grpcRule).max(64).optional(),
});
export type GrpcRouteSpec = z.infer<typeof grpcRouteSpec>;

export const grpcRoute = {
  group: 'gateway.networking.k8s.io',
  versions: ['v1'],
  kind: 'GRPCRoute',
  plural: 'grpcroutes',
  summary: 'where gRPC calls to a Service go, by service and method',
  body: z.strictObject({ spec: grpcRouteSpec }),
} satisfies Kind;
