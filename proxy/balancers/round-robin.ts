/** Round robin: one after the other, each as often per cycle as its weight says (Envoy's ROUND_ROBIN). */
import { below } from '../../lib/random.ts';
import type { BalancerKind } from './kind.ts';
import { turns } from './turns.ts';

/** Most turns skipped at the start; enough to spread the first requests of a fleet. */
const SKIP_MAX = 128;

export const roundRobin: BalancerKind = {
  type: 'envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin',
  compile: () => (endpoints, random) => {
    const weights = endpoints.map((endpoint) => endpoint.weight);
    const next = turns(weights, below(random, Math.min(SKIP_MAX, Math.max(1, endpoints.length))));
    return () => endpoints[next()];
  },
};
