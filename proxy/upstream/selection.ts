/** From endpoints to a picker: priorities with overprovisioning, panic, locality weights and slow start around the cluster's balancer. */
import { below } from '../../lib/random.ts';
import type { Random } from '../../lib/random.ts';
import type { Cluster, Locality, LocalityEndpoints } from '../../xds/snapshot.ts';
import { turns } from '../balancers/turns.ts';
import type { Balancer, Picker } from '../service.ts';
import type { Endpoint } from './endpoint.ts';

export interface Selection {
  readonly picker: Picker;
  /** Some priority ignores health because too little of it is healthy. */
  readonly panic: boolean;
  /** Endpoints that may be picked now. */
  readonly reachable: number;
}

export interface SelectionInput {
  readonly endpoints: readonly Endpoint[];
  readonly cluster: Pick<Cluster, 'panicThresholdPercent' | 'localityWeighted'>;
  readonly localities: readonly LocalityEndpoints[];
  /** In percent: 140 means that 72 % healthy still count as whole. */
  readonly overprovisioningFactor: number;
  readonly balancer: Balancer;
  readonly random: Random;
}

/** One priority's share of the requests, and who gets them. */
interface Level {
  readonly all: readonly Endpoint[];
  readonly healthy: readonly Endpoint[];
  readonly degraded: readonly Endpoint[];
  /** Percent of this level's endpoints that count as healthy (degraded), overprovisioning included, at most 100. */
  readonly healthPercent: number;
  readonly degradedPercent: number;
}

const NOBODY: Picker = () => undefined;

/** Builds the picker. Runs when membership, health or weights change, never per request. */
export function select(input: SelectionInput): Selection {
  const serving = input.endpoints.filter((endpoint) => endpoint.health !== 'draining');
  if (serving.length === 0) return lastResort(input);
  const levels = levelsOf(serving, input.overprovisioningFactor);
  const available = levels.reduce((sum, level) => sum + level.healthPercent + level.degradedPercent, 0);
  const loads: { picker: Picker; percent: number }[] = [];
  let panic = false;
  let reachable = 0;
  const add = (endpoints: readonly Endpoint[], percent: number, everyone: readonly Endpoint[]): void => {
    if (percent <= 0 || endpoints.length === 0) return;
    loads.push({ picker: withinPriority(input, endpoints, everyone), percent });
    reachable += endpoints.length;
  };
  const shares = sharesOf(levels);
  levels.forEach((level, i) => {
    const healthyPercent = level.all.length === 0 ? 0 : (level.healthy.length / level.all.length) * 100;
    const { healthy, degraded } = shares[i]!;
    const gets = healthy + degraded;
    // As long as the levels together count as whole, health decides; below that a level with too few healthy ones uses all it has.
    if (available < 100 && gets > 0 && healthyPercent < input.cluster.panicThresholdPercent) {
      panic = true;
      add(level.all, gets, level.all);
      return;
    }
    add(level.healthy, healthy, level.all);
    add(level.degraded, degraded, level.all);
  });
  return { picker: byLoad(loads, input.random), panic, reachable };
}

/** All endpoints are on their way out: one that still serves is better than an error. */
function lastResort(input: SelectionInput): Selection {
  const panic = input.cluster.panicThresholdPercent > 0;
  // Envoy panics over an empty cluster, too.
  if (input.endpoints.length === 0 || !panic) return { picker: NOBODY, panic, reachable: 0 };
  return { picker: input.balancer(input.endpoints, input.random), panic: true, reachable: input.endpoints.length };
}

