/** Route tables: the first match in list order, found by maps where the list allows it and by a walk where it does not. */
import { compilePattern } from './match.ts';
import type { RequestTest } from './match.ts';
import type { RouteMatch } from '../../xds/snapshot.ts';
import type { ProxyRequest } from '../service.ts';

/** One route as the tables see it. */
export interface Entry<T> {
  readonly path: RouteMatch['path'];
  readonly caseSensitive: boolean;
  /** Undefined = the path decides alone. */
  readonly conditions: RequestTest | undefined;
  readonly value: T;
  /** Place in the configuration, for errors. */
  readonly where: string;
}

/** Answers the first entry that matches. `path` is the request's without query and fragment. */
export type Find<T> = (request: ProxyRequest, path: string) => T | undefined;

/** Runs of literal paths shorter than this are walked: a map would cost more. */
const RUN_MIN = 6;

/** Compiles a list. Consecutive entries with literal, case-sensitive paths become one table; the others are tried one by one. */
export function compileTable<T>(entries: readonly Entry<T>[]): Find<T> {
  const steps: Find<T>[] = [];
  let run: Entry<T>[] = [];
  const close = (): void => {
    if (run.length >= RUN_MIN) steps.push(literalRun(run));
    else for (const entry of run) steps.push(single(entry));
    run = [];
  };
  for (const entry of entries) {
    if (entry.caseSensitive && (entry.path.kind === 'exact' || entry.path.kind === 'prefix' || entry.path.kind === 'segmentPrefix'))
      run.push(entry);
    else {
      close();
      steps.push(single(entry));
    }
  }
  close();
  const [only] = steps;
  if (steps.length === 1 && only !== undefined) return only;
  return (request, requestPath) => {
    for (const step of steps) {
      const found = step(request, requestPath);
      if (found !== undefined) return found;
    }
    return undefined;
  };
}

function single<T>(entry: Entry<T>): Find<T> {
  const { conditions, value } = entry;
  const test = pathTest(entry);
  return (request, requestPath) => (test(requestPath, request) && (conditions === undefined || conditions(request)) ? value : undefined);
}

function pathTest<T>({ path: matched, caseSensitive, where }: Entry<T>): (path: string, request: ProxyRequest) => boolean {
  if (matched.kind === 'connect') return (_path, request) => request.upgrade === 'connect';
  if (matched.kind === 'regex') {
    const regex = compilePattern(matched.value, where);
    return (path) => regex.matches(path);
  }
  const wanted = caseSensitive ? matched.value : matched.value.toLowerCase();
  const literal = literalTest(matched.kind, wanted);
  return caseSensitive ? literal : (path) => literal(path.toLowerCase());
}

function literalTest(kind: 'exact' | 'prefix' | 'segmentPrefix', wanted: string): (path: string) => boolean {
  if (kind === 'exact') return (path) => path === wanted;
  if (kind === 'prefix') return wanted === '/' ? (path) => path.charCodeAt(0) === 47 : (path) => path.startsWith(wanted);
  return (path) => path.startsWith(wanted) && (path.length === wanted.length || path.charCodeAt(wanted.length) === 47);
}

interface Ranked<T> {
  readonly rank: number;
  readonly entry: Entry<T>;
}

/**
 * Many literal paths at once: one look-up for exact ones and one per prefix length in use; of all that match, the first in the list wins, so the
 * order means what it meant.
 */
