/** Follows every change from the write that made it to the proxies that have acknowledged it. */
import type { Clock } from '../lib/clock.ts';
import { shortName } from '../xds/session/type-urls.ts';

/** What a proxy did with one type of resources, in terms of publish numbers: larger is newer. */
export interface TypeProgress {
  /** Everything published up to this number is in use at the proxy, or was of no concern to it. */
  readonly ackedThrough: number;
  /** Set when the newest answer of the proxy was a refusal: the publish it refused, and why. */
  readonly rejected?: { readonly publish: number; readonly message: string };
}

export interface ProxyProgress {
  readonly connected: boolean;
  readonly types: ReadonlyMap<string, TypeProgress>;
}

/** Answers how far a proxy is; undefined when it is no longer known. */
export type ProgressOf = (proxyId: string) => ProxyProgress | undefined;

export interface ChangedProxy {
  readonly id: string;
  /** `acked` also when the change does not concern the proxy; `types` is empty then. */
  readonly state: 'acked' | 'pending' | 'rejected';
  /** By short name: `RDS`. */
  readonly types: readonly string[];
  readonly message: string;
}

export interface ChangeView {
  readonly id: string;
  /** `api`, `files`, `registrations`, `certificates`. */
  readonly source: string;
  readonly resources: readonly string[];
  readonly createdAt: string;
  readonly proxies: readonly ChangedProxy[];
  /** Every connected proxy has answered. */
  readonly done: boolean;
}

export interface Changes {
  /** Notes a change and answers its id. `resources` are named `HTTPRoute default/reviews`. */
  begin(source: string, resources: readonly string[]): string;
  /** The world that publish number `publish` is made of contains the change. */
  included(id: string, publish: number): void;
  /** Publish number `publish` has reached every connected proxy's session; the map says which types it changed for whom. */
  published(publish: number, touched: ReadonlyMap<string, readonly string[]>): void;
  /** Something at a proxy has changed: who waits may look again. */
  progressed(): void;
  get(id: string): ChangeView | undefined;
  /** Latest first. */
  list(limit: number): readonly ChangeView[];
  /** Resolves when every connected proxy has acked, one has rejected, `ms` have passed or the signal aborts. Undefined for an unknown id. */
  wait(id: string, ms: number, signal?: AbortSignal): Promise<ChangeView | undefined>;
}

interface Change {
  readonly id: string;
  readonly source: string;
  readonly resources: readonly string[];
  readonly createdAtMs: number;
  /** Undefined until the catalog has taken it in. */
  publish: number | undefined;
  /** Undefined until it has been published. */
  touched: ReadonlyMap<string, readonly string[]> | undefined;
}

const CHANGES_MAX = 1_000;
const WAITERS_MAX = 1_000;
const RESOURCES_NAMED_MAX = 100;
const LOOK_MS = 10;

