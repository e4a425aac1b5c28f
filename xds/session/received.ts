/** What a response means to a client: what is new, what is gone, what is only still there, and what is wrong with it before anyone decodes it. */
import type { DiscoveryResponse, WireResource } from './messages.ts';
import { isDeltaOnlyType } from './type-urls.ts';
import type { Problem, RequestedType } from './requested-type.ts';

const NO_ALIASES: readonly string[] = [];

export interface ReceivedResource {
  readonly name: string;
  readonly version: string;
  readonly typeUrl: string;
  readonly bytes: Uint8Array;
  /** Further names that it can be asked for by (rule 26). */
  readonly aliases?: readonly string[];
}

export interface SortedResponse {
  readonly upserts: readonly ReceivedResource[];
  readonly removals: readonly string[];
  /** Same version as is held, and no body: their time to live begins anew (rule 40). */
  readonly heartbeats: readonly WireResource[];
  readonly problems: readonly Problem[];
  /** Whether anyone needs to hear of it; an empty response is news too, it says that there is nothing. */
  readonly news: boolean;
}

/** Sorts a response by what is wanted and held of its type. Resources that nobody asked for are left out without a word (rule 24). */
export function sortResponse(type: RequestedType, response: DiscoveryResponse): SortedResponse {
  const { seen, bad, problems } = checkNames(response);
  const upserts: ReceivedResource[] = [];
  const heartbeats: WireResource[] = [];
  const unknown = new Set<string>();
  let bodies = 0;
  for (const resource of seen.values()) {
    const { name, version, typeUrl, bytes, aliases = NO_ALIASES } = resource;
    if (bytes !== undefined) bodies += 1;
    if (!type.matches(name, aliases) || bad.has(name)) continue;
    if (bytes !== undefined) upserts.push({ name, version, typeUrl, bytes, ...(aliases.length === 0 ? {} : { aliases }) });
    else if (type.versions.get(name) === version) heartbeats.push(resource);
    // Without a body and never had, or a virtual host: the server knows of no such thing (rule 44).
    else if (!type.versions.has(name) || isDeltaOnlyType(type.typeUrl))
      for (const one of [name, ...aliases]) if (type.names.has(one)) unknown.add(one);
  }
  const heartbeat = response.resources.length > 0 && bodies === 0 && problems.length === 0 && unknown.size === 0;
  const gone = heartbeat && response.mode === 'sotw' ? [] : removedNames(type, response, seen, bad);
  const removals = [...gone, ...unknown];
  return { upserts, removals, heartbeats, problems, news: !heartbeat || removals.length > 0 };
}

/** A name that comes twice, or under another type than the response's, is at fault (rules 15, 16). */
function checkNames(response: DiscoveryResponse): { seen: Map<string, WireResource>; bad: Set<string>; problems: Problem[] } {
  const problems: Problem[] = [];
  const seen = new Map<string, WireResource>();
  const duplicates = new Set<string>();
  for (const resource of response.resources) {
    if (resource.typeUrl !== response.typeUrl) {
      const message = `type ${resource.typeUrl} does not match the type of the response, ${response.typeUrl}`;
      problems.push({ name: resource.name, message });
      continue;
    }
    if (seen.has(resource.name)) duplicates.add(resource.name);
    seen.set(resource.name, resource);
  }
  for (const name of duplicates) problems.push({ name, message: 'appears more than once in one response' });
  return { seen, bad: new Set(problems.map((problem) => problem.name)), problems };
}

/** Delta says what is gone; in state of the world only LDS and CDS do, by absence (rules 27, 28). */
function removedNames(
  type: RequestedType,
  response: DiscoveryResponse,
  seen: ReadonlyMap<string, WireResource>,
  bad: ReadonlySet<string>,
): string[] {
  if (response.mode === 'delta') return response.removed.filter((name) => type.matches(name) || type.versions.has(name));
  if (!type.fullState) return [];
  const aliases = new Set([...seen.values()].flatMap((resource) => resource.aliases ?? []));
  const absent = (name: string): boolean => !seen.has(name) && !aliases.has(name) && !bad.has(name);
  const unheard = [...type.names].filter((name) => !type.versions.has(name) && !type.missing.has(name));
  return [...type.versions.keys(), ...unheard].filter(absent);
}
