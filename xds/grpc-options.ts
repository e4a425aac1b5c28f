/** Channel options of discovery at both ends: big messages, pings that notice a hung peer, bounded sessions. */
import type { ChannelOptions } from '@grpc/grpc-js';

/** Largest message that either end takes; gRPC's own 4 MiB is less than the clusters of a big mesh (rule 48). */
export const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** What one HTTP/2 session may hold, in megabytes: a message of the largest size, twice, and room for the rest. */
const SESSION_MEGABYTES_MAX = 160;

/** A peer that answers no ping for this long is gone: 10 s until one is sent and 8 s to answer it. */
export const KEEPALIVE_TIME_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 8_000;

/** For `new grpc.Server(...)` of a control plane. */
export function discoveryServerOptions(options: { keepaliveTimeMs?: number; keepaliveTimeoutMs?: number } = {}): ChannelOptions {
  return { ...sharedOptions(options), 'grpc.max_concurrent_streams': 100 };
}

/** For the channel of a discovery client. It gets connections of its own, so that its backoff is the only one. */
export function discoveryChannelOptions(options: { keepaliveTimeMs?: number; keepaliveTimeoutMs?: number } = {}): ChannelOptions {
  return {
    ...sharedOptions(options),
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    'grpc.service_config_disable_resolution': 1,
  };
}

function sharedOptions(options: { keepaliveTimeMs?: number; keepaliveTimeoutMs?: number }): ChannelOptions {
  return {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.keepalive_time_ms': options.keepaliveTimeMs ?? KEEPALIVE_TIME_MS,
    'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs ?? KEEPALIVE_TIMEOUT_MS,
    'grpc.keepalive_permit_without_calls': 1,
    'grpc-node.max_session_memory': SESSION_MEGABYTES_MAX,
  };
}
