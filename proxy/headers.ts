/** Header fields in order and in the case they came in, looked up by lower-case name, relayed as they are where nobody changes them. */

import { ProxyError } from './errors.ts';

/**
 * The same text as V8's own one copy of it, which is what literals and property names are: two of them are compared by address, two others
 * character by character. Field names are compared a dozen times per request.
 */
export function interned(text: string): string {
  return Object.keys({ [text]: 0 })[0]!;
}

/** Lower-case forms of names seen before; bounded, so that strangers cannot fill it. */
const LOWER = new Map<string, string>();
const LOWER_NAMES_MAX = 1024;

/** The lower-case form of a field name, from a bounded cache. */
export function lowerName(name: string): string {
  const known = LOWER.get(name);
  if (known !== undefined) return known;
  const lower = interned(name.toLowerCase());
  if (LOWER.size < LOWER_NAMES_MAX && name.length <= 64) LOWER.set(name, lower);
  return lower;
}

/**
 * Throws where a name or value would break out of its line. Characters above 0xFF are refused too: written as latin1 they become others,
 * and U+010A becomes a line feed. What a codec read was checked while it was read; this is for what filters make.
 */
function checkField(name: string, value: string): void {
  let valid = name.length > 0;
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f || code === 0x3a) valid = false;
  }
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if ((code < 0x20 && code !== 0x09) || code === 0x7f || code > 0xff) valid = false;
  }
  if (!valid) throw new ProxyError('internal', `${JSON.stringify(name)}: ${JSON.stringify(value.slice(0, 100))} cannot be a field.`);
}

/** A name that starts with `x-envoy-`. */
const ENVOY_BIT = 1;
/** A name with an underscore. */
const UNDERSCORE_BIT = 2;

/** Bits that a set of names has when this lower-case name is in it: a small Bloom filter by which most absent fields are known without a look. */
export function seenBits(lower: string): number {
  let bits = nameBit(lower);
  if (lower.charCodeAt(0) === 0x78 && lower.startsWith('x-envoy-')) bits |= ENVOY_BIT;
  if (lower.includes('_')) bits |= UNDERSCORE_BIT;
  return bits;
}

/** One of the 28 bits above the two that have a meaning of their own. The factors keep the names that are looked for apart from common ones. */
function nameBit(lower: string): number {
  const length = lower.length;
  const middle = lower.charCodeAt(length >> 1);
  return 4 << ((length * 10 + lower.charCodeAt(0) * 10 + lower.charCodeAt(length - 1) * 34 + middle) % 28);
}

/** How often a list is searched as lines before it is split: a search costs a third of a split. */
const SEARCHES_MAX = 3;

/**
 * A list of fields, in one or both of two forms: the lines as they are on the wire, and split into names and values. What a codec read starts
 * as lines and mostly stays so; who looks at many fields has them split.
 */
export class Headers {
  #lines: string | undefined;
  #fields: string[] | undefined = undefined;
  #seen: number;
  #searches = 0;

  /** `lines` are canonical: `Name: value` and CRLF each. `seen` are the bits of all their names. For codecs; everybody else appends. */
  constructor(lines = '', seen = 0) {
    this.#lines = lines;
    this.#seen = seen;
  }

  static of(entries: Readonly<Record<string, string>>): Headers {
    const headers = new Headers();
    for (const name of Object.keys(entries)) headers.append(name, entries[name]!);
    return headers;
  }

