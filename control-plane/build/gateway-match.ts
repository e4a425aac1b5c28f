/** Gateway API matches as xDS matches, and the order in which they are tried. */
import type { GrpcRouteMatch } from '../kinds/grpc-route.ts';
import type { HttpRouteMatch } from '../kinds/http-route.ts';
import type { HeaderMatch, RouteMatch, ValueMatch } from '../../xds/snapshot.ts';

const ANY_PATH = { kind: 'prefix', value: '/' } as const;

/** A rule without matches takes every request. */
export const MATCH_ALL: RouteMatch = {
  path: ANY_PATH,
  caseSensitive: true,
  headers: [],
  queryParameters: [],
  runtimeFraction: 1,
  grpcOnly: false,
};

export function httpMatch(match: HttpRouteMatch): RouteMatch {
  const headers = headerMatches(match.headers ?? []);
  if (match.method !== undefined) headers.push(exact(':method', match.method));
  // Of several matches on one name only the first counts (HTTPRouteMatch.headers, .queryParams).
  const queries = firstOfEach(match.queryParams ?? [], (query) => query.name);
  return {
    ...MATCH_ALL,
    path: pathOf(match.path),
    headers,
    queryParameters: queries.map((query) => ({ name: query.name, match: valueMatch(query.type, query.value) })),
  };
}

export function grpcMatch(match: GrpcRouteMatch): RouteMatch {
  return { ...MATCH_ALL, path: grpcPath(match.method), headers: headerMatches(match.headers ?? []), grpcOnly: true };
}

/**
 * Negative when `left` is tried first: exact paths, then prefixes from long to short, then regular expressions from long to short, then what takes
 * every path; among equals a match on the method, then more headers, then more query parameters (HTTPRouteRule.matches; acceptance rule R1).
 * The Gateway API leaves the place of regular expressions open: before the prefix "/", since after it none would ever match.
 */
export function byPrecedence(left: RouteMatch, right: RouteMatch): number {
  return (
    rankOf(left) - rankOf(right) ||
    pathLength(right) - pathLength(left) ||
    Number(hasMethod(right)) - Number(hasMethod(left)) ||
    headerCount(right) - headerCount(left) ||
    right.queryParameters.length - left.queryParameters.length
  );
}

const RANKS = { exact: 0, segmentPrefix: 1, prefix: 1, regex: 2, connect: 4 } as const;
const EVERY_PATH_RANK = 3;
const rankOf = (match: RouteMatch): number =>
  match.path.kind === 'prefix' && match.path.value === '/' ? EVERY_PATH_RANK : RANKS[match.path.kind];
const pathLength = (match: RouteMatch): number => (match.path.kind === 'connect' ? 0 : match.path.value.length);
const hasMethod = (match: RouteMatch): boolean => match.headers.some((header) => header.name === ':method');
const headerCount = (match: RouteMatch): number => match.headers.length - Number(hasMethod(match));

function pathOf(path: HttpRouteMatch['path']): RouteMatch['path'] {
  const value = path?.value ?? '/';
  switch (path?.type ?? 'PathPrefix') {
    case 'Exact':
      return { kind: 'exact', value };
    case 'RegularExpression':
      return { kind: 'regex', value };
    case 'PathPrefix': {
      // A prefix ends at a segment's border, and a slash at its end says nothing more.
      const trimmed = value.replace(/\/+$/, '');
      return trimmed === '' ? ANY_PATH : { kind: 'segmentPrefix', value: trimmed };
    }
  }
}

function grpcPath(method: GrpcRouteMatch['method']): RouteMatch['path'] {
  if (method === undefined) return ANY_PATH;
  const { service, method: name } = method;
  if (method.type === 'RegularExpression') return { kind: 'regex', value: `/${service ?? '[^/]+'}/${name ?? '[^/]+'}` };
  if (service !== undefined && name !== undefined) return { kind: 'exact', value: `/${service}/${name}` };
  if (service !== undefined) return { kind: 'prefix', value: `/${service}/` };
  return { kind: 'regex', value: `/[^/]+/${name!}` };
}

type NamedValue = { readonly type?: 'Exact' | 'RegularExpression' | undefined; readonly name: string; readonly value: string };

function headerMatches(matches: readonly NamedValue[]): HeaderMatch[] {
  return firstOfEach(matches, (match) => match.name.toLowerCase()).map((match) => ({
    name: match.name.toLowerCase(),
    match: valueMatch(match.type, match.value),
    invert: false,
    treatMissingAsEmpty: false,
  }));
}

const exact = (name: string, value: string): HeaderMatch => ({
  name,
  match: valueMatch('Exact', value),
  invert: false,
  treatMissingAsEmpty: false,
});

const valueMatch = (type: NamedValue['type'], value: string): ValueMatch =>
  type === 'RegularExpression' ? { kind: 'regex', value } : { kind: 'exact', value, ignoreCase: false };

function firstOfEach<T>(list: readonly T[], nameOf: (entry: T) => string): T[] {
  const seen = new Set<string>();
  return list.filter((entry) => {
    const name = nameOf(entry);
    if (seen.has(name)) return false;
    seen.add(name);
    return true;
  });
}
