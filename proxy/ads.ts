/** Configuration over one xDS stream: what to ask for, what comes, what of it is good, and the answer to each response. */
import { DecodeError, kindOf, TYPE_URLS } from '../xds/resources/index.ts';
import { isUnknownField } from '../xds/resources/rules.ts';
import { connectDiscovery } from '../xds/stream.ts';
import { decodeReceived, KIND_OF_WIRE } from './decode-received.ts';
import { ConfigError, ProxyError } from './errors.ts';
import { updateStats } from './update-stats.ts';
import { clustersOfListener, clustersOfRoute, clustersOfVirtualHost, routesOfListener } from './warming.ts';
import { secretsOfCluster, secretsOfListener } from './warming.ts';
import type { OnDemand } from './on-demand/hosts.ts';
import type { Kind, ResourceStore, StoredResource } from './resource-store.ts';
import type { RuntimeHolder } from './runtime.ts';
import type { Log } from '../lib/log.ts';
import type { Registry } from '../lib/metrics.ts';
import type { ConnectDiscoveryOptions, DiscoveryClient, DiscoveryConnection } from '../xds/stream.ts';
import type { ClientUpdate, Problem } from '../xds/session/client.ts';
import type { Snapshot } from '../xds/snapshot.ts';
import type { Decoded } from '../xds/resources/index.ts';

export interface AdsOptions extends Pick<
  ConnectDiscoveryOptions,
  'targets' | 'credentials' | 'metadata' | 'mode' | 'node' | 'clock' | 'random'
> {
  readonly store: ResourceStore;
  readonly runtime: RuntimeHolder;
  /** Compiles one resource by itself. Throws ConfigError for one that could never be in force. */
  readonly check: (decoded: Decoded) => void;
  readonly log: Log;
  readonly registry: Registry;
  /** Resources with fields that are not known are rejected. */
  readonly rejectUnknown?: boolean;
  /** Which kinds are asked for as a whole. */
  readonly wildcards: readonly ('listeners' | 'clusters')[];
  /** Clusters are asked for by name, those that something refers to. */
  readonly clustersByName: boolean;
  /** Set on the stream that virtual hosts are asked for on. */
  readonly onDemand?: OnDemand;
  readonly onConnection?: (connection: DiscoveryConnection) => void;
  /** Whether the start is complete. */
  readonly isLive: () => boolean;
  /** The first answer of a kind was handled. */
  readonly onSynced?: (kind: Kind) => void;
  /** An update was taken, all of it or in part. */
  readonly onTaken?: () => void;
}

export interface Ads {
  readonly connection: DiscoveryConnection;
  /** Kinds asked for as a whole that have had a first answer. */
  readonly synced: ReadonlySet<Kind>;
  /** Asks for what the resources of the bootstrap name. */
  subscribeNamed(): void;
  close(): void;
}

const WIRE_OF_KIND = {
  listeners: 'listener',
  routes: 'route',
  virtualHosts: 'virtualHost',
  clusters: 'cluster',
  endpoints: 'endpoints',
  secrets: 'secret',
} as const;
const NAMED = ['clusters', 'endpoints', 'routes', 'virtualHosts', 'secrets'] as const;
type NamedKind = (typeof NAMED)[number];
const WARNINGS_TOLD_MAX = 5;
/**
 * Envoy waits up to 30 s between attempts. After a control plane has been away for a quarter of a minute the last of a thousand sidecars
 * would be back half a minute later; with 10 s a thousand of them are two hundred attempts a second, which are cheap.
 */
export const BACKOFF_MS_MAX = 10_000;

/** Connects and stays connected. Resources go to the store; what is good goes in force, what is bad is named in the answer. */
export function connectAds(options: AdsOptions): Ads {
  return new Follower(options);
}

class Follower implements Ads {
  readonly synced = new Set<Kind>();
  readonly #options: AdsOptions;
  readonly #client: DiscoveryClient;
  readonly #stats: ReturnType<typeof updateStats>;
  readonly #subscribed = new Map<NamedKind, ReadonlySet<string>>();

