/** The messages of the xDS transport as plain types, so that the state machines know nothing of protobuf (discovery.proto of Envoy's v3 API). */
import { memo } from '../../lib/memo.ts';
import type { JsonObject } from '../snapshot.ts';

export type Mode = 'delta' | 'sotw';

/** Subscribes to everything of a type. */
export const WILDCARD = '*';

/** Who a client says it is (core.v3.Node). Nothing here is proven: identity comes from the connection. */
export interface NodeInfo {
  readonly id: string;
  readonly cluster: string;
  readonly metadata: JsonObject;
  readonly locality: { readonly region: string; readonly zone: string; readonly subZone: string };
  readonly userAgentName: string;
  readonly userAgentVersion: string;
  readonly clientFeatures: readonly string[];
}

/** google.rpc.Status without details. */
export interface ErrorDetail {
  readonly code: number;
  readonly message: string;
}

/** A resource on its way. `bytes` is the value of its Any; absent in a TTL heartbeat or an "unknown name" answer (rules 40, 44). */
export interface WireResource {
  readonly name: string;
  readonly version: string;
  readonly typeUrl: string;
  readonly bytes?: Uint8Array;
  readonly ttlMs?: number;
  readonly aliases?: readonly string[];
}

/** A resource that a server keeps: encoded once, and these same bytes go to every stream. `version` is a hash of the content. */
export interface EncodedResource extends WireResource {
  readonly bytes: Uint8Array;
}

interface ListFacts {
  readonly bytes: number;
  readonly hasTtl: boolean;
}
const factsOfLists = memo<readonly WireResource[], ListFacts>();

/** Bytes of all resources together, and whether any has a time to live. A list is looked through once: many streams are sent the same. */
export function factsOf(resources: readonly WireResource[]): ListFacts {
  let facts = factsOfLists.get(resources);
  if (facts === undefined) {
    let bytes = 0;
    let hasTtl = false;
    for (const resource of resources) {
      bytes += resource.bytes?.length ?? 0;
      hasTtl ||= resource.ttlMs !== undefined;
    }
    facts = { bytes, hasTtl };
    factsOfLists.set(resources, facts);
  }
  return facts;
}

export interface SotwRequest {
  readonly mode: 'sotw';
  readonly typeUrl: string;
  readonly versionInfo: string;
  readonly resourceNames: readonly string[];
  readonly responseNonce: string;
  readonly node?: NodeInfo;
  readonly error?: ErrorDetail;
}

export interface SotwResponse {
  readonly mode: 'sotw';
  readonly typeUrl: string;
  readonly versionInfo: string;
  readonly nonce: string;
  readonly resources: readonly WireResource[];
  /** Each resource inside a discovery.v3.Resource: only for clients that announced it (rule 41). */
  readonly wrapped: boolean;
}

export interface DeltaRequest {
  readonly mode: 'delta';
  readonly typeUrl: string;
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  readonly initialVersions: ReadonlyMap<string, string>;
  readonly responseNonce: string;
  readonly node?: NodeInfo;
  readonly error?: ErrorDetail;
}

export interface DeltaResponse {
  readonly mode: 'delta';
  readonly typeUrl: string;
  readonly versionInfo: string;
  readonly nonce: string;
  readonly resources: readonly WireResource[];
  readonly removed: readonly string[];
}

export type DiscoveryRequest = SotwRequest | DeltaRequest;
export type DiscoveryResponse = SotwResponse | DeltaResponse;

/** The status codes of gRPC that sessions use. */
export const CODES = {
  invalidArgument: 3,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

/** Ends a stream: `code` is a gRPC status, the message goes to the peer. */
export class StreamError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.name = 'StreamError';
    this.code = code;
  }
}

/** Longest error text that goes into a NACK or is kept of one (Envoy's own limit). */
export const ERROR_TEXT_MAX = 32 * 1024;

/** Never empty and never longer than `ERROR_TEXT_MAX` characters (rule 18). */
export function errorText(message: string): string {
  if (message === '') return 'rejected without a reason';
  if (message.length <= ERROR_TEXT_MAX) return message;
  // A copy: a slice would keep the whole text in memory for as long as its beginning.
  return structuredClone(`${message.slice(0, ERROR_TEXT_MAX - 13)} …(truncated)`);
}

/** Names under which a client may announce that it takes wrapped resources in state-of-the-world responses (rule 40). */
const WRAPPING_FEATURES: ReadonlySet<string> = new Set([
  'envoy.config.supports-resource-ttl',
  'xds.config.supports-resource-ttl',
  'xds.config.supports-resource-in-sotw',
  'xds.config.resource-in-sotw',
]);

export function takesWrappedResources(node: NodeInfo): boolean {
  return node.clientFeatures.some((feature) => WRAPPING_FEATURES.has(feature));
}

/** A text that is the same for nodes that are the same in every field, whatever the order of their metadata's keys (rule 2). */
export function canonicalNode(node: NodeInfo): string {
  return JSON.stringify(node, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
