/** The source of what the API wrote: resources in the store, each with an entity tag, changed by conditional writes. */
import { createHash } from 'node:crypto';
import { memo } from '../../lib/memo.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Json } from '../../xds/snapshot.ts';
import type { Store } from '../store/store.ts';
import type { Origin, Problem, Resource, Source, SourceState } from '../world.ts';
import { createPushedSource } from './state.ts';

/** One write: put a resource, or delete the one of that key. */
export type Edit = { readonly put: Resource } | { readonly delete: string };

export interface ApiSource {
  readonly source: Source;
  list(): readonly Resource[];
  get(key: string): Resource | undefined;
  /** What `get` will answer once the writes are stored that were made in this turn of the event loop: conditions are checked against it. */
  upcoming(key: string): Resource | undefined;
  /** What `list` would be after the edits. */
  preview(edits: readonly Edit[]): readonly Resource[];
  /** Stores all edits or none, then tells the catalog. Resolves with the change's id once a killed process would find them again. Rejects with StoreFullError. */
  write(edits: readonly Edit[]): Promise<string>;
  /** Resolves once the catalog has taken in what is stored: who writes and then reads a list finds the write in it. */
  caughtUp(): Promise<void>;
}

export interface ApiSourceDeps {
  readonly clock: Clock;
  readonly store: Store;
  /** Notes a change; answers its id and what to call when the catalog has taken it in. */
  readonly change: (resources: readonly string[]) => { readonly id: string; readonly taken: () => void };
}

const ORIGIN: Origin = { source: 'api' };

/** A write that waits for the end of the turn. */
interface Write {
  readonly edits: readonly Edit[];
  readonly stored: (changeId: string) => void;
  readonly failed: (error: unknown) => void;
}

/** `HTTPRoute/default/reviews`. */
export function resourceKey(resource: {
  readonly kind: string;
  readonly metadata: { readonly namespace: string; readonly name: string };
}): string {
  return `${resource.kind}/${resource.metadata.namespace}/${resource.metadata.name}`;
}

/** Takes up what the store holds. */
export function createApiSource(deps: ApiSourceDeps): ApiSource {
  const { store } = deps;
  let resources = new Map<string, Resource>();
  for (const { key, value } of store.list('resources')) resources.set(key, { ...(value as unknown as Resource), origin: ORIGIN });
  const problems: readonly Problem[] = [];
  const state = (): SourceState => ({ resources: [...resources.values()], problems });
  const pushed = createPushedSource('api', state(), deps.clock);
  /** Changes `next`, or answers another one: without new keys the order stays as it is. */
  const edited = (next: Map<string, Resource>, edits: readonly Edit[]): Map<string, Resource> => {
    const added = edits.some((edit) => 'put' in edit && !next.has(resourceKey(edit.put)));
    for (const edit of edits) {
      if ('put' in edit) next.set(resourceKey(edit.put), { ...edit.put, origin: ORIGIN });
      else next.delete(edit.delete);
    }
    return added ? new Map([...next].sort(([left], [right]) => (left < right ? -1 : 1))) : next;
  };
  let queue: Write[] = [];
  /** Undefined under a key: it will be deleted. */
  const upcoming = new Map<string, Resource | undefined>();
  /** One transaction for the writes of a turn: a disk takes some hundred a second, and the event loop waits for each. */
  const flush = (): void => {
    const writes = queue;
    queue = [];
    upcoming.clear();
    for (const write of storedOnes(store, writes)) {
      resources = edited(resources, write.edits);
      const change = deps.change(write.edits.map((edit) => nameOf(keyOf(edit))));
      pushed.set(state, change.taken);
      write.stored(change.id);
    }
  };
  return {
    source: pushed,
    list: () => [...resources.values()],
    get: (key) => resources.get(key),
    caughtUp: () => pushed.caughtUp(),
    upcoming: (key) => (upcoming.has(key) ? upcoming.get(key) : resources.get(key)),
    preview: (edits) => [...edited(new Map(resources), edits).values()],
    write: (edits) =>
      new Promise((stored, failed) => {
        if (queue.length === 0) setImmediate(flush);
        queue.push({ edits, stored, failed });
        for (const edit of edits) upcoming.set(keyOf(edit), 'put' in edit ? edit.put : undefined);
      }),
  };
}

/** Those that are stored; the others are told why not. Where one is at fault, each is stored by itself, and none that built on it. */
function storedOnes(store: Store, writes: readonly Write[]): readonly Write[] {
  const storeAll = (some: readonly Write[]): void =>
    store.transaction(() => {
      for (const { edits } of some) for (const edit of edits) storeEdit(store, edit);
    });
  try {
    storeAll(writes);
    return writes;
  } catch (error) {
    if (writes.length === 1) {
      writes[0]!.failed(error);
      return [];
    }
  }
  const spoilt = new Map<string, unknown>();
  return writes.filter((write) => {
    try {
      const bad = write.edits.find((edit) => spoilt.has(keyOf(edit)));
      if (bad !== undefined) throw spoilt.get(keyOf(bad));
      storeAll([write]);
      return true;
    } catch (error) {
      for (const edit of write.edits) spoilt.set(keyOf(edit), error);
      write.failed(error);
      return false;
    }
  });
}

function storeEdit(store: Store, edit: Edit): void {
  if ('delete' in edit) store.delete('resources', edit.delete);
  else {
    const { origin: _origin, ...stored } = edit.put;
    store.put('resources', keyOf(edit), stored as unknown as Json);
  }
}

function keyOf(edit: Edit): string {
  return 'put' in edit ? resourceKey(edit.put) : edit.delete;
}

/** The document as users write it. */
export function documentOf(resource: Resource): Record<string, Json> {
  const { name, namespace, labels, annotations } = resource.metadata;
  const metadata: Record<string, Json> = { name, namespace };
  if (Object.keys(labels).length > 0) metadata['labels'] = { ...labels };
  if (Object.keys(annotations).length > 0) metadata['annotations'] = { ...annotations };
  return { apiVersion: resource.apiVersion, kind: resource.kind, metadata, ...bodyOf(resource) };
}

/** An EndpointSlice has its fields at the top, all others under `spec`. */
function bodyOf(resource: Resource): Record<string, Json> {
  return resource.kind === 'EndpointSlice' ? { ...resource.spec } : { spec: resource.spec };
}

/** By the body: copies of a resource that differ in origin alone share it. A write asks for the tag of what is there and of what comes. */
const tags = memo<Resource['spec'], { readonly metadata: Resource['metadata']; readonly tag: string }>();

/** A strong entity tag of the content: equal documents have equal tags, whoever wrote them, in this process and the next. */
export function etagOf(resource: Resource): string {
  const { metadata, spec } = resource;
  const known = tags.get(spec);
  if (known?.metadata === metadata) return known.tag;
  const text = JSON.stringify(documentOf(resource), (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1)))
      : value,
  );
  const tag = `"${createHash('sha256').update(text).digest('base64url').slice(0, 27)}"`;
  tags.set(spec, { metadata, tag });
  return tag;
}

/** `HTTPRoute/default/reviews` as messages write it. */
export function nameOf(key: string): string {
  const [kind, namespace, name] = key.split('/');
  return `${kind} ${namespace}/${name}`;
}
