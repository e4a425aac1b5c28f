/** `/config_dump`: every resource the proxy holds, in the JSON of Envoy's admin API, without secrets. */
import { fitsDump, fitsItem, hasList, ITEM_TYPES, masked } from './dump-mask.ts';
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
  if (typeof wanted === 'string')
    return text(`INVALID_ARGUMENT: Error while parsing name_regex from ${request.query.get('name_regex')}: ${wanted}`, 400);
  const resource = request.query.get('resource') ?? '';
  const maskText = request.query.get('mask') ?? '';
  const mask = maskText.split(',').filter((path) => path !== '');
  const configs = dumpConfigs(context.dump(), includeEndpoints, wanted ?? (() => true));
  if (resource !== '') return listOf(configs, resource, mask);
  if (mask.length === 0) return json({ configs });
  const left = configs.filter((config) => fitsDump(dumpName(config), mask));
  if (left.length === 0) return text(`FieldMask ${maskText} could not be successfully applied to any configs.`, 400);
  return json({ configs: left.map((config) => masked(config, mask)) });
}

/** One list of one dump. */
function listOf(configs: readonly JsonObject[], resource: string, mask: readonly string[]): AdminResponse {
  if (resource === 'bootstrap') return text('bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field', 400);
  const found = configs.find((config) => hasList(dumpName(config), resource));
  if (found === undefined) return { status: 404, contentType: 'text/plain', body: `${resource} not found in config dump` };
  const items = (found[resource] ?? []) as readonly JsonObject[];
  // An empty list is no field, as in Envoy's JSON.
  if (items.length === 0) return json({});
  if (!fitsItem(resource, mask)) return text(`FieldMask ${mask.join(',')} could not be successfully used.`, 400);
  const type = `${ADMIN}${ITEM_TYPES[resource]!}`;
  return json({ configs: items.map((item) => ({ '@type': type, ...(mask.length === 0 ? item : masked(item, mask)) })) });
}

function dumpName(config: JsonObject): string {
  const type = config['@type'];
  return typeof type === 'string' ? type.slice(ADMIN.length) : '';
}

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

function timestamp(ms: number): string {
  return new Date(ms).toISOString();
}
