/** Regular expressions from configuration: RE2 syntax, linear time whatever the input, compiled once (Envoy's RegexMatcher). */
import type { RE2JS } from 're2js';
import { re2 } from './on-demand.ts';

/** Longest pattern that is taken, in UTF-16 units. Envoy bounds the compiled program; a length bound is what operators can predict. */
export const PATTERN_LENGTH_MAX = 1024;

/** A compiled pattern. Both calls take time linear in the input. */
export interface Regex {
  readonly pattern: string;
  /** True when the whole input matches, as xDS means it everywhere. */
  matches(input: string): boolean;
  /** Replaces every match; `substitution` names groups as `\1` and the whole match as `\0` (Envoy's RegexMatchAndSubstitute). */
  replaceAll(input: string, substitution: string): string;
}

/** Compiles a pattern. Throws an `Error` that says what is wrong with it; look-around and back-references do not exist in RE2. */
export function compileRegex(pattern: string): Regex {
  if (pattern.length > PATTERN_LENGTH_MAX) {
    throw new Error(`a pattern has at most ${PATTERN_LENGTH_MAX} characters, received ${pattern.length}`);
  }
  let compiled: RE2JS;
  try {
    compiled = re2().RE2JS.compile(pattern);
  } catch (error) {
    throw new Error(`${JSON.stringify(pattern)} is not an RE2 pattern: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  return {
    pattern,
    matches: (input) => compiled.testExact(input),
    replaceAll: (input, substitution) => {
      const parts = substitutionParts(substitution);
      return compiled.matcher(input).replaceAll((...groups: unknown[]) => {
        let text = '';
        for (const part of parts) text += typeof part === 'string' ? part : typeof groups[part] === 'string' ? groups[part] : '';
        return text;
      });
    },
  };
}

/** Literal text and group numbers of a substitution: `\1` is a group, `\\` a backslash, all else literal. */
function substitutionParts(substitution: string): (string | number)[] {
  const parts: (string | number)[] = [];
  for (const piece of substitution.split(/(\\[0-9\\])/)) {
    if (piece === '') continue;
    parts.push(piece.length === 2 && piece[0] === '\\' ? (piece[1] === '\\' ? '\\' : Number(piece[1])) : piece);
  }
  return parts;
}
