/**
 * Matching of strings and of certificate names: `compileStringMatch(match, path)` and `compileSanMatches(matches, path)` turn Envoy's
 * StringMatcher and SubjectAltNameMatcher into predicates, once per configuration. Names are compared as the bytes of the certificate.
 */
import type { San } from '../../certs/certificate.ts';
import { ipBytes } from '../../certs/ip.ts';
import { compileRegex } from '../../lib/regex.ts';
import type { SanMatch, StringMatch } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';

/** True when one of the names fits one of the matchers. */
export type SanTest = (sans: readonly San[]) => boolean;

/** A predicate for one StringMatch. Throws `ConfigError` for a pattern that is not RE2. */
export function compileStringMatch(match: StringMatch, path: string): (text: string) => boolean {
  if (match.kind === 'regex') {
    try {
      const regex = compileRegex(match.value);
      return (text) => regex.matches(text);
    } catch (error) {
      throw new ConfigError(path, error instanceof Error ? error.message : String(error));
    }
  }
  const compare = COMPARE[match.kind];
  if (!match.ignoreCase) return (text) => compare(text, match.value);
  const wanted = match.value.toLowerCase();
  return (text) => compare(text.toLowerCase(), wanted);
}

/** A predicate for a list of matchers; undefined when the list is empty, which means that names are not asked about. */
export function compileSanMatches(matches: readonly SanMatch[], path: string): SanTest | undefined {
  if (matches.length === 0) return undefined;
  const tests = matches.map((match, index) => compileSanMatch(match, `${path}[${index}]`));
  return (sans) => sans.some((san) => tests.some((test) => test(san)));
}

/** True when a certificate names the server that was asked for: an exact URI, a DNS name (one leading wildcard label allowed) or an IP address. */
export function namesServer(sans: readonly San[], expected: string): boolean {
  return sans.some((san) => {
    if (san.type === 'IP_ADDRESS') return equalsAddress(san, expected);
    const text = sanText(san);
    if (text === undefined) return false;
    return san.type === 'DNS' ? dnsNameFits(text, expected) : san.type === 'URI' && text === expected;
  });
}

/** A name as text, or undefined when it holds any byte outside printable ASCII: such a name fits nothing. */
export function sanText(san: San): string | undefined {
  const { bytes } = san;
  if (bytes.length === 0 || san.type === 'OTHER' || san.type === 'IP_ADDRESS') return undefined;
  for (const byte of bytes) if (byte < 0x21 || byte > 0x7e) return undefined;
  return bytes.toString('latin1');
}

const COMPARE = {
  exact: (text: string, wanted: string) => text === wanted,
  prefix: (text: string, wanted: string) => text.startsWith(wanted),
  suffix: (text: string, wanted: string) => text.endsWith(wanted),
  contains: (text: string, wanted: string) => text.includes(wanted),
} as const;

function compileSanMatch(match: SanMatch, path: string): (san: San) => boolean {
  const test = compileStringMatch(match.match, path);
  const exact = match.match.kind === 'exact' ? match.match.value : undefined;
  return (san) => {
    if (match.type !== 'ANY' && san.type !== match.type) return false;
    if (san.type === 'IP_ADDRESS') return exact !== undefined ? equalsAddress(san, exact) : test(addressText(san));
    const text = sanText(san);
    if (text === undefined) return false;
    // A certificate for *.example.com is one for a.example.com, as Envoy has it for exact DNS matchers.
    return san.type === 'DNS' && exact !== undefined ? test(text) || dnsNameFits(text, exact) : test(text);
  };
}

/** RFC 6125 section 6.4.3: the wildcard is a whole leftmost label and stands for one label. */
function dnsNameFits(pattern: string, name: string): boolean {
  const [wanted, there] = [name.toLowerCase(), pattern.toLowerCase()];
  if (!there.startsWith('*.')) return there === wanted;
  const dot = wanted.indexOf('.');
  return dot > 0 && there.slice(1) === wanted.slice(dot) && there.indexOf('.', 2) !== -1;
}

function equalsAddress(san: San, address: string): boolean {
  try {
    return san.bytes.equals(ipBytes(address));
  } catch {
    // Not an address at all, so it is not this one.
    return false;
  }
}

function addressText(san: San): string {
  const { bytes } = san;
  if (bytes.length === 4) return [...bytes].join('.');
  if (bytes.length !== 16) return '';
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  return new URL(`http://[${groups.join(':')}]/`).hostname.slice(1, -1);
}
