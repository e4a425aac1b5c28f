/** A route configuration, compiled at push: `match` finds a request's route, and each route is a service that is ready to run. */
import type { Random } from '../../lib/random.ts';
import type { ExtensionConfig, Route, RouteConfiguration, VirtualHost, WeightedCluster } from '../../xds/snapshot.ts';
import { ConfigError, ProxyError } from '../errors.ts';
import { localResponse } from '../http1/error-response.ts';
import type { Layer, ProxyRequest, ProxyResponse, Reply, Send } from '../service.ts';
import { compileForward } from './forward.ts';
import type { ForwardDeps } from './forward.ts';
import { compileConditions } from './match.ts';
import { compileMutations } from './mutations.ts';
import type { CompiledMutations } from './mutations.ts';
import { compilePathRewrite, compileRedirect, pathEnd } from './rewrite.ts';
import { compileAuthorities, compileTable } from './table.ts';
import type { Entry, Find } from './table.ts';

export interface RouterDeps extends ForwardDeps {
  /** Counts direct responses and redirects. */
  readonly answeredDirectly?: { inc(): void };
  /**
   * Composes the configured HTTP filters around a route, with the overrides of virtual host, route and weighted cluster merged by filter name
   * (the most specific wins). Absent = no filters. The empty map is for routes without overrides and for requests that no route matches.
   */
  readonly filters?: (overrides: ReadonlyMap<string, ExtensionConfig>, path: string) => Layer;
}

export interface CompiledRoute {
  readonly name: string;
  readonly virtualHost: string;
  /** Empty where the route does not forward or a header names the cluster. */
  readonly cluster: string;
  readonly overrides: ReadonlyMap<string, ExtensionConfig>;
  /** Filters, rewrites, time-outs, retries, cluster. */
  readonly send: Send;
}

export interface Router {
  /** The route of a request, its weighted cluster already drawn; undefined = there is none. */
  match(request: ProxyRequest): CompiledRoute | undefined;
  /** Matches and sends. Fails with `routeNotFound` where there is no route. */
  readonly send: Send;
  /** Every cluster that a route names. */
  readonly clusters: ReadonlySet<string>;
}

/** Draws one of a route's weighted clusters, or answers the only one. */
type Choose = (request: ProxyRequest) => CompiledRoute;

const QUOTED_MAX = 200;
const WEIGHT_SUM_MAX = 2 ** 32 - 1;

/** Compiles a route configuration. Throws `ConfigError` whose path starts with `routes "name"`. */
export function compileRoutes(config: RouteConfiguration, deps: RouterDeps): Router {
  const path = `routes ${JSON.stringify(config.name)}`;
  const clusters = new Set<string>();
  const domains = new Map<string, string>();
  const hosts = config.virtualHosts.flatMap((virtualHost) => {
    const where = `${path}.virtual_hosts ${JSON.stringify(virtualHost.name)}`;
    const find = compileVirtualHost(config, virtualHost, where, clusters, deps);
    return virtualHost.domains.map((domain) => {
      const other = domains.get(domain.toLowerCase());
      if (other !== undefined)
        throw new ConfigError(`${where}.domains`, `${JSON.stringify(domain)} belongs to virtual host ${JSON.stringify(other)} already`);
      domains.set(domain.toLowerCase(), virtualHost.name);
      return { domain, value: find };
    });
  });
  if (config.validateClusters) {
    for (const name of clusters)
      if (deps.clusters.get(name) === undefined) throw new ConfigError(path, `names cluster ${JSON.stringify(name)}, which does not exist`);
  }
  const hostOf = compileAuthorities(hosts, config.ignorePortInHostMatching);
  const match = (request: ProxyRequest): CompiledRoute | undefined => {
    const find = hostOf(request.authority);
    if (find === undefined) return undefined;
    const end = pathEnd(request.path);
    return find(request, end === request.path.length ? request.path : request.path.slice(0, end))?.(request);
  };
  const notFound = wrap(deps, NO_OVERRIDES, path, (request, reply) => {
    deps.routed?.inc();
    reply.failed(new ProxyError('routeNotFound', tried(request)));
  });
  const send = (request: ProxyRequest, reply: Reply): void => {
    const route = match(request);
    if (route === undefined) {
      notFound(request, reply);
      return;
    }
    request.info.routeName = route.name;
    request.info.virtualHostName = route.virtualHost;
    request.info.clusterName = route.cluster;
    route.send(request, reply);
  };
  return { match, send, clusters };
}

const NO_OVERRIDES: ReadonlyMap<string, ExtensionConfig> = new Map();

