/** `BackendPolicy`: how callers treat the instances of a Service: balancing, limits, ejection, health checks, retry budget. */
import { z } from 'zod';
import { parseDurationMs } from '../../lib/duration.ts';
import type { Kind } from './kind.ts';
import { duration, durationAboveZero, headerName, issue, path, percent, targetRefs, unsupported } from './schema.ts';

const limit = z.int().min(1).max(4_294_967_295).optional();

const hashOn = z
  .strictObject({
    header: headerName.optional(),
    cookie: z.strictObject({ name: headerName, ttl: duration.optional(), path: path.optional() }).optional(),
    queryParam: z.string().min(1).max(256).optional(),
    sourceIp: z.literal(true).optional(),
  })
  .refine((value) => Object.values(value).filter((entry) => entry !== undefined).length === 1, {
    error: 'must have exactly one of header, cookie, queryParam, sourceIp',
  });

/** At most region, zone and sub-zone; a zone whose region is not known is `/zone`. */
const place = z
  .string()
  .max(386)
  .regex(/^[^\s/]*(?:\/[^\s/]+){0,2}$/, { error: 'must be a place: region, region/zone or region/zone/subZone, without white space' })
  .refine((text) => text !== '', { error: 'must not be empty' });

const loadBalancing = z
  .strictObject({
    /** Default LeastRequest. */
    policy: z.enum(['LeastRequest', 'RoundRobin', 'Random', 'RingHash', 'Maglev']).optional(),
    /** LeastRequest: how many instances are compared. Default 2. */
    choiceCount: z.int().min(2).max(100).optional(),
    /** RingHash and Maglev: what decides the instance. */
    hashOn: hashOn.optional(),
    minimumRingSize: z.int().min(1).max(8_388_608).optional(),
    /** Below this share of healthy instances requests go to all of them. Default 0: never. */
    panicThresholdPercent: percent.optional(),
    /** Instances in the caller's zone first, then in its region, then all others. Default false: all alike. */
    localityFailover: z.boolean().optional(),
    /** Places in the order in which they take requests, those not named last; with localityFailover: the order of all but the caller's region. */
    localityPriority: z
      .array(place)
      .min(1)
      .max(32)
      .refine((list) => new Set(list).size === list.length, { error: 'must not name a place twice' })
      .optional(),
  })
  .superRefine((value, context) => {
    const hashes = value.policy === 'RingHash' || value.policy === 'Maglev';
    if (hashes && value.hashOn === undefined) issue(context, ['hashOn'], `is required, since policy is ${value.policy}`);
    if (!hashes && value.hashOn !== undefined) issue(context, ['hashOn'], 'must not be set unless policy is RingHash or Maglev');
    if (value.choiceCount !== undefined && (value.policy ?? 'LeastRequest') !== 'LeastRequest')
      issue(context, ['choiceCount'], 'must not be set unless policy is LeastRequest');
    if (value.minimumRingSize !== undefined && value.policy !== 'RingHash')
      issue(context, ['minimumRingSize'], 'must not be set unless policy is RingHash');
  });

const outlierDetection = z
  .strictObject({
    /** Default true. */
    enabled: z.boolean().optional(),
    /** Ejects after so many 5xx in a row, connect failures included. Default 5; 0 = not by this. */
    consecutive5xx: z.int().min(0).max(1_000_000).optional(),
    /** The same for 502, 503 and 504 only. Default 0: not by this. */
    consecutiveGatewayFailures: z.int().min(0).max(1_000_000).optional(),
    interval: durationAboveZero.optional(),
    baseEjectionTime: durationAboveZero.optional(),
    maxEjectionTime: durationAboveZero.optional(),
    maxEjectionPercent: percent.optional(),
    /** Whether one instance may be ejected though that is more than maxEjectionPercent. Default true. */
    alwaysEjectOne: z.boolean().optional(),
    /** Ejects what answers worse than the mean by so many standard deviations (Envoy's success_rate, thousandths). Default off. */
    successRate: z
      .strictObject({
        minimumHosts: z.int().min(1).max(10_000).optional(),
        requestVolume: z.int().min(1).max(1_000_000).optional(),
        stdevFactor: z.int().min(1).max(100_000).optional(),
      })
      .optional(),
  })
  .superRefine((value, context) => {
    if (value.baseEjectionTime === undefined || value.maxEjectionTime === undefined) return;
    if (parseDurationMs(value.maxEjectionTime) < parseDurationMs(value.baseEjectionTime))
      issue(context, ['maxEjectionTime'], `must not be shorter than baseEjectionTime (${value.baseEjectionTime})`);
  });

const healthCheck = z
  .strictObject({
    http: z
      .strictObject({
        path,
        host: z.string().min(1).max(253).optional(),
        expectedStatuses: z.array(z.int().min(100).max(599)).min(1).max(32).optional(),
      })
      .optional(),
    tcp: z.strictObject({}).optional(),
    grpc: unsupported('grpc'),
    interval: durationAboveZero.optional(),
    timeout: durationAboveZero.optional(),
    healthyThreshold: z.int().min(1).max(1000).optional(),
    unhealthyThreshold: z.int().min(1).max(1000).optional(),
  })
  .refine((value) => [value.http, value.tcp].filter((entry) => entry !== undefined).length === 1, {
    error: 'must have exactly one of http, tcp',
  });

export const backendPolicySpec = z.strictObject({
  targetRefs,
  loadBalancing: loadBalancing.optional(),
  /** Upper bounds per calling sidecar. */
  circuitBreaker: z.strictObject({ maxConnections: limit, maxPendingRequests: limit, maxRequests: limit, maxRetries: limit }).optional(),
  connection: z
    .strictObject({
      connectTimeout: durationAboveZero.optional(),
      idleTimeout: durationAboveZero.optional(),
      maxRequestsPerConnection: z.int().min(0).max(4_294_967_295).optional(),
    })
    .optional(),
  outlierDetection: outlierDetection.optional(),
  healthCheck: healthCheck.optional(),
  /** Retries may be so many per cent of the requests under way, and always so many at once. Default 20 and 3. */
  retryBudget: z
    .strictObject({ percent: percent.optional(), minRetryConcurrency: z.int().min(0).max(4_294_967_295).optional() })
    .optional(),
  slowStart: z
    .strictObject({
      window: durationAboveZero,
      aggression: z.number().gt(0).max(100).optional(),
      minWeightPercent: percent.optional(),
    })
    .optional(),
});
export type BackendPolicySpec = z.infer<typeof backendPolicySpec>;

export const backendPolicy = {
  group: 'meshwork.dev',
  versions: ['v1alpha1'],
  kind: 'BackendPolicy',
  plural: 'backendpolicies',
  summary: 'how callers treat a Service: balancing, limits, ejection, health checks',
  body: z.strictObject({ spec: backendPolicySpec }),
} satisfies Kind;
