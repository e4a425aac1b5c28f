/** JSON that means the same to everyone: read without the YAML reader, which takes 8 MiB and most of a start's time. */
import type { Json } from '../snapshot.ts';

/** A string, or a character that opens, closes or divides. Numbers and words are between them. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/gs;

/** Undefined for what is no JSON object, and for what a YAML reader reads otherwise: a key that comes twice, or a merge key. */
export function readPlainJson(text: string): { readonly json: Json } | undefined {
  if (!/^\s*\{/.test(text)) return undefined;
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch {
    // Not JSON; the other reader says what is wrong, and where.
    return undefined;
  }
  return hasPlainKeys(text) ? { json } : undefined;
}

/** Whether no object of a valid JSON text has a key twice or a key that YAML merges. */
function hasPlainKeys(text: string): boolean {
  const open: (Set<string> | undefined)[] = [];
  let last = '';
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(undefined);
    else if (token === '}' || token === ']') open.pop();
    else if (token === ':') {
      const keys = open.at(-1)!;
      const key = JSON.parse(last) as string;
      if (key === '<<' || keys.has(key)) return false;
      keys.add(key);
    }
    last = token;
  }
  return true;
}