function tried(request: ProxyRequest): string {
  return `Host ${JSON.stringify(request.authority.slice(0, QUOTED_MAX))}, path ${JSON.stringify(request.path.slice(0, QUOTED_MAX))}.`;
}

function wrap(deps: RouterDeps, overrides: ReadonlyMap<string, ExtensionConfig>, path: string, send: Send): Send {
  return deps.filters === undefined ? send : deps.filters(overrides, path)(send);
}

function compileVirtualHost(
  config: RouteConfiguration,
  host: VirtualHost,
  path: string,
  clusters: Set<string>,
  deps: RouterDeps,
): Find<Choose> {
  const entries = host.routes.map((route, i): Entry<Choose> => {
    const where = `${path}.routes[${i}]${route.name === '' ? '' : ` ${JSON.stringify(route.name)}`}`;
    return {
      where: `${where}.match`,
      path: route.match.path,
      caseSensitive: route.match.caseSensitive,
      conditions: compileConditions(route.match, deps.random, `${where}.match`),
      value: compileRoute({ config, host, route, path: where, clusters, deps }),
    };
  });
  const find = compileTable(entries);
  if (host.requireTls === 'NONE') return find;
  const secure = toHttps(host);
  const all = host.requireTls === 'ALL';
  return (request, requestPath) => {
    if (request.scheme === 'https' || (!all && request.headers.get('x-envoy-internal') === 'true')) return find(request, requestPath);
    return () => secure;
  };
}

/** Envoy's require_tls: the same place by https. */
function toHttps(host: VirtualHost): CompiledRoute {
  const redirect = { httpsRedirect: true, status: 301, stripQuery: false } as const;
  return {
    name: '',
    virtualHost: host.name,
    cluster: '',
    overrides: NO_OVERRIDES,
    send: compileRedirect(redirect, { kind: 'connect' }, ''),
  };
}

interface RouteInput {
  readonly config: RouteConfiguration;
  readonly host: VirtualHost;
  readonly route: Route;
  readonly path: string;
  readonly clusters: Set<string>;
  readonly deps: RouterDeps;
}

function compileRoute(input: RouteInput): Choose {
  const { route, deps, path } = input;
  const { action } = route;
  if (action.kind === 'forward' && action.target.kind === 'weighted')
    return compileWeighted(input, action.target.clusters, action.target.randomHeader);
  const overrides = mergeOverrides(input, undefined);
  const compiled: CompiledRoute = {
    name: route.name,
    virtualHost: input.host.name,
    cluster: action.kind === 'forward' && action.target.kind === 'cluster' ? action.target.cluster : '',
    overrides,
    send: wrap(deps, overrides, path, compileAction(input)),
  };
  return () => compiled;
}

function compileAction(input: RouteInput): Send {
  const { route, path } = input;
  const { action } = route;
  switch (action.kind) {
    case 'forward':
      if (action.target.kind === 'weighted') throw new ConfigError(path, 'a weighted route is compiled per cluster');
      return compileTo(input, action.target, undefined);
    case 'redirect': {
      // Compiled here too so that a bad pattern is told at push.
      compilePathRewrite(action.redirect, route.match.path, path);
      return answering(mutationsOf(input, undefined), counted(input, compileRedirect(action.redirect, route.match.path, path)));
    }
    case 'direct': {
      if (action.bodyFrom !== undefined)
        throw new ConfigError(`${path}.direct_response.body`, 'must be inline; a body from a file or the environment is not supported');
      const text = action.body === undefined ? '' : Buffer.from(action.body).toString();
      const answer: Send = (request, reply) => reply.answered(localResponse(request, action.status, text));
      return answering(mutationsOf(input, undefined), counted(input, answer));
    }
    case 'nonForwarding':
      return (request, reply) =>
        reply.failed(new ProxyError('routeNotFound', `${tried(request)} The route is for servers that answer by themselves.`));
  }
}

/** As Envoy's router counts what it answers itself. */
function counted({ deps: { routed, answeredDirectly } }: RouteInput, send: Send): Send {
  return (request, reply) => {
    routed?.inc();
    answeredDirectly?.inc();
    send(request, reply);
  };
}

/** Response headers of an answer that the proxy makes. */
function answering(mutations: CompiledMutations, send: Send): Send {
  const onResponse = mutations.response;
  if (onResponse === undefined) return send;
  return (request, reply) => {
    const answered = (response: ProxyResponse): void => {
      onResponse(request, response);
      reply.answered(response);
    };
    send(request, { answered, failed: (error) => reply.failed(error) });
  };
}

