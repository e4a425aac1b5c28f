/** Active health checks of a cluster. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { type HealthCheck as WireCheck, type HealthCheckSchema } from '../gen/envoy/config/core/v3/health_check_pb.js';
import type { HealthCheck } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, toDuration } from './duration.ts';

const NO_TRAFFIC_INTERVAL_MS = 60_000;
const EXPECTED = [{ start: 200, end: 201 }] as const;

export function decodeHealthCheck(wire: WireCheck, place: Place): HealthCheck {
  if (wire.altPort !== undefined) refuse(inside(place, 'alt_port'), 'is not supported');
  if (wire.transportSocketMatchCriteria !== undefined) refuse(inside(place, 'transport_socket_match_criteria'), 'is not supported');
  if (wire.tlsOptions !== undefined) warn(inside(place, 'tls_options'), 'is ignored');
  return {
    timeoutMs: fromDuration(wire.timeout, 0),
    intervalMs: fromDuration(wire.interval, 0),
    noTrafficIntervalMs: fromDuration(wire.noTrafficInterval, NO_TRAFFIC_INTERVAL_MS),
    unhealthyThreshold: wire.unhealthyThreshold ?? 1,
    healthyThreshold: wire.healthyThreshold ?? 1,
    check: decodeCheck(wire.healthChecker, place),
  };
}

function decodeCheck(checker: WireCheck['healthChecker'], place: Place): HealthCheck['check'] {
  switch (checker.case) {
    case 'httpHealthCheck': {
      const { path, host, expectedStatuses, send, receive } = checker.value;
      if (send !== undefined || receive.length > 0) warn(inside(place, 'http_health_check'), 'send and receive are ignored');
      const ranges = expectedStatuses.map(({ start, end }) => ({ start: Number(start), end: Number(end) }));
      ranges.forEach((range, i) => {
        if (range.start < 100 || range.end > 600 || range.start >= range.end) {
          refuse(inside(inside(place, 'http_health_check.expected_statuses'), i), 'must be a half-open range inside 100 to 600', range);
        }
      });
      return { kind: 'http', path, host, expectedStatuses: ranges.length === 0 ? EXPECTED : ranges };
    }
    case 'tcpHealthCheck':
      if (checker.value.send !== undefined || checker.value.receive.length > 0)
        refuse(inside(place, 'tcp_health_check'), 'send and receive are not supported');
      return { kind: 'tcp' };
    case 'grpcHealthCheck':
      return { kind: 'grpc', service: checker.value.serviceName };
    default:
      return refuse(place, 'needs http_health_check, tcp_health_check or grpc_health_check', checker.case);
  }
}

export function encodeHealthCheck(check: HealthCheck): MessageInitShape<typeof HealthCheckSchema> {
  return {
    timeout: toDuration(check.timeoutMs),
    interval: toDuration(check.intervalMs),
    noTrafficInterval: toDuration(check.noTrafficIntervalMs),
    unhealthyThreshold: check.unhealthyThreshold,
    healthyThreshold: check.healthyThreshold,
    healthChecker: encodeCheck(check.check),
  };
}

function encodeCheck(check: HealthCheck['check']): NonNullable<MessageInitShape<typeof HealthCheckSchema>['healthChecker']> {
  switch (check.kind) {
    case 'http': {
      const expectedStatuses = check.expectedStatuses.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) }));
      return { case: 'httpHealthCheck', value: { path: check.path, host: check.host, expectedStatuses } };
    }
    case 'tcp':
      return { case: 'tcpHealthCheck', value: {} };
    case 'grpc':
      return { case: 'grpcHealthCheck', value: { serviceName: check.service } };
  }
}
