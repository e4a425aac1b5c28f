/** One HTTP connection manager, compiled: what every request passes before and around its route. */
import { ConfigError } from './errors.ts';
import { compileAccessLogs } from './filters/access-log.ts';
import { compileFilters } from './filters/compose.ts';
import { compileEdge } from './filters/edge.ts';
import { httpStats } from './filters/http-stats.ts';
import { istioMetrics } from './filters/istio-metrics.ts';
import { compileLocalReply } from './filters/local-reply.ts';
import { answers } from './filters/local-response.ts';
import { ConfigReader } from './filters/config.ts';
import { observe } from './filters/observe.ts';
import { compileTracing } from './filters/tracing-config.ts';
import { listenerScope } from './listen/listener-stats.ts';
import { http1Settings } from './http1/settings.ts';
import { asksOnDemand, compileOnDemand } from './on-demand/routing.ts';
import { compileRoutes } from './router/router.ts';
import { ServedConnection } from './served-connection.ts';
import { compileConnect } from './tcp/connect.ts';
import { openTunnel } from './tcp/tunnel.ts';
import { NO_HEADER_MUTATIONS } from '../xds/snapshot.ts';
import type { RouterDeps } from './router/router.ts';
import type { AccessLogDeps } from './filters/access-log.ts';
import type { FilterStack } from './filters/compose.ts';
import type { IstioMetricsOptions } from './filters/istio-metrics.ts';
import type { HttpStats } from './filters/http-stats.ts';
import type { Observer } from './filters/observe.ts';
import type { SpanExporter } from './filters/otlp.ts';
import type { WorkloadLabels } from './filters/workload.ts';
import type { Http1Settings } from './http1/settings.ts';
import type { CompiledChain } from './listen/chain.ts';
import type { OnDemand } from './on-demand/hosts.ts';
import type { DialEndpoint } from './pools.ts';
import type { ServedDeps } from './served-connection.ts';
import type { Layer, ProxyResponse, Send } from './service.ts';
import type { ClusterPool } from './upstream/cluster-pool.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Registry } from '../lib/metrics.ts';
import type { Random } from '../lib/random.ts';
import type { Wheel } from '../lib/wheel.ts';
import type { HttpConnectionManager, Listener, RouteConfiguration, Snapshot, VirtualHost } from '../xds/snapshot.ts';

/** What compiling a listener may use of the world. */
export interface ChainDeps extends AccessLogDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly wheel: Wheel;
  readonly clusters: ClusterPool;
  readonly dial: DialEndpoint;
  /** Labels of this proxy's own workload. */
  readonly self: WorkloadLabels;
  /** The exporter of an OTLP endpoint; the same for the same endpoint and service. */
  readonly exporter: (endpoint: string, serviceName: string) => SpanExporter;
  /** From OTEL_EXPORTER_OTLP_ENDPOINT; empty = none. */
  readonly otlpEndpoint: string;
  readonly healthy: () => boolean;
  /** Hosts whose routes are asked for when they are first used. */
  readonly onDemand: OnDemand;
  /** The routing of a chain as it is in force now; undefined when there is none. */
  readonly routingOf: (listener: string, chain: string) => Send | undefined;
}

/** The parts of a manager that do not depend on its routes: filters keep their state while only routes change. */
interface ManagerParts {
  readonly filters: FilterStack;
  readonly outer: Layer;
  readonly stats: HttpStats;
  readonly settings: Http1Settings;
  /** Virtual hosts that were asked for on demand, compiled below this parent. */
  onDemand?: { readonly routes: RouteConfiguration; readonly hosts: WeakMap<VirtualHost, Send> };
}

const PARTS = new WeakMap<HttpConnectionManager, ManagerParts>();
/** With which settings a chain's requests are to be read. */
const SETTINGS = new WeakMap<Send, Http1Settings>();

/**
 * Compiles the manager of the chain `key` with its routes. `routes` undefined = they never came: every request gets 404 NR. Throws
 * ConfigError.
 */
