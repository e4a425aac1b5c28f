/** The proxies that are or were connected: who they are, what each was sent, what it accepted and what it refused. */
import type { Clock } from '../lib/clock.ts';
import type { EncodedResource } from '../xds/session/messages.ts';
import type { ResourceSet } from '../xds/session/served-type.ts';
import { shortName } from '../xds/session/type-urls.ts';
import type { ProxyProgress, TypeProgress } from './changes.ts';
import type { NodeResourceSet } from './resource-set.ts';
import type { Node, World } from './world.ts';

/** One type on one stream, as its session tells. Undefined versions = nothing of the kind yet. */
export interface StreamType {
  readonly typeUrl: string;
  readonly sentVersion: string | undefined;
  readonly ackedVersion: string | undefined;
  readonly rejection: { readonly version: string; readonly message: string } | undefined;
  /** Nothing waits to be sent, nothing waits for an answer. */
  readonly settled: boolean;
}

/** A connected stream. */
export interface ProxyStream {
  readonly mode: 'delta' | 'sotw';
  readonly peer: string;
  readonly userAgent: string;
  /** How the caller proved who it is. */
  readonly authentication: 'certificate' | 'lease' | 'token' | 'none';
  /** Builds what the builders need to know, out of what is proven, what is claimed and what the world says. */
  node(world: World): Node;
  /** The secrets that are its own. */
  secrets(): readonly EncodedResource[];
  publish(resources: ResourceSet): void;
  types(): readonly StreamType[];
}

export interface ConnectedProxy {
  readonly id: string;
  readonly stream: ProxyStream;
  /** What was published last; undefined before the first time. */
  set: NodeResourceSet | undefined;
  /** Number of that publish. */
  publish: number;
  /** Per type: the publish that changed it last, and through which everything is acknowledged. */
  readonly types: Map<
    string,
    { changedAt: number; changedAtMs: number; ackedThrough: number; rejected?: TypeProgress['rejected'] & {} & { atMs: number } }
  >;
  node: Node | undefined;
  /** Why the last build failed, empty when it did not. */
  buildError: string;
  readonly connectedAtMs: number;
}

/** Versions of all resources of the type together; what a proxy had when it came back counts as sent and acknowledged. */
export interface ProxyTypeView {
  readonly sent: string;
  readonly acked: string;
  readonly state: 'acked' | 'pending' | 'rejected';
  readonly rejected: { readonly version: string; readonly message: string; readonly resource: string; readonly at: string } | null;
}

export interface ProxyView {
  readonly id: string;
  readonly identity: string;
  readonly authentication: string;
  readonly connected: boolean;
  readonly since: string;
  readonly flavour: string;
  readonly mode: string;
  readonly peer: string;
  readonly userAgent: string;
  readonly workload: string;
  readonly state: 'acked' | 'pending' | 'rejected';
  readonly message: string;
  /** By short name: CDS, EDS, LDS, RDS, VHDS, SDS. */
  readonly types: Readonly<Record<string, ProxyTypeView>>;
}

export interface Proxies {
  /** Every connected stream, in order of connection. */
  readonly connected: ReadonlySet<ConnectedProxy>;
  add(id: string, stream: ProxyStream): ConnectedProxy;
  remove(proxy: ConnectedProxy): void;
  /** Reads a stream's answers; to be called whenever its session got one, and after each publish. */
  observe(proxy: ConnectedProxy): void;
  progressOf(id: string): ProxyProgress | undefined;
  /** In order of id, one a step; each is told as it is then. Those that are gone for longer than an hour are left out. */
  views(): IterableIterator<ProxyView>;
  get(id: string): ProxyView | undefined;
}

export interface ProxiesDeps {
  readonly clock: Clock;
  /** Called after answers were read. */
  readonly progressed: () => void;
  readonly converged: (ms: number) => void;
}

/** Stands among the types for what could not be built at all. */
export const BUILD = 'build';

/** How many disconnected proxies stay visible, the newest ones, and for how long. */
const REMEMBERED_MAX = 1_000;
const REMEMBERED_MS = 3_600_000;

