/** `/config_dump`: every resource the proxy holds, in the JSON of Envoy's admin API, without secrets. */
import { json, searchPattern, text } from './endpoint.ts';
import type { AdminContext, AdminEndpoint, AdminRequest, AdminResponse } from './endpoint.ts';
import type { Json, JsonObject } from '../../xds/snapshot.ts';

/** A resource and how far it got. `resource` has its `@type` and is redacted already. */
export interface DumpEntry {
  readonly name: string;
  readonly resource: JsonObject;
  readonly version: string;
  readonly updatedMs: number;
  readonly state: 'static' | 'active' | 'warming';
  /** The last version that was refused. */
  readonly error?: { readonly version: string; readonly message: string; readonly atMs: number };
}

export interface DumpSource {
  readonly bootstrap: JsonObject;
  readonly bootstrapMs: number;
  readonly versions: { readonly clusters: string; readonly listeners: string };
  readonly clusters: readonly DumpEntry[];
  readonly endpoints: readonly DumpEntry[];
  readonly listeners: readonly DumpEntry[];
  readonly routes: readonly DumpEntry[];
  readonly secrets: readonly DumpEntry[];
}

export const configDump: AdminEndpoint = {
  path: '/config_dump',
  help: 'dump current configs (include_eds, resource=FIELD, mask=FIELD_MASK, name_regex=REGEX)',
  mutates: false,
  handle: handleConfigDump,
};

const ADMIN = 'type.googleapis.com/envoy.admin.v3.';

function handleConfigDump(request: AdminRequest, context: AdminContext): AdminResponse {
  const includeEndpoints = request.query.has('include_eds');
  const wanted = searchPattern(request.query.get('name_regex'));
  if (typeof wanted === 'string') return text(`name_regex: ${wanted}\n`, 400);
  const resource = request.query.get('resource');
  const mask =
    request.query
      .get('mask')
      ?.split(',')
      .filter((path) => path !== '') ?? [];
  const configs = dumpConfigs(context.dump(), includeEndpoints, wanted ?? (() => true));
  if (resource === null) {
    if (mask.length === 0) return json({ configs });
    // A dump of which the mask leaves nothing but its type is left out, as Envoy does.
    return listed(configs.map((config) => masked(config, mask)).filter((config) => Object.keys(config).length > 1));
  }
  const found = configs.find((config) => Array.isArray(config[resource]));
  const known = configs.some(
    (config) => typeof config['@type'] === 'string' && FIELDS_BY_TYPE[config['@type']]?.includes(resource) === true,
  );
  if (found === undefined && !known) return { status: 404, contentType: 'text/plain', body: `${resource} not found in config dump` };
  const items = (found?.[resource] ?? []) as readonly JsonObject[];
  const type = `${ADMIN}${ITEM_TYPES[resource] ?? ''}`;
  return listed(items.map((item) => ({ '@type': type, ...(mask.length === 0 ? item : masked(item, mask)) })));
}

/** An empty list is no field, as in Envoy's JSON. */
function listed(configs: readonly JsonObject[]): AdminResponse {
  return json(configs.length === 0 ? {} : { configs });
}

const ITEM_TYPES: Readonly<Record<string, string>> = {
  static_clusters: 'ClustersConfigDump.StaticCluster',
  dynamic_active_clusters: 'ClustersConfigDump.DynamicCluster',
  dynamic_warming_clusters: 'ClustersConfigDump.DynamicCluster',
  static_endpoint_configs: 'EndpointsConfigDump.StaticEndpointConfig',
  dynamic_endpoint_configs: 'EndpointsConfigDump.DynamicEndpointConfig',
  static_listeners: 'ListenersConfigDump.StaticListener',
  dynamic_listeners: 'ListenersConfigDump.DynamicListener',
  static_route_configs: 'RoutesConfigDump.StaticRouteConfig',
  dynamic_route_configs: 'RoutesConfigDump.DynamicRouteConfig',
  static_secrets: 'SecretsConfigDump.StaticSecret',
  dynamic_active_secrets: 'SecretsConfigDump.DynamicSecret',
  dynamic_warming_secrets: 'SecretsConfigDump.DynamicSecret',
};