  /** The fields as they are written, each with its CRLF. */
  get lines(): string {
    return (this.#lines ??= join(this.#fields!));
  }

  /** `[name, lower, value, name, lower, value, …]`, to look at. */
  get fields(): readonly string[] {
    return (this.#fields ??= split(this.#lines!));
  }

  /** Number of fields. */
  get size(): number {
    return this.fields.length / 3;
  }

  /** False = there is no such field; true = there may be. */
  mayHave(lower: string): boolean {
    return (this.#seen & nameBit(lower)) !== 0;
  }

  /** False = no name starts with `x-envoy-`. */
  get mayHaveEnvoy(): boolean {
    return (this.#seen & ENVOY_BIT) !== 0;
  }

  /** False = no name has an underscore. */
  get mayHaveUnderscore(): boolean {
    return (this.#seen & UNDERSCORE_BIT) !== 0;
  }

  /** The first value, or undefined. `lower` is in lower case. */
  get(lower: string): string | undefined {
    if (!this.mayHave(lower)) return undefined;
    if (this.#fields === undefined && this.#searches++ < SEARCHES_MAX) {
      const lines = this.#lines!;
      const at = find(lines, lower, 0);
      return at === -1 ? undefined : lines.slice(at + lower.length + 2, lines.indexOf('\r', at));
    }
    const fields = this.fields;
    for (let i = 1; i < fields.length; i += 3) if (fields[i] === lower) return fields[i + 1];
    return undefined;
  }

  /** All values, joined with a comma as RFC 9110 section 5.3 allows; undefined where there is none. */
  joined(lower: string): string | undefined {
    if (!this.mayHave(lower)) return undefined;
    const fields = this.fields;
    let all: string | undefined;
    for (let i = 1; i < fields.length; i += 3)
      if (fields[i] === lower) all = all === undefined ? fields[i + 1]! : `${all},${fields[i + 1]!}`;
    return all;
  }

  has(lower: string): boolean {
    return this.get(lower) !== undefined;
  }

  /** Adds a field at the end. Throws `internal` for a name or a value that would not be one on the wire; so does `set`. */
  append(name: string, value: string): void {
    checkField(name, value);
    this.#add(name, lowerName(name), value);
  }

  /** Replaces the first field of that name in place and drops the others; appends where there was none. */
  set(name: string, value: string): void {
    checkField(name, value);
    this.#set(name, lowerName(name), value);
  }

  /**
   * As `set`, for a name in lower case and a value that this proxy made of characters that may stand in a field: not checked again. Never for
   * text that came from configuration or from a peer.
   */
  put(lower: string, value: string): void {
    this.#set(lower, lower, value);
  }

  /** Adds a field that is not there yet as a line made before, `lower: value` and CRLF; where it may be there, as `put`. */
  putLine(lower: string, value: string, line: string): void {
    if (this.mayHave(lower)) this.#set(lower, lower, value);
    else this.#addLine(lower, lower, value, line);
  }

  remove(lower: string): void {
    if (!this.mayHave(lower)) return;
    if (this.#fields === undefined) this.#lines = without(this.#lines!, lower, 0);
    else this.removeIf((known) => known === lower);
  }

  /** Removes the fields whose lower-case name passes the test. */
  removeIf(test: (lower: string) => boolean): void {
    const fields = this.fields;
    for (let i = 1; i < fields.length; i += 3) {
      if (!test(fields[i]!)) continue;
      this.#fields = fields.filter((_, at) => !test(fields[at - (at % 3) + 1]!));
      this.#lines = undefined;
      return;
    }
  }

  clone(): Headers {
    return new Headers(this.lines, this.#seen);
  }

  /** Calls `fn` for each field in order. */
  forEach(fn: (name: string, value: string, lower: string) => void): void {
    const fields = this.fields;
    for (let i = 0; i < fields.length; i += 3) fn(fields[i]!, fields[i + 2]!, fields[i + 1]!);
  }

  #add(name: string, lower: string, value: string): void {
    this.#addLine(name, lower, value, `${name}: ${value}\r\n`);
  }

  #addLine(name: string, lower: string, value: string, line: string): void {
    this.#seen |= seenBits(lower);
    this.#fields?.push(name, lower, value);
    if (this.#lines !== undefined) this.#lines = this.#lines === '' ? line : this.#lines + line;
  }

  #set(name: string, lower: string, value: string): void {
    if (!this.mayHave(lower)) {
      this.#add(name, lower, value);
      return;
    }
    const lines = this.lines;
    const at = find(lines, lower, 0);
    if (at === -1) {
      this.#add(name, lower, value);
      return;
    }
    const valueAt = at + lower.length + 2;
    const end = lines.indexOf('\r', valueAt);
    this.#lines = lines.slice(0, valueAt) + value + without(lines.slice(end), lower, 2);
    this.#fields = undefined;
  }
}

/** Start of the first line from `at` on, which is the start of a line, whose name is `lower` in any case; -1 = there is none. */
function find(lines: string, lower: string, at: number): number {
  const length = lower.length;
  for (; at < lines.length; at = lines.indexOf('\n', at) + 1) {
    if (lines.charCodeAt(at + length) !== 0x3a) continue;
    let i = 0;
    while (i < length && lowerCode(lines.charCodeAt(at + i)) === lower.charCodeAt(i)) i++;
    if (i === length) return at;
  }
  return -1;
}

function lowerCode(code: number): number {
  return code >= 0x41 && code <= 0x5a ? code + 0x20 : code;
}

/** The lines without those of that name; looked for from `at` on. */
function without(lines: string, lower: string, at: number): string {
  for (;;) {
    at = find(lines, lower, at);
    if (at === -1) return lines;
    lines = lines.slice(0, at) + lines.slice(lines.indexOf('\n', at) + 1);
  }
}

function join(fields: readonly string[]): string {
  let lines = '';
  for (let i = 0; i < fields.length; i += 3) lines += `${fields[i]!}: ${fields[i + 2]!}\r\n`;
  return lines;
}

function split(lines: string): string[] {
  const fields: string[] = [];
  for (let at = 0; at < lines.length;) {
    const colon = lines.indexOf(':', at);
    const end = lines.indexOf('\r', colon);
    const name = lines.slice(at, colon);
    fields.push(name, lowerName(name), lines.slice(colon + 2, end));
    at = end + 2;
  }
  return fields;
}
