/** Outlier detection and circuit breakers of a cluster, with Envoy's defaults. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type {
  CircuitBreakers as WireBreakers,
  CircuitBreakers_Thresholds,
  CircuitBreakers_ThresholdsSchema,
  CircuitBreakersSchema,
} from '../gen/envoy/config/cluster/v3/circuit_breaker_pb.js';
import type { OutlierDetection as WireOutlier, OutlierDetectionSchema } from '../gen/envoy/config/cluster/v3/outlier_detection_pb.js';
import { RoutingPriority } from '../gen/envoy/config/core/v3/base_pb.js';
import type { CircuitBreakers, Cluster, OutlierDetection } from '../snapshot.ts';
import { inside, type Place, warn } from './decoding.ts';
import { fromDuration, fromPercent, toDuration, toPercent } from './duration.ts';

const BASE_EJECTION_MS = 30_000;
const EJECTION_MS_MAX = 300_000;

export function decodeOutlier(wire: WireOutlier, place: Place): OutlierDetection {
  if (wire.monitors.length > 0) warn(inside(place, 'monitors'), 'is ignored');
  const baseEjectionTimeMs = fromDuration(wire.baseEjectionTime, BASE_EJECTION_MS);
  return {
    consecutive5xx: wire.consecutive5xx ?? 5,
    enforcingConsecutive5xxPercent: wire.enforcingConsecutive5xx ?? 100,
    consecutiveGatewayFailure: wire.consecutiveGatewayFailure ?? 5,
    enforcingConsecutiveGatewayFailurePercent: wire.enforcingConsecutiveGatewayFailure ?? 0,
    consecutiveLocalOriginFailure: wire.consecutiveLocalOriginFailure ?? 5,
    enforcingConsecutiveLocalOriginFailurePercent: wire.enforcingConsecutiveLocalOriginFailure ?? 100,
    splitExternalLocalOriginErrors: wire.splitExternalLocalOriginErrors,
    intervalMs: fromDuration(wire.interval, 10_000),
    baseEjectionTimeMs,
    maxEjectionTimeMs: fromDuration(wire.maxEjectionTime, Math.max(EJECTION_MS_MAX, baseEjectionTimeMs)),
    maxEjectionTimeJitterMs: fromDuration(wire.maxEjectionTimeJitter, 0),
    maxEjectionPercent: wire.maxEjectionPercent ?? 10,
    alwaysEjectOneEndpoint: wire.alwaysEjectOneHost ?? false,
    enforcingSuccessRatePercent: wire.enforcingSuccessRate ?? 100,
    successRateMinimumHosts: wire.successRateMinimumHosts ?? 5,
    successRateRequestVolume: wire.successRateRequestVolume ?? 100,
    successRateStdevFactor: wire.successRateStdevFactor ?? 1_900,
    failurePercentageThreshold: wire.failurePercentageThreshold ?? 85,
    enforcingFailurePercentagePercent: wire.enforcingFailurePercentage ?? 0,
    failurePercentageMinimumHosts: wire.failurePercentageMinimumHosts ?? 5,
    failurePercentageRequestVolume: wire.failurePercentageRequestVolume ?? 50,
  };
}

export function encodeOutlier(outlier: OutlierDetection): MessageInitShape<typeof OutlierDetectionSchema> {
  return {
    consecutive5xx: outlier.consecutive5xx,
    enforcingConsecutive5xx: outlier.enforcingConsecutive5xxPercent,
    consecutiveGatewayFailure: outlier.consecutiveGatewayFailure,
    enforcingConsecutiveGatewayFailure: outlier.enforcingConsecutiveGatewayFailurePercent,
    consecutiveLocalOriginFailure: outlier.consecutiveLocalOriginFailure,
    enforcingConsecutiveLocalOriginFailure: outlier.enforcingConsecutiveLocalOriginFailurePercent,
    splitExternalLocalOriginErrors: outlier.splitExternalLocalOriginErrors,
    interval: toDuration(outlier.intervalMs),
    baseEjectionTime: toDuration(outlier.baseEjectionTimeMs),
    maxEjectionTime: toDuration(outlier.maxEjectionTimeMs),
    maxEjectionTimeJitter: toDuration(outlier.maxEjectionTimeJitterMs),
    maxEjectionPercent: outlier.maxEjectionPercent,
    alwaysEjectOneHost: outlier.alwaysEjectOneEndpoint,
    enforcingSuccessRate: outlier.enforcingSuccessRatePercent,
    successRateMinimumHosts: outlier.successRateMinimumHosts,
    successRateRequestVolume: outlier.successRateRequestVolume,
    successRateStdevFactor: outlier.successRateStdevFactor,
    failurePercentageThreshold: outlier.failurePercentageThreshold,
    enforcingFailurePercentage: outlier.enforcingFailurePercentagePercent,
    failurePercentageMinimumHosts: outlier.failurePercentageMinimumHosts,
    failurePercentageRequestVolume: outlier.failurePercentageRequestVolume,
  };
}

/** Envoy: of several thresholds for one priority the first counts. */
export function decodeBreakers(wire: WireBreakers | undefined, place: Place): Cluster['circuitBreakers'] {
  if (wire !== undefined && wire.perHostThresholds.length > 0) warn(inside(place, 'per_host_thresholds'), 'is ignored');
  const find = (priority: RoutingPriority) => wire?.thresholds.find((thresholds) => thresholds.priority === priority);
  return { default: decodeThresholds(find(RoutingPriority.DEFAULT)), high: decodeThresholds(find(RoutingPriority.HIGH)) };
}

function decodeThresholds(wire: CircuitBreakers_Thresholds | undefined): CircuitBreakers {
  const budget = wire?.retryBudget;
  return {
    maxConnections: wire?.maxConnections ?? 1_024,
    maxPendingRequests: wire?.maxPendingRequests ?? 1_024,
    maxRequests: wire?.maxRequests ?? 1_024,
    maxRetries: wire?.maxRetries ?? 3,
    ...(budget === undefined
      ? {}
      : { retryBudget: { budgetPercent: fromPercent(budget.budgetPercent, 20), minRetryConcurrency: budget.minRetryConcurrency ?? 3 } }),
    trackRemaining: wire?.trackRemaining ?? false,
  };
}

export function encodeBreakers(breakers: Cluster['circuitBreakers']): MessageInitShape<typeof CircuitBreakersSchema> {
  return {
    thresholds: [encodeThresholds(RoutingPriority.DEFAULT, breakers.default), encodeThresholds(RoutingPriority.HIGH, breakers.high)],
  };
}

function encodeThresholds(
  priority: typeof RoutingPriority.DEFAULT | typeof RoutingPriority.HIGH,
  breakers: CircuitBreakers,
): MessageInitShape<typeof CircuitBreakers_ThresholdsSchema> {
  const { retryBudget } = breakers;
  return {
    priority,
    maxConnections: breakers.maxConnections,
    maxPendingRequests: breakers.maxPendingRequests,
    maxRequests: breakers.maxRequests,
    maxRetries: breakers.maxRetries,
    ...(retryBudget === undefined
      ? {}
      : { retryBudget: { budgetPercent: toPercent(retryBudget.budgetPercent), minRetryConcurrency: retryBudget.minRetryConcurrency } }),
    trackRemaining: breakers.trackRemaining,
  };
}
