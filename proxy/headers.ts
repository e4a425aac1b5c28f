/** Header fields in order and in the case they came in, looked up by lower-case name. */

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

/** A list of fields. Three strings a field in one array: name as received, name in lower case, value. */
export class Headers {
  /** `[name, lower, value, name, lower, value, …]`. Codecs read and write it directly. */
  readonly fields: string[];

  constructor(fields: string[] = []) {
    this.fields = fields;
  }

  static of(entries: Readonly<Record<string, string>>): Headers {
    const headers = new Headers();
    for (const name of Object.keys(entries)) headers.append(name, entries[name]!);
    return headers;
  }

  /** Number of fields. */
  get size(): number {
    return this.fields.length / 3;
  }

  /** The first value, or undefined. `lower` is in lower case. */
  get(lower: string): string | undefined {
    const fields = this.fields;
    for (let i = 1; i < fields.length; i += 3) if (fields[i] === lower) return fields[i + 1];
    return undefined;
  }

  /** All values, joined with a comma as RFC 9110 section 5.3 allows; undefined where there is none. */
  joined(lower: string): string | undefined {
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
    this.fields.push(name, lowerName(name), value);
  }

  /** Replaces the first field of that name in place and drops the others; appends where there was none. */
  set(name: string, value: string): void {
    checkField(name, value);
    const lower = lowerName(name);
    const fields = this.fields;
    for (let i = 1; i < fields.length; i += 3) {
      if (fields[i] === lower) {
        fields[i + 1] = value;
        this.#removeFrom(i + 2, lower);
        return;
      }
    }
    fields.push(name, lower, value);
  }

  /**
   * As `set`, for a name in lower case and a value that this proxy made of characters that may stand in a field: not checked again. Never for
   * text that came from configuration or from a peer.
   */
  put(lower: string, value: string): void {
    const fields = this.fields;
    for (let i = 1; i < fields.length; i += 3) {
      if (fields[i] === lower) {
        fields[i + 1] = value;
        this.#removeFrom(i + 2, lower);
        return;
      }
    }
    fields.push(lower, lower, value);
  }

  remove(lower: string): void {
    this.#removeFrom(0, lower);
  }

  clone(): Headers {
    return new Headers(this.fields.slice());
  }

  /** Calls `fn` for each field in order. */
  forEach(fn: (name: string, value: string, lower: string) => void): void {
    const fields = this.fields;
    for (let i = 0; i < fields.length; i += 3) fn(fields[i]!, fields[i + 2]!, fields[i + 1]!);
  }

  #removeFrom(start: number, lower: string): void {
    const fields = this.fields;
    // Nearly always there is none, and an array that is only read is not written.
    let first = start + 1;
    while (first < fields.length && fields[first] !== lower) first += 3;
    if (first >= fields.length) return;
    let write = first - 1;
    for (let read = write; read < fields.length; read += 3) {
      if (fields[read + 1] === lower) continue;
      if (write !== read) {
        fields[write] = fields[read]!;
        fields[write + 1] = fields[read + 1]!;
        fields[write + 2] = fields[read + 2]!;
      }
      write += 3;
    }
    fields.length = write;
  }
}
