/** Where a decoder is and what it may say there: errors that name resource, field, rule and value, and warnings. */

/** A resource that cannot be used. The message is one line and is sent back as the NACK. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError';
  /** For example `cluster "api"`. */
  readonly resource: string;
  /** For example `load_assignment.endpoints[0].lb_endpoints[3]`, in the names of the protos. */
  readonly path: string;
  readonly problem: string;
  /** Whether the message begins with a place in a file. */
  readonly located: boolean;

  constructor(resource: string, path: string, problem: string, file = '') {
    super([file, resource, path, problem].filter((part) => part !== '').join(': '));
    this.resource = resource;
    this.path = path;
    this.problem = problem;
    this.located = file !== '';
  }

  /** The same error with the place in a file, `file:line:column`. */
  at(file: string): DecodeError {
    return new DecodeError(this.resource, this.path, this.problem, file);
  }
}

/** One place inside one resource. Warnings of all places of a resource end in the same list. */
export interface Place {
  readonly resource: string;
  readonly path: string;
  readonly warnings: string[];
}

/** Warnings past this many are dropped: a resource full of unknown fields says so well enough. */
const WARNINGS_MAX = 50;
const VALUE_CHARACTERS_MAX = 120;

export function topOf(resource: string, warnings: string[] = []): Place {
  return { resource, path: '', warnings };
}

/** The place of a field, or of an item of a list. */
export function inside(place: Place, step: string | number): Place {
  return { resource: place.resource, path: joinPath(place.path, step), warnings: place.warnings };
}

export function joinPath(path: string, step: string | number): string {
  if (typeof step === 'number') return `${path}[${step}]`;
  return path === '' ? step : `${path}.${step}`;
}

/** Ends the decoding: `rule` says what must hold, `value` (when given) what was there. */
export function refuse(place: Place, rule: string, value?: unknown): never {
  throw new DecodeError(place.resource, place.path, value === undefined ? rule : `${rule}, received ${quoted(value)}`);
}

export function warn(place: Place, text: string): void {
  if (place.warnings.length < WARNINGS_MAX) place.warnings.push(place.path === '' ? text : `${place.path}: ${text}`);
}

/** Warns of each field that is set and has no effect here. */
export function warnIgnored(place: Place, fields: Readonly<Record<string, boolean>>): void {
  for (const [field, set] of Object.entries(fields)) if (set) warn(inside(place, field), 'is ignored');
}

/** A value as an error message shows it: JSON, cut to a readable length. */
export function quoted(value: unknown): string {
  const text = typeof value === 'bigint' ? String(value) : (JSON.stringify(value, bigintText) ?? String(value));
  return text.length <= VALUE_CHARACTERS_MAX ? text : `${text.slice(0, VALUE_CHARACTERS_MAX)}…`;
}

function bigintText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}
