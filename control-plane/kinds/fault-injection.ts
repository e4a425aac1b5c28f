/** `FaultInjection`: delays and aborts that callers of a Service see on purpose. */
import { z } from 'zod';
import type { Kind } from './kind.ts';
import { durationAboveZero, headerName, headerValue, issue, percent, targetRefs } from './schema.ts';

export const faultInjectionSpec = z
  .strictObject({
    targetRefs,
    /** Only requests with all of these header values. */
    headers: z
      .array(z.strictObject({ name: headerName, value: headerValue }))
      .max(16)
      .optional(),
    /** Default percent 100. */
    delay: z.strictObject({ duration: durationAboveZero, percent: percent.optional() }).optional(),
    abort: z
      .strictObject({
        httpStatus: z.int().min(200).max(599).optional(),
        grpcStatus: z.int().min(1).max(16).optional(),
        percent: percent.optional(),
      })
      .optional(),
  })
  .superRefine((spec, context) => {
    if (spec.delay === undefined && spec.abort === undefined) issue(context, [], 'must have a delay, an abort or both');
    if (spec.abort !== undefined && (spec.abort.httpStatus === undefined) === (spec.abort.grpcStatus === undefined))
      issue(context, ['abort'], 'must have exactly one of httpStatus, grpcStatus');
  });
export type FaultInjectionSpec = z.infer<typeof faultInjectionSpec>;

export const faultInjection = {
  group: 'meshwork.dev',
  versions: ['v1alpha1'],
  kind: 'FaultInjection',
  plural: 'faultinjections',
  summary: 'delays and aborts on purpose, for a share of the requests',
  body: z.strictObject({ spec: faultInjectionSpec }),
} satisfies Kind;