function literalRun<T>(entries: readonly Entry<T>[]): Find<T> {
  const exact = new Map<string, Ranked<T>[]>();
  const prefixes = new Map<number, Map<string, Ranked<T>[]>>();
  entries.forEach((entry, rank) => {
    const value =
      entry.path.kind === 'exact' || entry.path.kind === 'prefix' || entry.path.kind === 'segmentPrefix' ? entry.path.value : '';
    let map = exact;
    if (entry.path.kind !== 'exact') {
      map = prefixes.get(value.length) ?? new Map<string, Ranked<T>[]>();
      prefixes.set(value.length, map);
    }
    const known = map.get(value);
    if (known === undefined) map.set(value, [{ rank, entry }]);
    else known.push({ rank, entry });
  });
  const byLength = [...prefixes].sort(([a], [b]) => b - a);
  return (request, path) => {
    let best = firstOf(exact.get(path), request, path, undefined);
    for (const [length, map] of byLength) {
      if (length > path.length) continue;
      best = firstOf(map.get(length === path.length ? path : path.slice(0, length)), request, path, best);
    }
    return best?.entry.value;
  };
}

function firstOf<T>(
  ranked: readonly Ranked<T>[] | undefined,
  request: ProxyRequest,
  path: string,
  best: Ranked<T> | undefined,
): Ranked<T> | undefined {
  if (ranked === undefined) return best;
  for (const candidate of ranked) {
    if (best !== undefined && candidate.rank > best.rank) return best;
    const { entry } = candidate;
    if (entry.path.kind === 'segmentPrefix') {
      const { length } = entry.path.value;
      if (path.length !== length && path.charCodeAt(length) !== 47) continue;
    }
    if (entry.conditions === undefined || entry.conditions(request)) return candidate;
  }
  return best;
}

/** Authorities in Envoy's order: exact, the longest suffix (`*.example.com`), the longest prefix (`api.*`), then `*`. */
export function compileAuthorities<T>(
  domains: readonly { readonly domain: string; readonly value: T }[],
  ignorePort: boolean,
): (authority: string) => T | undefined {
  const exact = new Map<string, T>();
  const suffixes = new Map<number, Map<string, T>>();
  const prefixes = new Map<number, Map<string, T>>();
  const keep = (maps: Map<number, Map<string, T>>, text: string, value: T): void => {
    const map = maps.get(text.length) ?? new Map<string, T>();
    maps.set(text.length, map);
    if (!map.has(text)) map.set(text, value);
  };
  let any: T | undefined;
  for (const { domain, value } of domains) {
    const lower = domain.toLowerCase();
    if (lower === '*') any ??= value;
    else if (lower.startsWith('*')) keep(suffixes, lower.slice(1), value);
    else if (lower.endsWith('*')) keep(prefixes, lower.slice(0, -1), value);
    else if (!exact.has(lower)) exact.set(lower, value);
  }
  const longestFirst = (maps: Map<number, Map<string, T>>): [number, Map<string, T>][] => [...maps].sort(([a], [b]) => b - a);
  const bySuffix = longestFirst(suffixes);
  const byPrefix = longestFirst(prefixes);
  const look = (authority: string): T | undefined => {
    const host = ignorePort ? withoutPort(authority) : authority;
    const known = exact.get(host);
    if (known !== undefined) return known;
    const lower = host.toLowerCase();
    const found = lower === host ? undefined : exact.get(lower);
    if (found !== undefined) return found;
    // A wildcard stands for at least one character.
    for (const [length, map] of bySuffix) {
      const value = lower.length > length ? map.get(lower.slice(-length)) : undefined;
      if (value !== undefined) return value;
    }
    for (const [length, map] of byPrefix) {
      const value = lower.length > length ? map.get(lower.slice(0, length)) : undefined;
      if (value !== undefined) return value;
    }
    return any;
  };
  // Requests come in runs for one host; comparing two short texts costs less than the hash of a new one.
  let lastAuthority: string | undefined;
  let last: T | undefined;
  return (authority) => {
    if (authority !== lastAuthority) {
      last = look(authority);
      lastAuthority = authority;
    }
    return last;
  };
}

function withoutPort(authority: string): string {
  const colon = authority.lastIndexOf(':');
  if (colon === -1 || authority.charCodeAt(authority.length - 1) === 93) return authority;
  for (let i = colon + 1; i < authority.length; i++) {
    const code = authority.charCodeAt(i);
    if (code < 48 || code > 57) return authority;
  }
  return authority.slice(0, colon);
}