export function compileHttpChain(
  manager: HttpConnectionManager,
  routes: RouteConfiguration | undefined,
  listener: Listener,
  { path, key, virtualHosts }: { readonly path: string; readonly key: string; readonly virtualHosts: Snapshot['virtualHosts'] },
  deps: ChainDeps,
): Pick<CompiledChain, 'send' | 'serve' | 'routing'> {
  let parts = PARTS.get(manager);
  if (parts === undefined) PARTS.set(manager, (parts = compileParts(manager, listener, path, deps)));
  const { filters, outer, stats, settings } = parts;
  const mirrorsDropped = stats.counter('mirrors_dropped');
  const routerDeps: RouterDeps = {
    clusters: deps.clusters,
    clock: deps.clock,
    random: deps.random,
    wheel: deps.wheel,
    mirrorsDropped,
    streamIdleTimeoutMs: manager.streamIdleTimeoutMs,
    routed: stats.routed,
    answeredDirectly: stats.answeredDirectly,
    openTunnel: (request, cluster) => openTunnel(request, cluster, deps),
    filters: (overrides, place) => (terminal) => filters.around(terminal, [overrides], place),
  };
  const outbound = listener.trafficDirection === 'OUTBOUND';
  const compile = (config: RouteConfiguration): Send => {
    const router = compileRoutes(config, routerDeps);
    return settings.upgradeTypes.includes('connect') ? compileConnect({ router, settings, outbound }, deps) : router.send;
  };
  const base = compile(routes ?? { ...NO_ROUTES, name: manager.rdsName ?? '' });
  let routing: Send | undefined;
  if (asksOnDemand(manager.httpFilters, routes)) {
    if (parts.onDemand?.routes !== routes) parts.onDemand = { routes, hosts: new WeakMap() };
    const table = deps.onDemand.table(routes.name);
    const current = (): Send | undefined => deps.routingOf(listener.name, key);
    routing = compileOnDemand({ table, routes, virtualHosts, base, compile, known: parts.onDemand.hosts, current });
  }
  const send = outer(routing ?? base);
  SETTINGS.set(send, settings);
  const served: ServedDeps = { clock: deps.clock, settings, counts: stats.connection, settingsOf: (other) => SETTINGS.get(other) };
  return { send, routing, serve: (connection) => void new ServedConnection(connection, send, served) };
}

function compileParts(manager: HttpConnectionManager, listener: Listener, path: string, deps: ChainDeps): ManagerParts {
  if (manager.codecType === 'HTTP2') throw new ConfigError(`${path}.codec_type`, 'HTTP2 is not built in yet; there are AUTO and HTTP1');
  const stats = httpStats(deps.registry, manager.statPrefix);
  const filters = compileFilters(manager.httpFilters, path, {
    clock: deps.clock,
    random: deps.random,
    log: deps.log,
    healthy: deps.healthy,
    counter: (name) => {
      const counter = stats.counter(name);
      return () => counter.inc();
    },
    counterAt: (fullName) => {
      const counter = deps.registry.counter(`envoy_${fullName.replaceAll(/[^a-zA-Z0-9_]/g, '_')}`, {}, { dotted: fullName });
      return () => counter.inc();
    },
  });
  const outbound = listener.trafficDirection === 'OUTBOUND';
  const metricsOptions = istioOptions(listener, deps);
  const metrics = metricsOptions === undefined ? [] : [istioMetrics(metricsOptions)];
  const traces = compileTracing(manager, outbound ? 'client' : 'server', `${path}.tracing`, deps);
  const observers: Observer[] = [
    stats.observer(listenerScope(deps.registry, listener)),
    ...metrics,
    ...traces.observers,
    ...compileAccessLogs(manager.accessLogs, path, deps),
  ];
  const quiet = new ConfigReader(path, manager.httpFilters.at(-1)?.config ?? {}).boolean('suppressEnvoyHeaders');
  const localReply =
    manager.localReplyConfig === undefined
      ? undefined
      : compileLocalReply(new ConfigReader(`${path}.local_reply_config`, manager.localReplyConfig), deps);
  const stack = [
    observe(observers, deps.clock),
    answers({ tellTime: !quiet, localReply }),
    compileEdge(manager, deps.random, path, outbound),
    traces.filter,
    requestIdInResponse(manager),
  ];
  return {
    filters,
    stats,
    settings: http1Settings(manager),
    outer: (next) => stack.reduceRight((send, layer) => layer?.(send) ?? send, next),
  };
}

/** Which side of a call this listener is; undefined for one that is neither, which reports nothing. */
export function istioOptions(listener: Listener, { registry, self, clusters }: ChainDeps): IstioMetricsOptions | undefined {
  if (listener.trafficDirection === 'UNSPECIFIED') return undefined;
  const reporter = listener.trafficDirection === 'OUTBOUND' ? 'source' : 'destination';
  return { registry, reporter, self, clusterOf: (name) => clusters.get(name)?.config };
}

function requestIdInResponse(manager: HttpConnectionManager): Layer | undefined {
  if (!manager.alwaysSetRequestIdInResponse) return undefined;
  return (next) => (request, reply) => {
    const answered = (response: ProxyResponse): void => {
      if (request.info.requestId !== '') response.headers.set('x-request-id', request.info.requestId);
      reply.answered(response);
    };
    next(request, { answered, failed: (error) => reply.failed(error) });
  };
}

/** A route configuration without a route. */
export const NO_ROUTES: RouteConfiguration = {
  name: '',
  virtualHosts: [],
  headerMutations: NO_HEADER_MUTATIONS,
  validateClusters: false,
  ignorePortInHostMatching: false,
  mostSpecificHeaderMutationsWins: false,
  maxDirectResponseBodyBytes: 4096,
};
