/** A dry run: the proxies that would get something else if the API held other resources, type by type and name by name. */
import { shortName } from '../xds/session/type-urls.ts';
import type { EncodedResource } from '../xds/session/messages.ts';
import type { AffectedProxy, Preview } from './api/context.ts';
import { mergeWorld } from './catalog.ts';
import type { Encoder } from './encode.ts';
import type { ConnectedProxy, Proxies } from './proxies.ts';
import type { Resource, SourceState, World } from './world.ts';

export interface AffectedDeps {
  /** The other sources, in the catalog's order around the API's. */
  readonly files: SourceState;
  readonly registrations: SourceState;
  readonly proxies: Proxies;
  readonly encoder: Encoder;
}

/** Compares what each connected proxy was given with what it would be given. Throws when one could not be built for. */
export function affectedBy(resources: readonly Resource[], deps: AffectedDeps): Preview {
  const world = mergeWorld([
    { name: 'files', state: deps.files },
    { name: 'api', state: { resources, problems: [] } },
    { name: 'registrations', state: deps.registrations },
  ]);
  const affected: AffectedProxy[] = [];
  const seen = new Set<string>();
  for (const proxy of deps.proxies.connected) {
    if (seen.has(proxy.id)) continue;
    seen.add(proxy.id);
    const types = differences(proxy, world, deps.encoder);
    if (Object.keys(types).length > 0) affected.push({ id: proxy.id, types });
  }
  return { affected, problems: world.problems.filter((problem) => problem.origin.source === 'api') };
}

function differences(proxy: ConnectedProxy, world: World, encoder: Encoder): AffectedProxy['types'] {
  const types: Record<string, AffectedProxy['types'][string]> = {};
  for (const [typeUrl, resources] of encoder.encode(world, proxy.stream.node(world))) {
    const next = new Map(resources.map((resource: EncodedResource) => [resource.name, resource.version]));
    const before = new Map([...(proxy.set?.names(typeUrl) ?? [])].map((name) => [name, proxy.set?.get(typeUrl, name)?.version]));
    const added = [...next.keys()].filter((name) => !before.has(name));
    const changed = [...next].filter(([name, version]) => before.has(name) && before.get(name) !== version).map(([name]) => name);
    const removed = [...before.keys()].filter((name) => !next.has(name));
    if (added.length + changed.length + removed.length > 0) types[shortName(typeUrl)] = { added, changed, removed };
  }
  return types;
}
