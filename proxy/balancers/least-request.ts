/** Least request: of a few endpoints drawn by weight, the one with the fewest requests under way for its weight (Envoy's LEAST_REQUEST). */
import type { Endpoint } from '../upstream/endpoint.ts';
import { sampler } from './alias.ts';
import { decimal, wholeNumber } from './kind.ts';
import type { BalancerKind } from './kind.ts';

const CHOICES_MAX = 64;

/** `choiceCount` (default 2) endpoints are drawn; `activeRequestBias` (default 1) says how much requests under way count, 0 = not at all. */
export const leastRequest: BalancerKind = {
  type: 'envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest',
  compile: (config, path) => {
    const choices = wholeNumber(config, 'choiceCount', 2, 2, CHOICES_MAX, path);
    const bias = decimal(config, 'activeRequestBias', 1, 0, path);
    const load =
      bias === 1
        ? (endpoint: Endpoint) => endpoint.active / endpoint.weight
        : (endpoint: Endpoint) => endpoint.active ** bias / endpoint.weight;
    return (endpoints, random) => {
      const members = endpoints.filter((endpoint) => endpoint.weight > 0);
      if (members.length < 2) return () => members[0];
      const draw = sampler(members.map((endpoint) => endpoint.weight));
      return () => {
        const start = draw(random);
        let best = members[start]!;
        let bestLoad = bias === 0 ? 0 : load(best);
        for (let i = 1; i < choices && bestLoad > 0; i++) {
          let index = draw(random);
          if (index === start) index = index + 1 === members.length ? 0 : index + 1;
          const other = members[index]!;
          const otherLoad = load(other);
          if (otherLoad < bestLoad) {
            best = other;
            bestLoad = otherLoad;
          }
        }
        return best;
      };
    };
  },
};
