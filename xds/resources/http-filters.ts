/** The list of HTTP filters, and the configuration that routes give them by name. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { ExtensionConfigSourceSchema } from '../gen/envoy/config/core/v3/config_source_pb.js';
import { type CorsPolicy, CorsPolicySchema, FilterConfigSchema } from '../gen/envoy/config/route/v3/route_components_pb.js';
import type {
  HttpFilter,
  HttpFilterSchema,
} from '../gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js';
import type { ExtensionConfig, HttpFilterConfig } from '../snapshot.ts';
import { inside, type Place, refuse } from './decoding.ts';
import { extensionOf, openAs, pack, packExtension } from './extension.ts';
import { CONFIG_STYLE, messageJson } from './json.ts';
import { newMessage } from './loose.ts';

/** The type of a filter whose configuration comes by ECDS; its config is the JSON of the ExtensionConfigSource. */
export const CONFIG_DISCOVERY_TYPE = ExtensionConfigSourceSchema.typeName;
const CORS_NAME = 'envoy.filters.http.cors';
const CORS_TYPE = 'envoy.extensions.filters.http.cors.v3.CorsPolicy';
const ROUTER_TYPE = 'envoy.extensions.filters.http.router.v3.Router';

export function decodeHttpFilters(wire: readonly HttpFilter[], place: Place): readonly HttpFilterConfig[] {
  const filters = wire.map((filter, i) => decodeHttpFilter(filter, inside(place, i)));
  filters.forEach((filter, i) => {
    const isLast = i === filters.length - 1;
    if (filter.type === ROUTER_TYPE && !isLast) refuse(inside(place, i), 'the router must be the last HTTP filter', filter.name);
    if (isLast && filter.type !== ROUTER_TYPE) refuse(inside(place, i), 'the last HTTP filter must be the router', filter.name);
  });
  return filters;
}

function decodeHttpFilter(wire: HttpFilter, place: Place): HttpFilterConfig {
  const flags = { disabled: wire.disabled, isOptional: wire.isOptional };
  if (wire.configType.case === 'configDiscovery') {
    const config = messageJson(ExtensionConfigSourceSchema, wire.configType.value, CONFIG_STYLE);
    // What is discovered later is not built: the compiler refuses it by the name of the extension, unless the filter is optional.
    return { name: wire.name, type: CONFIG_DISCOVERY_TYPE, config, ...flags };
  }
  return { ...extensionOf(wire.name, wire.configType.value, place), ...flags };
}

export function encodeHttpFilters(filters: readonly HttpFilterConfig[]): MessageInitShape<typeof HttpFilterSchema>[] {
  return filters.map((filter) => {
    const { name, isOptional, disabled } = filter;
    if (filter.type === CONFIG_DISCOVERY_TYPE) {
      const value = newMessage(ExtensionConfigSourceSchema, filter.config, `HTTP filter "${name}"`);
      return { name, isOptional, disabled, configType: { case: 'configDiscovery', value } };
    }
    const any = packExtension(filter);
    return { name, isOptional, disabled, ...(any === undefined ? {} : { configType: { case: 'typedConfig', value: any } }) };
  });
}

/** CORS in its deprecated place, as the configuration of the filter that took over. */
export function withOldCors(
  configs: ReadonlyMap<string, ExtensionConfig>,
  cors: CorsPolicy | undefined,
): ReadonlyMap<string, ExtensionConfig> {
  if (cors === undefined || configs.has(CORS_NAME)) return configs;
  const config = messageJson(CorsPolicySchema, cors, CONFIG_STYLE);
  return new Map([...configs, [CORS_NAME, { name: CORS_NAME, type: CORS_TYPE, config }]]);
}

/** Shared: most routes of a large mesh have none. */
const NO_CONFIGS: ReadonlyMap<string, ExtensionConfig> = new Map();

/** typed_per_filter_config: a FilterConfig around a configuration is taken off, its `disabled` kept. */
export function decodePerFilterConfig(wire: { readonly [name: string]: Any }, place: Place): ReadonlyMap<string, ExtensionConfig> {
  const entries = Object.entries(wire);
  if (entries.length === 0) return NO_CONFIGS;
  const configs = new Map<string, ExtensionConfig>();
  for (const [name, any] of entries) {
    const at = inside(inside(place, 'typed_per_filter_config'), name);
    const wrapper = any.typeUrl.endsWith(`/${FilterConfigSchema.typeName}`) ? openAs(FilterConfigSchema, any, at) : undefined;
    if (wrapper === undefined) {
      configs.set(name, extensionOf(name, any, at));
      continue;
    }
    const inner: ExtensionConfig =
      wrapper.config === undefined ? { name, type: '', config: {} } : extensionOf(name, wrapper.config, inside(at, 'config'));
    configs.set(name, wrapper.disabled ? { ...inner, disabled: true } : inner);
  }
  return configs;
}

export function encodePerFilterConfig(configs: ReadonlyMap<string, ExtensionConfig>): { [name: string]: Any } {
  const out: { [name: string]: Any } = {};
  for (const name of [...configs.keys()].sort()) {
    const config = configs.get(name)!;
    const any = packExtension(config);
    if (config.disabled === true || any === undefined) {
      out[name] = pack(
        FilterConfigSchema,
        create(FilterConfigSchema, { disabled: config.disabled === true, ...(any === undefined ? {} : { config: any }) }),
      );
    } else out[name] = any;
  }
  return out;
}
