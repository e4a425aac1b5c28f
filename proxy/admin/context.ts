/** What the admin port sees of a running proxy, put together from its parts. */
import { certificatesInUse } from '../certificates.ts';
import { nodeJson } from '../boot.ts';
import { referencedNames } from '../ads.ts';
import { encodeResource, resourceJson, TYPE_URLS } from '../../xds/resources/index.ts';
import type { AdminContext } from './endpoint.ts';
import type { DumpEntry, DumpSource } from './config-dump.ts';
import type { Parts } from '../assemble.ts';
import type { Kind, StoredResource } from '../resource-store.ts';
import type { Bootstrap } from '../../xds/bootstrap.ts';
import type { Json, JsonObject, RouteConfiguration } from '../../xds/snapshot.ts';

export interface AdminActions extends Pick<AdminContext, 'drainListeners' | 'quit'> {}

export function adminContext(parts: Parts, bootstrap: Bootstrap, version: string, actions: AdminActions): AdminContext {
  const { store, status, clusters, listeners, writers } = parts;
  return {
    clock: parts.clock,
    log: parts.log,
    registry: parts.registry,
    version,
    startedMs: status.startedMs,
    options: parts.options,
    node: nodeJson(parts.node),
    layers: parts.layers,
    runtimeModified: () => {
      status.runtimeModified();
      void parts.runtime.recompile();
    },
    state: () => status.state,
    staleSavedMs: () => status.staleSavedMs,
    refreshStats: () => status.refresh(),
    dump: () => dumpSource(parts, bootstrap),
    clusters: () => clusters.all(),
    isDynamicCluster: (name) => store.clusters.get(name)?.fixed === false,
    listeners: () => listeners.views(),
    certificates: () => certificatesInUse(parts.runtime.current.snapshot),
    unready: () => status.unready(),
    failHealthCheck: (failed) => {
      status.healthCheckFailed = failed;
      listeners.fail(failed);
      status.refresh();
    },
    reopenLogs: () => {
      for (const writer of writers.values()) writer.reopen();
    },
    ...actions,
  };
}

function dumpSource(parts: Parts, bootstrap: Bootstrap): DumpSource {
  const { store, runtime } = parts;
  const inForce = runtime.current.snapshot;
  const entries = (kind: Kind, isActive: (name: string, value: unknown) => boolean): DumpEntry[] => {
    const map: ReadonlyMap<string, StoredResource<unknown>> = store[kind];
    return [...map.values()].map((stored) => {
      const refusal = store.refusals.get(`${kind} ${stored.name}`);
      return {
        name: stored.name,
        get resource(): JsonObject {
          return stored.dump();
        },
        version: stored.version,
        updatedMs: stored.updatedMs,
        state: stored.fixed ? 'static' : isActive(stored.name, stored.value) ? 'active' : 'warming',
        ...(refusal === undefined ? {} : { error: refusal }),
      };
    });
  };
  return {
    bootstrap: bootstrap.dump(),
    bootstrapMs: parts.status.startedMs,
    versions: { clusters: store.versions.clusters, listeners: store.versions.listeners },
    clusters: entries('clusters', (name, value) => inForce.clusters.get(name) === value),
    endpoints: [...entries('endpoints', () => true), ...inlineEndpoints(parts)],
    listeners: entries('listeners', (name, value) => inForce.listeners.get(name) === value),
    routes: [...entries('routes', () => true).map((entry) => withVirtualHosts(entry, parts)), ...inlineRoutes(parts)],
    secrets: [...entries('secrets', () => true), ...missingSecretEntries(parts)],
  };
}

/** Endpoints that stand inside clusters count as static. */
function inlineEndpoints({ store, status }: Parts): DumpEntry[] {
  return [...store.clusters.values()].flatMap(({ value: { name, loadAssignment } }) => {
    if (loadAssignment === undefined) return [];
    const { typeUrl, bytes } = encodeResource('endpoints', loadAssignment);
    return [{ name, resource: resourceJson(typeUrl, bytes), version: '', updatedMs: status.startedMs, state: 'static' as const }];
  });
}

/** As Envoy shows it: virtual hosts that were asked for by name stand in their route configuration. */
function withVirtualHosts(entry: DumpEntry, { store }: Parts): DumpEntry {
  if (store.routes.get(entry.name)?.value.vhds !== true) return entry;
  return {
    ...entry,
    get resource(): JsonObject {
      const own = entry.resource['virtual_hosts'];
      const asked = [...store.virtualHosts.values()].filter(({ name }) => name.startsWith(`${entry.name}/`));
      const hosts = asked.map(({ dump }) => {
        const { '@type': _type, ...host } = dump();
        return host;
      });
      return { ...entry.resource, virtual_hosts: [...(Array.isArray(own) ? (own as Json[]) : []), ...hosts] };
    },
  };
}

/** Route configurations that stand inside listeners count as static. */
function inlineRoutes({ runtime, status }: Parts): DumpEntry[] {
  const found = new Map<string, RouteConfiguration>();
  for (const listener of runtime.current.snapshot.listeners.values()) {
    for (const chain of [...listener.filterChains, ...(listener.defaultFilterChain === undefined ? [] : [listener.defaultFilterChain])]) {
      for (const filter of chain.filters) {
        if (filter.kind === 'http' && filter.http.routeConfig !== undefined)
          found.set(`${listener.name} ${filter.http.routeConfig.name}`, filter.http.routeConfig);
      }
    }
  }
  return [...found.values()].map((route) => ({
    name: route.name,
    resource: encodedRoute(route),
    version: '',
    updatedMs: status.startedMs,
    state: 'static',
  }));
}

function encodedRoute(route: RouteConfiguration): JsonObject {
  const { typeUrl, bytes } = encodeResource('route', route);
  return resourceJson(typeUrl, bytes);
}

function missingSecretEntries({ store, status }: Parts): DumpEntry[] {
  return [...referencedNames(store).secrets]
    .filter((name) => !store.secrets.has(name))
    .map((name) => ({ name, resource: { '@type': TYPE_URLS.secret, name }, version: '', updatedMs: status.startedMs, state: 'warming' }));
}
