/** The admin port's vocabulary: what an endpoint is, and what it may look at. */
import { compileRegex } from '../../lib/regex.ts';
import type { DumpSource } from './config-dump.ts';
import type { ProxyOptions } from '../options.ts';
import type { RuntimeLayers } from '../runtime-layers.ts';
import type { TlsCertificates } from '../certificates.ts';
import type { UpstreamCluster } from '../upstream/cluster.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Registry } from '../../lib/metrics.ts';
import type { Address, JsonObject } from '../../xds/snapshot.ts';

export type ServerState = 'LIVE' | 'DRAINING' | 'PRE_INITIALIZING' | 'INITIALIZING';

export interface ListenerView {
  readonly name: string;
  readonly addresses: readonly Address[];
}

/** Everything that the admin port shows and does. */
export interface AdminContext {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly version: string;
  readonly startedMs: number;
  readonly options: ProxyOptions;
  /** The node as proto JSON. */
  readonly node: JsonObject;
  readonly layers: RuntimeLayers;
  /** Puts changed runtime values in force. */
  readonly runtimeModified: () => void;
  state(): ServerState;
  /** When the configuration in force was saved, while it is one from disk; 0 = it is the control plane's. */
  staleSavedMs(): number;
  /** Brings gauges that follow the clock up to date, before statistics are shown. */
  refreshStats(): void;
  dump(): DumpSource;
  clusters(): Iterable<UpstreamCluster>;
  /** Clusters that came over xDS. */
  isDynamicCluster(name: string): boolean;
  listeners(): readonly ListenerView[];
  certificates(): readonly TlsCertificates[];
  /** What the start still waits for, in words. */
  unready(): readonly { readonly name: string; readonly targets: readonly string[] }[];
  failHealthCheck(failed: boolean): void;
  drainListeners(options: { readonly inboundOnly: boolean; readonly graceful: boolean; readonly skipExit: boolean }): void;
  quit(): void;
  reopenLogs(): void;
}

export interface AdminRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** At most 1 MiB. */
  readonly body: string;
}

export interface AdminResponse {
  readonly status: number;
  readonly contentType: string;
  /** Text, or slices of text for what is long. */
  readonly body: string | AsyncIterable<string>;
}

export interface AdminEndpoint {
  readonly path: string;
  readonly help: string;
  /** POST only. */
  readonly mutates: boolean;
  readonly handle: (request: AdminRequest, context: AdminContext) => AdminResponse;
}

export function text(body: string, status = 200): AdminResponse {
  return { status, contentType: 'text/plain; charset=UTF-8', body };
}

export function json(value: unknown, status = 200): AdminResponse {
  return { status, contentType: 'application/json', body: `${JSON.stringify(value, undefined, 1)}\n` };
}

/** `host:port`, or the path of a pipe. */
export function addressText(address: Address): string {
  if (address.pipe === true) return address.host;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** An address as `envoy.config.core.v3.Address` in JSON. */
export function addressJson(address: Address): JsonObject {
  return address.pipe === true ? { pipe: { path: address.host } } : { socket_address: { address: address.host, port_value: address.port } };
}

/** A search by regular expression from a query; undefined without one, a sentence when it cannot be compiled. */
export function searchPattern(pattern: string | null): ((text: string) => boolean) | string | undefined {
  if (pattern === null || pattern === '') return undefined;
  try {
    // By itself first, so that an error quotes what was asked for.
    compileRegex(pattern);
    const regex = compileRegex(`(?s).*(?:${pattern}).*`);
    return (name) => regex.matches(name);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
