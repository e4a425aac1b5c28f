/** The proxy's parts, constructed and connected by hand: nothing here listens or dials yet. */
import { createRegistry } from '../lib/metrics.ts';
import { Wheel } from '../lib/wheel.ts';
import { compileListener, createCompile, checkClusterTls } from './compile.ts';
import { NO_ROUTES } from './http-chain.ts';
import { createLineWriter, fileStats } from './filters/line-writer.ts';
import { otlpExporter } from './filters/otlp.ts';
import { workloadOfNode } from './filters/workload.ts';
import { descriptorRoom } from '../lib/descriptors.ts';
import type { ListenDeps } from './listen/bound-listener.ts';
import { ListenerSet } from './listen/listener-set.ts';
import { OnDemand } from './on-demand/hosts.ts';
import { standingAlone } from './on-demand/routing.ts';
import { endpointDialler, poolMaker } from './pools.ts';
import { ResourceStore } from './resource-store.ts';
import { compileRoutes } from './router/router.ts';
import { EMPTY_RUNTIME, RuntimeHolder } from './runtime.ts';
import { ServerStatus } from './server-state.ts';
import { createTlsContexts } from './tls/context.ts';
import { ClusterPool } from './upstream/cluster-pool.ts';
import { checkAssignment, compileCluster } from './upstream/compile-cluster.ts';
import type { CompileDeps } from './compile.ts';
import type { CompiledChain, CompiledListener } from './listen/chain.ts';
import type { LineWriter } from './filters/line-writer.ts';
import type { SpanExporter } from './filters/otlp.ts';
import type { ProxyOptions } from './options.ts';
import { withRuntimeKeys } from './runtime-keys.ts';
import type { RuntimeLayers } from './runtime-layers.ts';
import type { TlsContexts } from './tls/context.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Registry } from '../lib/metrics.ts';
import type { Random } from '../lib/random.ts';
import type { Decoded } from '../xds/resources/index.ts';
import type { NodeInfo } from '../xds/session/messages.ts';
import type { RouteConfiguration, Secret } from '../xds/snapshot.ts';

