/** Peak EWMA: of two endpoints drawn by weight, the one with the lower expected wait, which rises at once and falls slowly (Finagle's and Linkerd's balancer). */
import type { Endpoint } from '../upstream/endpoint.ts';
import { sampler } from './alias.ts';
import { decimal } from './kind.ts';
import type { BalancerKind } from './kind.ts';

/** Expected time of an endpoint that was never measured (Linkerd's default_rtt). */
const DEFAULT_RTT_MS = 30;
/** Time after which a measurement counts for 1/e (Linkerd's decay). */
export const DECAY_MS = 10_000;

/** `defaultRttMs` 30 and `decayMs` 10000 by default. */
export const peakEwma: BalancerKind = {
  type: 'meshwork.balancers.PeakEwma',
  needsLatency: true,
  compile: (config, path) => {
    const defaultRttMs = decimal(config, 'defaultRttMs', DEFAULT_RTT_MS, 0.001, path);
    const decayMs = decimal(config, 'decayMs', DECAY_MS, 1, path);
    const cost = (endpoint: Endpoint, nowMs: number): number => {
      const latencyMs = endpoint.latencyMs ?? 0;
      const expectedMs = latencyMs === 0 ? defaultRttMs : latencyMs * Math.exp(-Math.max(0, nowMs - (endpoint.latencyAtMs ?? 0)) / decayMs);
      // Drawing goes by weight already; here the load under way counts per weight, so that equal endpoints at rest cost the same.
      return expectedMs * (endpoint.active / endpoint.weight + 1);
    };
    return (endpoints, random) => {
      const members = endpoints.filter((endpoint) => endpoint.weight > 0);
      if (members.length < 2) return () => members[0];
      const draw = sampler(members.map((endpoint) => endpoint.weight));
      return (request) => {
        const one = draw(random);
        let two = draw(random);
        if (two === one) two = two + 1 === members.length ? 0 : two + 1;
        return cost(members[one]!, request.startMs) <= cost(members[two]!, request.startMs) ? members[one] : members[two];
      };
    };
  },
};

/** Folds a measured time into the endpoint's average: a peak replaces it, anything lower decays towards it. */
export function observeLatency(endpoint: Endpoint, latencyMs: number, nowMs: number): void {
  const before = endpoint.latencyMs ?? 0;
  const keep = Math.exp(-Math.max(0, nowMs - (endpoint.latencyAtMs ?? 0)) / DECAY_MS);
  endpoint.latencyMs = latencyMs >= before * keep ? latencyMs : before * keep + latencyMs * (1 - keep);
  endpoint.latencyAtMs = nowMs;
}
