/** From one set to the next: what a client that has all of the first gets of the second. One plan for all streams that take the same step. */
import type { EncodedResource } from './messages.ts';
import type { ResourceSet } from './resource-set.ts';
import type { Scope } from './sent-table.ts';

/** What is due. `removals` are known to the client and must go; `absents` were asked for and do not exist. */
export interface Plan {
  readonly upserts: readonly EncodedResource[];
  /** How many of `upserts` the client does not have yet: these are what later types may point at. */
  readonly additions: number;
  readonly removals: readonly string[];
  readonly absents: readonly string[];
  readonly due: boolean;
}

export const NOTHING_DUE: Plan = { upserts: [], additions: 0, removals: [], absents: [], due: false };

export interface Step {
  readonly from: ResourceSet;
  readonly to: ResourceSet;
  /** Names that may differ; the same object for all who take the step. */
  readonly changed: readonly string[];
}

/** The step from `from` to `to`, when the sets know what differs. */
export function stepBetween(typeUrl: string, from: ResourceSet, to: ResourceSet): Step | undefined {
  const changed = to.changedSince?.(typeUrl, from.version(typeUrl));
  return Array.isArray(changed) ? { from, to, changed: changed as readonly string[] } : undefined;
}

const unions = new WeakMap<readonly string[], WeakMap<readonly string[], readonly string[]>>();

/** Two steps as one. */
export function joinedSteps(first: Step, second: Step): Step {
  const known = unions.get(first.changed) ?? new WeakMap<readonly string[], readonly string[]>();
  unions.set(first.changed, known);
  let changed = known.get(second.changed);
  if (changed === undefined) {
    changed = [...new Set([...first.changed, ...second.changed])];
    known.set(second.changed, changed);
  }
  return { from: first.from, to: second.to, changed };
}

/** By the names that differ, then by those that are asked for. */
const plans = new WeakMap<readonly string[], WeakMap<object, Made>>();
interface Made {
  readonly from: string;
  readonly to: string;
  readonly plan: Plan | undefined;
}
const WILDCARD_KEY = {};

/** Undefined for what needs more than versions: aliases and times to live. */
export function planOf(typeUrl: string, step: Step, scope: Scope): Plan | undefined {
  const key = scope.wildcard ? WILDCARD_KEY : scope.names;
  const known = plans.get(step.changed) ?? new WeakMap<object, Made>();
  plans.set(step.changed, known);
  const [from, to] = [step.from.version(typeUrl), step.to.version(typeUrl)];
  let made = known.get(key);
  if (made === undefined || made.from !== from || made.to !== to) {
    made = { from, to, plan: newPlan(typeUrl, step, scope) };
    known.set(key, made);
  }
  return made.plan;
}

function newPlan(typeUrl: string, { from, to, changed }: Step, { wildcard, names }: Scope): Plan | undefined {
  const upserts: EncodedResource[] = [];
  const removals: string[] = [];
  let additions = 0;
  for (const name of changed) {
    const before = from.get(typeUrl, name);
    const after = to.get(typeUrl, name);
    // Before the scope is looked at: it may be in it by an alias.
    if (needsMore(before, name) || needsMore(after, name)) return undefined;
    if (!wildcard && !names.has(name)) continue;
    if (after === undefined) {
      if (before !== undefined) removals.push(name);
      continue;
    }
    if (before?.version === after.version) continue;
    if (before === undefined) additions += 1;
    upserts.push(after);
  }
  if (upserts.length === 0 && removals.length === 0) return NOTHING_DUE;
  return { upserts, additions, removals, absents: [], due: true };
}

function needsMore(resource: EncodedResource | undefined, name: string): boolean {
  return resource !== undefined && (resource.name !== name || resource.aliases !== undefined || resource.ttlMs !== undefined);
}