  constructor(options: AdsOptions) {
    this.#options = options;
    this.#stats = updateStats(options.registry);
    this.#client = connectDiscovery({
      targets: options.targets,
      credentials: options.credentials,
      ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
      mode: options.mode,
      node: options.node,
      clock: options.clock,
      random: options.random,
      backoff: { capMs: BACKOFF_MS_MAX },
      onUpdate: (update) => void this.#receive(update),
      onConnection: (connection) => {
        this.#stats.connected.set(connection.state === 'synced' || connection.state === 'connected' ? 1 : 0);
        options.onConnection?.(connection);
      },
    });
    options.onDemand?.attach({
      changed: (dropped) => void this.#hostsChanged(dropped),
      reasonOf: (name) => reasonOf(name, options),
      isConnected: () => this.connection.state === 'synced' || this.connection.state === 'connected',
    });
    for (const kind of options.wildcards) this.#client.subscribe(TYPE_URLS[WIRE_OF_KIND[kind]], ['*']);
    this.subscribeNamed();
  }

  get connection(): DiscoveryConnection {
    return this.#client.connection;
  }

  close(): void {
    this.#client.close();
  }

  /** Brings what is asked for by name in line with what is referenced. */
  subscribeNamed(): void {
    const { store, runtime, clustersByName, onDemand } = this.#options;
    const wanted = {
      ...referencedNames(store),
      clusters: clustersByName ? clusterNames(store, runtime.current.snapshot) : new Set<string>(),
      virtualHosts: onDemand?.names() ?? new Set<string>(),
    };
    for (const kind of NAMED) {
      const have = this.#subscribed.get(kind) ?? new Set();
      const want = wanted[kind];
      const added = [...want].filter((name) => !have.has(name));
      const dropped = [...have].filter((name) => !want.has(name));
      const typeUrl = TYPE_URLS[WIRE_OF_KIND[kind]];
      if (added.length > 0) this.#client.subscribe(typeUrl, added);
      if (dropped.length > 0) {
        this.#client.unsubscribe(typeUrl, dropped);
        // A virtual host goes by the name of its resource, and whoever asked for it says when.
        if (kind !== 'virtualHosts') for (const name of dropped) store.remove(kind, name);
      }
      this.#subscribed.set(kind, want);
    }
  }

  /** Hosts were asked for or forgotten. What nothing names any more goes once it is out of force. */
  async #hostsChanged(dropped: readonly string[]): Promise<void> {
    const { store, runtime, log } = this.#options;
    for (const name of dropped) store.remove('virtualHosts', name);
    this.subscribeNamed();
    if (dropped.length === 0) return;
    const before = runtime.current.snapshot;
    for (const { message } of await runtime.apply()) log.error('A configuration could not be applied.', { problem: message });
    await this.#dropUnnamed(before);
    this.#options.onTaken?.();
  }

  /** A cluster is given up when neither what was received nor what is in force names it. */
  async #dropUnnamed(old: Snapshot): Promise<void> {
    const { clustersByName, runtime, store, log } = this.#options;
    const { listeners, routes, virtualHosts } = runtime.current.snapshot;
    const same = old.virtualHosts === virtualHosts && sameValues(old.routes, routes) && sameValues(old.listeners, listeners);
    if (!clustersByName || same) return;
    const before = store.clusters.size;
    this.subscribeNamed();
    if (store.clusters.size === before) return;
    // Their endpoints and secrets were named by them alone.
    this.subscribeNamed();
    for (const { message } of await runtime.apply()) log.error('A configuration could not be applied.', { problem: message });
  }

  async #receive(update: ClientUpdate): Promise<void> {
    const wire = kindOf(update.typeUrl);
    const problems: Problem[] = [];
    try {
      if (wire === undefined) problems.push({ name: '', message: `the type ${update.typeUrl} was not asked for` });
      else await this.#take(KIND_OF_WIRE[wire], update, problems);
    } catch (error) {
      this.#options.log.error('An update from the control plane could not be handled.', { type: update.typeUrl, error });
      problems.push({ name: '', message: error instanceof Error ? error.message : String(error) });
    }
    this.#client.settle(update, problems);
  }

  async #take(kind: Kind, update: ClientUpdate, problems: Problem[]): Promise<void> {
    const options = this.#options;
    const { store, log } = options;
    const counters = this.#stats.of(kind);
    counters.attempt.inc();
    const routesBefore = kind === 'routes' ? store.snapshot().routes : undefined;
    const replaced = acceptAll(kind, update, problems, options);
    for (const name of update.removals) removeOne(kind, name, update, options);
    if (kind === 'virtualHosts') takeHosts(update, problems, options);
    if (routesBefore !== undefined) tellParents(routesBefore, options);
    store.versions[kind] = update.version;
    // While something serves already there is no hurry: the resource may be on its way, and its own time runs.
    if (update.cause === 'missing' || !options.isLive() || (kind === 'clusters' && options.clustersByName))
      for (const name of update.removals) giveUpOn(kind, name, options);
    this.subscribeNamed();
    const before = options.runtime.current.snapshot;
    const found = await options.runtime.apply();
    await this.#dropUnnamed(before);
    for (const problem of found) {
      problems.push(problem);
      for (const name of problem.name === '' ? replaced.keys() : [problem.name]) {
        restore(kind, name, replaced, store);
        refuse(kind, name, problem.message, update, options);
      }
    }
    (problems.length === 0 ? counters.success : counters.rejected).inc();
    if (problems.length === 0) counters.time.set(options.clock.wallMs());
    else
      log.warning('Resources from the control plane were rejected; the last good ones stay.', {
        type: kind,
        version: update.version,
        problems,
      });
    if (update.cause === 'response' && !this.synced.has(kind)) {
      this.synced.add(kind);
      options.onSynced?.(kind);
    }
    options.onTaken?.();
  }
}

