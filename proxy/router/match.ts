/** Matches on values, headers and query parameters, compiled at push into predicates. */
import { compileRegex } from '../../lib/regex.ts';
import type { HeaderMatch, QueryMatch, RouteMatch, StringMatch, ValueMatch } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import { headerValue } from '../filters/matchers.ts';
import type { ProxyRequest } from '../service.ts';

export type RequestTest = (request: ProxyRequest) => boolean;

/** A pattern whose mistakes name the place they are at. */
export function compilePattern(pattern: string, path: string): ReturnType<typeof compileRegex> {
  try {
    return compileRegex(pattern);
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

export function compileStringMatch(match: StringMatch, path: string): (value: string) => boolean {
  if (match.kind === 'regex') {
    const regex = compilePattern(match.value, path);
    return (value) => regex.matches(value);
  }
  const wanted = match.ignoreCase ? match.value.toLowerCase() : match.value;
  const fold = match.ignoreCase ? (value: string) => value.toLowerCase() : (value: string) => value;
  switch (match.kind) {
    case 'exact':
      return (value) => fold(value) === wanted;
    case 'prefix':
      return (value) => fold(value).startsWith(wanted);
    case 'suffix':
      return (value) => fold(value).endsWith(wanted);
    case 'contains':
      return (value) => fold(value).includes(wanted);
  }
}

/** A match on a value that may be missing. */
function compileValueMatch(match: ValueMatch, path: string): (value: string | undefined) => boolean {
  switch (match.kind) {
    case 'present':
      return (value) => (value !== undefined) === match.present;
    case 'range':
      return (value) => value !== undefined && /^[+-]?\d{1,15}$/.test(value) && Number(value) >= match.start && Number(value) < match.end;
    default: {
      const test = compileStringMatch(match, path);
      return (value) => value !== undefined && test(value);
    }
  }
}

/** Envoy's header match on one value: a missing header never matches a value, inverted or not, unless it counts as empty. */
export function compileHeaderMatch(match: HeaderMatch, path: string): (value: string | undefined) => boolean {
  const test = compileValueMatch(match.match, path);
  if (match.match.kind === 'present') return (value) => test(value) !== match.invert;
  return (value) => {
    const found = value ?? (match.treatMissingAsEmpty ? '' : undefined);
    return found !== undefined && test(found) !== match.invert;
  };
}

/** Everything about a route's match but its path; undefined when there is nothing more to ask. */
export function compileConditions(match: RouteMatch, random: () => number, path: string): RequestTest | undefined {
  const tests: RequestTest[] = [];
  if (match.grpcOnly) tests.push(isGrpcRequest);
  match.headers.forEach((header, i) => tests.push(headerTest(header, `${path}.headers[${i}]`)));
  if (match.queryParameters.length > 0) tests.push(queryTest(match.queryParameters, path));
  // Chance comes last: it is drawn only for requests that match in everything else.
  if (match.runtimeFraction < 1) tests.push(() => random() < match.runtimeFraction);
  const [only] = tests;
  if (tests.length < 2) return only;
  return (request) => {
    for (const test of tests) if (!test(request)) return false;
    return true;
  };
}

function headerTest(header: HeaderMatch, path: string): RequestTest {
  const name = header.name.toLowerCase();
  const exact = header.match.kind === 'exact' && !header.match.ignoreCase && !header.invert ? header.match.value : undefined;
  if (name === ':method' && exact !== undefined) return (request) => request.method === exact;
  const test = compileHeaderMatch(header, path);
  return (request) => test(headerValue(request, name));
}

function queryTest(matches: readonly QueryMatch[], path: string): RequestTest {
  const tests = matches.map(({ name, match }, i) => ({ name, test: compileValueMatch(match, `${path}.query_parameters[${i}]`) }));
  return (request) => {
    const query = queryOf(request.path);
    for (const { name, test } of tests) if (!test(queryValue(query, name))) return false;
    return true;
  };
}

function queryOf(path: string): string {
  const start = path.indexOf('?');
  if (start === -1) return '';
  const end = path.indexOf('#', start);
  return path.slice(start + 1, end === -1 ? undefined : end);
}

/** The first value of a parameter, decoded; undefined when it is not there. A parameter without `=` has the empty value. */
export function queryValue(query: string, name: string): string | undefined {
  for (let at = 0; at < query.length;) {
    let end = query.indexOf('&', at);
    if (end === -1) end = query.length;
    const equals = query.indexOf('=', at);
    const split = equals === -1 || equals > end ? end : equals;
    if (decode(query.slice(at, split)) === name) return split === end ? '' : decode(query.slice(split + 1, end));
    at = end + 1;
  }
  return undefined;
}

function decode(text: string): string {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    // Not valid percent-encoding: it is compared as it came.
    return text;
  }
}

function isGrpcRequest(request: ProxyRequest): boolean {
  const type = request.headers.get('content-type');
  return type !== undefined && type.startsWith('application/grpc') && (type.length === 16 || type[16] === '+' || type[16] === ';');
}
