/** Which policies apply to a service: found once per list of policies, since the list is the same object until one changes. */
import { memo } from '../../lib/memo.ts';
import type { AuthorizationPolicySpec } from '../kinds/authorization-policy.ts';
import type { BackendPolicySpec } from '../kinds/backend-policy.ts';
import type { FaultInjectionSpec } from '../kinds/fault-injection.ts';
import type { RateLimitSpec } from '../kinds/rate-limit.ts';
import type { Resource, ServiceModel, WorkloadModel } from '../world.ts';

export interface Policy<Spec> {
  /** `namespace/name`. */
  readonly key: string;
  readonly spec: Spec;
}

interface Index {
  /** By `namespace/service`; the first in order of keys where several target one service. */
  readonly backend: ReadonlyMap<string, Policy<BackendPolicySpec>>;
  readonly faults: ReadonlyMap<string, readonly Policy<FaultInjectionSpec>[]>;
  readonly rateLimits: ReadonlyMap<string, readonly Policy<RateLimitSpec>[]>;
  readonly authorization: ReadonlyMap<string, readonly Policy<AuthorizationPolicySpec>[]>;
}

const indexes = memo<readonly Resource[], Index>();

export function policyIndex(policies: readonly Resource[]): Index {
  let index = indexes.get(policies);
  if (index === undefined) {
    index = makeIndex(policies);
    indexes.set(policies, index);
  }
  return index;
}

export function backendPolicyOf(
  policies: readonly Resource[],
  service: Pick<ServiceModel, 'namespace' | 'name'>,
): Policy<BackendPolicySpec> | undefined {
  return policyIndex(policies).backend.get(`${service.namespace}/${service.name}`);
}

/** Those of the workload's namespace whose target is one of its services, its labels, or everything. */
export function authorizationOf(
  policies: readonly Resource[],
  workload: WorkloadModel,
  serviceNames: ReadonlySet<string>,
): readonly Policy<AuthorizationPolicySpec>[] {
  const all = policyIndex(policies).authorization.get(workload.namespace) ?? [];
  return all.filter(({ spec }) => {
    if (spec.targetRefs !== undefined) return spec.targetRefs.some((target) => serviceNames.has(target.name));
    const wanted = spec.selector?.matchLabels;
    return wanted === undefined || Object.keys(wanted).every((name) => workload.labels[name] === wanted[name]);
  });
}

function makeIndex(policies: readonly Resource[]): Index {
  const backend = new Map<string, Policy<BackendPolicySpec>>();
  const faults = new Map<string, Policy<FaultInjectionSpec>[]>();
  const rateLimits = new Map<string, Policy<RateLimitSpec>[]>();
  const authorization = new Map<string, Policy<AuthorizationPolicySpec>[]>();
  for (const resource of policies) {
    const { namespace, name } = resource.metadata;
    const key = `${namespace}/${name}`;
    const targets = ((resource.spec['targetRefs'] ?? []) as readonly { readonly name: string }[]).map(
      (target) => `${namespace}/${target.name}`,
    );
    if (resource.kind === 'AuthorizationPolicy') push(authorization, namespace, { key, spec: resource.spec as AuthorizationPolicySpec });
    for (const target of targets) {
      if (resource.kind === 'BackendPolicy' && !backend.has(target))
        backend.set(target, { key, spec: resource.spec as unknown as BackendPolicySpec });
      if (resource.kind === 'FaultInjection') push(faults, target, { key, spec: resource.spec as unknown as FaultInjectionSpec });
      if (resource.kind === 'RateLimit') push(rateLimits, target, { key, spec: resource.spec as unknown as RateLimitSpec });
    }
  }
  return { backend, faults, rateLimits, authorization };
}

function push<V>(map: Map<string, V[]>, key: string, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
