/** Route configurations (RDS, or inline in a listener) and virtual hosts by name (VHDS): virtual hosts and their routes. */
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  type RouteConfiguration as WireConfiguration,
  RouteConfigurationSchema,
  type Vhds,
} from '../gen/envoy/config/route/v3/route_pb.js';
import {
  type Route as WireRoute,
  type RouteSchema,
  type VirtualHost as WireHost,
  VirtualHost_TlsRequirementType as RequireTls,
  VirtualHostSchema,
} from '../gen/envoy/config/route/v3/route_components_pb.js';
import type { Route, RouteConfiguration, VirtualHost } from '../snapshot.ts';
import { inside, type Place, refuse, topOf, warn } from './decoding.ts';
import { nameOf, toDuration } from './duration.ts';
import { decodeMessage } from './extension.ts';
import { decodeMutations, encodeMutations } from './header-mutations.ts';
import { decodePerFilterConfig, encodePerFilterConfig, withOldCors } from './http-filters.ts';
import { adsSource, decodeMetadata, decodeSource, encodeMetadata } from './parts.ts';
import { decodeRetryPolicy, encodeRetryPolicy } from './retry.ts';
import { decodeAction } from './route-action.ts';
import { encodeAction } from './route-action-encode.ts';
import { decodeRouteMatch, encodeRouteMatch } from './route-match.ts';
import { checkRules } from './rules.ts';

const BODY_BYTES_MAX = 4_096;
/** Nothing is sent before it is asked for, and an Envoy that waits for a first answer does not open its listener meanwhile. */
const VHDS_FIRST_WAIT_MS = 1;

/** Decodes an RDS resource. Throws DecodeError. */
export function decodeRoute(bytes: Uint8Array, warnings: string[] = []): RouteConfiguration {
  const wire = decodeMessage(RouteConfigurationSchema, bytes, topOf('route', warnings));
  const place = topOf(`route "${wire.name}"`, warnings);
  checkRules(RouteConfigurationSchema, wire, place);
  return decodeRouteConfiguration(wire, place);
}

/** Decodes a VHDS resource. Throws DecodeError. */
export function decodeOwnVirtualHost(bytes: Uint8Array, warnings: string[] = []): VirtualHost {
  const wire = decodeMessage(VirtualHostSchema, bytes, topOf('virtual host', warnings));
  const place = topOf(`virtual host "${wire.name}"`, warnings);
  checkRules(VirtualHostSchema, wire, place);
  return decodeVirtualHost(wire, place, BODY_BYTES_MAX);
}

/** From a message whose rules are checked. */
export function decodeRouteConfiguration(wire: WireConfiguration, place: Place): RouteConfiguration {
  if (wire.ignorePathParametersInPathMatching) refuse(inside(place, 'ignore_path_parameters_in_path_matching'), 'is not supported');
  if (wire.requestMirrorPolicies.length > 0) warn(inside(place, 'request_mirror_policies'), 'is ignored here; set it on the route');
  const maxDirectResponseBodyBytes = wire.maxDirectResponseBodySizeBytes ?? BODY_BYTES_MAX;
  // Here it becomes part of each virtual host, and those that come later would do without what it says.
  if (wire.vhds !== undefined && Object.keys(wire.typedPerFilterConfig).length > 0)
    refuse(inside(place, 'typed_per_filter_config'), 'is not supported together with vhds; set it on the virtual hosts');
  const at = inside(place, 'virtual_hosts');
  const virtualHosts = wire.virtualHosts.map((host, i) => decodeVirtualHost(host, inside(at, i), maxDirectResponseBodyBytes));
  checkUnique(virtualHosts, at);
  return {
    name: wire.name,
    virtualHosts: withShared(virtualHosts, decodePerFilterConfig(wire.typedPerFilterConfig, place)),
    ...(wire.vhds === undefined ? {} : { vhds: decodeVhds(wire.vhds, inside(inside(place, 'vhds'), 'config_source')) }),
    headerMutations: decodeMutations(wire, place),
    validateClusters: wire.validateClusters ?? false,
    ignorePortInHostMatching: wire.ignorePortInHostMatching,
    mostSpecificHeaderMutationsWins: wire.mostSpecificHeaderMutationsWins,
    maxDirectResponseBodyBytes,
  };
}

