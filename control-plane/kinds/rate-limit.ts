/** `RateLimit`: how many requests each instance of a Service takes, kept by its own sidecar. */
import { z } from 'zod';
import { parseDurationMs } from '../../lib/duration.ts';
import type { Kind } from './kind.ts';
import { duration, targetRefs } from './schema.ts';

/** Envoy refuses fill intervals below this (local_rate_limit.proto). */
const FILL_INTERVAL_MS_MIN = 50;

export const rateLimitSpec = z.strictObject({
  targetRefs,
  /** So many requests … */
  requests: z.int().min(1).max(4_294_967_295),
  /** … in this time, per instance. Default 1s. */
  per: duration
    .refine((text) => parseDurationMs(text) >= FILL_INTERVAL_MS_MIN, { error: `must be at least ${FILL_INTERVAL_MS_MIN}ms` })
    .optional(),
  /** How many may come at once. Default: as many as `requests`. */
  burst: z.int().min(1).max(4_294_967_295).optional(),
});
export type RateLimitSpec = z.infer<typeof rateLimitSpec>;

export const rateLimit = {
  group: 'meshwork.dev',
  versions: ['v1alpha1'],
  kind: 'RateLimit',
  plural: 'ratelimits',
  summary: 'how many requests each instance of a Service takes',
  body: z.strictObject({ spec: rateLimitSpec }),
} satisfies Kind;