export interface World {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface Parts extends World {
  readonly options: ProxyOptions;
  readonly node: NodeInfo;
  readonly layers: RuntimeLayers;
  readonly registry: Registry;
  readonly store: ResourceStore;
  readonly contexts: TlsContexts;
  readonly clusters: ClusterPool;
  readonly listeners: ListenerSet;
  readonly runtime: RuntimeHolder;
  readonly status: ServerStatus;
  readonly compileDeps: CompileDeps;
  readonly onDemand: OnDemand;
  readonly writers: ReadonlyMap<string, LineWriter>;
  readonly exporters: ReadonlyMap<string, SpanExporter>;
  /** First answers that the start waits for; the sources put themselves in and take themselves out. */
  readonly awaited: Set<string>;
  /** Compiles one received resource by itself. Throws ConfigError for one that could never be in force. */
  readonly check: (decoded: Decoded) => void;
  /** Compiles everything in the store, needs unmet or not, without putting it in force. Throws ConfigError. */
  readonly compileAll: () => void;
}

const CONNECTIONS_MAX = 65_536;

export function assemble(world: World, options: ProxyOptions, node: NodeInfo, layers: RuntimeLayers): Parts {
  const { clock, random, log } = world;
  const registry = createRegistry();
  const store = new ResourceStore();
  const contexts = createTlsContexts({ clock });
  const writers = new Map<string, LineWriter>();
  const exporters = new Map<string, SpanExporter>();
  const awaited = new Set<string>();
  const listeners = new ListenerSet({ clock, log, registry, drainTimeMs: options.drainTimeMs, ...connectionRoom(layers, clock) });
  const dial = endpointDialler({
    clock,
    contexts,
    secrets: () => runtime.current.snapshot.secrets,
    mux: options.mux,
    isOwn: (host, port) => listeners.isOutbound(host, port),
  });
  const clusters = new ClusterPool({ clock, random, log, metrics: registry, makePool: poolMaker(dial, clock) });
  const onDemand = new OnDemand({ clock, registry, idleMs: options.lazyIdleMs, hostsMax: options.lazyHostsMax });
  const compileDeps: CompileDeps = {
    clock,
    random,
    log,
    registry,
    wheel: new Wheel(clock),
    clusters,
    dial,
    contexts,
    mux: options.mux,
    self: workloadOfNode(node),
    otlpEndpoint: world.environment['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? '',
    healthy: () => status.state === 'LIVE',
    onDemand,
    routingOf: (listener, chain) => chainOf(runtime.current.listeners.get(listener), chain)?.routing,
    writer: writersOf(writers, { clock, log, flushMs: options.fileFlushIntervalMs, stats: fileStats(registry) }),
    exporter: exportersOf(exporters, node.id, { clock, log }),
  };
  const runtime: RuntimeHolder = new RuntimeHolder({
    store,
    clusters,
    listeners,
    clock,
    log,
    compile: withRuntimeKeys(createCompile(compileDeps), layers),
    onApplied: (problems) => {
      status.applied(problems);
      onDemand.applied(runtime.current.snapshot);
    },
  });
  const status = new ServerStatus({ clock, registry, store, runtime, clusters, listeners, layers, awaited: () => [...awaited] });
  return {
    ...world,
    options,
    node,
    layers,
    registry,
    store,
    contexts,
    clusters,
    listeners,
    runtime,
    status,
    compileDeps,
    onDemand,
    writers,
    exporters,
    awaited,
    check: (decoded) => checkResource(decoded, store, compileDeps),
    compileAll: () => void createCompile(compileDeps)(store.snapshot(), clusters, EMPTY_RUNTIME),
  };
}

function writersOf(known: Map<string, LineWriter>, deps: Parameters<typeof createLineWriter>[1]): CompileDeps['writer'] {
  return (path) => remember(known, path, () => createLineWriter(path, deps));
}

function exportersOf(known: Map<string, SpanExporter>, nodeId: string, deps: Pick<World, 'clock' | 'log'>): CompileDeps['exporter'] {
  return (endpoint, serviceName) =>
    remember(known, `${serviceName} ${endpoint}`, () =>
      otlpExporter({ endpoint, serviceName, resource: { 'service.instance.id': nodeId }, headers: {}, ...deps }),
    );
}

/** By itself: cross-references are the snapshot's matter, and what is still to come is no mistake. */
function checkResource(decoded: Decoded, store: ResourceStore, deps: CompileDeps): void {
  switch (decoded.kind) {
    case 'cluster':
      compileCluster(decoded.resource);
      checkClusterTls(decoded.resource, { secrets: store.values('secrets') }, deps.contexts);
      return;
    case 'listener':
      compileListener(
        decoded.resource,
        { routes: store.values('routes'), virtualHosts: store.values('virtualHosts'), secrets: store.values('secrets') },
        deps,
      );
      return;
    case 'route':
      checkRoutes(decoded.resource, deps);
      return;
    case 'virtualHost':
      checkRoutes(standingAlone({ ...NO_ROUTES, name: 'of a virtual host' }, decoded.resource), deps);
      return;
    case 'endpoints':
      checkAssignment(decoded.resource, `endpoints ${JSON.stringify(decoded.name)}`);
      return;
    case 'secret':
      checkSecret(decoded.resource, deps);
      return;
  }
}

function checkRoutes(routes: RouteConfiguration, { clusters, clock, random, wheel, registry }: CompileDeps): void {
  compileRoutes(routes, { clusters, clock, random, wheel, mirrorsDropped: registry.counter('envoy_mirrors_dropped') });
}

function chainOf(listener: CompiledListener | undefined, key: string): CompiledChain | undefined {
  return [...(listener?.chains ?? []), listener?.defaultChain].find((chain) => chain?.key === key);
}

/** A certificate without its key, or roots that cannot be read, are told at once. */
function checkSecret(secret: Secret, { contexts }: CompileDeps): void {
  const ref = { kind: 'inline', secret } as const;
  const common = { matchSubjectAltNames: [], alpn: [], minVersion: 'TLSv1_2', maxVersion: 'TLSv1_3', sni: '', autoHostSni: false } as const;
  const path = `secret ${JSON.stringify(secret.name)}`;
  if (secret.content.kind === 'certificate') contexts.upstream({ ...common, certificates: [ref] }, new Map(), path);
  else contexts.upstream({ ...common, certificates: [], validation: ref }, new Map(), path);
}

/** Envoy's runtime key for all connections of the process, here for each listener. */
function connectionRoom(layers: RuntimeLayers, clock: Clock): Pick<ListenDeps, 'connectionsMax' | 'descriptors'> {
  return { connectionsMax: connectionsMaxOf(layers), descriptors: descriptorRoom(clock) };
}

function connectionsMaxOf(layers: RuntimeLayers): number {
  const value = Number(layers.get('overload.global_downstream_max_connections') ?? CONNECTIONS_MAX);
  return Number.isInteger(value) && value > 0 ? value : CONNECTIONS_MAX;
}

function remember<T>(known: Map<string, T>, key: string, make: () => T): T {
  const found = known.get(key);
  if (found !== undefined) return found;
  const made = make();
  known.set(key, made);
  return made;
}
