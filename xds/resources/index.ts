/** The kinds of resources on the wire: type URL, decoder, encoder and name of each. */
import type { DescMessage, Message } from '@bufbuild/protobuf';
import type { Cluster, JsonObject, Listener, LoadAssignment, RouteConfiguration, Secret, VirtualHost } from '../snapshot.ts';
import { decodeCluster, encodeCluster } from './cluster.ts';
import { DecodeError, topOf } from './decoding.ts';
import { decodeEndpoints, encodeEndpoints } from './endpoint.ts';
import { decodeMessage } from './extension.ts';
import { DUMP_STYLE, messageJson } from './json.ts';
import { decodeListener, encodeListener } from './listener.ts';
import { messageType, typeNameOf } from './registry.ts';
import { decodeOwnVirtualHost, decodeRoute, encodeOwnVirtualHost, encodeRoute } from './route.ts';
import { decodeSecret, encodeSecret } from './secret.ts';

export { DecodeError };

interface KindOf<T> {
  readonly typeUrl: string;
  /** Throws DecodeError; adds what is ignored to `warnings`. */
  readonly decode: (bytes: Uint8Array, warnings?: string[]) => T;
  /** The same resource gives the same bytes. Throws for a resource that the wire cannot carry. */
  readonly encode: (resource: T) => Uint8Array;
  readonly nameOf: (resource: T) => string;
}

export const KINDS = {
  listener: kind<Listener>('envoy.config.listener.v3.Listener', decodeListener, encodeListener, ({ name }) => name),
  route: kind<RouteConfiguration>('envoy.config.route.v3.RouteConfiguration', decodeRoute, encodeRoute, ({ name }) => name),
  virtualHost: kind<VirtualHost>('envoy.config.route.v3.VirtualHost', decodeOwnVirtualHost, encodeOwnVirtualHost, ({ name }) => name),
  cluster: kind<Cluster>('envoy.config.cluster.v3.Cluster', decodeCluster, encodeCluster, ({ name }) => name),
  endpoints: kind<LoadAssignment>(
    'envoy.config.endpoint.v3.ClusterLoadAssignment',
    decodeEndpoints,
    encodeEndpoints,
    ({ clusterName }) => clusterName,
  ),
  secret: kind<Secret>('envoy.extensions.transport_sockets.tls.v3.Secret', decodeSecret, encodeSecret, ({ name }) => name),
} satisfies Readonly<Record<string, { readonly typeUrl: string }>>;

export type Kind = keyof typeof KINDS;
export type ResourceOf<K extends Kind> = ReturnType<(typeof KINDS)[K]['decode']>;
export type Decoded = {
  [K in Kind]: { readonly kind: K; readonly name: string; readonly resource: ResourceOf<K>; readonly warnings: readonly string[] };
}[Kind];

export const TYPE_URLS: Readonly<Record<Kind, string>> = {
  listener: KINDS.listener.typeUrl,
  route: KINDS.route.typeUrl,
  virtualHost: KINDS.virtualHost.typeUrl,
  cluster: KINDS.cluster.typeUrl,
  endpoints: KINDS.endpoints.typeUrl,
  secret: KINDS.secret.typeUrl,
};

function kind<T>(typeName: string, decode: KindOf<T>['decode'], encode: KindOf<T>['encode'], nameOf: KindOf<T>['nameOf']): KindOf<T> {
  return { typeUrl: `type.googleapis.com/${typeName}`, decode, encode, nameOf };
}

/** The kind of a type URL, whatever host stands before the name; undefined for types that are no resources of ours. */
export function kindOf(typeUrl: string): Kind | undefined {
  const typeName = typeNameOf(typeUrl);
  for (const name of Object.keys(KINDS) as Kind[]) if (typeNameOf(KINDS[name].typeUrl) === typeName) return name;
  return undefined;
}

/** A resource from the wire. Throws DecodeError, which names the resource, the field, the rule and the value. */
export function decodeResource(typeUrl: string, bytes: Uint8Array): Decoded {
  const name = kindOf(typeUrl);
  if (name === undefined)
    throw new DecodeError('resource', '', `the type must be one of ${Object.keys(KINDS).join(', ')}, received ${typeUrl}`);
  const warnings: string[] = [];
  const { decode, nameOf } = KINDS[name] as KindOf<unknown>;
  const resource = decode(bytes, warnings);
  return { kind: name, name: nameOf(resource), resource, warnings } as Decoded;
}

export function encodeResource<K extends Kind>(name: K, resource: ResourceOf<K>): { typeUrl: string; name: string; bytes: Uint8Array } {
  const { typeUrl, encode, nameOf } = KINDS[name] as unknown as KindOf<ResourceOf<K>>;
  return { typeUrl, name: nameOf(resource), bytes: encode(resource) };
}

/** The resource as Envoy prints it in a config dump: snake_case, `@type` first, secrets replaced by `[redacted]`. */
export function resourceJson(typeUrl: string, bytes: Uint8Array): JsonObject {
  const schema: DescMessage | undefined = messageType(typeNameOf(typeUrl));
  if (schema === undefined) return { '@type': typeUrl };
  const message: Message = decodeMessage(schema, bytes, topOf(schema.typeName));
  return { '@type': typeUrl, ...messageJson(schema, message, DUMP_STYLE) };
}
