/** Watches over another source's shoulder: what it says now, and a change for each time that it says something else. */
import type { Resource, Source, SourceState } from '../world.ts';
import { nameOf, resourceKey } from './api.ts';

export interface ObservedSource extends Source {
  readonly state: SourceState;
}

/** `change` notes a change by the names of its resources and answers what to call when the catalog has taken it in. The first state is no change. */
export function observeSource(source: Source, change: (resources: readonly string[]) => { readonly taken: () => void }): ObservedSource {
  let state: SourceState = { resources: [], problems: [] };
  let first = true;
  return {
    name: source.name,
    get state() {
      return state;
    },
    async *watch(signal) {
      for await (const next of source.watch(signal)) {
        const differing = first ? [] : differences(state.resources, next.resources);
        state = next;
        first = false;
        const noted = differing.length === 0 ? undefined : change(differing);
        yield next;
        noted?.taken();
      }
    },
  };
}

/** Names of resources that were added, changed or removed. */
function differences(before: readonly Resource[], after: readonly Resource[]): string[] {
  const old = new Map(before.map((resource) => [resourceKey(resource), resource]));
  const names: string[] = [];
  for (const resource of after) {
    const key = resourceKey(resource);
    const was = old.get(key);
    old.delete(key);
    if (was !== resource && (was === undefined || contentOf(was) !== contentOf(resource))) names.push(nameOf(key));
  }
  for (const key of old.keys()) names.push(nameOf(key));
  return names.sort();
}

function contentOf({ apiVersion, metadata, spec }: Resource): string {
  return JSON.stringify([apiVersion, metadata, spec]);
}
