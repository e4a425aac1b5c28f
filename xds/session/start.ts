/** How a stream begins: a client that has nothing gets everything, and one that comes back says what it has. Both are worked out once for all streams that begin alike. */
import type { EncodedResource } from './messages.ts';
import type { ResourceSet } from './resource-set.ts';
import type { Scope } from './sent-table.ts';
import type { Plan } from './step.ts';
import { nameCost } from './subscription.ts';

/** What was found out for a list of names, for the newest set that has these names. */
interface Found<T> {
  readonly version: string;
  readonly byScope: WeakMap<object, T>;
}
const WILDCARD_KEY = {};
const plans = new WeakMap<ReadonlySet<string>, Found<Plan | 'none'>>();
const claims = new WeakMap<ReadonlyMap<string, string>, Found<boolean>>();

function remembered<K extends object, T>(found: WeakMap<K, Found<T>>, key: K, version: string, scope: Scope, make: () => T): T {
  let known = found.get(key);
  if (known?.version !== version) {
    known = { version, byScope: new WeakMap() };
    found.set(key, known);
  }
  const scopeKey = scope.wildcard ? WILDCARD_KEY : scope.names;
  let made = known.byScope.get(scopeKey);
  if (made === undefined) {
    made = make();
    known.byScope.set(scopeKey, made);
  }
  return made;
}

/** Everything that is asked for. Undefined where more than versions counts: names that do not exist, aliases, times to live. */
export function startPlan(typeUrl: string, resources: ResourceSet, scope: Scope): Plan | undefined {
  const names = resources.nameSet?.(typeUrl);
  if (names === undefined || (scope.wildcard && scope.names.size > 0)) return undefined;
  const plan = remembered(plans, names, resources.version(typeUrl), scope, () => {
    const upserts: EncodedResource[] = [];
    for (const name of scope.wildcard ? names : scope.names) {
      const resource = resources.get(typeUrl, name);
      if (resource?.name !== name || resource.aliases !== undefined || resource.ttlMs !== undefined) return 'none';
      upserts.push(resource);
    }
    return upserts.length === 0 ? 'none' : { upserts, additions: upserts.length, removals: [], absents: [], due: true };
  });
  return plan === 'none' ? undefined : plan;
}

/** Whether a client that says that it has `claim` has all that it asks for of a set, and nothing else. */
export function claimHolds(typeUrl: string, resources: ResourceSet, claim: ReadonlyMap<string, string>, scope: Scope): boolean {
  const names = resources.nameSet?.(typeUrl);
  if (names === undefined || (scope.wildcard && scope.names.size > 0)) return false;
  if (claim.size !== (scope.wildcard ? names : scope.names).size) return false;
  return remembered(claims, claim, resources.version(typeUrl), scope, () => {
    for (const [name, version] of claim) {
      const resource = resources.get(typeUrl, name);
      if (resource?.name !== name || resource.version !== version) return false;
      if (!scope.wildcard && !scope.names.has(name)) return false;
    }
    return true;
  });
}

const lengths = new WeakMap<ReadonlyMap<string, string>, number>();

/** What all names and versions take of the budget of a stream. */
export function charsOf(claim: ReadonlyMap<string, string>): number {
  let chars = lengths.get(claim);
  if (chars === undefined) {
    chars = 0;
    for (const [name, version] of claim) chars += nameCost(name) + nameCost(version);
    lengths.set(claim, chars);
  }
  return chars;
}
