/** Paths in one form: what routing, authorisation and the upstream see is the same string, made once. */
import { bad } from './fields.ts';
import { HEX, UNRESERVED } from './chars.ts';

/** The HTTP connection manager's fields of the same names. */
export interface PathSettings {
  readonly normalizePath: boolean;
  readonly mergeSlashes: boolean;
  readonly pathWithEscapedSlashes: 'KEEP_UNCHANGED' | 'REJECT_REQUEST' | 'UNESCAPE_AND_REDIRECT' | 'UNESCAPE_AND_FORWARD';
}

const SLASH = 0x2f;
const DOT = 0x2e;
const PERCENT = 0x25;
const QUESTION = 0x3f;

/** Set by the last call of `normalisedPath`: escaped slashes were unescaped and the settings ask for a redirect to the result. */
export let redirectWanted = false;

/**
 * The one form of a path with its query: escaped slashes as the settings say, then RFC 3986 section 6.2.2 (unreserved characters
 * decoded, dot segments removed), then slashes merged; the query stays as it is. `path` starts with `/` and holds only target
 * characters. Throws `badRequest` for broken percent-encoding, `%00`, escaped slashes that are refused, and `..;` segments.
 */
export function normalisedPath(path: string, settings: PathSettings): string {
  redirectWanted = false;
  const length = path.length;
  let queryAt = length;
  let previous = 0;
  let plain = true;
  for (let i = 0; i < length; i++) {
    const code = path.charCodeAt(i);
    if (code === QUESTION) {
      queryAt = i;
      break;
    }
    if (code === PERCENT || (previous === SLASH && (code === DOT || code === SLASH))) plain = false;
    previous = code;
  }
  if (queryAt !== length) checkPercents(path, queryAt);
  if (plain) return path;
  let route = queryAt === length ? path : path.slice(0, queryAt);
  route = decoded(route, settings);
  if (settings.normalizePath) route = withoutDotSegments(route);
  if (settings.mergeSlashes) route = merged(route);
  return queryAt === length ? route : route + path.slice(queryAt);
}

function checkPercents(path: string, from: number): void {
  for (let i = path.indexOf('%', from); i !== -1; i = path.indexOf('%', i + 1)) byteAt(path, i);
}

/** The byte that the percent-encoding at `i` stands for. */
function byteAt(path: string, i: number): number {
  const high = HEX[path.charCodeAt(i + 1)] ?? 255;
  const low = HEX[path.charCodeAt(i + 2)] ?? 255;
  if (high === 255 || low === 255) throw bad('The path has a percent sign without two hexadecimal digits.');
  if (high === 0 && low === 0) throw bad('The path has an encoded NUL.');
  return high * 16 + low;
}

function decoded(path: string, settings: PathSettings): string {
  let out = '';
  let from = 0;
  for (let i = path.indexOf('%'); i !== -1; i = path.indexOf('%', i + 1)) {
    const byte = byteAt(path, i);
    if (byte === SLASH || byte === 0x5c) {
      if (settings.pathWithEscapedSlashes === 'REJECT_REQUEST') throw bad('The path has an escaped slash.');
      if (settings.pathWithEscapedSlashes === 'KEEP_UNCHANGED') continue;
      if (settings.pathWithEscapedSlashes === 'UNESCAPE_AND_REDIRECT') redirectWanted = true;
      out += `${path.slice(from, i)}/`;
      from = i + 3;
    } else if (settings.normalizePath && UNRESERVED[byte] === 1) {
      out += path.slice(from, i) + String.fromCharCode(byte);
      from = i + 3;
    }
  }
  return from === 0 ? path : out + path.slice(from);
}

/** RFC 3986 section 5.2.4 for a path that starts with a slash. */
function withoutDotSegments(path: string): string {
  if (!path.includes('/.')) return path;
  const kept: string[] = [];
  const segments = path.split('/');
  const last = segments.length - 1;
  for (let i = 1; i <= last; i++) {
    const segment = segments[i]!;
    if (segment.startsWith('..;') || segment.startsWith('.;')) throw bad('The path has a dot segment with a parameter.');
    if (segment === '..') kept.pop();
    else if (segment !== '.') kept.push(segment);
    if (i === last && (segment === '.' || segment === '..')) kept.push('');
  }
  return `/${kept.join('/')}`;
}

function merged(path: string): string {
  if (!path.includes('//')) return path;
  let out = '';
  let from = 0;
  for (let i = 1; i < path.length; i++) {
    if (path.charCodeAt(i) === SLASH && path.charCodeAt(i - 1) === SLASH) {
      out += path.slice(from, i);
      while (path.charCodeAt(i) === SLASH) i++;
      from = i;
    }
  }
  return out + path.slice(from);
}
