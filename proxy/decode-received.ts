/** One resource as a control plane or a state file gives it: from bytes to what the store keeps. */
import { decodeResource, resourceJson, TYPE_URLS } from '../xds/resources/index.ts';
import { readData, resolveDecoded } from './data-files.ts';
import { ConfigError } from './errors.ts';
import { managersOf } from './warming.ts';
import type { Kind, StoredResource, WireForm } from './resource-store.ts';
import type { FilterChain, Listener } from '../xds/snapshot.ts';
import type { Decoded, Kind as WireKind } from '../xds/resources/index.ts';

export const KIND_OF_WIRE: Readonly<Record<WireKind, Kind>> = {
  listener: 'listeners',
  route: 'routes',
  virtualHost: 'virtualHosts',
  cluster: 'clusters',
  endpoints: 'endpoints',
  secret: 'secrets',
};

/** One resource from its bytes, with the files that it names, checked by itself. Throws ConfigError or DecodeError. */
export function decodeReceived(
  kind: Kind,
  { name, typeUrl, bytes }: { readonly name: string; readonly typeUrl: string; readonly bytes: Uint8Array },
  check: (decoded: Decoded) => void,
): Pick<StoredResource<unknown>, 'dump'> & { resource: Decoded['resource']; wire: WireForm; warnings: readonly string[] } {
  const decoded = decodeResource(typeUrl, bytes);
  // A virtual host is called `<routes>/<host>` as a resource, and what it likes inside.
  if (decoded.name !== name && kind !== 'virtualHosts')
    throw new ConfigError(`${kind} ${JSON.stringify(name)}`, `the resource inside is called ${JSON.stringify(decoded.name)}`);
  if (KIND_OF_WIRE[decoded.kind] !== kind) throw new ConfigError(`${kind} ${JSON.stringify(name)}`, `is of another kind, ${decoded.kind}`);
  const resolved = resolveDecoded(decoded, readData);
  const resource = kind === 'listeners' ? withoutClusterCheck(resolved as Listener) : resolved;
  check({ ...decoded, resource } as Decoded);
  // One string for all resources of a kind; what came has its own for each.
  const known = TYPE_URLS[decoded.kind];
  const wire = { typeUrl: typeUrl === known ? known : typeUrl, bytes, selfContained: resolved === decoded.resource };
  return { resource, wire, dump: () => resourceJson(wire.typeUrl, bytes), warnings: decoded.warnings };
}

/** Envoy's check of inline routes is for files: here a listener waits for its clusters, and one that is still on its way is no mistake. */
function withoutClusterCheck(listener: Listener): Listener {
  if (!managersOf(listener).some((manager) => manager.routeConfig?.validateClusters === true)) return listener;
  const chain = (one: FilterChain): FilterChain => ({
    ...one,
    filters: one.filters.map((filter) =>
      filter.kind === 'http' && filter.http.routeConfig !== undefined
        ? { ...filter, http: { ...filter.http, routeConfig: { ...filter.http.routeConfig, validateClusters: false } } }
        : filter,
    ),
  });
  const { defaultFilterChain } = listener;
  return {
    ...listener,
    filterChains: listener.filterChains.map(chain),
    ...(defaultFilterChain === undefined ? {} : { defaultFilterChain: chain(defaultFilterChain) }),
  };
}