const FIELDS_BY_TYPE: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  ['Clusters', 'Endpoints', 'Listeners', 'Routes', 'Secrets'].map((kind) => [
    `${ADMIN}${kind}ConfigDump`,
    Object.keys(ITEM_TYPES).filter((field) => ITEM_TYPES[field]!.startsWith(`${kind}ConfigDump`)),
  ]),
);

/** The dumps in Envoy's order; tools index into it. */
export function dumpConfigs(source: DumpSource, includeEndpoints: boolean, wanted: (name: string) => boolean): JsonObject[] {
  const pick = (entries: readonly DumpEntry[], state: DumpEntry['state']): DumpEntry[] =>
    entries.filter((entry) => entry.state === state && wanted(entry.name));
  const item =
    (field: string) =>
    (entry: DumpEntry): JsonObject => ({
      ...(entry.state === 'static' || entry.version === '' ? {} : { version_info: entry.version }),
      [field]: entry.resource,
      last_updated: timestamp(entry.updatedMs),
      ...errorState(entry),
    });
  const list = (field: string, items: readonly JsonObject[]): JsonObject => (items.length === 0 ? {} : { [field]: items });
  const version = (text: string): JsonObject => (text === '' ? {} : { version_info: text });
  const secret = (entry: DumpEntry): JsonObject => ({ name: entry.name, ...item('secret')(entry) });
  return [
    { '@type': `${ADMIN}BootstrapConfigDump`, bootstrap: source.bootstrap, last_updated: timestamp(source.bootstrapMs) },
    {
      '@type': `${ADMIN}ClustersConfigDump`,
      ...version(source.versions.clusters),
      ...list('static_clusters', pick(source.clusters, 'static').map(item('cluster'))),
      ...list('dynamic_active_clusters', pick(source.clusters, 'active').map(item('cluster'))),
      ...list('dynamic_warming_clusters', pick(source.clusters, 'warming').map(item('cluster'))),
    },
    ...(includeEndpoints
      ? [
          {
            '@type': `${ADMIN}EndpointsConfigDump`,
            ...list('static_endpoint_configs', pick(source.endpoints, 'static').map(item('endpoint_config'))),
            ...list('dynamic_endpoint_configs', pick(source.endpoints, 'active').map(item('endpoint_config'))),
          },
        ]
      : []),
    {
      '@type': `${ADMIN}ListenersConfigDump`,
      ...version(source.versions.listeners),
      ...list('static_listeners', pick(source.listeners, 'static').map(item('listener'))),
      ...list('dynamic_listeners', dynamicListeners(source.listeners, wanted)),
    },
    { '@type': `${ADMIN}ScopedRoutesConfigDump` },
    {
      '@type': `${ADMIN}RoutesConfigDump`,
      ...list('static_route_configs', pick(source.routes, 'static').map(item('route_config'))),
      ...list('dynamic_route_configs', pick(source.routes, 'active').map(item('route_config'))),
    },
    {
      '@type': `${ADMIN}SecretsConfigDump`,
      ...list('static_secrets', pick(source.secrets, 'static').map(secret)),
      ...list('dynamic_active_secrets', pick(source.secrets, 'active').map(secret)),
      ...list('dynamic_warming_secrets', pick(source.secrets, 'warming').map(secret)),
    },
  ];
}

/** One entry per name, with its active and its warming state side by side. */
function dynamicListeners(entries: readonly DumpEntry[], wanted: (name: string) => boolean): JsonObject[] {
  const byName = new Map<string, Record<string, Json>>();
  for (const entry of entries) {
    if (entry.state === 'static' || !wanted(entry.name)) continue;
    const listener = byName.get(entry.name) ?? { name: entry.name };
    listener[`${entry.state}_state`] = {
      ...(entry.version === '' ? {} : { version_info: entry.version }),
      listener: entry.resource,
      last_updated: timestamp(entry.updatedMs),
    };
    byName.set(entry.name, Object.assign(listener, errorState(entry)));
  }
  return [...byName.values()];
}

function errorState(entry: DumpEntry): JsonObject {
  if (entry.error === undefined) return {};
  return {
    error_state: { last_update_attempt: timestamp(entry.error.atMs), details: entry.error.message, version_info: entry.error.version },
  };
}

/** Keeps what a FieldMask names, and the type. */
function masked(value: JsonObject, paths: readonly string[]): JsonObject {
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

function timestamp(ms: number): string {
  return new Date(ms).toISOString();
}