function sameValues<T>(left: ReadonlyMap<string, T>, right: ReadonlyMap<string, T>): boolean {
  if (left.size !== right.size) return false;
  for (const [name, value] of left) if (right.get(name) !== value) return false;
  return true;
}

/** Virtual hosts that came or went, for whoever asked for them. */
function takeHosts(update: ClientUpdate, problems: readonly Problem[], { store, onDemand }: AdsOptions): void {
  if (onDemand === undefined || update.cause !== 'response') return;
  const upserts = update.upserts.flatMap(({ name, aliases }) => {
    const problem = problems.find((one) => one.name === name);
    if (problem !== undefined) onDemand.refused([name, ...(aliases ?? [])], problem.message);
    const value = store.virtualHosts.get(name)?.value;
    return value === undefined ? [] : [{ name, ...(aliases === undefined ? {} : { aliases }), value }];
  });
  for (const name of onDemand.received(upserts, update.removals)) store.remove('virtualHosts', name);
}

/** Route configurations that changed clear the tables of their virtual hosts. */
function tellParents(before: Snapshot['routes'], { store, onDemand }: AdsOptions): void {
  for (const [name, { value }] of store.routes)
    if (value.vhds === true && before.has(name) && before.get(name) !== value) onDemand?.parentChanged(name);
}

/** Why a virtual host that came is not in force yet: its cluster did not come, or what that needs did not. */
function reasonOf(name: string, { runtime, store }: AdsOptions): ProxyError | undefined {
  for (const want of runtime.waiting.get(`virtual host ${name}`) ?? []) {
    if (!want.startsWith('cluster ')) continue;
    const cluster = want.slice('cluster '.length);
    return store.clusters.has(cluster)
      ? new ProxyError(
          'noHealthyEndpoint',
          `Cluster ${cluster} waited in vain for ${runtime.waiting.get(`cluster ${cluster}`)?.join(', ')}.`,
        )
      : new ProxyError('clusterNotFound', `Cluster ${cluster} did not come in time.`);
  }
  return undefined;
}

/** What the store had before this update, by name. */
type Replaced = ReadonlyMap<string, StoredResource<never> | undefined>;

/** Decodes and checks each resource by itself: a bad one is named and keeps its last good version, its siblings are taken. */
function acceptAll(kind: Kind, update: ClientUpdate, problems: Problem[], options: AdsOptions): Replaced {
  const { store, clock, log } = options;
  const replaced = new Map<string, StoredResource<never> | undefined>();
  for (const received of update.upserts) {
    const { name, version, bytes } = received;
    try {
      const known = store[kind].get(name) as StoredResource<never> | undefined;
      // State of the world repeats what did not change; the same content stays the same object, and nothing is made anew.
      if (known?.wire?.selfContained === true && Buffer.compare(known.wire.bytes, bytes) === 0) {
        replaced.set(name, known);
        store.put(kind, { ...known, version });
        continue;
      }
      const { resource, dump, wire, warnings } = decodeReceived(kind, received, options.check);
      const unknown = options.rejectUnknown === true ? warnings.find(isUnknownField) : undefined;
      if (unknown !== undefined) throw new ConfigError(`${kind} ${JSON.stringify(name)}`, `unknown fields are not taken: ${unknown}`);
      replaced.set(name, known);
      store.put(kind, { name, value: resource as never, version, fixed: false, updatedMs: clock.wallMs(), dump, wire });
      if (warnings.some(isUnknownField)) updateStats(options.registry).unknownFields.inc();
      for (const warning of warnings.slice(0, WARNINGS_TOLD_MAX))
        log.debug('A part of a resource is ignored.', { resource: `${kind} ${name}`, warning });
    } catch (error) {
      if (!(error instanceof ConfigError || error instanceof DecodeError || error instanceof Error)) throw error;
      problems.push({ name, message: error.message });
      refuse(kind, name, error.message, update, options);
    }
  }
  return replaced;
}

