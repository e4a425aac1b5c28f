/** Chooses a listener's filter chain for a connection, by Envoy's order of criteria. */
import { ConfigError } from '../errors.ts';
import { inRange, isLoopback, parseIp, parseIpRange } from './ip.ts';
import type { IpNumber, IpRange } from './ip.ts';
import type { Cidr, FilterChainMatch } from '../../xds/snapshot.ts';

/** What is known of a connection before its first chain is chosen. */
export interface ConnectionFacts {
  readonly destinationAddress: string;
  readonly destinationPort: number;
  readonly sourceAddress: string;
  readonly sourcePort: number;
  /** `tls`, or `raw_buffer` when nothing else was detected. */
  readonly transportProtocol: string;
  /** Lower case; empty when the client named none. */
  readonly serverName: string;
  /** In the client's order. */
  readonly applicationProtocols: readonly string[];
}

/** Answers the index of the chain, -1 when none matches (the default chain then, or nothing). */
export type ChainChooser = (facts: ConnectionFacts) => number;

/** How well a chain meets one criterion: -1 not at all, 0 it does not care, more = more specific. */
type Score = (facts: ParsedFacts) => number;

interface ParsedFacts extends ConnectionFacts {
  readonly destinationIp: IpNumber | undefined;
  readonly sourceIp: IpNumber | undefined;
}

/**
 * Compiles the matches of one listener. Envoy's order: destination port, destination range, server name, transport protocol, application
 * protocols, direct source range, source type, source range, source port. At each step only the most specific chains stay, and there is no
 * way back: a chain that lost at one step is not considered again (config.listener.v3.FilterChainMatch). Throws when two chains match the same.
 */
export function compileChainMatch(matches: readonly FilterChainMatch[], path: string): ChainChooser {
  refuseDuplicates(matches, path);
  const chains = matches.map((match, index) => compileScores(match, `${path}.filter_chains[${index}].filter_chain_match`));
  if (chains.length === 1 && chains[0]!.every((score) => score === NO_MATTER)) return ALWAYS_FIRST;
  return (facts) => {
    const parsed: ParsedFacts = { ...facts, destinationIp: parseIp(facts.destinationAddress), sourceIp: parseIp(facts.sourceAddress) };
    let left = chains.map((_, index) => index);
    for (let step = 0; step < STEPS && left.length > 0; step++) {
      let best = 0;
      let kept: number[] = [];
      for (const index of left) {
        const score = chains[index]![step]!(parsed);
        if (score > best) {
          best = score;
          kept = [index];
        } else if (score === best) kept.push(index);
      }
      left = kept;
    }
    return left[0] ?? -1;
  };
}

/** Whether choosing needs what only the first bytes tell. */
export function needsInspection(matches: readonly FilterChainMatch[]): boolean {
  return matches.some(
    (match) =>
      (match.serverNames?.length ?? 0) > 0 || (match.transportProtocol ?? '') !== '' || (match.applicationProtocols?.length ?? 0) > 0,
  );
}

/** The chooser of a listener with one chain that takes everything. */
export const ALWAYS_FIRST: ChainChooser = () => 0;

const STEPS = 9;
const NO_MATTER: Score = () => 0;

function compileScores(match: FilterChainMatch, path: string): readonly Score[] {
  return [
    match.destinationPort === undefined ? NO_MATTER : (facts) => (facts.destinationPort === match.destinationPort ? 1 : -1),
    rangeScore(match.prefixRanges, `${path}.prefix_ranges`, (facts) => facts.destinationIp),
    serverNameScore(match.serverNames ?? [], `${path}.server_names`),
    match.transportProtocol === undefined || match.transportProtocol === ''
      ? NO_MATTER
      : (facts) => (facts.transportProtocol === match.transportProtocol ? 1 : -1),
    applicationProtocolScore(match.applicationProtocols ?? []),
    rangeScore(match.directSourcePrefixRanges, `${path}.direct_source_prefix_ranges`, (facts) => facts.sourceIp),
    sourceTypeScore(match.sourceType),
    rangeScore(match.sourcePrefixRanges, `${path}.source_prefix_ranges`, (facts) => facts.sourceIp),
    sourcePortScore(match.sourcePorts ?? []),
  ];
}

function rangeScore(ranges: readonly Cidr[] | undefined, path: string, ipOf: (facts: ParsedFacts) => IpNumber | undefined): Score {
  if (ranges === undefined || ranges.length === 0) return NO_MATTER;
  const parsed: IpRange[] = ranges.map((range, index) => {
    const value = parseIpRange(range.address, range.prefixLength);
    if (value !== undefined) return value;
    throw new ConfigError(`${path}[${index}]`, `must be an address and a prefix length, received ${range.address}/${range.prefixLength}`);
  });
  return (facts) => {
    const ip = ipOf(facts);
    if (ip === undefined) return -1;
    let best = -1;
    for (const range of parsed) if (inRange(ip, range)) best = Math.max(best, range.prefixLength + 1);
    return best;
  };
}

/** `a.b` exactly beats `*.b`; a longer suffix beats a shorter one. */
function serverNameScore(names: readonly string[], path: string): Score {
  if (names.length === 0) return NO_MATTER;
  const exact = new Set<string>();
  const suffixes: string[] = [];
  names.forEach((name, index) => {
    const lower = name.toLowerCase();
    if (lower.startsWith('*.') && !lower.slice(2).includes('*')) suffixes.push(lower.slice(1));
    else if (lower.includes('*') || lower === '')
      throw new ConfigError(
        `${path}[${index}]`,
        `takes a name or a whole-label wildcard such as "*.example.com", received ${JSON.stringify(name)}`,
      );
    else exact.add(lower);
  });
  return (facts) => {
    if (exact.has(facts.serverName)) return 1_000;
    let best = -1;
    for (const suffix of suffixes) if (facts.serverName.endsWith(suffix)) best = Math.max(best, suffix.length);
    return best;
  };
}

/** The client's order decides between chains that take different protocols. */
function applicationProtocolScore(protocols: readonly string[]): Score {
  if (protocols.length === 0) return NO_MATTER;
  const wanted = new Set(protocols);
  return (facts) => {
    const index = facts.applicationProtocols.findIndex((protocol) => wanted.has(protocol));
    return index === -1 ? -1 : facts.applicationProtocols.length - index;
  };
}

function sourceTypeScore(type: FilterChainMatch['sourceType']): Score {
  if (type === undefined) return NO_MATTER;
  return (facts) => {
    const local = facts.sourceAddress === facts.destinationAddress || (facts.sourceIp !== undefined && isLoopback(facts.sourceIp));
    return local === (type === 'SAME_IP_OR_LOOPBACK') ? 1 : -1;
  };
}

function sourcePortScore(ports: readonly number[]): Score {
  if (ports.length === 0) return NO_MATTER;
  const wanted = new Set(ports);
  return (facts) => (wanted.has(facts.sourcePort) ? 1 : -1);
}

function refuseDuplicates(matches: readonly FilterChainMatch[], path: string): void {
  const seen = new Map<string, number>();
  matches.forEach((match, index) => {
    const key = JSON.stringify(
      Object.entries(match)
        .filter(([, value]) => value !== undefined)
        .toSorted(([a], [b]) => (a < b ? -1 : 1)),
    );
    const first = seen.get(key);
    if (first !== undefined)
      throw new ConfigError(`${path}.filter_chains[${index}]`, `has the same filter_chain_match as filter_chains[${first}]: ${key}`);
    seen.set(key, index);
  });
}
