/** The `mask` of `/config_dump`: what a FieldMask leaves of a dump, and which masks a dump cannot take. */
import { isBootstrapPath } from '../../xds/resources/field-mask.ts';
import type { Json, JsonObject } from '../../xds/snapshot.ts';

/** Messages of the lists in Envoy's dumps, by field. */
export const ITEM_TYPES: Readonly<Record<string, string>> = {
  static_clusters: 'ClustersConfigDump.StaticCluster',
  dynamic_active_clusters: 'ClustersConfigDump.DynamicCluster',
  dynamic_warming_clusters: 'ClustersConfigDump.DynamicCluster',
  static_endpoint_configs: 'EndpointsConfigDump.StaticEndpointConfig',
  dynamic_endpoint_configs: 'EndpointsConfigDump.DynamicEndpointConfig',
  static_listeners: 'ListenersConfigDump.StaticListener',
  dynamic_listeners: 'ListenersConfigDump.DynamicListener',
  inline_scoped_route_configs: 'ScopedRoutesConfigDump.InlineScopedRouteConfigs',
  dynamic_scoped_route_configs: 'ScopedRoutesConfigDump.DynamicScopedRouteConfigs',
  static_route_configs: 'RoutesConfigDump.StaticRouteConfig',
  dynamic_route_configs: 'RoutesConfigDump.DynamicRouteConfig',
  static_secrets: 'SecretsConfigDump.StaticSecret',
  dynamic_active_secrets: 'SecretsConfigDump.DynamicSecret',
  dynamic_warming_secrets: 'SecretsConfigDump.DynamicSecret',
};

/** Fields of a dump that are no lists. */
const OTHER_FIELDS: Readonly<Record<string, readonly string[]>> = {
  BootstrapConfigDump: ['bootstrap', 'last_updated'],
  ClustersConfigDump: ['version_info'],
  ListenersConfigDump: ['version_info'],
};

/** What the items carry besides the resource itself. */
const ITEM_FIELDS = ['name', 'version_info', 'last_updated', 'error_state', 'client_status'];
const RESOURCES: Readonly<Record<string, readonly string[]>> = {
  ClustersConfigDump: ['cluster'],
  EndpointsConfigDump: ['endpoint_config'],
  ListenersConfigDump: ['listener', 'active_state', 'warming_state', 'draining_state'],
  ScopedRoutesConfigDump: ['scoped_route_configs'],
  RoutesConfigDump: ['route_config'],
  SecretsConfigDump: ['secret'],
};

/** Whether the dump has that list. */
export function hasList(dump: string, field: string): boolean {
  return ITEM_TYPES[field]?.startsWith(`${dump}.`) === true;
}

/** Whether every path of the mask names something that the dump can have. `dump` is its message's name without the package. */
export function fitsDump(dump: string, mask: readonly string[]): boolean {
  return mask.every((path) => {
    const [head = '', ...rest] = path.split('.');
    if (hasList(dump, head)) return rest.length === 0;
    if (OTHER_FIELDS[dump]?.includes(head) !== true) return false;
    return rest.length === 0 || head === 'last_updated' || (head === 'bootstrap' && isBootstrapPath(rest));
  });
}

/** The same for the items of a list. */
export function fitsItem(list: string, mask: readonly string[]): boolean {
  const resources = RESOURCES[ITEM_TYPES[list]?.split('.')[0] ?? ''] ?? [];
  return mask.every((path) => {
    const head = path.split('.')[0]!;
    return ITEM_FIELDS.includes(head) || resources.includes(head);
  });
}

/** Keeps what the mask names, and the type. */
export function masked(value: JsonObject, paths: readonly string[]): JsonObject {
  const kept: Record<string, Json> = value['@type'] === undefined ? {} : { '@type': value['@type'] };
  for (const path of paths) {
    const [head = '', ...rest] = path.split('.');
    const inner = value[head];
    if (inner === undefined) continue;
    if (rest.length === 0) kept[head] = inner;
    else if (Array.isArray(inner)) kept[head] = inner.map((item: Json) => (isObject(item) ? masked(item, [rest.join('.')]) : item));
    else if (isObject(inner)) kept[head] = { ...(isObject(kept[head]) ? kept[head] : {}), ...masked(inner, [rest.join('.')]) };
  }
  return kept;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
