/** Settings that name a runtime key get the key's value before they are compiled, so nothing is looked up per request. */
import type { Compile } from './runtime.ts';
import type { RuntimeLayers, RuntimeValue } from './runtime-layers.ts';
import type { Snapshot } from '../xds/snapshot.ts';

/** Compiles with the runtime values of this moment. What names no key, and what names keys that have no value, is the same object as before. */
export function withRuntimeKeys(compile: Compile, layers: Pick<RuntimeLayers, 'get'>): Compile {
  /** What was compiled last in the place of a resource that has keys. */
  const inForce = new WeakMap<object, object>();
  const last = <T extends object>(map: ReadonlyMap<string, T>): ReadonlyMap<string, T> =>
    mapped(map, (value) => (inForce.get(value) ?? value) as T);
  const now = <T extends object>(map: ReadonlyMap<string, T>): ReadonlyMap<string, T> =>
    mapped(map, (value) => {
      if (!hasKeys(value)) return value;
      const made = resolved(value, layers) as T;
      const before = inForce.get(value) as T | undefined;
      // A key that changed nothing here must not cost a new listener.
      if (before !== undefined && JSON.stringify(before, plain) === JSON.stringify(made, plain)) return before;
      inForce.set(value, made);
      return made;
    });
  return (snapshot, clusters, previous) => {
    const keyed = (from: Snapshot, change: typeof now): Snapshot => ({
      ...from,
      listeners: change(from.listeners),
      routes: change(from.routes),
      virtualHosts: change(from.virtualHosts),
    });
    const old = keyed(previous.snapshot, last);
    const next = keyed(snapshot, now);
    return { ...compile(next, clusters, { ...previous, snapshot: old }), snapshot };
  };
}

const KEYED = new WeakMap<object, boolean>();

/** Whether a resource names any runtime key; looked through once. */
function hasKeys(resource: object): boolean {
  let keyed = KEYED.get(resource);
  if (keyed === undefined) {
    keyed = names(resource);
    KEYED.set(resource, keyed);
  }
  return keyed;
}

function names(value: unknown): boolean {
  if (!isTree(value)) return false;
  if (keyOf(value) !== undefined) return true;
  for (const inner of value instanceof Map ? value.values() : Object.values(value)) if (names(inner)) return true;
  return false;
}

/** The same tree with values in the place of defaults; parts without keys are shared. */
function resolved(value: unknown, layers: Pick<RuntimeLayers, 'get'>): unknown {
  if (!isTree(value)) return value;
  if (value instanceof Map) return mapped(value as ReadonlyMap<string, object>, (inner) => resolved(inner, layers) as object);
  if (Array.isArray(value)) {
    const items = value.map((item) => resolved(item, layers));
    return items.every((item, index) => item === value[index]) ? value : items;
  }
  const key = keyOf(value);
  const set = key === undefined ? undefined : layers.get(key);
  const entries = Object.entries(value).map(([name, inner]) => [name, resolved(inner, layers)] as const);
  const same = entries.every(([name, inner]) => inner === (value as Record<string, unknown>)[name]);
  if (set === undefined) return same ? value : Object.fromEntries(entries);
  return overridden(Object.fromEntries(entries), set);
}

/** Shares of routes and mirrors are numbers from 0 to 1; elsewhere the default is the message's own. A value that cannot be read leaves the default. */
function overridden(made: Record<string, unknown>, set: RuntimeValue): Record<string, unknown> {
  const number = Number(set);
  const percent = Math.min(100, Math.max(0, number));
  for (const field of ['runtimeFraction', 'fraction'])
    if (typeof made[field] === 'number' && Number.isFinite(number)) return { ...made, [field]: percent / 100 };
  const { defaultValue } = made;
  if (typeof defaultValue === 'boolean') return { ...made, defaultValue: String(set) === 'true' };
  if (!Number.isFinite(number)) return made;
  if (typeof defaultValue === 'number') return { ...made, defaultValue: number };
  return { ...made, defaultValue: { numerator: Math.round(percent * 10_000), denominator: 'MILLION' } };
}

function keyOf(value: object): string | undefined {
  const { runtimeKey } = value as { readonly runtimeKey?: unknown };
  return typeof runtimeKey === 'string' && runtimeKey !== '' ? runtimeKey : undefined;
}

/** Objects, lists and maps; bytes and the like are leaves. */
function isTree(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value) || value instanceof Map) return true;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** The same map where nothing in it differs. */
function mapped<T extends object>(map: ReadonlyMap<string, T>, change: (value: T) => T): ReadonlyMap<string, T> {
  let same = true;
  const made = new Map<string, T>();
  for (const [name, value] of map) {
    const next = change(value);
    same &&= next === value;
    made.set(name, next);
  }
  return same ? map : made;
}

function plain(_name: string, value: unknown): unknown {
  return value instanceof Map ? [...(value as ReadonlyMap<unknown, unknown>)] : value;
}