/** Virtual hosts come over the stream that the route configuration came on. */
function decodeVhds(wire: Vhds, place: Place): true {
  const source = decodeSource(wire.configSource, place);
  if (source?.kind !== 'ads') refuse(place, 'must be ads or self: virtual hosts come over the same stream as their routes');
  return true;
}

/** Filter configuration of the whole table applies to each virtual host that has none of its own. */
function withShared(hosts: readonly VirtualHost[], shared: VirtualHost['perFilterConfig']): readonly VirtualHost[] {
  if (shared.size === 0) return hosts;
  return hosts.map((host) => ({ ...host, perFilterConfig: new Map([...shared, ...host.perFilterConfig]) }));
}

/** One virtual host per name, and one per domain. */
function checkUnique(hosts: readonly VirtualHost[], place: Place): void {
  const names = new Set<string>();
  const domains = new Map<string, string>();
  hosts.forEach((host, i) => {
    if (names.has(host.name)) refuse(inside(inside(place, i), 'name'), 'must be unique in a route configuration', host.name);
    names.add(host.name);
    for (const domain of host.domains) {
      const other = domains.get(domain);
      if (other !== undefined) {
        refuse(inside(inside(place, i), 'domains'), `must be unique in a route configuration (virtual host "${other}" has it too)`, domain);
      }
      domains.set(domain, host.name);
    }
  });
}

function decodeVirtualHost(wire: WireHost, place: Place, bodyBytesMax: number): VirtualHost {
  if (wire.matcher !== undefined) refuse(inside(place, 'matcher'), 'is not supported');
  if (wire.retryPolicyTypedConfig !== undefined) refuse(inside(place, 'retry_policy_typed_config'), 'is not supported');
  if (wire.hedgePolicy !== undefined) warn(inside(place, 'hedge_policy'), 'is ignored');
  if (wire.rateLimits.length > 0) warn(inside(place, 'rate_limits'), 'is ignored');
  return {
    name: wire.name,
    domains: wire.domains.map((domain, i) => decodeDomain(domain, inside(inside(place, 'domains'), i))),
    routes: wire.routes.map((route, i) => decodeOneRoute(route, inside(inside(place, 'routes'), i), bodyBytesMax)),
    headerMutations: decodeMutations(wire, place),
    ...(wire.retryPolicy === undefined ? {} : { retryPolicy: decodeRetryPolicy(wire.retryPolicy, inside(place, 'retry_policy')) }),
    includeRequestAttemptCount: wire.includeRequestAttemptCount,
    includeAttemptCountInResponse: wire.includeAttemptCountInResponse,
    requireTls: nameOf(RequireTls, wire.requireTls) ?? 'NONE',
    perFilterConfig: withOldCors(decodePerFilterConfig(wire.typedPerFilterConfig, place), wire.cors),
  };
}

/** A wildcard stands alone, or at one end. */
function decodeDomain(domain: string, place: Place): string {
  const star = domain.indexOf('*');
  const fine = star === -1 || (domain.indexOf('*', star + 1) === -1 && (star === 0 || star === domain.length - 1));
  if (domain === '' || !fine) refuse(place, 'must be exact, "*", "*suffix" or "prefix*"', domain);
  return domain.toLowerCase();
}

