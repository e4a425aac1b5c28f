/** Ring hash: the same key goes to the same endpoint on every proxy, and few keys move when membership changes (ketama as Envoy builds it). */
import { below } from '../../lib/random.ts';
import type { Hash64 } from '../../lib/xxhash64.ts';
import { xxHash64 } from '../../lib/xxhash64.ts';
import { ConfigError } from '../errors.ts';
import type { Endpoint } from '../upstream/endpoint.ts';
import { hashKey } from './hash-key.ts';
import { wholeNumber } from './kind.ts';
import type { BalancerKind } from './kind.ts';

const RING_SIZE_MAX = 8 * 1024 * 1024;

/** Points on the ring in ascending order, as halves of a 64-bit hash, and the endpoint each belongs to. */
interface Ring {
  readonly high: Uint32Array;
  readonly low: Uint32Array;
  readonly owner: Int32Array;
}

/** `minimumRingSize` 1024 and `maximumRingSize` 8388608 by default; `hashFunction` may only be XX_HASH. */
export const ringHash: BalancerKind = {
  type: 'envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash',
  compile: (config, path) => {
    const sizeMin = wholeNumber(config, 'minimumRingSize', 1024, 1, RING_SIZE_MAX, path);
    const sizeMax = wholeNumber(config, 'maximumRingSize', RING_SIZE_MAX, 1, RING_SIZE_MAX, path);
    if (sizeMin > sizeMax)
      throw new ConfigError(`${path}.minimumRingSize`, `must not be above maximumRingSize ${sizeMax}, received ${sizeMin}`);
    const hashFunction = config['hashFunction'] ?? 'XX_HASH';
    if (hashFunction !== 'XX_HASH' && hashFunction !== 'DEFAULT_HASH') {
      throw new ConfigError(`${path}.hashFunction`, `must be XX_HASH, received ${JSON.stringify(hashFunction)}`);
    }
    return (endpoints, random) => {
      const members = endpoints.filter((endpoint) => endpoint.weight > 0);
      if (members.length < 2) return () => members[0];
      const ring = buildRing(members, sizeMin, sizeMax);
      const size = ring.owner.length;
      return (request) => {
        const hash = request.info.hash;
        let at = hash === undefined ? below(random, size) : find(ring, Number(hash >> 32n), Number(hash & 0xffffffffn));
        const tried = request.info.triedEndpoints;
        // A retry walks on round the ring to the next endpoint that was not tried, which is where the key would go without those.
        if (tried !== undefined)
          for (let steps = 0; steps < size && tried.includes(members[ring.owner[at]!]!); steps++) at = at + 1 === size ? 0 : at + 1;
        return members[ring.owner[at]!];
      };
    };
  },
};

function buildRing(members: readonly Endpoint[], sizeMin: number, sizeMax: number): Ring {
  let total = 0;
  let least = Number.POSITIVE_INFINITY;
  for (const member of members) {
    total += member.weight;
    least = Math.min(least, member.weight);
  }
  // Scaled so that the lightest member gets a whole number of points, as long as that fits.
  const scale = Math.min(Math.ceil((least / total) * sizeMin) / (least / total), sizeMax);
  const points: { high: number; low: number; owner: number }[] = [];
  let target = 0;
  const hash: Hash64 = { high: 0, low: 0 };
  members.forEach((member, owner) => {
    target += (scale * member.weight) / total;
    const key = hashKey(member);
    for (let i = 0; points.length < target; i++) {
      xxHash64(`${key}_${i}`, 0, hash);
      points.push({ high: hash.high, low: hash.low, owner });
    }
  });
  points.sort((a, b) => a.high - b.high || a.low - b.low);
  return {
    high: Uint32Array.from(points, (point) => point.high),
    low: Uint32Array.from(points, (point) => point.low),
    owner: Int32Array.from(points, (point) => point.owner),
  };
}

/** The first point at or after the hash; past the last one it is the first. */
function find(ring: Ring, high: number, low: number): number {
  let from = 0;
  let to = ring.owner.length;
  while (from < to) {
    const middle = (from + to) >>> 1;
    const pointHigh = ring.high[middle]!;
    if (pointHigh < high || (pointHigh === high && ring.low[middle]! < low)) from = middle + 1;
    else to = middle;
  }
  return from === ring.owner.length ? 0 : from;
}
