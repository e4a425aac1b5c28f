/** YAML and JSON files with the line and column of every field, so that an error can point at the place. */
import type { Node } from 'yaml';
import { yaml } from '../../lib/on-demand.ts';
import { readPlainJson } from './plain-json.ts';
import type { Json } from '../snapshot.ts';
import { DecodeError } from './decoding.ts';

export type TextFormat = 'yaml' | 'json';

export interface ConfigText {
  readonly json: Json;
  /** `file:line:column` of the field at this path (in the names of the protos), or of the nearest one around it. */
  readonly where: (path: string) => string;
}

/** More than Envoy's largest examples by far; a bound for what a mistaken path can make us read. */
const CHARACTERS_MAX = 64 * 1024 * 1024;

/** By the file's extension, as Envoy chooses; throws for formats that are not supported. */
export function formatOf(file: string): TextFormat {
  if (/\.ya?ml$/i.test(file)) return 'yaml';
  if (/\.json$/i.test(file)) return 'json';
  throw new DecodeError('', '', 'the file name must end in .yaml, .yml or .json', file);
}

/** Merge keys (`<<`) are resolved and duplicate keys refused. Throws DecodeError with file, line and column. */
export function parseConfigText(text: string, format: TextFormat, file: string): ConfigText {
  if (text.length > CHARACTERS_MAX)
    throw new DecodeError('', '', `takes at most ${CHARACTERS_MAX} characters, received ${text.length}`, file);
  if (format === 'json') requireJson(text, file);
  const plain = readPlainJson(text);
  if (plain === undefined) return readYaml(text, file);
  // Places are asked for when something is wrong, and only the other reader knows them.
  return { json: plain.json, where: (path) => readYaml(text, file).where(path) };
}

/** JSON is YAML, so this reads both. */
function readYaml(text: string, file: string): ConfigText {
  const { LineCounter, parseDocument } = yaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { merge: true, uniqueKeys: true, lineCounter: lines, prettyErrors: false, version: '1.2' });
  const position = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const [problem] = document.errors;
  if (problem !== undefined) {
    const [line = ''] = problem.message.split('\n');
    throw new DecodeError(
      '',
      '',
      problem.code === 'DUPLICATE_KEY' ? `a key must not be given twice: ${keyAt(text, problem.pos)}` : line,
      position(problem.pos[0]),
    );
  }
  const root = document.contents as Node | null;
  return {
    json: toJson(() => document.toJS({ maxAliasCount: 1_000 }) as Json, file),
    where: (path) => position(nearest(root, path)?.range?.[0] ?? 0),
  };
}

function keyAt(text: string, [from]: readonly [number, number]): string {
  return /^[^\s:]{1,100}/.exec(text.slice(from))?.[0] ?? '';
}

/** YAML reads more than JSON; a .json file is held to JSON. */
function requireJson(text: string, file: string): void {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new DecodeError('', '', error instanceof Error ? error.message : String(error), file);
  }
}

function toJson(read: () => Json, file: string): Json {
  try {
    return read();
  } catch (error) {
    // Aliases that grow without end, for one.
    throw new DecodeError('', '', error instanceof Error ? error.message : String(error), file);
  }
}

/** Walks as far down the path as the document goes. A single value may stand where the path has an index. */
function nearest(root: Node | null, path: string): Node | null {
  const { isMap, isSeq } = yaml();
  let node = root;
  let rest = path;
  while (node !== null && rest !== '') {
    const index = /^\[(\d+)\]\.?/.exec(rest);
    if (index !== null) {
      rest = rest.slice(index[0].length);
      if (!isSeq(node)) continue;
      const item = node.items[Number(index[1])] as Node | undefined;
      if (item === undefined) return node;
      node = item;
      continue;
    }
    if (!isMap(node)) return node;
    const step = childOf(node, rest);
    if (step === undefined) return node;
    node = step.node ?? node;
    rest = rest.slice(step.length).replace(/^\./, '');
  }
  return node;
}

/** The entry whose key begins the path; the longest, since map keys can have dots in them. */
function childOf(
  map: { items: readonly { key: unknown; value: unknown }[] },
  path: string,
): { node: Node | null; length: number } | undefined {
  const { isScalar } = yaml();
  let best: { node: Node | null; length: number } | undefined;
  for (const { key, value } of map.items) {
    const text = isScalar(key) ? String(key.value) : '';
    for (const name of new Set([text, snakeCase(text)])) {
      const next = path[name.length];
      if (name === '' || !path.startsWith(name) || (next !== undefined && next !== '.' && next !== '[')) continue;
      if (best === undefined || name.length > best.length) best = { node: (value ?? key) as Node | null, length: name.length };
    }
  }
  return best;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
