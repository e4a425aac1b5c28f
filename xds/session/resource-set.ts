/** What a server has for its clients: a set of encoded resources, as the sessions see it. */
import type { EncodedResource } from './messages.ts';

/** Everything that one flavour of client may get, immutable; versions change exactly when content does. */
export interface ResourceSet {
  /** Version of all resources of the type together. */
  version(typeUrl: string): string;
  /** By name or alias. */
  get(typeUrl: string, name: string): EncodedResource | undefined;
  names(typeUrl: string): Iterable<string>;
  /**
   * Names that may differ between the set that had `version` and this one (added, changed, removed); undefined when that is not known.
   * It keeps the cost of a push to what changed, whatever the size of the mesh.
   */
  changedSince?(typeUrl: string, version: string): Iterable<string> | undefined;
  /**
   * The same as `names`, one object for as long as the names stay: streams that ask for all of them by name hold it instead of their own.
   * Undefined for a type that is looked up by name and not listed.
   */
  nameSet?(typeUrl: string): ReadonlySet<string> | undefined;
}
