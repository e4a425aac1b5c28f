/** A forwarding route as a service, put together at push: hash, rewrites and headers, then mirrors, time-outs, retries and the cluster. */
import type { Clock } from '../../lib/clock.ts';
import type { Counter } from '../../lib/metrics.ts';
import type { Random } from '../../lib/random.ts';
import type { Wheel } from '../../lib/wheel.ts';
import type { RetryPolicy, RouteMatch } from '../../xds/snapshot.ts';
import type { ForwardAction } from '../../xds/snapshot.ts';
import { ProxyError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';
import { compileRetryRules } from '../filters/retry-rules.ts';
import { retry } from '../filters/retry.ts';
import type { RetryBudget } from '../filters/retry.ts';
import { attemptTimeout, routeTimeout } from '../filters/timeout.ts';
import { calledBack } from '../promised.ts';
import type { ProxyRequest, ProxyResponse, Reply, Send } from '../service.ts';
import type { ClusterRef } from '../upstream/cluster-pool.ts';
import type { UpstreamCluster } from '../upstream/cluster.ts';
import { takeControls, withControls } from './controls.ts';
import type { Controls } from './controls.ts';
import { addCookie, compileHash } from './hash.ts';
import type { CompiledHash } from './hash.ts';
import { compileMirrors } from './mirror.ts';
import type { CompiledMutations } from './mutations.ts';
import { compileHostRewrite, compilePathRewrite } from './rewrite.ts';

/** What routes need of the world. */
export interface ForwardDeps {
  readonly clusters: { get(name: string): UpstreamCluster | undefined; ref(name: string): ClusterRef };
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: Wheel;
  /** Counts requests that come to the end of the filters. */
  readonly routed?: { inc(): void };
  /** Counts copies that were not sent. */
  readonly mirrorsDropped: Counter;
  /** The connection manager's stream_idle_timeout, for routes that set none; 0 or absent = none. */
  readonly streamIdleTimeoutMs?: number;
  /** Opens the tunnel of a CONNECT that ends here. Absent = such a route refuses it. */
  readonly openTunnel?: (request: ProxyRequest, cluster: UpstreamCluster) => Promise<ProxyResponse>;
  /** False = `x-envoy-*` control headers are taken off without effect. Default true: the edge has stripped those from outside (rule R6). */
  readonly honourControls?: boolean;
}

export interface ForwardInput {
  readonly action: ForwardAction;
  /** Name, or the request header that names it. */
  readonly target: { readonly kind: 'cluster'; readonly cluster: string } | { readonly kind: 'header'; readonly header: string };
  readonly matched: RouteMatch['path'];
  readonly retryPolicy: RetryPolicy | undefined;
  readonly hostRewriteLiteral: string | undefined;
  readonly mutations: CompiledMutations;
  readonly attemptCountInRequest: boolean;
  readonly attemptCountInResponse: boolean;
  readonly path: string;
}

/** Envoy's route timeout where none is configured. */
export const ROUTE_TIMEOUT_MS = 15_000;
const ATTEMPT_COUNT = 'x-envoy-attempt-count';
const EXPECTED_TIMEOUT = 'x-envoy-expected-rq-timeout-ms';

/** Compiles the route. Throws `ConfigError` for what cannot be. */
export function compileForward(input: ForwardInput, deps: ForwardDeps): Send {
  const { action, path, mutations } = input;
  const hash = compileHash(action.hashPolicies, deps.random, path);
  const rewritePath = compilePathRewrite(action, input.matched, path);
  const rewriteHost = compileHostRewrite(action, input.hostRewriteLiteral);
  const mirrors = compileMirrors(
    action.mirrors.map((mirror) => ({
      cluster: deps.clusters.ref(mirror.cluster),
      fraction: mirror.fraction,
      shadowHost: !mirror.disableShadowHostSuffix,
    })),
    { random: deps.random, dropped: deps.mirrorsDropped },
  );
  const usual = compileAttempts(input, deps, {});
  const honour = deps.honourControls ?? true;
  const { routed } = deps;
  const send = (request: ProxyRequest, reply: Reply): void => {
    routed?.inc();
    const controls = takeControls(request.headers, honour);
    mutations.request?.(request);
    if (rewritePath !== undefined) {
      request.headers.set('x-envoy-original-path', request.path);
      request.path = rewritePath(request.path);
    }
    rewriteHost?.(request);
    mirrors?.(request);
    // Few requests bring headers of this kind, so they may pay for a chain of their own.
    (controls === undefined ? usual : compileAttempts(input, deps, controls))(request, reply);
  };
  return gate(action, withResponse(input, hash, send));
}

/** Refuses the upgrades that the route switches off; those that the connection manager does not know never come here. */
function gate(action: ForwardAction, next: Send): Send {
  const off = action.upgradeConfigs.filter((config) => !config.enabled).map((config) => config.type.toLowerCase());
  if (off.length === 0) return next;
  return (request, reply) => {
    if (request.upgrade === undefined || !off.includes(request.upgrade)) next(request, reply);
    else reply.failed(new ProxyError('upgradeFailed', `It asked for ${JSON.stringify(request.upgrade.slice(0, 40))}.`));
  };
}

/** What is done to the answer, where anything is. */
function withResponse(input: ForwardInput, hash: CompiledHash | undefined, send: Send): Send {
  const onResponse = input.mutations.response;
  const { attemptCountInResponse } = input;
  if (hash === undefined && onResponse === undefined && !attemptCountInResponse) return send;
  return (request, reply) => {
    const cookie = hash?.apply(request);
    const answered = (response: ProxyResponse): void => {
      if (attemptCountInResponse) response.headers.put(ATTEMPT_COUNT, String(request.info.attemptCount));
      onResponse?.(request, response);
      if (cookie !== undefined) addCookie(response, cookie);
      reply.answered(response);
    };
    send(request, { answered, failed: (error) => reply.failed(error) });
  };
}

/** The time-outs, the retries and the cluster, with what a request asked for on top of what the route says. */
function compileAttempts(input: ForwardInput, deps: ForwardDeps, controls: Controls): Send {
  const { action, path } = input;
  const clusterOf = compileTarget(input, deps);
  let send = compileSend(input, clusterOf, deps.openTunnel);
  const timeoutMs = controls.timeoutMs ?? action.timeoutMs;
  const policy = withControls(input.retryPolicy, controls);
  const perTryMs = controls.perTryTimeoutMs ?? policy?.perTryTimeoutMs ?? 0;
  // A per-try time-out that is no shorter than the whole cannot come first.
  const perTry = perTryMs > 0 && (timeoutMs === 0 || perTryMs < timeoutMs) ? perTryMs : 0;
  const { clock, random, wheel } = deps;
  if (timeoutMs > 0) send = expecting(send, { tryMs: perTry > 0 ? perTry : timeoutMs, wholeMs: timeoutMs }, clock);
  const onTimeout = (code: ErrorCode, request: ProxyRequest): void => {
    const stats = clusterOf(request)?.stats;
    if (code === 'perTryTimeout') stats?.rqPerTryTimeout.inc();
    else if (code === 'upstreamTimeout') stats?.rqTimeout.inc();
  };
  if (perTry > 0) send = attemptTimeout(perTry, { clock, wheel, onTimeout })(send);
  const attemptCountInRequest = input.attemptCountInRequest
    ? (request: ProxyRequest): void => request.headers.put(ATTEMPT_COUNT, String(request.info.attemptCount))
    : undefined;
  if (policy !== undefined) {
    const rules = compileRetryRules(policy, `${path}.retry_policy`);
    const budget = (request: ProxyRequest): RetryBudget | undefined => clusterOf(request)?.limits[action.priority];
    send = retry(rules, { clock, random, wheel, budget, counters: (request) => clusterOf(request)?.stats }, attemptCountInRequest)(send);
  } else send = onlyAttempt(send, attemptCountInRequest);
  const idleTimeoutMs = action.idleTimeoutMs ?? deps.streamIdleTimeoutMs ?? 0;
  const timeouts = routeTimeout({ timeoutMs, idleTimeoutMs, maxDurationMs: action.maxStreamDurationMs ?? 0 }, { clock, wheel, onTimeout });
  if (timeouts !== undefined) send = timeouts(send);
  return send;
}

/** The first and only attempt, counted. */
function onlyAttempt(next: Send, onAttempt: ((request: ProxyRequest) => void) | undefined): Send {
  return (request, reply) => {
    request.info.attemptCount = 1;
    onAttempt?.(request);
    next(request, reply);
  };
}

/** Tells the upstream how long somebody will wait for it: a later try has no more than what is left. */
function expecting(next: Send, { tryMs, wholeMs }: { readonly tryMs: number; readonly wholeMs: number }, clock: Clock): Send {
  const first = String(tryMs);
  const firstLine = `${EXPECTED_TIMEOUT}: ${first}\r\n`;
  return (request, reply) => {
    const leftMs = request.info.attemptCount > 1 ? wholeMs - (clock.now() - request.startMs) : wholeMs;
    if (leftMs >= tryMs) request.headers.putLine(EXPECTED_TIMEOUT, first, firstLine);
    else request.headers.put(EXPECTED_TIMEOUT, String(Math.max(1, Math.floor(leftMs))));
    next(request, reply);
  };
}

type ClusterOf = (request: ProxyRequest) => UpstreamCluster | undefined;

function compileTarget({ target }: ForwardInput, deps: ForwardDeps): ClusterOf {
  if (target.kind === 'cluster') {
    const ref = deps.clusters.ref(target.cluster);
    return () => ref.current;
  }
  const name = target.header.toLowerCase();
  return (request) => {
    const cluster = request.headers.get(name);
    return cluster === undefined ? undefined : deps.clusters.get(cluster);
  };
}

function compileSend({ action, target }: ForwardInput, clusterOf: ClusterOf, openTunnel: ForwardDeps['openTunnel']): Send {
  const autoHost = action.hostRewrite?.kind === 'auto';
  const { priority, clusterNotFoundStatus } = action;
  const terminates = action.upgradeConfigs.some((config) => config.terminates === true);
  const name = target.kind === 'cluster' ? `cluster ${target.cluster}` : `cluster named by header ${target.header}`;
  return (request, reply) => {
    const cluster = clusterOf(request);
    if (cluster === undefined) reply.failed(new ProxyError(NOT_FOUND[clusterNotFoundStatus], `There is no ${name}.`));
    else if (!terminates || request.upgrade !== 'connect') cluster.start(request, priority, autoHost, reply);
    else if (openTunnel === undefined) reply.failed(new ProxyError('upgradeFailed', 'No tunnel ends here.'));
    else calledBack((asked) => openTunnel(asked, cluster))(request, reply);
  };
}

/** Envoy lets a route choose the status of an unknown cluster. */
const NOT_FOUND = { 503: 'clusterNotFound', 404: 'clusterNotFound404', 500: 'clusterNotFound500' } as const satisfies Record<
  number,
  ErrorCode
>;
