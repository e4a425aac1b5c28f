/** What policies put before an application: filters for one port, and overrides where one listener serves several. */
import type { ExtensionConfig, HttpFilterConfig } from '../../xds/snapshot.ts';
import type { World, WorkloadModel } from '../world.ts';
import { authorizationFilters, RBAC_TYPE, rateLimitFilters } from './filters.ts';
import type { ApplicationPort } from './inbound-ports.ts';
import { authorizationOf, policyIndex } from './policies.ts';

export interface PortPolicies {
  readonly filters: readonly HttpFilterConfig[];
  /** Rules on paths must see what the application will: one spelling of each path. */
  readonly onPaths: boolean;
}

/** Policies that target the port's services, the workload's labels, or its namespace. */
export function portPolicies(world: World, workload: WorkloadModel | undefined, port: ApplicationPort): PortPolicies {
  if (workload === undefined) return { filters: [], onPaths: false };
  const { mesh, policies } = world;
  const names = new Set(port.serviceNames);
  const authorization = authorizationOf(policies, workload, names);
  const limits = [...names].sort().flatMap((name) => policyIndex(policies).rateLimits.get(`${workload.namespace}/${name}`) ?? []);
  const onPaths = authorization.some(({ spec }) =>
    (spec.rules ?? []).some((rule) => (rule.to ?? []).some((to) => to.paths !== undefined || to.notPaths !== undefined)),
  );
  return { filters: [...authorizationFilters(authorization, mesh, port.targetPort), ...rateLimitFilters(limits)], onPaths };
}

/** One filter of each name that any of the ports has; which settings count is said per port by `overridesFor`. */
export function sharedFilters(all: readonly PortPolicies[]): readonly HttpFilterConfig[] {
  const byName = new Map<string, HttpFilterConfig>();
  for (const filter of all.flatMap((policies) => policies.filters)) if (!byName.has(filter.name)) byName.set(filter.name, filter);
  return [...byName.values()].sort((left, right) => rank(left) - rank(right) || (left.name < right.name ? -1 : 1));
}

/** Where a port's own settings differ from the listener's; a filter that it does not have is switched off for it. */
export function overridesFor(own: PortPolicies, shared: readonly HttpFilterConfig[]): ReadonlyMap<string, ExtensionConfig> {
  const overrides = new Map<string, ExtensionConfig>();
  for (const { name, type, config } of shared) {
    const mine = own.filters.find((filter) => filter.name === name);
    if (mine === undefined) overrides.set(name, { name, type: '', config: {}, disabled: true });
    else if (JSON.stringify(mine.config) !== JSON.stringify(config)) {
      overrides.set(
        name,
        type === RBAC_TYPE ? { name, type: `${RBAC_TYPE}PerRoute`, config: { rbac: mine.config } } : { name, type, config: mine.config },
      );
    }
  }
  return overrides;
}

/** Who may come in is decided before what is counted, and denials before allowances. */
function rank(filter: HttpFilterConfig): number {
  if (filter.type !== RBAC_TYPE) return 2;
  return filter.name.endsWith('deny') ? 0 : 1;
}
