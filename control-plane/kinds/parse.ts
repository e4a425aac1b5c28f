/** From the text of a file or an API write to resources and problems, each problem with its line and column. */
import { Composer, type Document, isAlias, isMap, isPair, isScalar, isSeq, LineCounter, type Node, Parser } from 'yaml';
import { atOnce } from '../../lib/slices.ts';
import type { Origin, Problem, Resource } from '../world.ts';
import { type Finding, judge, type Path, problemOf } from './validate.ts';

const TEXT_BYTES_MAX = 10 * 1024 * 1024;
const DOCUMENTS_MAX = 100_000;
/** How often anchors may be expanded; more is an attack ("billion laughs"), not a configuration. */
const ALIASES_MAX = 100;
const PROBLEMS_MAX = 1_000;
/** Brackets open at once and columns of indentation, checked before the parser recurses. */
const NESTING_MAX = 256;

export interface Parsed {
  readonly resources: readonly Resource[];
  readonly problems: readonly Problem[];
}

/**
 * Reads YAML or JSON: several documents, Lists, anchors within bounds. Good documents become resources, bad ones problems.
 * Duplicate keys, more than 10 MiB, and nesting deeper than 64 are refused. Never throws.
 */
export function parseResources(text: string, origin: Origin): Parsed {
  return atOnce(readResources(text, origin));
}

/** The same in small steps, with a pause after each document: take as many as time allows. Nothing of a document is held once it is read. */
export function* readResources(text: string, origin: Origin): Generator<void, Parsed> {
  const refused = yield* refusal(text);
  if (refused !== undefined) return nothingBut(origin, refused);
  const resources: Resource[] = [];
  const problems: Problem[] = [];
  let documents = 0;
  let line = 1;
  for (const part of partsOf(text)) {
    const machine = fromMachine(part.endsWith('\n') ? part.slice(0, -1) : part, { ...origin, line, column: 1 });
    if (machine !== undefined) {
      resources.push(machine);
      documents += 1;
      yield;
    } else {
      const lines = new LineCounter();
      const place = (offset: number): Origin => {
        const at = lines.linePos(offset);
        return { ...origin, line: line - 1 + at.line, column: at.col };
      };
      try {
        for (const document of documentsOf(part, lines)) {
          documents += 1;
          if (documents > DOCUMENTS_MAX) break;
          readDocument(document, place, resources, problems);
          yield;
        }
      } catch (error) {
        // The parser recurses: what it cannot hold ends here, whatever it is.
        return nothingBut(origin, `cannot be read as YAML: ${messageOf(error)}`);
      }
    }
    line += linesOf(part) + 1;
    if (documents > DOCUMENTS_MAX) return nothingBut(origin, `must hold at most ${DOCUMENTS_MAX} documents`);
  }
  return { resources, problems: problems.slice(0, PROBLEMS_MAX) };
}

function nothingBut(origin: Origin, message: string): Parsed {
  return { resources: [], problems: [{ origin, resource: '', field: '', message }] };
}

const SEPARATOR = '\n---\n';

/** The text between lines of three dashes, which no YAML can hold inside a document. A directive speaks of the document behind its line. */
function* partsOf(text: string): Generator<string> {
  if (text.startsWith('%') || text.includes('\n%')) {
    yield text;
    return;
  }
  let from = 0;
  for (let at = text.indexOf(SEPARATOR); at !== -1; at = text.indexOf(SEPARATOR, from)) {
    yield text.slice(from, at);
    from = at + SEPARATOR.length;
  }
  yield text.slice(from);
}

function linesOf(text: string): number {
  let lines = 1;
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lines += 1;
  return lines;
}

/** One document after the other, each composed when it is asked for. */
function documentsOf(text: string, lineCounter: LineCounter): Iterable<Document.Parsed> {
  const composer = new Composer({ lineCounter, prettyErrors: false, merge: true, strict: true, uniqueKeys: true, logLevel: 'error' });
  return composer.compose(new Parser(lineCounter.addNewLine).parse(text)) as Iterable<Document.Parsed>;
}

/**
 * One resource as a program writes it: JSON that is, to the letter, what we would write ourselves, so no key can be there twice. Ten times
 * cheaper than YAML. Undefined for everything else, and for what has problems: these need the places that only the other reader knows.
 */
