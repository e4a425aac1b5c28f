/** Maglev: consistent hashing by one table lookup, with shares closer to the weights than a ring gives (Google's paper, table filled as Envoy does). */
import { below } from '../../lib/random.ts';
import { hashModulo, xxHash64 } from '../../lib/xxhash64.ts';
import { ConfigError } from '../errors.ts';
import type { Endpoint } from '../upstream/endpoint.ts';
import { hashKey } from './hash-key.ts';
import { wholeNumber } from './kind.ts';
import type { BalancerKind } from './kind.ts';

const TABLE_SIZE = 65_537;
/** Envoy's limit is 5000011; above 2^20 the modulus would need more than 53 bits. */
const TABLE_SIZE_MAX = 1_048_573;

/** `tableSize` is a prime, 65537 by default. */
export const maglev: BalancerKind = {
  type: 'envoy.extensions.load_balancing_policies.maglev.v3.Maglev',
  compile: (config, path) => {
    const size = wholeNumber(config, 'tableSize', TABLE_SIZE, 2, TABLE_SIZE_MAX, path);
    if (!isPrime(size)) throw new ConfigError(`${path}.tableSize`, `must be a prime number, received ${size}`);
    return (endpoints, random) => {
      const members = endpoints.filter((endpoint) => endpoint.weight > 0);
      if (members.length < 2) return () => members[0];
      const table = buildTable(members, size);
      const high = { high: 0, low: 0 };
      return (request) => {
        const hash = request.info.hash;
        if (hash === undefined) return members[table[below(random, size)]!];
        high.high = Number(hash >> 32n);
        high.low = Number(hash & 0xffffffffn);
        let at = hashModulo(high, size);
        const tried = request.info.triedEndpoints;
        if (tried !== undefined)
          for (let steps = 0; steps < size && tried.includes(members[table[at]!]!); steps++) at = at + 1 === size ? 0 : at + 1;
        return members[table[at]!];
      };
    };
  },
};

/** Members take turns at their own permutation of the table; one with a smaller weight skips rounds. */
function buildTable(members: readonly Endpoint[], size: number): Int32Array {
  const weightMax = Math.max(...members.map((member) => member.weight));
  // The order of members decides ties, so it must not depend on the order they were sent in.
  const build = members
    .map((member, index) => {
      const key = hashKey(member);
      return {
        index,
        key,
        weight: member.weight,
        at: hashModulo(xxHash64(key), size),
        skip: hashModulo(xxHash64(key, 1), size - 1) + 1,
        target: 0,
      };
    })
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
  const table = new Int32Array(size).fill(-1);
  let filled = 0;
  for (let round = 1; filled < size; round++) {
    for (const member of build) {
      if (round * member.weight < member.target) continue;
      member.target += weightMax;
      while (table[member.at] !== -1) member.at = (member.at + member.skip) % size;
      table[member.at] = member.index;
      member.at = (member.at + member.skip) % size;
      if (++filled === size) break;
    }
  }
  return table;
}

function isPrime(value: number): boolean {
  for (let divisor = 2; divisor * divisor <= value; divisor++) if (value % divisor === 0) return false;
  return value > 1;
}
