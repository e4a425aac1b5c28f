/** Resources that a client asked for by another name than their own: how it knows them when it comes back, and when it must let go of them. */
import type { ResourceSet } from './resource-set.ts';
import type { Sent } from './sent-table.ts';
import type { Subscription } from './subscription.ts';

/** What of the resources that a client claims, by their own names, it has under which alias that it asked for; undefined = it is gone. */
export function* claimedByAlias(
  typeUrl: string,
  resources: ResourceSet,
  claimed: ReadonlyMap<string, string>,
  { names }: Subscription,
): Iterable<{ readonly name: string; readonly alias: string | undefined; readonly sent: Sent }> {
  for (const [name, version] of claimed) {
    const resource = resources.get(typeUrl, name);
    const sent: Sent = resource?.version === version ? resource : { version };
    // What is gone meanwhile is told by the name that the client has it under.
    if (resource === undefined) yield { name, alias: undefined, sent };
    else if (resource.name === name) for (const alias of resource.aliases ?? []) if (names.has(alias)) yield { name, alias, sent };
  }
}

/** The name of what was sent, where no wanted resource is called so any more: the client must let go of it by that name. */
export function replacedName(
  typeUrl: string,
  resources: ResourceSet | undefined,
  before: Sent | undefined,
  subscription: Subscription,
): string | undefined {
  if (before?.bytes === undefined) return undefined;
  const now = resources?.get(typeUrl, before.name);
  if (now?.name !== before.name) return before.name;
  const wanted = subscription.matches(now.name) || now.aliases?.some((alias) => subscription.names.has(alias)) === true;
  return wanted ? undefined : before.name;
}
