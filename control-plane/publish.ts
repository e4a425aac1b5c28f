/** Publishes the world to the proxies: waits for a quiet moment, builds for each, encodes each content once, and hands over what differs. */
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { SLICE_MS, inSlices, turn } from '../lib/slices.ts';
import type { Watch } from '../lib/watch.ts';
import type { EncodedResource } from '../xds/session/messages.ts';
import { SECRET_TYPE } from '../xds/session/type-urls.ts';
import type { Changes } from './changes.ts';
import type { ControlPlaneMetrics } from './metrics.ts';
import { BUILD } from './proxies.ts';
import type { ConnectedProxy, Proxies, ProxyStream } from './proxies.ts';
import { NodeResourceSet } from './resource-set.ts';
import type { NamedResources } from './resource-set.ts';
import type { Spans } from './tracing.ts';
import type { EndpointModel, Node, World } from './world.ts';

/** Builds, checks and encodes what a node gets, by type URL. Throws with a message for the log when the result would not hold together. */
export type NodeEncoder = (world: World, node: Node) => ReadonlyMap<string, readonly EncodedResource[]>;

export interface Publisher {
  /** Number of the newest world, published or not; changes in it are published with it. */
  readonly current: number;
  /** A stream has said who it is: gets the newest world at once. Answers the record; throws when it cannot be built for. */
  connect(id: string, stream: ProxyStream): ConnectedProxy;
  /**
   * Resolves when another proxy, which is the node that `nodeOf` answers, may be connected: at once while there is little to do, a few per turn of
   * the event loop after an outage, and after some turns for the first of its kind, for which much is made that the others share. Never rejects.
   */
  turn(nodeOf: (world: World) => Node): Promise<void>;
  /** Something of all proxies that is not of the world (the trust bundle) has changed: a round begins. Answers its number. */
  touch(): number;
  /** Something of one proxy alone (its certificate) has changed: it gets that in one of the next turns. */
  refresh(id: string): void;
  /** Whoever resolves this knows that everything up to `current` has been published. */
  settled(): Promise<void>;
  close(): void;
}

export interface PublisherDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly world: Watch<World>;
  readonly encode: NodeEncoder;
  /** What a node gets by name alone. */
  readonly named?: (world: World, node: Node) => NamedResources | undefined;
  /** Does in small steps what `encode` would otherwise do at once for the first proxy. */
  readonly prepare?: (world: World) => Iterator<void, void>;
  /** The same for what a node shares with its like. */
  readonly prepareFor?: (world: World, node: Node) => Iterator<void, void>;
  readonly proxies: Proxies;
  readonly changes: Changes;
  readonly metrics: ControlPlaneMetrics;
  readonly spans: Spans;
  readonly quietMs?: number;
  readonly waitMsMax?: number;
}

const QUIET_MS = 100;
const WAIT_MS_MAX = 1_000;

