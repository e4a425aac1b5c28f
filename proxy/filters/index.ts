/** The registry of HTTP filters: one line each. */
import { buffer } from './buffer.ts';
import { cors } from './cors.ts';
import { fault } from './fault.ts';
import { headerMutation } from './header-mutation.ts';
import { healthCheck } from './health-check.ts';
import { localRateLimit } from './local-ratelimit.ts';
import { onDemand } from './on-demand.ts';
import { rbac } from './rbac.ts';
import type { FilterEntry } from './filter.ts';

export const FILTERS = { buffer, cors, fault, headerMutation, healthCheck, localRateLimit, onDemand, rbac } satisfies Record<
  string,
  FilterEntry
>;

/** The terminal filter. It is what the connection manager ends in, so it has no entry. */
export const ROUTER = {
  type: 'envoy.extensions.filters.http.router.v3.Router',
  names: ['envoy.filters.http.router', 'envoy.router'],
} as const;

/**
 * Filters that only watch traffic, or whose work the proxy does by itself: leaving them out changes no decision about a request.
 * Anything else that is unknown is refused, since it may be what protects a service.
 */
export const WATCHING_ONLY: ReadonlySet<string> = new Set([
  'envoy.extensions.filters.http.grpc_stats.v3.FilterConfig',
  'envoy.filters.http.grpc_stats',
  'io.istio.http.peer_metadata.Config',
  'istio.metadata_exchange',
  'stats.PluginConfig',
  'istio.stats',
]);