/** Clusters and listeners go when they are removed; the others when nobody refers to them any more (rule 27). */
function removeOne(kind: Kind, name: string, update: ClientUpdate, { store }: AdsOptions): void {
  if (kind === 'clusters' || kind === 'listeners' || kind === 'virtualHosts' || update.cause === 'expired') store.remove(kind, name);
}

/** The control plane says that it is not there: what waits for it goes on without. */
function giveUpOn(kind: Kind, name: string, { runtime, store }: AdsOptions): void {
  if (kind === 'endpoints' && !store.endpoints.has(name)) runtime.giveUp(`endpoints ${name}`);
  else if (kind === 'routes' && !store.routes.has(name)) runtime.giveUp(`route ${name}`);
  else if (kind === 'clusters' && !store.clusters.has(name)) runtime.giveUp(`cluster ${name}`);
  else if (kind === 'secrets' && !store.secrets.has(name)) runtime.giveUp(`secret ${name}`);
}

function refuse(kind: Kind, name: string, message: string, update: ClientUpdate, { store, clock }: AdsOptions): void {
  store.refuse(kind, name, { version: update.version, message, atMs: clock.wallMs() });
}

/** A resource that cannot be in force gives its place back to the one before it. */
function restore(kind: Kind, name: string, replaced: Replaced, store: ResourceStore): void {
  if (!replaced.has(name)) return;
  const old = replaced.get(name);
  if (old === undefined) store.remove(kind, name);
  else store.put(kind, old);
}

/** Clusters that anything received or in force names, without those that the bootstrap brings along. */
function clusterNames(store: ResourceStore, inForce: Snapshot): Set<string> {
  const found = new Set<string>();
  const add = (names: Iterable<string>): void => {
    for (const name of names) if (store.clusters.get(name)?.fixed !== true) found.add(name);
  };
  for (const { value } of store.listeners.values()) add(clustersOfListener(value));
  for (const { value } of store.routes.values()) add(clustersOfRoute(value));
  for (const { value } of store.virtualHosts.values()) add(clustersOfVirtualHost(value));
  for (const listener of inForce.listeners.values()) add(clustersOfListener(listener));
  for (const route of inForce.routes.values()) add(clustersOfRoute(route));
  for (const host of inForce.virtualHosts.values()) add(clustersOfVirtualHost(host));
  for (const { value } of store.clusters.values()) if (found.has(value.name)) add(value.aggregateClusters ?? []);
  return found;
}

/** Names that listeners and clusters refer to, without those that the bootstrap brings along. */
export function referencedNames(store: ResourceStore): Record<'endpoints' | 'routes' | 'secrets', Set<string>> {
  const endpoints = new Set<string>();
  const routes = new Set<string>();
  const secrets = new Set<string>();
  for (const { name, value } of store.clusters.values()) {
    if (value.type === 'EDS') endpoints.add(value.edsServiceName ?? name);
    for (const secret of secretsOfCluster(value)) secrets.add(secret);
  }
  for (const { value } of store.listeners.values()) {
    for (const route of routesOfListener(value)) routes.add(route);
    for (const secret of secretsOfListener(value)) secrets.add(secret);
  }
  const own = (kind: 'endpoints' | 'routes' | 'secrets', names: Set<string>): Set<string> =>
    new Set([...names].filter((name) => store[kind].get(name)?.fixed !== true));
  return { endpoints: own('endpoints', endpoints), routes: own('routes', routes), secrets: own('secrets', secrets) };
}