export function createProxies(deps: ProxiesDeps): Proxies {
  const { clock } = deps;
  const connected = new Set<ConnectedProxy>();
  const remembered = new Map<string, ProxyView>();
  const byId = new Map<string, ConnectedProxy[]>();
  const streamsOf = (id: string): readonly ConnectedProxy[] => byId.get(id) ?? [];
  const get = (id: string): ProxyView | undefined => {
    const streams = streamsOf(id);
    return streams.length === 0 ? remembered.get(id) : viewOf(id, streams);
  };
  return {
    connected,
    add(id, stream) {
      const proxy: ConnectedProxy = {
        id,
        stream,
        set: undefined,
        publish: 0,
        types: new Map(),
        node: undefined,
        buildError: '',
        connectedAtMs: clock.wallMs(),
      };
      connected.add(proxy);
      byId.set(id, [...streamsOf(id), proxy]);
      remembered.delete(id);
      return proxy;
    },
    remove(proxy) {
      if (!connected.has(proxy)) return;
      const last = viewOf(proxy.id, streamsOf(proxy.id));
      connected.delete(proxy);
      const left = streamsOf(proxy.id).filter((other) => other !== proxy);
      if (left.length > 0) byId.set(proxy.id, left);
      else {
        byId.delete(proxy.id);
        remembered.delete(proxy.id);
        remembered.set(proxy.id, { ...last, connected: false, since: new Date(clock.wallMs()).toISOString() });
        if (remembered.size > REMEMBERED_MAX) remembered.delete(remembered.keys().next().value!);
      }
      deps.progressed();
    },
    observe(proxy) {
      observe(proxy, clock, deps.converged);
      deps.progressed();
    },
    progressOf(id) {
      const streams = streamsOf(id);
      if (streams.length > 0) return { connected: true, types: progressOf(streams) };
      return remembered.has(id) ? { connected: false, types: new Map() } : undefined;
    },
    *views() {
      // In the order in which they left.
      for (const [id, view] of remembered) {
        if (clock.wallMs() - Date.parse(view.since) < REMEMBERED_MS) break;
        remembered.delete(id);
      }
      for (const id of [...byId.keys(), ...remembered.keys()].sort()) {
        const view = get(id);
        if (view !== undefined) yield view;
      }
    },
    get,
  };
}

function observe(proxy: ConnectedProxy, clock: Clock, converged: (ms: number) => void): void {
  const subscribed = proxy.stream.types();
  for (const [typeUrl, progress] of proxy.types) {
    if (typeUrl === BUILD) continue;
    const type = subscribed.find((one) => one.typeUrl === typeUrl);
    if (type?.rejection !== undefined) {
      const { message } = type.rejection;
      if (progress.rejected === undefined || progress.rejected.message !== message || progress.rejected.publish < progress.changedAt)
        progress.rejected = { publish: progress.changedAt, message, atMs: clock.wallMs() };
      continue;
    }
    if (type !== undefined && !type.settled) continue;
    // Deleting what is not there would make a slow object of it.
    if (progress.rejected !== undefined) delete progress.rejected;
    // A type that nobody subscribed to is of no concern to the proxy.
    if (type !== undefined && progress.ackedThrough < progress.changedAt) converged(clock.now() - progress.changedAtMs);
    progress.ackedThrough = proxy.publish;
  }
}

/** Where a proxy has several streams, each type counts on the newest one that asks for it: an older one may be a connection that broke unnoticed. */
function progressOf(streams: readonly ConnectedProxy[]): ReadonlyMap<string, TypeProgress> {
  if (streams.length === 1) return streams[0]!.types;
  const merged = new Map<string, TypeProgress>();
  for (const stream of streams) {
    const asked = new Set(stream.stream.types().map((type) => type.typeUrl));
    for (const [typeUrl, { ackedThrough, rejected }] of stream.types) {
      if (merged.has(typeUrl) && !asked.has(typeUrl) && typeUrl !== BUILD) continue;
      merged.set(typeUrl, { ackedThrough, ...(rejected === undefined ? {} : { rejected }) });
    }
  }
  return merged;
}

function viewOf(id: string, streams: readonly ConnectedProxy[]): ProxyView {
  const last = streams.at(-1)!;
  const types: Record<string, ProxyTypeView> = {};
  for (const stream of streams) for (const type of stream.stream.types()) types[shortName(type.typeUrl)] = typeView(stream, type);
  const states = new Set(Object.values(types).map((type) => type.state));
  const state =
    states.has('rejected') || last.buildError !== '' ? 'rejected' : states.has('pending') || last.set === undefined ? 'pending' : 'acked';
  const rejected = Object.values(types).find((type) => type.state === 'rejected');
  return {
    id,
    identity: last.node?.identity ?? '',
    authentication: last.stream.authentication,
    connected: true,
    since: new Date(last.connectedAtMs).toISOString(),
    flavour: last.node?.flavour ?? '',
    mode: last.stream.mode,
    peer: last.stream.peer,
    userAgent: last.stream.userAgent,
    workload: last.node?.workload ?? '',
    state,
    message: rejected?.rejected?.message ?? last.buildError,
    types,
  };
}

function typeView(proxy: ConnectedProxy, type: StreamType): ProxyTypeView {
  const rejection = type.rejection;
  const atMs = proxy.types.get(type.typeUrl)?.rejected?.atMs ?? 0;
  // A proxy that came back with everything was sent nothing on this stream.
  const had = type.settled ? (proxy.set?.version(type.typeUrl) ?? '') : '';
  return {
    sent: type.sentVersion || had,
    acked: type.ackedVersion || had,
    state: rejection !== undefined ? 'rejected' : type.settled ? 'acked' : 'pending',
    rejected:
      rejection === undefined
        ? null
        : {
            version: rejection.version,
            message: rejection.message,
            resource: namedIn(rejection.message, proxy.set?.names(type.typeUrl) ?? []),
            at: new Date(atMs).toISOString(),
          },
  };
}

/** A NACK has one text for the whole response; the resource is the longest known name in it. */
function namedIn(message: string, names: Iterable<string>): string {
  let found = '';
  for (const name of names) if (name.length > found.length && message.includes(name)) found = name;
  return found;
}
