/** Runtime values: layers from the bootstrap and one that the admin port writes; later layers win (layered_runtime). */
import type { JsonObject } from '../xds/snapshot.ts';

export type RuntimeValue = string | number | boolean;

export interface RuntimeLayers {
  /** Layer names, the admin layer last. */
  readonly names: readonly string[];
  get(key: string): RuntimeValue | undefined;
  /** Each key with its value per layer, empty where the layer has none. */
  entries(): readonly { readonly key: string; readonly values: readonly string[]; readonly final: string }[];
  /** Admin `/runtime_modify`: an empty value removes the override. Throws when there are too many. */
  modify(key: string, value: string): void;
}

const OVERRIDES_MAX = 1_000;

/** `layers` in order, each a tree whose keys are joined with dots. */
export function createRuntimeLayers(layers: readonly { readonly name: string; readonly values: JsonObject }[]): RuntimeLayers {
  const flat = layers.map(({ name, values }) => ({ name, values: flatten(values) }));
  const admin = { name: 'admin', values: new Map<string, RuntimeValue>() };
  const all = [...flat, admin];
  return {
    names: all.map((layer) => layer.name),
    get: (key) => all.findLast((layer) => layer.values.has(key))?.values.get(key),
    entries: () => {
      const keys = new Set(all.flatMap((layer) => [...layer.values.keys()]));
      return [...keys].toSorted().map((key) => {
        const values = all.map((layer) => String(layer.values.get(key) ?? ''));
        return { key, values, final: values.findLast((value) => value !== '') ?? '' };
      });
    },
    modify: (key, value) => {
      if (value === '') admin.values.delete(key);
      else if (admin.values.has(key) || admin.values.size < OVERRIDES_MAX) admin.values.set(key, value);
      else throw new Error(`the admin layer holds at most ${OVERRIDES_MAX} values`);
    },
  };
}

function flatten(values: JsonObject, prefix = '', into = new Map<string, RuntimeValue>()): Map<string, RuntimeValue> {
  for (const key of Object.keys(values)) {
    const value = values[key];
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) flatten(value as JsonObject, `${prefix}${key}.`, into);
    else if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') into.set(prefix + key, value);
  }
  return into;
}
