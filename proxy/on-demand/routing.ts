/** Requests of a route configuration with VHDS: a host in use goes straight to its own routes, the first request for another waits for them. */
import { ProxyError } from '../errors.ts';
import { compileAuthorities } from '../router/table.ts';
import type { HostTable } from './table.ts';
import type { ProxyRequest, Reply, Send } from '../service.ts';
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
  readonly base: Send;
  /** Compiles a route configuration that stands for one virtual host. */
  readonly compile: (routes: RouteConfiguration) => Send;
  /** What was compiled before, so that one more host costs one host. The same map for as long as `compile` and the parent mean the same. */
  readonly known: WeakMap<VirtualHost, Send>;
  /** What serves in the configuration of this moment; undefined when the chain is gone. */
  readonly current: () => Send | undefined;
}

/** Whether a manager asks for virtual hosts that it does not have: Envoy does so with the on_demand filter alone. */
export function asksOnDemand(filters: readonly HttpFilterConfig[], routes: RouteConfiguration | undefined): routes is RouteConfiguration {
  if (routes?.vhds !== true) return false;
  return filters.some(
    ({ name, type, disabled }) => !disabled && (type === '' ? ON_DEMAND.names.some((one) => one === name) : type === ON_DEMAND.type),
  );
}

/** Compiles the way of a request. A virtual host that was compiled before is not compiled again. Throws ConfigError. */
export function compileOnDemand({ table, routes, virtualHosts, base, compile, known, current }: OnDemandRouting): Send {
  const sends = new Map<string, Send>();
  const prefix = `${routes.name}/`;
  for (const [name, host] of virtualHosts) {
    if (!name.startsWith(prefix)) continue;
    let send = known.get(host);
    if (send === undefined) known.set(host, (send = compile(standingAlone(routes, host))));
    sends.set(name, send);
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
  const wait = (request: ProxyRequest, reply: Reply): void => {
    if (isInline(request.authority) === true) {
      base(request, reply);
      return;
    }
    const times = waits.get(request) ?? 0;
    if (times >= WAITS_MAX) {
      reply.failed(new ProxyError('hostNotDiscovered', 'What it waited for was gone each time.'));
      return;
    }
    const waiting = table.wait(request.authority, request);
    if (waiting === undefined) {
      base(request, reply);
      return;
    }
    const there = (): void => {
      const send = current();
      if (send === undefined) {
        reply.failed(new ProxyError('routeNotFound', 'The listener went while the request waited.'));
        return;
      }
      waits.set(request, times + 1);
      send(request, reply);
    };
    waiting.then(there).catch((error: unknown) => reply.failed(ProxyError.from(error)));
  };
  return (request, reply) => {
    const entry = table.find(request.authority);
    if (entry === undefined) {
      wait(request, reply);
      return;
    }
    // A request that waited began long before its host was there.
    if (entry.usedMs < request.startMs) entry.usedMs = request.startMs;
    const send = entry.exists === false ? base : (sends.get(entry.virtualHost) ?? wait);
    send(request, reply);
  };
}

/** The table has decided on the host already, so here it takes every one. Its name is told without its parent's, as it would stand in it. */
export function standingAlone(routes: RouteConfiguration, host: VirtualHost): RouteConfiguration {
  const prefix = `${routes.name}/`;
  const name = host.name.startsWith(prefix) ? host.name.slice(prefix.length) : host.name;
  return { ...routes, virtualHosts: [{ ...host, name, domains: ['*'] }] };
}
