/** Requests of a route configuration with VHDS: a host in use goes straight to its own routes, the first request for another waits for them. */
import { ProxyError } from '../errors.ts';
import { compileAuthorities } from '../router/table.ts';
import type { HostTable } from './table.ts';
import type { ProxyRequest, ProxyResponse, Service } from '../service.ts';
import type { HttpFilterConfig, RouteConfiguration, VirtualHost } from '../../xds/snapshot.ts';

export const ON_DEMAND = {
  type: 'envoy.extensions.filters.http.on_demand.v3.OnDemand',
  names: ['envoy.filters.http.on_demand'],
} as const;

/** How often one request waits: what it waited for may be gone again, or changed, before it goes on. */
const WAITS_MAX = 3;

export interface OnDemandRouting {
  readonly table: HostTable;
  readonly routes: RouteConfiguration;
  /** All that VHDS brought, by resource name; those of other route configurations too. */
  readonly virtualHosts: ReadonlyMap<string, VirtualHost>;
  /** Routes that stand in the configuration itself. */
  readonly base: Service;
  /** Compiles a route configuration that stands for one virtual host. */
  readonly compile: (routes: RouteConfiguration) => Service;
  /** What was compiled before, so that one more host costs one host. The same map for as long as `compile` and the parent mean the same. */
  readonly known: WeakMap<VirtualHost, Service>;
  /** What serves in the configuration of this moment; undefined when the chain is gone. */
  readonly current: () => Service | undefined;
}

/** Whether a manager asks for virtual hosts that it does not have: Envoy does so with the on_demand filter alone. */
export function asksOnDemand(filters: readonly HttpFilterConfig[], routes: RouteConfiguration | undefined): routes is RouteConfiguration {
  if (routes?.vhds !== true) return false;
  return filters.some(
    ({ name, type, disabled }) => !disabled && (type === '' ? ON_DEMAND.names.some((one) => one === name) : type === ON_DEMAND.type),
  );
}

/** Compiles the service. A virtual host that was compiled before is not compiled again. Throws ConfigError. */
export function compileOnDemand({ table, routes, virtualHosts, base, compile, known, current }: OnDemandRouting): Service {
  const services = new Map<string, Service>();
  const prefix = `${routes.name}/`;
  for (const [name, host] of virtualHosts) {
    if (!name.startsWith(prefix)) continue;
    let service = known.get(host);
    if (service === undefined) known.set(host, (service = compile(standingAlone(routes, host))));
    services.set(name, service);
  }
  const inlineHosts = routes.virtualHosts.flatMap(({ domains }) => domains.filter((domain) => domain !== '*'));
  const isInline =
    inlineHosts.length === 0
      ? () => undefined
      : compileAuthorities(
          inlineHosts.map((domain) => ({ domain, value: true })),
          routes.ignorePortInHostMatching,
        );
  const waits = new WeakMap<ProxyRequest, number>();
  const wait = (request: ProxyRequest): Promise<ProxyResponse> => {
    if (isInline(request.authority) === true) return base(request);
    const times = waits.get(request) ?? 0;
    if (times >= WAITS_MAX) return Promise.reject(new ProxyError('hostNotDiscovered', 'What it waited for was gone each time.'));
    const waiting = table.wait(request.authority, request);
    if (waiting === undefined) return base(request);
    return waiting.then(() => {
      const service = current();
      if (service === undefined) throw new ProxyError('routeNotFound', 'The listener went while the request waited.');
      waits.set(request, times + 1);
      return service(request);
    });
  };
  return (request) => {
    const entry = table.find(request.authority);
    if (entry === undefined) return wait(request);
    // A request that waited began long before its host was there.
    if (entry.usedMs < request.startMs) entry.usedMs = request.startMs;
    if (entry.exists === false) return base(request);
    return (services.get(entry.virtualHost) ?? wait)(request);
  };
}

/** The table has decided on the host already, so here it takes every one. Its name is told without its parent's, as it would stand in it. */
export function standingAlone(routes: RouteConfiguration, host: VirtualHost): RouteConfiguration {
  const prefix = `${routes.name}/`;
  const name = host.name.startsWith(prefix) ? host.name.slice(prefix.length) : host.name;
  return { ...routes, virtualHosts: [{ ...host, name, domains: ['*'] }] };
}
