/** Runtime values: layers from the bootstrap and one that the admin port writes; later layers win (layered_runtime). */
import type { JsonObject } from '../xds/snapshot.ts';

export type RuntimeValue = string | number | boolean;

export interface RuntimeLayers {
  /** Layer names, the admin layer last. Where the bootstrap has no layers the admin layer appears with its first value. */
  readonly names: readonly string[];
  /** Keys that the admin port has set. */
  readonly overrides: number;
  get(key: string): RuntimeValue | undefined;
  /** Each key with its value per layer, empty where the layer has none. */
  entries(): readonly { readonly key: string; readonly values: readonly string[]; readonly final: string }[];
  /** Admin `/runtime_modify`: an empty value removes the override. Throws when there are too many, or when the bootstrap has layers and none for this. */
  modify(key: string, value: string): void;
}

const OVERRIDES_MAX = 1_000;

/** `layers` in order, each a tree whose keys are joined with dots; one without values is the admin port's. Without any layer there is that one alone. */
export function createRuntimeLayers(layers: readonly { readonly name: string; readonly values: JsonObject | undefined }[]): RuntimeLayers {
  const all = (layers.length === 0 ? [{ name: 'admin', values: undefined }] : layers).map(({ name, values }) => ({
    name,
    isAdmin: values === undefined,
    values: flatten(values ?? {}),
  }));
  const admin = all.find((layer) => layer.isAdmin);
  return {
    get names() {
      return layers.length === 0 && admin?.values.size === 0 ? [] : all.map((layer) => layer.name);
    },
    get overrides() {
      return admin?.values.size ?? 0;
    },
    get: (key) => all.findLast((layer) => layer.values.has(key))?.values.get(key),
    entries: () => {
      const keys = new Set(all.flatMap((layer) => [...layer.values.keys()]));
      return [...keys].toSorted().map((key) => {
        const values = all.map((layer) => String(layer.values.get(key) ?? ''));
        return { key, values, final: values.findLast((value) => value !== '') ?? '' };
      });
    },
    modify: (key, value) => {
      if (admin === undefined) throw new Error('No admin layer specified');
      if (value === '') admin.values.delete(key);
      else if (admin.values.has(key) || admin.values.size < OVERRIDES_MAX) admin.values.set(key, value);
      else throw new Error(`the admin layer holds at most ${OVERRIDES_MAX} values`);
    },
  };
}

function flatten(values: JsonObject, prefix = '', into = new Map<string, RuntimeValue>()): Map<string, RuntimeValue> {
  for (const key of Object.keys(values)) {
    const value = values[key];
    if (isFraction(value)) into.set(prefix + key, percentOf(value));
    else if (typeof value === 'object' && value !== null && !Array.isArray(value)) flatten(value as JsonObject, `${prefix}${key}.`, into);
    else if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') into.set(prefix + key, value);
  }
  return into;
}

const DENOMINATORS: Readonly<Record<string, number>> = { HUNDRED: 100, TEN_THOUSAND: 10_000, MILLION: 1_000_000 };

interface Fraction {
  readonly numerator?: number;
  readonly denominator?: string;
}

/** A FractionalPercent is one value, and not a tree. */
function isFraction(value: unknown): value is Fraction {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const keys = Object.keys(value);
  return keys.length > 0 && keys.every((key) => key === 'numerator' || key === 'denominator');
}

function percentOf({ numerator = 0, denominator = 'HUNDRED' }: Fraction): number {
  return (numerator * 100) / (DENOMINATORS[denominator] ?? 100);
}
