/** Random: every request to an endpoint drawn by weight, without any memory (Envoy's RANDOM, which ignores weights; here they count). */
import { sampler } from './alias.ts';
import type { BalancerKind } from './kind.ts';

export const random: BalancerKind = {
  type: 'envoy.extensions.load_balancing_policies.random.v3.Random',
  compile: () => (endpoints, chance) => {
    const draw = sampler(endpoints.map((endpoint) => endpoint.weight));
    return () => endpoints[draw(chance)];
  },
};