function fromMachine(text: string, origin: Origin): Resource | undefined {
  if (!text.startsWith('{"')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (JSON.stringify(value) !== text || listed(value)[0]?.path.length !== 0) return undefined;
  const verdict = judge(value, origin);
  return verdict.findings.length === 0 ? verdict.resource : undefined;
}

function readDocument(document: Document.Parsed, place: (offset: number) => Origin, resources: Resource[], problems: Problem[]): void {
  if (document.errors.length > 0) {
    for (const error of document.errors.slice(0, 10))
      problems.push({ origin: place(error.pos[0]), resource: '', field: '', message: syntaxMessage(error) });
    return;
  }
  if (document.contents === null) return;
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch (error) {
    problems.push({
      origin: place(document.contents.range[0]),
      resource: '',
      field: '',
      message: `anchors and aliases cannot be expanded: ${messageOf(error)}`,
    });
    return;
  }
  if (value === null) return;
  for (const part of listed(value)) {
    const node = part.path.length === 0 ? document.contents : nodeAt(document, part.path);
    const verdict = judge(part.value, place(node?.range?.[0] ?? document.contents.range[0]));
    if (verdict.resource !== undefined) resources.push(verdict.resource);
    for (const found of verdict.findings) {
      problems.push(problemOf(found, verdict.name, place(offsetOf(document, part.path, found))));
    }
  }
}

/** A `List` is its items; anything else is itself. */
function listed(value: unknown): { value: unknown; path: Path }[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [{ value, path: [] }];
  const { apiVersion, kind, items } = value as Record<string, unknown>;
  if (apiVersion !== 'v1' || typeof kind !== 'string' || !kind.endsWith('List') || !Array.isArray(items)) return [{ value, path: [] }];
  return items.map((item: unknown, index) => ({ value: item, path: ['items', index] }));
}

/** Where the finding's field stands; where it is missing, the nearest thing around it that is there. */
function offsetOf(document: Document.Parsed, base: Path, found: Finding): number {
  const path = [...base, ...found.path];
  for (let length = path.length; length > 0; length--) {
    const parent = nodeAt(document, path.slice(0, length - 1));
    const last = path[length - 1]!;
    if (isMap(parent)) {
      for (const item of parent.items) {
        if (!isPair(item) || !isScalar(item.key) || String(item.key.value) !== String(last)) continue;
        const value = item.value as Node | null;
        const useKey = (length === path.length && found.atKey) || length < path.length || (value?.range ?? null) === null;
        return (useKey ? item.key.range?.[0] : value?.range?.[0]) ?? 0;
      }
    } else if (isSeq(parent)) {
      const item = parent.items[Number(last)] as Node | undefined;
      if (item?.range) return item.range[0];
    }
  }
  return (base.length === 0 ? document.contents?.range[0] : nodeAt(document, base)?.range?.[0]) ?? 0;
}

function nodeAt(document: Document.Parsed, path: Path): Node | undefined {
  let at: unknown = document.contents;
  for (const part of path) {
    if (isAlias(at)) at = at.resolve(document);
    if (!isMap(at) && !isSeq(at)) return undefined;
    at = at.get(part, true);
  }
  if (isAlias(at)) at = at.resolve(document);
  return isMap(at) || isSeq(at) || isScalar(at) ? at : undefined;
}

/** A power of two: after this many characters there is a pause. */
const LOOK_CHARS = 2 ** 20;

/** What is refused before the parser sees it. */
function* refusal(text: string): Generator<void, string | undefined> {
  const bytes = Buffer.byteLength(text);
  if (bytes > TEXT_BYTES_MAX) return `must be at most ${TEXT_BYTES_MAX} bytes, received ${bytes}`;
  let open = 0;
  let indent = 0;
  let atStart = true;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if ((index & (LOOK_CHARS - 1)) === LOOK_CHARS - 1) yield;
    if (code === 10) {
      atStart = true;
      indent = 0;
      continue;
    }
    // Dashes and question marks nest without indentation: `- - - x`.
    if (atStart && (code === 32 || code === 45 || code === 63)) indent += code === 32 ? 0.5 : 1;
    else atStart = false;
    if (code === 91 || code === 123) open++;
    else if ((code === 93 || code === 125) && open > 0) open--;
    if (open > NESTING_MAX || indent > NESTING_MAX) return `must not nest deeper than ${NESTING_MAX} brackets or levels of indentation`;
  }
  return undefined;
}

function syntaxMessage(error: { readonly code: string; readonly message: string }): string {
  if (error.code === 'DUPLICATE_KEY') return 'must not name the same field twice';
  const message = error.message.replace(/ at line \d+, column \d+:?[\s\S]*$/, '');
  return `is not valid YAML: ${message}`;
}

function messageOf(error: unknown): string {
  if (error instanceof RangeError) return 'it nests too deep';
  return error instanceof Error ? error.message : String(error);
}
