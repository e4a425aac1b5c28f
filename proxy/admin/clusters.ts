/** `/clusters` and `/listeners`: what traffic can come in by and go out to, as text and as JSON. */
import { addressJson, addressText, json, searchPattern, text } from './endpoint.ts';
import type { AdminContext, AdminEndpoint } from './endpoint.ts';
import type { Member } from '../upstream/member.ts';
import type { UpstreamCluster } from '../upstream/cluster.ts';
import type { JsonObject } from '../../xds/snapshot.ts';

export const clusters: AdminEndpoint = {
  path: '/clusters',
  help: 'upstream cluster status (format=json, filter=REGEX)',
  mutates: false,
  handle: (request, context) => {
    const wanted = searchPattern(request.query.get('filter'));
    if (typeof wanted === 'string') return text(`Invalid re2 regex: ${wanted}\n`, 400);
    const all = [...context.clusters()].filter(({ name }) => wanted?.(name) !== false).toSorted((a, b) => (a.name < b.name ? -1 : 1));
    if (request.query.get('format') === 'json') return json({ cluster_statuses: all.map((cluster) => clusterJson(cluster, context)) });
    return text(all.map((cluster) => clusterText(cluster, context)).join(''));
  },
};

export const listeners: AdminEndpoint = {
  path: '/listeners',
  help: 'print listener info (format=json)',
  mutates: false,
  handle: (request, context) => {
    const all = context.listeners();
    if (request.query.get('format') !== 'json')
      return text(all.flatMap((listener) => listener.addresses.map((address) => `${listener.name}::${addressText(address)}\n`)).join(''));
    return json({
      listener_statuses: all.map((listener) => ({
        name: listener.name,
        ...(listener.addresses[0] === undefined ? {} : { local_address: addressJson(listener.addresses[0]) }),
        ...(listener.addresses.length < 2 ? {} : { additional_local_addresses: listener.addresses.slice(1).map(addressJson) }),
      })),
    });
  },
};

/** Envoy's health flags as `/clusters` spells them. */
function healthFlags(member: Member): string {
  const flags = [
    member.failedCheck ? '/failed_active_hc' : '',
    member.ejectedUntilMs > 0 ? '/failed_outlier_check' : '',
    member.announced === 'UNHEALTHY' || member.announced === 'TIMEOUT' ? '/failed_eds_health' : '',
    member.announced === 'DEGRADED' ? '/degraded_eds_health' : '',
    member.announced === 'DRAINING' ? '/draining' : '',
  ].join('');
  return flags === '' ? 'healthy' : flags;
}

function clusterText(cluster: UpstreamCluster, context: AdminContext): string {
  const { name, config } = cluster;
  const lines = [`${name}::observability_name::${config.altStatName || name}`];
  for (const priority of ['default', 'high'] as const) {
    const breakers = config.circuitBreakers[priority];
    lines.push(
      `${name}::${priority}_priority::max_connections::${breakers.maxConnections}`,
      `${name}::${priority}_priority::max_pending_requests::${breakers.maxPendingRequests}`,
      `${name}::${priority}_priority::max_requests::${breakers.maxRequests}`,
      `${name}::${priority}_priority::max_retries::${breakers.maxRetries}`,
    );
  }
  lines.push(`${name}::added_via_api::${context.isDynamicCluster(name)}`);
  if (config.edsServiceName !== undefined) lines.push(`${name}::eds_service_name::${config.edsServiceName}`);
  for (const member of cluster.members.values()) {
    const prefix = `${name}::${addressText(member.address)}`;
    lines.push(
      ...hostStats(member).map(([name, value]) => `${prefix}::${name}::${value}`),
      `${prefix}::hostname::${member.hostname}`,
      `${prefix}::health_flags::${healthFlags(member)}`,
      `${prefix}::weight::${member.configuredWeight}`,
      `${prefix}::region::${member.locality.region}`,
      `${prefix}::zone::${member.locality.zone}`,
      `${prefix}::sub_zone::${member.locality.subZone}`,
      `${prefix}::canary::false`,
      `${prefix}::priority::${member.priority}`,
      `${prefix}::success_rate::-1`,
      `${prefix}::local_origin_success_rate::-1`,
    );
  }
  return `${lines.join('\n')}\n`;
}

function clusterJson(cluster: UpstreamCluster, context: AdminContext): JsonObject {
  const { config } = cluster;
  return {
    name: cluster.name,
    ...(context.isDynamicCluster(cluster.name) ? { added_via_api: true } : {}),
    observability_name: config.altStatName || cluster.name,
    ...(config.edsServiceName === undefined ? {} : { eds_service_name: config.edsServiceName }),
    circuit_breakers: {
      thresholds: (['default', 'high'] as const).map((priority) => {
        const breakers = config.circuitBreakers[priority];
        return {
          ...(priority === 'high' ? { priority: 'HIGH' } : {}),
          max_connections: breakers.maxConnections,
          max_pending_requests: breakers.maxPendingRequests,
          max_requests: breakers.maxRequests,
          max_retries: breakers.maxRetries,
        };
      }),
    },
    host_statuses: [...cluster.members.values()].map(memberJson),
  };
}

/** Envoy's statistics of a host, by name. */
function hostStats(member: Member): readonly (readonly [name: string, value: number])[] {
  return [
    ['cx_active', member.connectionsActive],
    ['cx_connect_fail', member.connectFailures],
    ['cx_total', member.connectionsTotal],
    ['rq_active', member.active],
    ['rq_error', member.failures],
    ['rq_pending_active', member.pending],
    ['rq_success', member.requests - member.failures],
    ['rq_timeout', member.timeouts],
    ['rq_total', member.started],
  ];
}

const isGauge = (name: string): boolean => name.endsWith('_active');

function memberJson(member: Member): JsonObject {
  const stat = (name: string, value: number, type: 'GAUGE' | undefined): JsonObject => ({
    name,
    ...(value === 0 ? {} : { value: String(value) }),
    ...(type === undefined ? {} : { type }),
  });
  const announced = member.announced === 'UNKNOWN' ? 'HEALTHY' : member.announced;
  return {
    address: addressJson(member.address),
    // Counters first, as in Envoy.
    stats: hostStats(member)
      .toSorted(([a], [b]) => Number(isGauge(a)) - Number(isGauge(b)))
      .map(([name, value]) => stat(name, value, isGauge(name) ? 'GAUGE' : undefined)),
    health_status: {
      eds_health_status: announced,
      ...(member.failedCheck ? { failed_active_health_check: true } : {}),
      ...(member.ejectedUntilMs > 0 ? { failed_outlier_check: true } : {}),
    },
    ...(member.hostname === '' ? {} : { hostname: member.hostname }),
    weight: member.configuredWeight,
    ...(member.priority === 0 ? {} : { priority: member.priority }),
    locality: {
      ...(member.locality.region === '' ? {} : { region: member.locality.region }),
      ...(member.locality.zone === '' ? {} : { zone: member.locality.zone }),
      ...(member.locality.subZone === '' ? {} : { sub_zone: member.locality.subZone }),
    },
  };
}