function compileTo(
  input: RouteInput,
  target: { readonly kind: 'cluster'; readonly cluster: string } | { readonly kind: 'header'; readonly header: string },
  weighted: WeightedCluster | undefined,
): Send {
  const { route, host, deps, path, clusters } = input;
  if (route.action.kind !== 'forward') throw new ConfigError(path, 'only a forwarding route has a cluster');
  if (target.kind === 'cluster') clusters.add(target.cluster);
  for (const mirror of route.action.mirrors) clusters.add(mirror.cluster);
  return compileForward(
    {
      action: route.action,
      target,
      matched: route.match.path,
      retryPolicy: route.action.retryPolicy ?? host.retryPolicy,
      hostRewriteLiteral: weighted?.hostRewriteLiteral,
      mutations: mutationsOf(input, weighted),
      attemptCountInRequest: host.includeRequestAttemptCount,
      attemptCountInResponse: host.includeAttemptCountInResponse,
      path,
    },
    deps,
  );
}

/** From the most to the least specific, so that the outer level has the last word; the other way round when the configuration says so (Envoy). */
function mutationsOf({ config, host, route, path, deps }: RouteInput, weighted: WeightedCluster | undefined): CompiledMutations {
  const levels = [
    ...(weighted === undefined
      ? []
      : [{ mutations: weighted.headerMutations, path: `${path}.weighted_clusters ${JSON.stringify(weighted.cluster)}` }]),
    { mutations: route.headerMutations, path },
    { mutations: host.headerMutations, path: `virtual host ${JSON.stringify(host.name)}` },
    { mutations: config.headerMutations, path: `routes ${JSON.stringify(config.name)}` },
  ];
  return compileMutations(config.mostSpecificHeaderMutationsWins ? levels.reverse() : levels, deps.clock);
}

function mergeOverrides({ host, route }: RouteInput, weighted: WeightedCluster | undefined): ReadonlyMap<string, ExtensionConfig> {
  const more = weighted?.perFilterConfig ?? NO_OVERRIDES;
  if (host.perFilterConfig.size + route.perFilterConfig.size + more.size === 0) return NO_OVERRIDES;
  return new Map([...host.perFilterConfig, ...route.perFilterConfig, ...more]);
}

/** The golden ratio's fraction: steps of it fill [0, 1) more evenly than anything else. */
const GOLDEN_STEP = 0.618033988749895;

/**
 * Numbers in [0, bound), whole. Not independent draws: a sequence of low discrepancy from a random start, so that a split keeps to its weights
 * within a request or two over any window, where independent draws stray by points in the first hundreds.
 */
function evenDraw(random: Random, bound: number): () => number {
  let turn = random();
  return () => {
    turn += GOLDEN_STEP;
    if (turn >= 1) turn -= 1;
    return Math.floor(turn * bound);
  };
}

/** One compiled route per cluster and a draw over cumulative weights. A weight of 0 gets exactly nothing. */
function compileWeighted(input: RouteInput, weighted: readonly WeightedCluster[], randomHeader: string | undefined): Choose {
  const { route, deps, path } = input;
  const sum = weighted.reduce((total, cluster) => total + cluster.weight, 0);
  if (sum === 0) throw new ConfigError(`${path}.weighted_clusters`, 'the sum of the weights must be above 0');
  if (sum > WEIGHT_SUM_MAX)
    throw new ConfigError(`${path}.weighted_clusters`, `the sum of the weights must be at most ${WEIGHT_SUM_MAX}, received ${sum}`);
  const used = weighted.filter((cluster) => cluster.weight > 0);
  const routes = used.map((cluster): CompiledRoute => {
    const overrides = mergeOverrides(input, cluster);
    return {
      name: route.name,
      virtualHost: input.host.name,
      cluster: cluster.cluster,
      overrides,
      send: wrap(deps, overrides, path, compileTo(input, { kind: 'cluster', cluster: cluster.cluster }, cluster)),
    };
  });
  const ends = new Float64Array(used.length);
  let end = 0;
  used.forEach((cluster, i) => (ends[i] = end += cluster.weight));
  const pick = (value: number): CompiledRoute => {
    let i = 0;
    while (i < ends.length - 1 && value >= ends[i]!) i++;
    return routes[i]!;
  };
  const draw = evenDraw(deps.random, sum);
  if (randomHeader === undefined) return () => pick(draw());
  const name = randomHeader.toLowerCase();
  return (request) => {
    const given = request.headers.get(name);
    return pick(given !== undefined && /^\d{1,15}$/.test(given) ? Number(given) % sum : draw());
  };
}