function decodeOneRoute(wire: WireRoute, place: Place, bodyBytesMax: number): Route {
  if (wire.match === undefined) return refuse(inside(place, 'match'), 'is required');
  const metadata = decodeMetadata(wire.metadata);
  const oldCors = wire.action.case === 'route' ? wire.action.value.cors : undefined;
  return {
    name: wire.name,
    match: decodeRouteMatch(wire.match, inside(place, 'match')),
    action: decodeAction(wire.action, place, bodyBytesMax),
    headerMutations: decodeMutations(wire, place),
    perFilterConfig: withOldCors(decodePerFilterConfig(wire.typedPerFilterConfig, place), oldCors),
    ...(metadata === undefined ? {} : { metadata }),
  };
}

/** The bytes are those of the whole message. Virtual hosts that were encoded before, in whatever table, are not encoded again. */
export function encodeRoute(route: RouteConfiguration): Uint8Array {
  const { name, ...rest } = newRouteConfiguration({ ...route, virtualHosts: [] });
  return Buffer.concat([
    toBinary(RouteConfigurationSchema, create(RouteConfigurationSchema, { name })),
    ...route.virtualHosts.map(virtualHostField),
    toBinary(RouteConfigurationSchema, create(RouteConfigurationSchema, { ...rest, name: '' })),
  ]);
}

/** Field 2 of the configuration, by virtual host. */
const virtualHostFields = new WeakMap<VirtualHost, Uint8Array>();

/** Encodes a virtual host, and keeps the bytes for `encodeRoute`. */
export function virtualHostField(host: VirtualHost): Uint8Array {
  let field = virtualHostFields.get(host);
  if (field === undefined) {
    field = toBinary(RouteConfigurationSchema, create(RouteConfigurationSchema, { virtualHosts: [encodeVirtualHost(host)] }));
    virtualHostFields.set(host, field);
  }
  return field;
}

export function encodeOwnVirtualHost(host: VirtualHost): Uint8Array {
  return toBinary(VirtualHostSchema, create(VirtualHostSchema, encodeVirtualHost(host)));
}

export function newRouteConfiguration(route: RouteConfiguration): WireConfiguration {
  return create(RouteConfigurationSchema, {
    name: route.name,
    virtualHosts: route.virtualHosts.map(encodeVirtualHost),
    ...(route.vhds === undefined
      ? {}
      : { vhds: { configSource: { ...adsSource(), initialFetchTimeout: toDuration(VHDS_FIRST_WAIT_MS) } } }),
    ...encodeMutations(route.headerMutations),
    validateClusters: route.validateClusters,
    ignorePortInHostMatching: route.ignorePortInHostMatching,
    mostSpecificHeaderMutationsWins: route.mostSpecificHeaderMutationsWins,
    ...(route.maxDirectResponseBodyBytes === BODY_BYTES_MAX ? {} : { maxDirectResponseBodySizeBytes: route.maxDirectResponseBodyBytes }),
  });
}

type HostInit = Exclude<MessageInitShape<typeof VirtualHostSchema>, { $typeName: string }>;

function encodeVirtualHost(host: VirtualHost): HostInit {
  return {
    name: host.name,
    domains: [...host.domains],
    routes: host.routes.map(encodeOneRoute),
    ...encodeMutations(host.headerMutations),
    ...(host.retryPolicy === undefined ? {} : { retryPolicy: encodeRetryPolicy(host.retryPolicy) }),
    includeRequestAttemptCount: host.includeRequestAttemptCount,
    includeAttemptCountInResponse: host.includeAttemptCountInResponse,
    requireTls: RequireTls[host.requireTls],
    typedPerFilterConfig: encodePerFilterConfig(host.perFilterConfig),
  };
}

function encodeOneRoute(route: Route): MessageInitShape<typeof RouteSchema> {
  const metadata = encodeMetadata(route.metadata);
  return {
    name: route.name,
    match: encodeRouteMatch(route.match),
    action: encodeAction(route.action),
    ...encodeMutations(route.headerMutations),
    typedPerFilterConfig: encodePerFilterConfig(route.perFilterConfig),
    ...(metadata === undefined ? {} : { metadata }),
  };
}
