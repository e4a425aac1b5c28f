/** What the control plane believes about the mesh: resources as users write them, and the world that the catalog merges out of them. */
import type { Json, JsonObject, Locality, Listener, RouteConfiguration, Cluster, LoadAssignment, VirtualHost } from '../xds/snapshot.ts';

/** A resource of one of the kinds that we understand, validated, with its defaults not yet filled in. */
export interface Resource {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  };
  /** The rest of the document as written (spec, and for EndpointSlice endpoints and ports), validated. */
  readonly spec: JsonObject;
  readonly origin: Origin;
}

/** Where a resource came from, for messages: `routes.yaml:12:3`, `api`, `registrations`. */
export interface Origin {
  readonly source: string;
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
}

/** One thing wrong with a document: place, rule, value. */
export interface Problem {
  readonly origin: Origin;
  /** `HTTPRoute default/reviews`, empty when the document could not be read that far. */
  readonly resource: string;
  /** `spec.rules[0].backendRefs[1].weight`, empty for the whole document. */
  readonly field: string;
  /** Rule and value in one sentence, with a suggestion where a near word exists. */
  readonly message: string;
  /** A warning is told and changes nothing; absent = an error, which keeps the document out. */
  readonly severity?: 'warning';
}

/** Full state of a source, every time. Documents with problems are not among `resources` unless an earlier good version is kept. */
export interface SourceState {
  readonly resources: readonly Resource[];
  readonly problems: readonly Problem[];
}

/** A place that resources come from. Ends when the signal aborts; errors of its own are problems, never throws. */
export interface Source {
  readonly name: string;
  watch(signal: AbortSignal): AsyncIterable<SourceState>;
}

// ---- the merged world -----------------------------------------------------------------------------------------------

/** Immutable; a new one per change. Keys are `namespace/name`. Lists are sorted by key so that equal worlds build equal bytes. */
export interface World {
  readonly mesh: MeshSettings;
  readonly services: ReadonlyMap<string, ServiceModel>;
  readonly workloads: ReadonlyMap<string, WorkloadModel>;
  readonly httpRoutes: readonly Resource[];
  readonly otherRoutes: readonly Resource[];
  /** BackendPolicy, AuthorizationPolicy, FaultInjection, RateLimit. */
  readonly policies: readonly Resource[];
  readonly problems: readonly Problem[];
}

export interface MeshSettings {
  readonly trustDomain: string;
  readonly clusterDomain: string;
  readonly mtls: 'STRICT' | 'PERMISSIVE' | 'DISABLE';
  readonly certificateTtlMs: number;
  readonly accessLog: 'off' | 'text' | 'json';
  readonly tracingSamplingPercent: number;
  readonly otlpEndpoint: string;
  /** Default for requests of a route that names none; 0 = none. */
  readonly requestTimeoutMs: number;
  readonly outboundPassthrough: boolean;
  readonly spec: JsonObject;
}

export interface ServiceModel {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly ports: readonly {
    readonly name: string;
    readonly port: number;
    readonly targetPort: number | string;
    readonly protocol: 'http' | 'http2' | 'grpc' | 'tcp';
  }[];
  /** Undefined = endpoints come from EndpointSlices only. */
  readonly selector: Readonly<Record<string, string>> | undefined;
  readonly endpoints: readonly EndpointModel[];
  readonly origin: Origin;
}

/** One instance behind one port of a service. */
export interface EndpointModel {
  readonly address: string;
  /** Port that callers connect to: the sidecar's inbound port where there is one, else the application's. */
  readonly port: number;
  /** Application's own port. */
  readonly targetPort: number;
  readonly servicePort: number;
  readonly weight: number;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly locality: Locality;
  readonly labels: Readonly<Record<string, string>>;
  /** `namespace/name` of the workload, when it is one. */
  readonly workload: string | undefined;
  /** SPIFFE id that the peer must prove; undefined = no sidecar, plaintext. */
  readonly identity: string | undefined;
}

export interface WorkloadModel {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly address: string;
  /** Port name or number as text -> application port. */
  readonly ports: Readonly<Record<string, number>>;
  readonly weight: number;
  readonly serviceAccount: string;
  readonly locality: Locality;
  readonly healthy: boolean;
  readonly draining: boolean;
  /** Undefined = no sidecar. */
  readonly sidecar:
    | { readonly inboundPort: number; readonly outboundPort: number; readonly bindAddress: string; readonly adminPort: number }
    | undefined;
  readonly origin: Origin;
}

// ---- what a proxy gets ----------------------------------------------------------------------------------------------

/** A connected proxy as the builders see it. */
export interface Node {
  /** `<workload>.<namespace>` for our sidecars; whatever the client says for others. */
  readonly id: string;
  readonly cluster: string;
  readonly flavour: 'sidecar' | 'envoy' | 'grpc';
  readonly namespace: string;
  /** `namespace/name`; undefined when the node is no known workload. */
  readonly workload: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly locality: Locality;
  /** Authenticated SPIFFE id; undefined on the plaintext port without a token. */
  readonly identity: string | undefined;
  readonly metadata: Readonly<Record<string, Json>>;
  /** Built from the authenticated caller; the port map of a sidecar that is not in the world yet. */
  readonly inboundPort: number;
  readonly outboundPort: number;
  readonly bindAddress: string;
}

export interface NodeResources {
  readonly listeners: readonly Listener[];
  readonly routes: readonly RouteConfiguration[];
  readonly clusters: readonly Cluster[];
  readonly endpoints: readonly LoadAssignment[];
  /** Of a client that asks for virtual hosts by name: any of them, the same object for the same content. Replaced when an answer may differ. */
  readonly virtualHosts?: { find(name: string): VirtualHost | undefined };
}

/** Pure: the same world and node give the same resources. */
export type Build = (world: World, node: Node) => NodeResources;
