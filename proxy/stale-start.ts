/** Keeps the last good configuration on disk, and starts from it when no control plane answers; marked stale until one does. */
import { parseCertificate } from '../certs/certificate.ts';
import { decodeCertificates } from '../certs/pem.ts';
import { decodeReceived } from './decode-received.ts';
import { readState, StateError, writeState } from './state.ts';
import type { Ads } from './ads.ts';
import type { Parts } from './assemble.ts';
import type { Kind, StoredResource } from './resource-store.ts';
import type { SavedResource, SavedState } from './state.ts';
import type { Secret } from '../xds/snapshot.ts';

export interface StateKeeper {
  /** An update was taken: what is in force now is written in a moment. */
  changed(): void;
  /** The control plane cannot be reached. Before its first answer this starts the proxy from disk. */
  away(): void;
  /** The first answer of a kind was handled. */
  synced(kind: Kind): void;
  close(): void;
}

const KINDS = ['secrets', 'endpoints', 'clusters', 'virtualHosts', 'routes', 'listeners'] as const satisfies readonly Kind[];
/** Updates in quick succession are written once. */
const WRITE_AFTER_MS = 1_000;
/** A control plane that takes connections and says nothing is away too. */
const SILENCE_MS = 3_000;
/** A first answer may come in parts; what none of them names after this long is gone. */
const REPLACED_AFTER_MS = 5_000;

/** `streams` is read when the state was loaded: they then ask for what it names. */
export function keepState(directory: string, streams: readonly Ads[], wildcards: readonly Kind[], parts: Parts): StateKeeper {
  return new Keeper(directory, streams, wildcards, parts);
}

class Keeper implements StateKeeper {
  readonly #directory: string;
  readonly #streams: readonly Ads[];
  readonly #wildcards: readonly Kind[];
  readonly #parts: Parts;
  readonly #stale = new Map<Kind, StoredResource<unknown>[]>();
  readonly #synced = new Set<Kind>();
  readonly #cancels = new Set<() => void>();
  #loading = false;
  #closed = false;
  #cancelWrite: (() => void) | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(directory: string, streams: readonly Ads[], wildcards: readonly Kind[], parts: Parts) {
    this.#directory = directory;
    this.#streams = streams;
    this.#wildcards = wildcards;
    this.#parts = parts;
    this.#later(SILENCE_MS, () => this.away());
  }

  changed(): void {
    const { clock, log, status } = this.#parts;
    if (this.#closed || this.#cancelWrite !== undefined || this.#synced.size < this.#wildcards.length || status.staleSavedMs > 0) return;
    this.#cancelWrite = clock.after(WRITE_AFTER_MS, () => {
      this.#cancelWrite = undefined;
      this.#writing = this.#writing
        .then(() => writeState(this.#directory, stateOf(this.#parts)))
        .catch((error: unknown) =>
          log.error('The last good configuration could not be kept on disk.', { directory: this.#directory, error }),
        );
    });
  }

  away(): void {
    if (this.#loading || this.#closed || this.#synced.size > 0) return;
    this.#loading = true;
    void this.#load().catch((error: unknown) =>
      this.#parts.log.error('The configuration kept on disk is not used.', { directory: this.#directory, error }),
    );
  }

  synced(kind: Kind): void {
    this.#synced.add(kind);
    if (this.#parts.status.staleSavedMs === 0 || this.#synced.size < this.#wildcards.length) return;
    this.#later(REPLACED_AFTER_MS, () => void this.#forget());
  }

  close(): void {
    this.#closed = true;
    this.#cancelWrite?.();
    for (const cancel of this.#cancels) cancel();
  }

  async #load(): Promise<void> {
    const { node, log, status, runtime, awaited } = this.#parts;
    const state = await readState(this.#directory, node.id);
    if (state === undefined) {
      log.info('No configuration is kept on disk yet.', { directory: this.#directory });
      return;
    }
    const resources = this.#check(state);
    if (this.#closed || this.#synced.size > 0) return;
    for (const [kind, stored] of resources) {
      if (this.#parts.store[kind].has(stored.name)) continue;
      this.#parts.store.put(kind, stored as never);
      const stale = this.#stale.get(kind);
      if (stale === undefined) this.#stale.set(kind, [stored]);
      else stale.push(stored);
    }
    this.#parts.onDemand.adopt([...this.#parts.store.virtualHosts].map(([name, { value }]) => [name, value]));
    for (const { message } of await runtime.apply())
      log.error('A part of the configuration from disk is not in force.', { problem: message });
    for (const stream of this.#streams) stream.subscribeNamed();
    status.stale(state.savedMs);
    for (const kind of this.#wildcards) awaited.delete(kind);
    status.check();
    log.warning('The control plane is away: the proxy starts from the configuration that was kept on disk.', {
      directory: this.#directory,
      savedAt: new Date(state.savedMs).toISOString(),
      resources: state.resources.length,
    });
  }

  /** Every resource passes what one from the wire passes. One that does not, or a certificate that is over, and none is used. */
  #check(state: SavedState): [Kind, StoredResource<never>][] {
    const { check, clock } = this.#parts;
    return state.resources.map((saved) => {
      const { resource, dump, wire } = decodeReceived(saved.kind, saved, check);
      if (saved.kind === 'secrets') checkTime(resource as Secret, clock.wallMs());
      const { name, version } = saved;
      return [saved.kind, { name, value: resource as never, version, fixed: false, updatedMs: state.savedMs, dump, wire }];
    });
  }

  /** Fresh answers are in force: what came from disk and was not named again goes. */
  async #forget(): Promise<void> {
    const { store, runtime, status, log } = this.#parts;
    for (const [kind, list] of this.#stale)
      for (const stored of list)
        if (this.#wildcards.includes(kind) && store[kind].get(stored.name) === stored) store.remove(kind, stored.name);
    this.#stale.clear();
    status.stale(0);
    for (const { message } of await runtime.apply()) log.error('A configuration could not be applied.', { problem: message });
    for (const stream of this.#streams) stream.subscribeNamed();
    log.info('The configuration of the control plane has taken the place of the one from disk.');
    this.changed();
  }

  #later(ms: number, fn: () => void): void {
    const cancel = this.#parts.clock.after(ms, () => {
      this.#cancels.delete(cancel);
      fn();
    });
    this.#cancels.add(cancel);
  }
}

/** What xDS gave and what is in force of it. */
function stateOf({ store, runtime, node, clock }: Parts): SavedState {
  const inForce = runtime.current.snapshot;
  const resources: SavedResource[] = [];
  for (const kind of KINDS) {
    const map: ReadonlyMap<string, StoredResource<unknown>> = store[kind];
    const current: ReadonlyMap<string, unknown> = inForce[kind];
    for (const { name, version, value, wire } of map.values())
      if (wire !== undefined && current.get(name) === value)
        resources.push({ kind, name, version, typeUrl: wire.typeUrl, bytes: wire.bytes });
  }
  return { node: node.id, savedMs: clock.wallMs(), resources };
}

/** A sidecar whose certificate is over must not serve, and must not call anybody in clear text instead. */
function checkTime({ name, content }: Secret, nowMs: number): void {
  if (content.kind !== 'certificate') return;
  const [leaf] = decodeCertificates(content.chainPem);
  if (leaf === undefined) return;
  const { notAfterMs } = parseCertificate(leaf);
  if (notAfterMs <= nowMs)
    throw new StateError(`the certificate in secret ${JSON.stringify(name)} ended at ${new Date(notAfterMs).toISOString()}`);
}
