/** Retry policies of routes and virtual hosts. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type RetryPolicy as WirePolicy,
  RetryPolicy_ResetHeaderFormat as Format,
  type RetryPolicySchema,
} from '../gen/envoy/config/route/v3/route_components_pb.js';
import type { RetryPolicy } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, nameOf, toDuration } from './duration.ts';
import { pack, typeOf } from './extension.ts';
import { decodeHeaderMatch, encodeHeaderMatch } from './route-match.ts';
import { PreviousHostsPredicateSchema } from '../gen/envoy/extensions/retry/host/previous_hosts/v3/previous_hosts_pb.js';
import { create } from '@bufbuild/protobuf';

const NUM_RETRIES = 1;
const BACK_OFF_BASE_MS = 25;
/** Envoy: ten times the base interval. */
const BACK_OFF_FACTOR = 10;
const RESET_MAX_MS = 300_000;
const PREVIOUS_HOSTS_NAME = 'envoy.retry_host_predicates.previous_hosts';

export function decodeRetryPolicy(wire: WirePolicy, place: Place): RetryPolicy {
  const perTryTimeoutMs = fromDuration(wire.perTryTimeout);
  const perTryIdleTimeoutMs = fromDuration(wire.perTryIdleTimeout);
  const backOffBaseMs = fromDuration(wire.retryBackOff?.baseInterval, BACK_OFF_BASE_MS);
  const backOffMaxMs = fromDuration(wire.retryBackOff?.maxInterval, backOffBaseMs * BACK_OFF_FACTOR);
  if (backOffMaxMs < backOffBaseMs)
    refuse(inside(place, 'retry_back_off.max_interval'), 'must be at least base_interval', `${backOffMaxMs}ms`);
  if (perTryIdleTimeoutMs !== undefined && perTryIdleTimeoutMs > 0) warn(inside(place, 'per_try_idle_timeout'), 'is ignored');
  if (wire.retryPriority !== undefined) warn(inside(place, 'retry_priority'), 'is ignored');
  if (wire.retryOptionsPredicates.length > 0) warn(inside(place, 'retry_options_predicates'), 'is ignored');
  if (wire.retriableRequestHeaders.length > 0) refuse(inside(place, 'retriable_request_headers'), 'is not supported');
  return {
    retryOn: words(wire.retryOn),
    numRetries: wire.numRetries ?? NUM_RETRIES,
    ...(perTryTimeoutMs === undefined || perTryTimeoutMs === 0 ? {} : { perTryTimeoutMs }),
    ...(perTryIdleTimeoutMs === undefined || perTryIdleTimeoutMs === 0 ? {} : { perTryIdleTimeoutMs }),
    retriableStatusCodes: wire.retriableStatusCodes,
    retriableHeaders: wire.retriableHeaders.map((matcher, i) => decodeHeaderMatch(matcher, inside(inside(place, 'retriable_headers'), i))),
    backOffBaseMs,
    backOffMaxMs,
    resetHeaders: (wire.rateLimitedRetryBackOff?.resetHeaders ?? []).map((header) => ({
      name: header.name.toLowerCase(),
      format: nameOf(Format, header.format) ?? 'SECONDS',
    })),
    resetMaxMs: fromDuration(wire.rateLimitedRetryBackOff?.maxInterval, RESET_MAX_MS),
    previousHosts: decodePredicates(wire, place),
    hostSelectionAttemptsMax: Number(wire.hostSelectionRetryMaxAttempts) || 1,
  };
}

/** Host predicates: the one against the same host twice is ours; another only makes retries less clever, so it is left out. */
function decodePredicates(wire: WirePolicy, place: Place): boolean {
  let previousHosts = false;
  wire.retryHostPredicate.forEach((predicate, i) => {
    const at = inside(inside(place, 'retry_host_predicate'), i);
    const type = typeOf(predicate.name, predicate.configType.value, at);
    if (type === PreviousHostsPredicateSchema.typeName) previousHosts = true;
    else warn(at, `${type === '' ? predicate.name : type} is ignored`);
  });
  return previousHosts;
}

function words(list: string): readonly string[] {
  return list
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
}

export function encodeRetryPolicy(policy: RetryPolicy): MessageInitShape<typeof RetryPolicySchema> {
  return {
    retryOn: policy.retryOn.join(','),
    numRetries: policy.numRetries,
    ...(policy.perTryTimeoutMs === undefined ? {} : { perTryTimeout: toDuration(policy.perTryTimeoutMs) }),
    ...(policy.perTryIdleTimeoutMs === undefined ? {} : { perTryIdleTimeout: toDuration(policy.perTryIdleTimeoutMs) }),
    retriableStatusCodes: [...policy.retriableStatusCodes],
    retriableHeaders: policy.retriableHeaders.map(encodeHeaderMatch),
    retryBackOff: { baseInterval: toDuration(policy.backOffBaseMs), maxInterval: toDuration(policy.backOffMaxMs) },
    ...(policy.resetHeaders.length === 0
      ? {}
      : {
          rateLimitedRetryBackOff: {
            resetHeaders: policy.resetHeaders.map(({ name, format }) => ({ name, format: Format[format] })),
            maxInterval: toDuration(policy.resetMaxMs),
          },
        }),
    ...(policy.previousHosts
      ? {
          retryHostPredicate: [
            {
              name: PREVIOUS_HOSTS_NAME,
              configType: { case: 'typedConfig' as const, value: pack(PreviousHostsPredicateSchema, create(PreviousHostsPredicateSchema)) },
            },
          ],
        }
      : {}),
    hostSelectionRetryMaxAttempts: BigInt(policy.hostSelectionAttemptsMax),
  };
}
