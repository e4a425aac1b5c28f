/** The type URLs of the resources that this mesh speaks, and what the protocol says about each: wildcard, full state, order. */

const PREFIX = 'type.googleapis.com/';

export const LISTENER_TYPE = `${PREFIX}envoy.config.listener.v3.Listener`;
export const ROUTE_TYPE = `${PREFIX}envoy.config.route.v3.RouteConfiguration`;
export const CLUSTER_TYPE = `${PREFIX}envoy.config.cluster.v3.Cluster`;
export const ENDPOINT_TYPE = `${PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment`;
/** Virtual hosts by name, `<route configuration>/<host>` (VHDS): delta only. */
export const VIRTUAL_HOST_TYPE = `${PREFIX}envoy.config.route.v3.VirtualHost`;
export const SECRET_TYPE = `${PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret`;

/** Make-before-break: what is pointed at goes out before what points at it (xDS protocol, "Eventual consistency considerations"). */
export const PUSH_ORDER: readonly string[] = [CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE, SECRET_TYPE];

/** Types that point at a type: a removal waits until these have settled. Virtual hosts do so only where a client asks for them. */
export const REFERRERS: ReadonlyMap<string, readonly string[]> = new Map([
  [CLUSTER_TYPE, [LISTENER_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE]],
  [ENDPOINT_TYPE, [CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, VIRTUAL_HOST_TYPE]],
  [ROUTE_TYPE, [LISTENER_TYPE]],
  [SECRET_TYPE, [CLUSTER_TYPE, LISTENER_TYPE]],
]);

/**
 * Types that must have settled their additions before a type is sent. EDS and SDS are not held by CDS: Envoy keeps back the ACK of a
 * cluster until it is warm, and only its endpoints and secrets make it warm.
 */
export const PREREQUISITES: ReadonlyMap<string, readonly string[]> = new Map([
  [LISTENER_TYPE, [CLUSTER_TYPE, ENDPOINT_TYPE]],
  [ROUTE_TYPE, [CLUSTER_TYPE, ENDPOINT_TYPE]],
]);

/** State-of-the-world clients ask again for these, unchanged, after the parent type changed what they warm (rule 32). */
export const DEPENDANTS: ReadonlyMap<string, string> = new Map([
  [CLUSTER_TYPE, ENDPOINT_TYPE],
  [LISTENER_TYPE, ROUTE_TYPE],
]);

/** LDS and CDS only: an empty first list means everything, and a state-of-the-world response is the whole state (absence = delete). */
export function isFullStateType(typeUrl: string): boolean {
  return typeUrl === LISTENER_TYPE || typeUrl === CLUSTER_TYPE;
}

/** VHDS has no state-of-the-world form (rule 44). */
export function isDeltaOnlyType(typeUrl: string): boolean {
  return typeUrl === VIRTUAL_HOST_TYPE;
}

/** Place in the push order; types without one come last. */
export function pushRank(typeUrl: string): number {
  const rank = PUSH_ORDER.indexOf(typeUrl);
  return rank === -1 ? PUSH_ORDER.length : rank;
}

/** `CDS` for a cluster, and so on: for messages and metrics. */
export function shortName(typeUrl: string): string {
  return SHORT_NAMES.get(typeUrl) ?? typeUrl.slice(typeUrl.lastIndexOf('/') + 1);
}

const SHORT_NAMES: ReadonlyMap<string, string> = new Map([
  [LISTENER_TYPE, 'LDS'],
  [ROUTE_TYPE, 'RDS'],
  [CLUSTER_TYPE, 'CDS'],
  [ENDPOINT_TYPE, 'EDS'],
  [VIRTUAL_HOST_TYPE, 'VHDS'],
  [SECRET_TYPE, 'SDS'],
]);