function levelsOf(endpoints: readonly Endpoint[], factor: number): Level[] {
  const priorityMax = endpoints.reduce((max, endpoint) => Math.max(max, endpoint.priority), 0);
  return Array.from({ length: priorityMax + 1 }, (_, priority) => {
    const all = endpoints.filter((endpoint) => endpoint.priority === priority);
    const healthy = all.filter((endpoint) => endpoint.health === 'healthy');
    const degraded = all.filter((endpoint) => endpoint.health === 'degraded');
    const percent = (count: number): number => (all.length === 0 ? 0 : Math.min(100, (factor * count) / all.length));
    const healthPercent = percent(healthy.length);
    return { all, healthy, degraded, healthPercent, degradedPercent: Math.min(100 - healthPercent, percent(degraded.length)) };
  });
}

/** Level by level takes what it can of the hundred percent, healthy endpoints of all levels before degraded ones; scaled up when all together have less. */
function sharesOf(levels: readonly Level[]): { healthy: number; degraded: number }[] {
  const total = levels.reduce((sum, level) => sum + level.healthPercent + level.degradedPercent, 0);
  const shares = levels.map(() => ({ healthy: 0, degraded: 0 }));
  if (total === 0) {
    // Nobody is healthy anywhere: the first level that has anybody gets all, and panic decides what that means.
    const first = levels.findIndex((level) => level.all.length > 0);
    if (first !== -1) shares[first]!.healthy = 100;
    return shares;
  }
  const scale = 100 / Math.min(100, total);
  let left = 100;
  for (const kind of ['healthy', 'degraded'] as const) {
    levels.forEach((level, i) => {
      const share = Math.min(left, (kind === 'healthy' ? level.healthPercent : level.degradedPercent) * scale);
      shares[i]![kind] = share;
      left -= share;
    });
  }
  return shares;
}

function byLoad(loads: readonly { picker: Picker; percent: number }[], random: Random): Picker {
  if (loads.length === 0) return NOBODY;
  if (loads.length === 1) return loads[0]!.picker;
  const ends: number[] = [];
  let sum = 0;
  for (const load of loads) ends.push((sum += load.percent));
  return (request) => {
    const drawn = random() * sum;
    let i = 0;
    while (i < ends.length - 1 && drawn >= ends[i]!) i++;
    return loads[i]!.picker(request);
  };
}

/** Locality weights, when the cluster uses them: a locality's weight shrinks with the part of it that is missing. */
function withinPriority(input: SelectionInput, endpoints: readonly Endpoint[], everyone: readonly Endpoint[]): Picker {
  if (!input.cluster.localityWeighted) return input.balancer(endpoints, input.random);
  const groups = new Map<string, Endpoint[]>();
  for (const endpoint of endpoints) {
    const key = localityKey(endpoint.locality);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [endpoint]);
    else group.push(endpoint);
  }
  const pickers: Picker[] = [];
  const weights: number[] = [];
  for (const [key, group] of groups) {
    const priority = group[0]!.priority;
    const weight = input.localities.find((entry) => entry.priority === priority && localityKey(entry.locality) === key)?.weight ?? 0;
    if (weight === 0) continue;
    const whole = everyone.filter((endpoint) => localityKey(endpoint.locality) === key).length;
    pickers.push(input.balancer(group, input.random));
    weights.push(weight * Math.min(1, (input.overprovisioningFactor / 100) * (group.length / whole)));
  }
  if (pickers.length === 0) return NOBODY;
  if (pickers.length === 1) return pickers[0]!;
  const next = turns(weights, below(input.random, 16));
  return (request) => pickers[next()]!(request);
}

export function localityKey(locality: Locality): string {
  return `${locality.region}/${locality.zone}/${locality.subZone}`;
}

/** A new endpoint's weight while it warms up: never below `minWeightPercent` of the full one, growing as Envoy's slow start does. */
export function slowStartWeight(weight: number, ageMs: number, slowStart: NonNullable<Cluster['slowStart']>): number {
  if (ageMs >= slowStart.windowMs) return weight;
  const grown = Math.max(0, ageMs / slowStart.windowMs) ** (1 / slowStart.aggression);
  return weight * Math.max(slowStart.minWeightPercent / 100, grown);
}