export function createPublisher(deps: PublisherDeps): Publisher {
  const { clock, log, proxies, changes } = deps;
  const quietMs = deps.quietMs ?? QUIET_MS;
  const waitMsMax = deps.waitMsMax ?? WAIT_MS_MAX;
  let current = 1;
  let published = 1;
  let firstAtMs: number | undefined;
  let cancel = (): void => undefined;
  let hurry = false;
  let admitted = Promise.resolve();
  let admittingMs = Number.NEGATIVE_INFINITY;
  const refreshing = new Set<string>();
  let refreshed: Promise<void> | undefined;
  let round: Promise<void> | undefined;
  let again = false;
  let closed = false;

  /** `number` is the world's own, the newest one's when none is given: an acknowledgement never stands for more than was sent. */
  const publishTo = (proxy: ConnectedProxy, world = deps.world.current, number = current): void => {
    try {
      const node = proxy.stream.node(world);
      proxy.node = node;
      const resources = new Map([...deps.encode(world, node), [SECRET_TYPE, proxy.stream.secrets()]]);
      const next = new NodeResourceSet(resources, proxy.set, deps.named?.(world, node));
      hand(proxy, next, number, clock.now());
      proxy.buildError = '';
      proxy.types.delete(BUILD);
    } catch (error) {
      // The proxy keeps what it has; the next world may be better. For the change it counts as a refusal.
      proxy.buildError = error instanceof Error ? error.message : String(error);
      proxy.publish = number;
      const rejected = { publish: number, message: proxy.buildError, atMs: clock.wallMs() };
      proxy.types.set(BUILD, { changedAt: number, changedAtMs: clock.now(), ackedThrough: 0, rejected });
      deps.metrics.buildFailed();
      log.error('Building for a proxy failed; it keeps its config.', { proxy: proxy.id, error });
    }
    proxies.observe(proxy);
  };
  /** What is new for all is encoded a slice at a time. */
  const prepare = async (world: World): Promise<void> => {
    if (deps.prepare === undefined || closed) return;
    try {
      await inSlices(clock, deps.prepare(world));
    } catch {
      // What cannot be encoded is told when it is encoded for a proxy, with the proxy's name.
    }
  };
  const admit = async (nodeOf: (world: World) => Node): Promise<void> => {
    if (clock.now() - admittingMs > SLICE_MS) {
      await turn(clock);
      await prepare(deps.world.current);
      admittingMs = clock.now();
    }
    if (deps.prepareFor === undefined || closed) return;
    const beganMs = clock.now();
    try {
      const world = deps.world.current;
      await inSlices(clock, deps.prepareFor(world, nodeOf(world)));
    } catch {
      // Told when it is built for the proxy, as above.
    }
    if (clock.now() - beganMs < SLICE_MS) return;
    await turn(clock);
    admittingMs = clock.now();
  };
  const runRound = async (): Promise<void> => {
    const span = deps.spans.start('publish', { 'meshwork.publish': current, 'meshwork.proxies': proxies.connected.size });
    const startMs = clock.now();
    const waitedMs = startMs - (firstAtMs ?? startMs);
    // One world for the whole round: what all proxies share of it is made once, however many changes come meanwhile. Those have the next round.
    const number = current;
    const world = deps.world.current;
    firstAtMs = undefined;
    hurry = false;
    if (deps.prepare !== undefined) await prepare(world);
    if (closed) return;
    const touched = new Map<string, readonly string[]>();
    const types = typeLists();
    let sliceMs = startMs;
    // Who leaves meanwhile is no longer visited; who comes meanwhile is, and has that or something newer already.
    for (const proxy of proxies.connected) {
      if (proxy.publish <= number) publishTo(proxy, world, number);
      const changed = [...proxy.types].filter(([, type]) => type.changedAt > published).map(([typeUrl]) => typeUrl);
      touched.set(proxy.id, types([...(touched.get(proxy.id) ?? []), ...changed]));
      if (clock.now() - sliceMs > SLICE_MS) {
        await turn(clock);
        if (closed) return;
        sliceMs = clock.now();
      }
    }
    published = number;
    changes.published(number, touched);
    deps.metrics.published({ waitedMs, tookMs: clock.now() - startMs });
    span.end();
  };
  /** Proxies whose own part changed, a few at a time; begins in a later turn, so that many of one turn are one pass. */
  const refreshAll = async (): Promise<void> => {
    await turn(clock);
    let sliceMs = clock.now();
    for (const id of refreshing) {
      refreshing.delete(id);
      if (closed) return;
      for (const proxy of proxies.connected) if (proxy.id === id) publishTo(proxy);
      if (clock.now() - sliceMs <= SLICE_MS) continue;
      await turn(clock);
      sliceMs = clock.now();
    }
  };
  const start = (): void => {
    cancel();
    if (closed) return;
    if (round !== undefined) {
      again = true;
      return;
    }
    round = runRound().finally(() => {
      round = undefined;
      if (again) {
        again = false;
        start();
      }
    });
  };
  const schedule = (urgent: boolean): void => {
    const nowMs = clock.now();
    firstAtMs ??= nowMs;
    hurry ||= urgent;
    cancel();
    const delayMs = hurry ? 0 : Math.min(quietMs, Math.max(0, firstAtMs + waitMsMax - nowMs));
    cancel = clock.after(delayMs, start);
  };
  changes.published(published, new Map());
  let known = deps.world.current;
  const stop = deps.world.subscribe((next) => {
    const urgent = losesEndpoints(known, next);
    known = next;
    current++;
    schedule(urgent);
  });
  return {
    get current() {
      return current;
    },
    turn(nodeOf) {
      admitted = admitted.then(() => admit(nodeOf));
      return admitted;
    },
    connect(id, stream) {
      const proxy = proxies.add(id, stream);
      publishTo(proxy);
      return proxy;
    },
    touch() {
      current++;
      schedule(true);
      return current;
    },
    refresh(id) {
      refreshing.add(id);
      refreshed ??= refreshAll().finally(() => {
        refreshed = undefined;
      });
    },
    async settled() {
      while (published < current && !closed) {
        if (round === undefined) start();
        await round;
      }
    },
    close() {
      closed = true;
      stop();
      cancel();
    },
  };
}

/** Lists of types without repeats, one object for equal ones: a thousand changes remember what they did to a thousand proxies. */
function typeLists(): (types: readonly string[]) => readonly string[] {
  const lists = new Map<string, readonly string[]>();
  return (types) => {
    const list = [...new Set(types)];
    const key = list.join();
    const known = lists.get(key) ?? list;
    lists.set(key, known);
    return known;
  };
}

/** Books what differs and gives it to the session. Nothing is handed over when nothing differs. */
function hand(proxy: ConnectedProxy, next: NodeResourceSet, number: number, nowMs: number): void {
  const first = proxy.set === undefined;
  proxy.set = next;
  proxy.publish = number;
  for (const typeUrl of next.changedTypes) {
    const type = proxy.types.get(typeUrl);
    if (type === undefined) proxy.types.set(typeUrl, { changedAt: number, changedAtMs: nowMs, ackedThrough: 0 });
    else {
      type.changedAt = number;
      type.changedAtMs = nowMs;
    }
  }
  if (first || next.changedTypes.length > 0) proxy.stream.publish(next);
}

/** An endpoint that must get no more requests does not wait for a quiet moment. */
function losesEndpoints(before: World, after: World): boolean {
  if (before.services === after.services) return false;
  for (const [key, service] of before.services) {
    const now = after.services.get(key);
    if (now === service || service.endpoints.length === 0) continue;
    if (now === undefined) return true;
    const left = new Set(now.endpoints.filter(takesRequests).map(endpointKey));
    for (const endpoint of service.endpoints) if (takesRequests(endpoint) && !left.has(endpointKey(endpoint))) return true;
  }
  return false;
}

function takesRequests(endpoint: EndpointModel): boolean {
  return endpoint.ready && !endpoint.terminating;
}

function endpointKey(endpoint: EndpointModel): string {
  return `${endpoint.address} ${endpoint.port} ${endpoint.servicePort}`;
}
