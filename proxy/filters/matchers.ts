/** Matchers out of a filter's JSON (StringMatcher, HeaderMatcher, PathMatcher), compiled into predicates. */
import { compileRegex } from '../../lib/regex.ts';
import { ConfigError } from '../errors.ts';
import type { ConfigReader } from './config.ts';
import type { ProxyRequest } from '../service.ts';

export type TextTest = (text: string) => boolean;
export type RequestTest = (request: ProxyRequest) => boolean;

/** envoy.type.matcher.v3.StringMatcher. */
export function compileStringMatcher(reader: ConfigReader): TextTest {
  const ignoreCase = reader.boolean('ignoreCase');
  const fold = (text: string): string => (ignoreCase ? text.toLowerCase() : text);
  if (reader.has('exact')) return compare(fold(reader.string('exact')), ignoreCase, (text, wanted) => text === wanted);
  if (reader.has('prefix')) return compare(fold(reader.string('prefix')), ignoreCase, (text, wanted) => text.startsWith(wanted));
  if (reader.has('suffix')) return compare(fold(reader.string('suffix')), ignoreCase, (text, wanted) => text.endsWith(wanted));
  if (reader.has('contains')) return compare(fold(reader.string('contains')), ignoreCase, (text, wanted) => text.includes(wanted));
  if (reader.has('safeRegex')) return compileRegexMatcher(reader, 'safeRegex');
  return reader.fail('', 'must have one of exact, prefix, suffix, contains, safe_regex');
}

/**
 * envoy.config.route.v3.HeaderMatcher, the older one-field forms included. Several fields of one name are matched as one, joined by commas;
 * `refuses`: a match is held against the request, so one of the values alone suffices, and nobody hides `admin` behind `user`; where the
 * matcher is inverted, it is the other way round. Default false.
 */
export function compileHeaderMatcher(reader: ConfigReader, refuses = false): RequestTest {
  const name = reader.string('name').toLowerCase();
  if (name === '') reader.fail('name', 'must name a header');
  const invert = reader.boolean('invertMatch');
  const emptyWhenMissing = reader.boolean('treatMissingHeaderAsEmpty');
  if (reader.has('presentMatch') || !VALUE_FORMS.some((form) => reader.has(form))) {
    const present = reader.boolean('presentMatch', true) !== invert;
    return (request) => (headerValue(request, name) !== undefined) === present;
  }
  const test = compileValueForm(reader);
  const separately = refuses !== invert;
  return (request) => {
    const value = headerValue(request, name) ?? (emptyWhenMissing ? '' : undefined);
    // Envoy: a missing header never matches, inverted or not, unless it is treated as empty; inverted presence is the exception above.
    if (value === undefined) return false;
    return (test(value) || (separately && someValue(request, name, test))) !== invert;
  };
}

function someValue(request: ProxyRequest, name: string, test: TextTest): boolean {
  const fields = request.headers.fields;
  for (let i = 1; i < fields.length; i += 3) if (fields[i] === name && test(fields[i + 1]!)) return true;
  return false;
}

/** envoy.type.matcher.v3.PathMatcher: the path without its query. */
export function compilePathMatcher(reader: ConfigReader): RequestTest {
  const inner = reader.object('path') ?? reader.fail('path', 'must be a string matcher');
  const test = compileStringMatcher(inner);
  return (request) => test(pathOnly(request.path));
}

export function pathOnly(path: string): string {
  const end = path.search(/[?#]/);
  return end === -1 ? path : path.slice(0, end);
}

/** A header by lower-case name; the pseudo-headers and Host work too. */
export function headerValue(request: ProxyRequest, name: string): string | undefined {
  switch (name) {
    case ':method':
      return request.method;
    case ':path':
      return request.path;
    case ':authority':
    case 'host':
      return request.authority;
    case ':scheme':
      return request.scheme;
    default:
      return request.headers.joined(name);
  }
}

const VALUE_FORMS = ['exactMatch', 'safeRegexMatch', 'rangeMatch', 'prefixMatch', 'suffixMatch', 'containsMatch', 'stringMatch'] as const;

function compileValueForm(reader: ConfigReader): TextTest {
  const stringMatch = reader.object('stringMatch');
  if (stringMatch !== undefined) return compileStringMatcher(stringMatch);
  if (reader.has('safeRegexMatch')) return compileRegexMatcher(reader, 'safeRegexMatch');
  const range = reader.object('rangeMatch');
  if (range !== undefined) {
    const start = range.number('start', 0);
    const end = range.number('end', 0);
    return (value) => /^-?\d{1,19}$/.test(value) && Number(value) >= start && Number(value) < end;
  }
  if (reader.has('exactMatch')) return compare(reader.string('exactMatch'), false, (text, wanted) => text === wanted);
  if (reader.has('prefixMatch')) return compare(reader.string('prefixMatch'), false, (text, wanted) => text.startsWith(wanted));
  if (reader.has('suffixMatch')) return compare(reader.string('suffixMatch'), false, (text, wanted) => text.endsWith(wanted));
  return compare(reader.string('containsMatch'), false, (text, wanted) => text.includes(wanted));
}

function compileRegexMatcher(reader: ConfigReader, field: string): TextTest {
  const inner = reader.object(field);
  const pattern = inner?.string('regex') ?? '';
  try {
    const regex = compileRegex(pattern);
    return (text) => regex.matches(text);
  } catch (error) {
    throw new ConfigError(`${reader.path}.${field}.regex`, error instanceof Error ? error.message : String(error));
  }
}

function compare(wanted: string, ignoreCase: boolean, test: (text: string, wanted: string) => boolean): TextTest {
  return ignoreCase ? (text) => test(text.toLowerCase(), wanted) : (text) => test(text, wanted);
}
