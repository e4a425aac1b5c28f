/** What a proxy is started with: our own type for Envoy's bootstrap, with its defaults filled in. */
import type { AccessLogConfig, Address, Cluster, ExtensionConfig, JsonObject, Listener, Locality, Secret } from './snapshot.ts';

export interface Bootstrap {
  readonly node: {
    readonly id: string;
    readonly cluster: string;
    readonly locality: Locality;
    readonly metadata: JsonObject;
  };
  /** Absent = no admin port. */
  readonly admin?: { readonly address: Address; readonly accessLogs: readonly AccessLogConfig[] };
  readonly static: {
    readonly listeners: readonly StaticResource<Listener>[];
    readonly clusters: readonly StaticResource<Cluster>[];
    readonly secrets: readonly StaticResource<Secret>[];
  };
  readonly dynamic: {
    readonly lds?: ConfigSource;
    readonly cds?: ConfigSource;
    readonly ads?: ApiSource;
  };
  /** In order; a later layer wins. */
  readonly runtimeLayers: readonly RuntimeLayer[];
  /** Tags with a fixed value, added to every metric (stats_config.stats_tags). */
  readonly statsTags: ReadonlyMap<string, string>;
  /** JSON of StatsConfig, for what is not a fixed tag. */
  readonly statsConfig?: JsonObject;
  readonly statsFlushIntervalMs: number;
  /** The cluster that this proxy is a member of, for zone-aware routing; empty = none. */
  readonly localClusterName: string;
  /** The tracer of connection managers that name none (`tracing.http`, deprecated by Envoy). */
  readonly tracing?: ExtensionConfig;
  /** Lower case, `x-envoy` unless changed. */
  readonly headerPrefix: string;
  /** The whole as Envoy dumps it, snake_case, secrets redacted. */
  readonly dump: () => JsonObject;
}

/** A resource with the redacted JSON (`@type` first) that a config dump shows. */
export interface StaticResource<T> {
  readonly resource: T;
  readonly dump: () => JsonObject;
}

export type ConfigSource =
  | { readonly kind: 'ads'; readonly initialFetchTimeoutMs: number }
  | { readonly kind: 'path'; readonly path: string; readonly watchedDirectory?: string; readonly initialFetchTimeoutMs: number }
  | { readonly kind: 'api'; readonly api: ApiSource; readonly initialFetchTimeoutMs: number };

/** A stream of its own, or (as `ads_config`) the one that all types share. */
export interface ApiSource {
  readonly apiType: 'GRPC' | 'DELTA_GRPC';
  /** Tried in order; at least one. */
  readonly services: readonly GrpcTarget[];
  readonly setNodeOnFirstMessageOnly: boolean;
}

export interface GrpcTarget {
  /** A static cluster, or a gRPC target URI (google_grpc) spoken to in plaintext. */
  readonly target:
    | { readonly kind: 'cluster'; readonly cluster: string; readonly authority: string }
    | { readonly kind: 'uri'; readonly uri: string };
  readonly initialMetadata: readonly { readonly key: string; readonly value: string }[];
  /** 0 = none. */
  readonly timeoutMs: number;
}

export type RuntimeLayer =
  | { readonly kind: 'static'; readonly name: string; readonly values: JsonObject }
  | {
      readonly kind: 'disk';
      readonly name: string;
      readonly symlinkRoot: string;
      readonly subdirectory: string;
      readonly appendServiceCluster: boolean;
    }
  | { readonly kind: 'admin'; readonly name: string };
