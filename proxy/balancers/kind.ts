/** What a balancing policy has to offer to be in the registry, and the readers for its configuration. */
import type { Json, JsonObject } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import type { Balancer } from '../service.ts';

export interface BalancerKind {
  /** Full name of Envoy's extension message for the same policy, without a host. */
  readonly type: string;
  /** True = the cluster measures response times into `endpoint.latencyMs`. */
  readonly needsLatency?: true;
  /** Reads the policy's JSON once, at push. Throws `ConfigError` at `path`. */
  compile(config: JsonObject, path: string): Balancer;
}

/** A whole number from JSON, where 64-bit numbers are strings. Throws `ConfigError` outside [min, max]. */
export function wholeNumber(config: JsonObject, field: string, fallback: number, min: number, max: number, path: string): number {
  const raw = unwrap(config[field]);
  if (raw === undefined || raw === null) return fallback;
  const value = typeof raw === 'string' && /^\d{1,15}$/.test(raw) ? Number(raw) : raw;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw new ConfigError(`${path}.${field}`, `must be a whole number from ${min} to ${max}, received ${JSON.stringify(raw)}`);
  }
  return value;
}

/** A number that may be wrapped as Envoy's RuntimeDouble (`{ defaultValue, runtimeKey }`) is. Throws `ConfigError` below `min`. */
export function decimal(config: JsonObject, field: string, fallback: number, min: number, path: string): number {
  const raw = unwrap(config[field]);
  if (raw === undefined || raw === null) return fallback;
  if (typeof raw !== 'number' || !(raw >= min))
    throw new ConfigError(`${path}.${field}`, `must be a number of at least ${min}, received ${JSON.stringify(raw)}`);
  return raw;
}

/** The configuration object nested under `field`, empty when absent. */
export function nested(config: JsonObject, field: string): JsonObject {
  const value = config[field];
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

function unwrap(value: Json | undefined): Json | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const object = value as JsonObject;
  return object['defaultValue'] ?? object['value'];
}
