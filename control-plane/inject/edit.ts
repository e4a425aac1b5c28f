/** Text edits of YAML and JSON that leave every other byte alone: where a key or an item goes is read from the parsed ranges, the text is spliced. */
import { isMap, isScalar, isSeq, stringify, LineCounter, parseAllDocuments } from 'yaml';
import type { Document, Pair, ParsedNode, Scalar, YAMLMap, YAMLSeq } from 'yaml';

export type YamlDocument = Document.Parsed<ParsedNode>;
export type MapNode = YAMLMap.Parsed;
export type SeqNode = YAMLSeq.Parsed;

/** Collects insertions against one text; `apply` splices them all. Positions are offsets into the text as it was. */
export class TextEdit {
  readonly text: string;
  readonly #lineEnd: string;
  readonly #insertions: { offset: number; text: string }[] = [];

  constructor(text: string) {
    this.text = text;
    this.#lineEnd = text.includes('\r\n') ? '\r\n' : '\n';
  }

  get changed(): boolean {
    return this.#insertions.length > 0;
  }

  apply(): string {
    let result = '';
    let from = 0;
    // A stable sort: insertions at one place stay in the order in which they were made.
    for (const insertion of this.#insertions.toSorted((a, b) => a.offset - b.offset)) {
      result += this.text.slice(from, insertion.offset) + insertion.text;
      from = insertion.offset;
    }
    return result + this.text.slice(from);
  }

  /** Adds `key: value` to the map that is the value of `pair` (`spec:` …), as its first key. */
  addKeyBelow(pair: Pair<ParsedNode, ParsedNode | null>, key: string, value: unknown): void {
    const map = pair.value;
    if (map !== null && isMap(map)) this.addKey(map, key, value, pair);
    else throw new Error(`expected a mapping under ${String(pair.key)}`);
  }

  /** Adds `key: value` to a map: after the line of `after` when that is a plain one-line pair or the map's parent, else before the first key. */
  addKey(map: MapNode, key: string, value: unknown, after?: Pair<ParsedNode, ParsedNode | null>): void {
    if (map.flow === true) {
      const glue = map.items.length > 0 ? ', ' : '';
      this.#insert(map.range[0] + 1, `${JSON.stringify(key)}: ${JSON.stringify(value)}${glue}`);
      return;
    }
    const indent = this.#column(map.range[0]);
    const block = stringify({ [key]: value }, { lineWidth: 0 }).trimEnd();
    const anchor = after === undefined ? undefined : this.#endOfLine((after.key as ParsedNode).range[1]);
    if (anchor !== undefined && after !== undefined && this.#startsOwnLine(map, after))
      this.#insert(anchor, this.#lineEnd + this.#indented(block, indent));
    else this.#insert(map.range[0], this.#indented(block, indent).slice(indent) + this.#lineEnd + ' '.repeat(indent));
  }

  /** Adds items to the front of a list. */
  prependItems(seq: SeqNode, items: readonly unknown[]): void {
    if (seq.flow === true) {
      const glue = seq.items.length > 0 ? ', ' : '';
      this.#insert(seq.range[0] + 1, items.map((item) => JSON.stringify(item)).join(', ') + glue);
      return;
    }
    const indent = this.#column(seq.range[0]);
    const block = stringify(items, { lineWidth: 0 }).trimEnd();
    this.#insert(seq.range[0], this.#indented(block, indent).slice(indent) + this.#lineEnd + ' '.repeat(indent));
  }

  /** Gives a key that stands there without a value (`env:`) a list. */
  fillEmptyList(pair: Pair<ParsedNode, ParsedNode | null>, items: readonly unknown[]): void {
    const key = pair.key as ParsedNode;
    this.insertAfterLine(key.range[1], stringify(items, { lineWidth: 0 }).trimEnd(), this.#column(key.range[0]));
  }

  /** Appends a block of text on lines of its own after `offset`'s line, indented. */
  insertAfterLine(offset: number, block: string, indent: number): void {
    this.#insert(this.#endOfLine(offset), this.#lineEnd + this.#indented(block, indent));
  }

  #insert(offset: number, text: string): void {
    this.#insertions.push({ offset, text });
  }

  /** True when the map's keys begin on a later line than its parent's key, or the pair is one of the map's own one-line pairs. */
  #startsOwnLine(map: MapNode, pair: Pair<ParsedNode, ParsedNode | null>): boolean {
    const keyEnd = (pair.key as ParsedNode).range[1];
    if (pair.value === map) return map.range[0] > this.#endOfLine(keyEnd);
    const value = pair.value;
    return value !== null && isScalar(value) && value.range[1] <= this.#endOfLine(keyEnd);
  }

  #indented(block: string, indent: number): string {
    const pad = ' '.repeat(indent);
    return block
      .split('\n')
      .map((line) => (line === '' ? line : pad + line))
      .join(this.#lineEnd);
  }

  #column(offset: number): number {
    return offset - (this.text.lastIndexOf('\n', offset - 1) + 1);
  }

  #endOfLine(offset: number): number {
    const end = this.text.indexOf('\n', offset);
    if (end === -1) return this.text.length;
    return this.text[end - 1] === '\r' ? end - 1 : end;
  }
}

/** A document that cannot be read, with its place. */
export class InjectError extends Error {}

/** Parses all documents, refusing broken YAML with file, line and column. */
export function parseDocuments(text: string, file: string): YamlDocument[] {
  const lineCounter = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter, keepSourceTokens: true });
  const list = Array.isArray(documents) ? (documents as YamlDocument[]) : [];
  for (const document of list) {
    const error = document.errors[0];
    if (error === undefined) continue;
    const { line, col } = lineCounter.linePos(error.pos[0]);
    throw new InjectError(`${file}:${line}:${col}: not valid YAML: ${error.message.split('\n')[0]}`);
  }
  return list;
}

/** The pair of `key` in a map, or undefined. */
export function pairOf(map: MapNode, key: string): Pair<ParsedNode, ParsedNode | null> | undefined {
  return map.items.find((pair) => isScalar(pair.key) && (pair.key as Scalar).value === key);
}

export function mapAt(node: unknown, ...path: readonly string[]): MapNode | undefined {
  const found = walk(node, path);
  return isMap(found) ? (found as MapNode) : undefined;
}

export function seqAt(node: unknown, ...path: readonly string[]): SeqNode | undefined {
  const found = walk(node, path);
  return isSeq(found) ? (found as SeqNode) : undefined;
}

/** The scalar's value as text, or undefined. */
export function textAt(node: unknown, ...path: readonly string[]): string | undefined {
  const found = walk(node, path);
  if (!isScalar(found)) return undefined;
  const { value } = found;
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

function walk(node: unknown, path: readonly string[]): unknown {
  let current: unknown = node;
  for (const key of path) current = isMap(current) ? pairOf(current as MapNode, key)?.value : undefined;
  return current;
}
