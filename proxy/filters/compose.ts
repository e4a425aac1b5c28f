/** Builds a connection manager's HTTP filters once, and composes them around each route with that route's own configuration. */
import { ConfigError } from '../errors.ts';
import { ConfigReader } from './config.ts';
import { FILTERS, ROUTER, WATCHING_ONLY } from './index.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import { calledBack, promising } from '../promised.ts';
import type { Filter, Send } from '../service.ts';
import type { ExtensionConfig, HttpFilterConfig } from '../../xds/snapshot.ts';

/** Configurations of a route by filter name, the most specific first: weighted cluster, route, virtual host. */
export type Overrides = readonly ReadonlyMap<string, ExtensionConfig>[];

export interface FilterStack {
  /** The filters around `terminal`, the first one outermost. Filters without work for this route are absent. */
  around(terminal: Send, overrides: Overrides, path: string): Send;
}

interface Slot {
  readonly config: HttpFilterConfig;
  readonly entry: FilterEntry;
  readonly reader: ConfigReader;
  readonly filter: Filter | undefined;
}

/** Compiles the list. Throws ConfigError for what is unknown and not optional, and when the router is not last. */
export function compileFilters(configs: readonly HttpFilterConfig[], path: string, deps: FilterDeps): FilterStack {
  const last = configs.at(-1);
  if (last === undefined || !isRouter(last))
    throw new ConfigError(
      `${path}.http_filters`,
      `must end in the router, ${ROUTER.type}, received ${last === undefined ? 'no filter' : JSON.stringify(last.name)}`,
    );
  const slots = configs.slice(0, -1).flatMap((config, index) => compileSlot(config, `${path}.http_filters[${index}]`, deps));
  const byOverride = new WeakMap<ExtensionConfig, Filter | 'none'>();
  const forRoute = (slot: Slot, overrides: Overrides, place: string): Filter | undefined => {
    const override = findOverride(slot, overrides);
    if (override === undefined) return slot.filter;
    let known = byOverride.get(override);
    if (known === undefined) {
      known = buildOverride(slot, override, `${place}.typed_per_filter_config[${JSON.stringify(slot.config.name)}]`, deps) ?? 'none';
      // The same configuration object stands for all routes of a virtual host: they share one filter and its state.
      byOverride.set(override, known);
    }
    return known === 'none' ? undefined : known;
  };
  return {
    around: (terminal, overrides, place) => {
      // Most routes have none: only those that have pay for promises.
      const filters = slots.flatMap((slot) => forRoute(slot, overrides, place) ?? []);
      if (filters.length === 0) return terminal;
      return calledBack(filters.reduceRight((service, filter) => filter(service), promising(terminal)));
    },
  };
}

function compileSlot(config: HttpFilterConfig, path: string, deps: FilterDeps): Slot[] {
  if (isRouter(config)) throw new ConfigError(path, 'the router must come last');
  const entry = findEntry(config);
  if (entry === undefined) {
    if (config.isOptional) return [];
    if (WATCHING_ONLY.has(config.type === '' ? config.name : config.type)) {
      deps.log.info('A filter that only watches traffic is left out.', { path, filter: config.name });
      return [];
    }
    throw unknownFilter(config, path);
  }
  const reader = new ConfigReader(path, config.config);
  return [{ config, entry, reader, filter: config.disabled ? undefined : entry.build(reader, deps) }];
}

function buildOverride(slot: Slot, override: ExtensionConfig, path: string, deps: FilterDeps): Filter | undefined {
  if (override.disabled === true) return undefined;
  const reader = new ConfigReader(path, override.config);
  const { entry } = slot;
  if (override.type !== '' && override.type !== entry.type && entry.routeTypes?.includes(override.type) !== true) {
    throw new ConfigError(path, `takes ${[...(entry.routeTypes ?? []), entry.type].join(' or ')}, received ${override.type}`);
  }
  if (entry.buildForRoute === undefined || override.type === entry.type) return entry.build(reader, deps);
  return entry.buildForRoute(reader, slot.reader, deps);
}

/** Routes name filters as the listener does; the filter's canonical names work too. */
function findOverride(slot: Slot, overrides: Overrides): ExtensionConfig | undefined {
  for (const level of overrides) {
    if (level.size === 0) continue;
    const own = level.get(slot.config.name);
    if (own !== undefined) return own;
    for (const name of slot.entry.names) {
      const found = level.get(name);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

function findEntry(config: ExtensionConfig): FilterEntry | undefined {
  const entries: FilterEntry[] = Object.values(FILTERS);
  if (config.type !== '') return entries.find((entry) => entry.type === config.type);
  return entries.find((entry) => entry.names.includes(config.name));
}

function isRouter(config: ExtensionConfig): boolean {
  return config.type === '' ? (ROUTER.names as readonly string[]).includes(config.name) : config.type === ROUTER.type;
}

function unknownFilter(config: ExtensionConfig, path: string): ConfigError {
  const known = [...Object.values(FILTERS).map((entry) => entry.type), ROUTER.type].toSorted().join(', ');
  return new ConfigError(path, `the extension ${config.type || config.name} is not built in; there are ${known}`);
}