/** Makes an empty log of changes. Ids are unique to this process: start time, then a counter. */
export function createChanges(deps: { clock: Clock; progressOf: ProgressOf }): Changes {
  const { clock, progressOf } = deps;
  const epoch = Math.floor(clock.wallMs()).toString(36);
  const changes = new Map<string, Change>();
  const waiters = new Set<() => void>();
  let counter = 0;
  let publishedThrough = 0;
  let looking = false;
  // A thousand proxies answer within a moment; who waits looks at all of them at once, and not at each answer.
  const progressed = (): void => {
    if (looking || waiters.size === 0) return;
    looking = true;
    clock.after(LOOK_MS, () => {
      looking = false;
      for (const waiter of waiters) waiter();
    });
  };
  const get = (id: string): ChangeView | undefined => {
    const change = changes.get(id);
    return change === undefined ? undefined : viewOf(change, progressOf);
  };
  return {
    begin(source, resources) {
      const id = `${epoch}-${++counter}`;
      const named = resources.slice(0, RESOURCES_NAMED_MAX);
      changes.set(id, { id, source, resources: named, createdAtMs: clock.wallMs(), publish: undefined, touched: undefined });
      if (changes.size > CHANGES_MAX) changes.delete(changes.keys().next().value!);
      return id;
    },
    included(id, publish) {
      const change = changes.get(id);
      if (change === undefined || change.publish !== undefined) return;
      change.publish = publish;
      // The world did not differ, so there is nothing to publish and nobody to wait for.
      if (publish <= publishedThrough) change.touched = new Map();
      progressed();
    },
    published(publish, touched) {
      publishedThrough = Math.max(publishedThrough, publish);
      for (const change of changes.values()) {
        if (change.touched === undefined && change.publish !== undefined && change.publish <= publish) change.touched = touched;
      }
      progressed();
    },
    progressed,
    get,
    list: (limit) =>
      [...changes.values()]
        .reverse()
        .slice(0, limit)
        .map((change) => viewOf(change, progressOf)),
    async wait(id, ms, signal) {
      const first = get(id);
      if (first === undefined || settled(first) || waiters.size >= WAITERS_MAX) return first;
      await new Promise<void>((resolve) => {
        const look = lookOut(changes, id, progressOf, () => finish());
        const finish = (): void => {
          cancel();
          waiters.delete(look);
          signal?.removeEventListener('abort', finish);
          resolve();
        };
        const cancel = clock.after(ms, finish);
        waiters.add(look);
        signal?.addEventListener('abort', finish, { once: true });
      });
      return get(id);
    },
  };
}

/** Calls `found` when looking finds the change settled or forgotten. Who has acknowledged once is not looked at again. */
function lookOut(changes: ReadonlyMap<string, Change>, id: string, progressOf: ProgressOf, found: () => void): () => void {
  let left: Map<string, readonly string[]> | undefined;
  return () => {
    const change = changes.get(id);
    if (change === undefined) {
      found();
      return;
    }
    if (change.touched === undefined) return;
    left ??= new Map(change.touched);
    for (const [proxyId, types] of left) {
      const progress = progressOf(proxyId);
      const { state } = proxyOf(proxyId, types, change.publish ?? 0, progress);
      if (state === 'rejected') {
        found();
        return;
      }
      if (state === 'acked') left.delete(proxyId);
    }
    for (const proxyId of left.keys()) if (progressOf(proxyId)?.connected === true) return;
    found();
  };
}

function settled(view: ChangeView): boolean {
  return view.done || view.proxies.some((proxy) => proxy.state === 'rejected');
}

function viewOf(change: Change, progressOf: ProgressOf): ChangeView {
  const proxies: ChangedProxy[] = [];
  let done = change.touched !== undefined;
  for (const [id, types] of change.touched ?? []) {
    const progress = progressOf(id);
    const proxy = proxyOf(id, types, change.publish ?? 0, progress);
    if (proxy.state === 'pending' && progress?.connected === true) done = false;
    proxies.push(proxy);
  }
  return {
    id: change.id,
    source: change.source,
    resources: change.resources,
    createdAt: new Date(change.createdAtMs).toISOString(),
    proxies,
    done,
  };
}

function proxyOf(id: string, typeUrls: readonly string[], publish: number, progress: ProxyProgress | undefined): ChangedProxy {
  const types = typeUrls.map(shortName);
  if (types.length === 0) return { id, state: 'acked', types, message: '' };
  let pending = false;
  for (const type of typeUrls) {
    const at = progress?.types.get(type);
    if (at === undefined || at.ackedThrough < publish) {
      if (at?.rejected !== undefined && at.rejected.publish >= publish)
        return { id, state: 'rejected', types, message: at.rejected.message };
      pending = true;
    }
  }
  if (!pending) return { id, state: 'acked', types, message: '' };
  const message = progress?.connected === true ? '' : 'the proxy is not connected; it gets the change when it returns';
  return { id, state: 'pending', types, message };
}
