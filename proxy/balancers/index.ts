/** The balancing policies by Envoy's names: a new one is a file beside this, a line here and a test. */
import type { ExtensionConfig } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import type { BalancerKind } from './kind.ts';
import { leastRequest } from './least-request.ts';
import { maglev } from './maglev.ts';
import { peakEwma } from './peak-ewma.ts';
import { random } from './random.ts';
import { ringHash } from './ring-hash.ts';
import { roundRobin } from './round-robin.ts';

export const BALANCERS = {
  ROUND_ROBIN: roundRobin,
  LEAST_REQUEST: leastRequest,
  RANDOM: random,
  RING_HASH: ringHash,
  MAGLEV: maglev,
  PEAK_EWMA: peakEwma,
} as const satisfies Record<string, BalancerKind>;

/** Finds a policy by its short name or by the type of its extension message. Throws `ConfigError` naming what there is. */
export function balancerKind(policy: ExtensionConfig, path: string): BalancerKind {
  const all: Readonly<Record<string, BalancerKind>> = BALANCERS;
  for (const name of Object.keys(all)) {
    const kind = all[name]!;
    if (name === policy.name || name === policy.type || kind.type === policy.type) return kind;
  }
  throw new ConfigError(
    path,
    `load balancing policy ${JSON.stringify(policy.type === '' ? policy.name : policy.type)} is not supported; there are ${Object.keys(all).join(', ')}`,
  );
}
