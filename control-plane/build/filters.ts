/** HTTP filters and access logs that policies and the mesh's settings ask for. */
import { parseDurationMs } from '../../lib/duration.ts';
import type { ExtensionConfig, HttpConnectionManager, HttpFilterConfig, Json, JsonObject } from '../../xds/snapshot.ts';
import type { AuthorizationPolicySpec } from '../kinds/authorization-policy.ts';
import type { FaultInjectionSpec } from '../kinds/fault-injection.ts';
import type { RateLimitSpec } from '../kinds/rate-limit.ts';
import type { MeshSettings, Node } from '../world.ts';
import { isLazy } from './on-demand.ts';
import { TRACING_CLUSTER } from './names.ts';
import type { Policy } from './policies.ts';
import { rbacRules } from './rbac.ts';

const FAULT = { name: 'envoy.filters.http.fault', type: 'envoy.extensions.filters.http.fault.v3.HTTPFault' } as const;

/** Switches faults on for a listener; which ones is said per virtual host. */
export const FAULT_FILTER: HttpFilterConfig = { ...FAULT, config: {}, disabled: false, isOptional: false };

/** Dials what the authority names. Envoy needs it before the router; a sidecar that dials by itself may skip it. */
export const FORWARD_PROXY_FILTER: HttpFilterConfig = {
  name: 'envoy.filters.http.dynamic_forward_proxy',
  type: 'envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig',
  config: { dnsCacheConfig: { name: 'default', dnsLookupFamily: 'V4_PREFERRED' } },
  disabled: false,
  isOptional: true,
};

/** Asks for routes and clusters that are not there yet, before any filter looks at the route. */
const ON_DEMAND_FILTER: HttpFilterConfig = {
  name: 'envoy.filters.http.on_demand',
  type: 'envoy.extensions.filters.http.on_demand.v3.OnDemand',
  config: { odcds: { source: { ads: {}, resourceApiVersion: 'V3' }, timeout: '5s' } },
  disabled: false,
  isOptional: false,
};

export function onDemandFilters(node: Node): readonly HttpFilterConfig[] {
  return isLazy(node) ? [ON_DEMAND_FILTER] : [];
}

export function faultConfig(spec: FaultInjectionSpec): [string, ExtensionConfig] {
  const config: Record<string, Json> = {};
  if (spec.delay !== undefined) config['delay'] = { fixedDelay: seconds(spec.delay.duration), percentage: fraction(spec.delay.percent) };
  if (spec.abort !== undefined) {
    const { httpStatus, grpcStatus, percent } = spec.abort;
    config['abort'] = { ...(httpStatus === undefined ? { grpcStatus: grpcStatus! } : { httpStatus }), percentage: fraction(percent) };
  }
  if (spec.headers !== undefined)
    config['headers'] = spec.headers.map((entry) => ({ name: entry.name.toLowerCase(), stringMatch: { exact: entry.value } }));
  return [FAULT.name, { ...FAULT, config }];
}

export const RBAC_TYPE = 'envoy.extensions.filters.http.rbac.v3.RBAC';

/** Denials first, then what must be allowed. Nothing applies = everything may pass. */
export function authorizationFilters(
  policies: readonly Policy<AuthorizationPolicySpec>[],
  mesh: MeshSettings,
  targetPort: number,
): HttpFilterConfig[] {
  return (['DENY', 'ALLOW'] as const).flatMap((action) => {
    const chosen = policies.filter((policy) => (policy.spec.action ?? 'ALLOW') === action);
    if (chosen.length === 0) return [];
    const name = `envoy.filters.http.rbac.${action.toLowerCase()}`;
    const config = { rules: { action, policies: rbacRules(chosen, mesh.trustDomain, targetPort) } };
    // Not optional: a proxy that cannot decide must not let pass.
    return [{ name, type: RBAC_TYPE, config, disabled: false, isOptional: false }];
  });
}

export function rateLimitFilters(limits: readonly Policy<RateLimitSpec>[]): HttpFilterConfig[] {
  return limits.map(({ key, spec }, index) => ({
    name: index === 0 ? 'envoy.filters.http.local_ratelimit' : `envoy.filters.http.local_ratelimit.${index}`,
    type: 'envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit',
    config: {
      statPrefix: `ratelimit.${key.replace('/', '.')}`,
      tokenBucket: { maxTokens: spec.burst ?? spec.requests, tokensPerFill: spec.requests, fillInterval: seconds(spec.per ?? '1s') },
      filterEnabled: { defaultValue: { numerator: 100, denominator: 'HUNDRED' } },
      filterEnforced: { defaultValue: { numerator: 100, denominator: 'HUNDRED' } },
    },
    disabled: false,
    isOptional: false,
  }));
}

/** Fields under Envoy's names, since every runbook greps for them. */
const JSON_FIELDS: JsonObject = {
  start_time: '%START_TIME%',
  method: '%REQ(:METHOD)%',
  path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%',
  protocol: '%PROTOCOL%',
  authority: '%REQ(:AUTHORITY)%',
  response_code: '%RESPONSE_CODE%',
  response_flags: '%RESPONSE_FLAGS%',
  response_code_details: '%RESPONSE_CODE_DETAILS%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  duration: '%DURATION%',
  upstream_host: '%UPSTREAM_HOST%',
  upstream_cluster: '%UPSTREAM_CLUSTER%',
  downstream_remote_address: '%DOWNSTREAM_REMOTE_ADDRESS%',
  downstream_peer_uri_san: '%DOWNSTREAM_PEER_URI_SAN%',
  requested_server_name: '%REQUESTED_SERVER_NAME%',
  route_name: '%ROUTE_NAME%',
  x_request_id: '%REQ(X-REQUEST-ID)%',
  user_agent: '%REQ(USER-AGENT)%',
};

export function accessLogs(mesh: MeshSettings): readonly ExtensionConfig[] {
  if (mesh.accessLog === 'off') return [];
  const config: JsonObject =
    mesh.accessLog === 'json' ? { path: '/dev/stdout', logFormat: { jsonFormat: JSON_FIELDS } } : { path: '/dev/stdout' };
  return [{ name: 'envoy.access_loggers.file', type: 'envoy.extensions.access_loggers.file.v3.FileAccessLog', config }];
}

export function tracing(mesh: MeshSettings, serviceName: string): NonNullable<HttpConnectionManager['tracing']> {
  const base = { randomSamplingPercent: mesh.tracingSamplingPercent, clientSamplingPercent: 100, overallSamplingPercent: 100, serviceName };
  if (mesh.otlpEndpoint === '') return base;
  const uri = `${mesh.otlpEndpoint.replace(/\/+$/, '')}/v1/traces`;
  return {
    ...base,
    provider: {
      name: 'envoy.tracers.opentelemetry',
      type: 'envoy.config.trace.v3.OpenTelemetryConfig',
      config: { serviceName, httpService: { httpUri: { uri, cluster: TRACING_CLUSTER, timeout: '10s' } } },
    },
  };
}

const seconds = (text: string): string => `${parseDurationMs(text) / 1_000}s`;

/** Millionths, so that no percentage that people write is rounded away. */
function fraction(percent: number | undefined): JsonObject {
  return { numerator: Math.round((percent ?? 100) * 10_000), denominator: 'MILLION' };
}
