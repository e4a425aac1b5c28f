/** Reads an extension's JSON field by field; whatever is wrong becomes a ConfigError that names the field, the rule and the value. */
import { ConfigError } from '../errors.ts';
import type { Json, JsonObject } from '../../xds/snapshot.ts';

/** One object of a configuration, and the path that led to it. Names are camelCase; the snake_case spelling is found too. */
export class ConfigReader {
  readonly path: string;
  readonly json: JsonObject;

  constructor(path: string, json: JsonObject) {
    this.path = path;
    this.json = json;
  }

  /** The raw value, undefined when absent or null. */
  raw(name: string): Json | undefined {
    const value = this.json[name] ?? this.json[snakeCase(name)];
    return value === null ? undefined : value;
  }

  has(name: string): boolean {
    return this.raw(name) !== undefined;
  }

  fail(name: string, rule: string): never {
    const value = name === '' ? this.json : this.raw(name);
    throw new ConfigError(name === '' ? this.path : `${this.path}.${name}`, `${rule}, received ${JSON.stringify(value) ?? 'nothing'}`);
  }

  string(name: string, fallback = ''): string {
    const value = this.raw(name);
    if (value === undefined) return fallback;
    return typeof value === 'string' ? value : this.fail(name, 'must be text');
  }

  /** Numbers, 64-bit ones as text included; a `{value: …}` wrapper is taken off. */
  number(name: string, fallback: number): number {
    const value = unwrap(this.raw(name));
    if (value === undefined) return fallback;
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
    return typeof number === 'number' && Number.isFinite(number) ? number : this.fail(name, 'must be a number');
  }

  boolean(name: string, fallback = false): boolean {
    const value = unwrap(this.raw(name));
    if (value === undefined) return fallback;
    return typeof value === 'boolean' ? value : this.fail(name, 'must be true or false');
  }

  /** A protobuf duration such as `"0.25s"`, in milliseconds. */
  durationMs(name: string, fallback: number): number {
    const value = this.raw(name);
    if (value === undefined) return fallback;
    const match = typeof value === 'string' ? /^(-?\d+(?:\.\d+)?)s$/.exec(value) : null;
    return match === null ? this.fail(name, 'must be a duration such as "0.25s"') : Number(match[1]) * 1000;
  }

  oneOf<T extends string>(name: string, words: readonly T[], fallback: T): T {
    const value = this.raw(name);
    if (value === undefined) return fallback;
    const found = typeof value === 'number' ? words[value] : words.find((word) => word === value);
    return found ?? this.fail(name, `must be one of ${words.join(', ')}`);
  }

  object(name: string): ConfigReader | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    return isObject(value) ? new ConfigReader(`${this.path}.${name}`, value) : this.fail(name, 'must be an object');
  }

  /** A list of objects; a single object counts as a list of one, as Envoy takes it. */
  objects(name: string): ConfigReader[] {
    const value = this.raw(name);
    if (value === undefined) return [];
    if (isObject(value)) return [new ConfigReader(`${this.path}.${name}`, value)];
    if (!Array.isArray(value)) return this.fail(name, 'must be a list');
    return value.map((item: Json, index) =>
      isObject(item) ? new ConfigReader(`${this.path}.${name}[${index}]`, item) : this.fail(name, `item ${index} must be an object`),
    );
  }

  strings(name: string): string[] {
    const value = this.raw(name);
    if (value === undefined) return [];
    if (typeof value === 'string') return [value];
    if (!Array.isArray(value) || value.some((item: Json) => typeof item !== 'string')) return this.fail(name, 'must be a list of text');
    return value as string[];
  }

  /** The entries of a map field whose values are objects. */
  entries(name: string): [string, ConfigReader][] {
    const map = this.object(name);
    if (map === undefined) return [];
    return Object.keys(map.json).map((key) => {
      const value = map.json[key];
      return [
        key,
        isObject(value)
          ? new ConfigReader(`${map.path}[${JSON.stringify(key)}]`, value)
          : this.fail(name, `entry ${key} must be an object`),
      ];
    });
  }

  /** A FractionalPercent or RuntimeFractionalPercent as a share from 0 to 1. */
  fraction(name: string, fallback: number): number {
    let reader = this.object(name);
    reader = reader?.object('defaultValue') ?? reader;
    if (reader === undefined) return fallback;
    const scale = { HUNDRED: 100, TEN_THOUSAND: 10_000, MILLION: 1_000_000 }[
      reader.oneOf('denominator', ['HUNDRED', 'TEN_THOUSAND', 'MILLION'] as const, 'HUNDRED')
    ];
    return Math.min(1, reader.number('numerator', 0) / scale);
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function unwrap(value: Json | undefined): Json | undefined {
  return isObject(value) && 'value' in value ? value['value'] : value;
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
