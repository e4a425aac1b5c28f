/** What a rule of the Gateway API does with a request, as an xDS action: split, rewrite, redirect, mirror, retry, time out. */
import { parseDurationMs } from '../../lib/duration.ts';
import type { HttpFilter, HttpRule, PathModifier } from '../kinds/http-route.ts';
import type { FilteredBackendRef } from '../kinds/route-schema.ts';
import type { HeaderModifier } from '../kinds/route-schema.ts';
import {
  type ExtensionConfig,
  type ForwardAction,
  type HashPolicy,
  type HeaderMutations,
  type HeaderValueOption,
  NO_HEADER_MUTATIONS,
  type RedirectAction,
  type RetryPolicy,
  type RouteAction,
  type RouteMatch,
  type WeightedCluster,
} from '../../xds/snapshot.ts';
import type { BackendPolicySpec } from '../kinds/backend-policy.ts';

const EMPTY: ReadonlyMap<string, ExtensionConfig> = new Map();

/** A backend that was looked up: undefined = it names nothing, and its share of the requests fails. */
export interface Backend {
  readonly cluster: string;
  readonly policy: BackendPolicySpec | undefined;
}
export type FindBackend = (ref: {
  readonly name: string;
  readonly namespace?: string | undefined;
  readonly port?: number | undefined;
}) => Backend | undefined;

/** What a rule comes to, whatever it matched. */
export interface RulePlan {
  /** Share of the requests, 0 to 1, that goes to backends that do not exist and is answered with 500. */
  readonly failing: number;
  /** Undefined when every request fails. */
  readonly action: ((match: RouteMatch) => RouteAction) | undefined;
  readonly headerMutations: HeaderMutations;
}

export const FAILING_ACTION: RouteAction = {
  kind: 'direct',
  status: 500,
  body: new TextEncoder().encode('The route names no backend that exists for this request.\n'),
};

/** What holds for a route that says nothing of its own. */
export interface RouteDefaults {
  /** 0 = none. */
  readonly timeoutMs: number;
  readonly retry: RetryPolicy;
}

type AnyRule = Pick<HttpRule, 'filters' | 'backendRefs' | 'timeouts' | 'retry'>;

export function planRule(rule: AnyRule, find: FindBackend, defaults: RouteDefaults): RulePlan {
  const filters = rule.filters ?? [];
  const headerMutations = mutationsOf(filters);
  const redirect = filters.find((filter) => filter.requestRedirect !== undefined)?.requestRedirect;
  if (redirect !== undefined)
    return { failing: 0, headerMutations, action: (match) => ({ kind: 'redirect', redirect: redirectOf(redirect, match) }) };

  const split = splitOf(rule.backendRefs ?? [], find);
  if (split.clusters.length === 0) return { failing: 1, action: undefined, headerMutations };
  const rewrite = filters.find((filter) => filter.urlRewrite !== undefined)?.urlRewrite;
  const host = rewrite?.hostname ?? hostOf(filters);
  const mirrors = mirrorsOf(filters, find);
  const base: ForwardAction = {
    ...forwardTo(split.clusters, defaults),
    timeoutMs: rule.timeouts?.request === undefined ? defaults.timeoutMs : parseDurationMs(rule.timeouts.request),
    retryPolicy: retryOf(rule, defaults.retry),
    mirrors,
    hashPolicies: hashPoliciesOf(split.policy),
    ...(host === undefined ? {} : { hostRewrite: { kind: 'literal' as const, value: host } }),
  };
  return {
    failing: split.failing,
    headerMutations,
    action: (match) => ({ kind: 'forward', ...base, ...pathRewrite(rewrite?.path, match) }),
  };
}

/** Forwarding with nothing special. One cluster needs no weights. */
export function forwardTo(clusters: readonly WeightedCluster[], defaults: RouteDefaults): ForwardAction {
  const [only, second] = clusters;
  const plain =
    only !== undefined && second === undefined && only.headerMutations === NO_HEADER_MUTATIONS && only.hostRewriteLiteral === undefined;
  return {
    target: plain ? { kind: 'cluster', cluster: only.cluster } : { kind: 'weighted', clusters },
    clusterNotFoundStatus: 503,
    timeoutMs: defaults.timeoutMs,
    retryPolicy: defaults.retry,
    appendXForwardedHost: false,
    hashPolicies: [],
    mirrors: [],
    upgradeConfigs: [],
    priority: 'DEFAULT',
  };
}

export const weighted = (cluster: string, weight: number): WeightedCluster => ({
  cluster,
  weight,
  headerMutations: NO_HEADER_MUTATIONS,
  perFilterConfig: EMPTY,
});

/** What requests to this service are hashed by, when its policy says so. */
export function hashPoliciesOf(policy: BackendPolicySpec | undefined): readonly HashPolicy[] {
  const on = policy?.loadBalancing?.hashOn;
  if (on?.header !== undefined) return [{ kind: 'header', header: on.header.toLowerCase(), terminal: false }];
  if (on?.queryParam !== undefined) return [{ kind: 'query', name: on.queryParam, terminal: false }];
  if (on?.sourceIp !== undefined) return [{ kind: 'sourceIp', terminal: false }];
  if (on?.cookie === undefined) return [];
  const { name, ttl, path } = on.cookie;
  return [{ kind: 'cookie', name, path: path ?? '/', terminal: false, ...(ttl === undefined ? {} : { ttlMs: parseDurationMs(ttl) }) }];
}

function splitOf(
  refs: readonly FilteredBackendRef[],
  find: FindBackend,
): { clusters: WeightedCluster[]; failing: number; policy: BackendPolicySpec | undefined } {
  const clusters: WeightedCluster[] = [];
  let total = 0;
  let lost = 0;
  let policy: BackendPolicySpec | undefined;
  for (const ref of refs) {
    const weight = ref.weight ?? 1;
    total += weight;
    const backend = find(ref);
    if (backend === undefined) {
      lost += weight;
      continue;
    }
    if (weight === 0) continue;
    policy ??= backend.policy;
    const host = hostOf(ref.filters ?? []);
    clusters.push({
      cluster: backend.cluster,
      weight,
      headerMutations: mutationsOf(ref.filters ?? []),
      perFilterConfig: EMPTY,
      ...(host === undefined ? {} : { hostRewriteLiteral: host }),
    });
  }
  return { clusters, failing: total === 0 ? 0 : lost / total, policy };
}

function mirrorsOf(filters: readonly HttpFilter[], find: FindBackend): ForwardAction['mirrors'] {
  return filters.flatMap(({ requestMirror: mirror }) => {
    const backend = mirror === undefined ? undefined : find(mirror.backendRef);
    if (mirror === undefined || backend === undefined) return [];
    const fraction =
      mirror.fraction === undefined ? (mirror.percent ?? 100) / 100 : mirror.fraction.numerator / (mirror.fraction.denominator ?? 100);
    return [{ cluster: backend.cluster, fraction, disableShadowHostSuffix: true }];
  });
}

/**
 * A rule with `retry` asks for connection errors, resets and timed-out tries too, beside its codes (HTTPRouteRetry); one without keeps the
 * default words.
 */
function retryOf(rule: AnyRule, defaults: RetryPolicy): RetryPolicy {
  const perTry = rule.timeouts?.backendRequest === undefined ? 0 : parseDurationMs(rule.timeouts.backendRequest);
  const base = perTry > 0 ? { ...defaults, perTryTimeoutMs: perTry } : defaults;
  const { retry } = rule;
  if (retry === undefined) return base;
  const codes = retry.codes ?? [];
  const words = new Set([...base.retryOn, 'reset', ...(codes.length === 0 ? [] : ['retriable-status-codes'])]);
  const backOffBaseMs = retry.backoff === undefined ? base.backOffBaseMs : parseDurationMs(retry.backoff);
  return {
    ...base,
    retryOn: [...words],
    numRetries: retry.attempts ?? base.numRetries,
    retriableStatusCodes: codes,
    backOffBaseMs,
    backOffMaxMs: backOffBaseMs * 10,
  };
}

/** Header filters of one list; later ones of another kind do not undo earlier ones. */
function mutationsOf(
  filters: readonly {
    readonly requestHeaderModifier?: HeaderModifier | undefined;
    readonly responseHeaderModifier?: HeaderModifier | undefined;
  }[],
): HeaderMutations {
  const requests = filters.flatMap((filter) => filter.requestHeaderModifier ?? []);
  const responses = filters.flatMap((filter) => filter.responseHeaderModifier ?? []);
  if (requests.length === 0 && responses.length === 0) return NO_HEADER_MUTATIONS;
  return {
    requestAdd: requests.flatMap(optionsOf).filter(({ name }) => !isHost(name)),
    requestRemove: requests.flatMap(removed),
    responseAdd: responses.flatMap(optionsOf),
    responseRemove: responses.flatMap(removed),
  };
}

/** Host is no header to xDS: Envoy refuses it among header mutations, so a modifier that sets it becomes a host rewrite. The last one counts. */
function hostOf(filters: readonly { readonly requestHeaderModifier?: HeaderModifier | undefined }[]): string | undefined {
  return filters
    .flatMap(({ requestHeaderModifier }) => [...(requestHeaderModifier?.set ?? []), ...(requestHeaderModifier?.add ?? [])])
    .filter(({ name }) => isHost(name))
    .at(-1)?.value;
}

const isHost = (name: string): boolean => name.toLowerCase() === 'host';

const removed = (modifier: HeaderModifier): string[] =>
  (modifier.remove ?? []).filter((name) => !isHost(name)).map((name) => name.toLowerCase());

function optionsOf(modifier: HeaderModifier): HeaderValueOption[] {
  const set = (modifier.set ?? []).map(({ name, value }) => ({
    name: name.toLowerCase(),
    value,
    append: 'OVERWRITE_IF_EXISTS_OR_ADD' as const,
    keepEmptyValue: true,
  }));
  const add = (modifier.add ?? []).map(({ name, value }) => ({
    name: name.toLowerCase(),
    value,
    append: 'APPEND_IF_EXISTS_OR_ADD' as const,
    keepEmptyValue: true,
  }));
  return [...set, ...add];
}

function redirectOf(redirect: NonNullable<HttpFilter['requestRedirect']>, match: RouteMatch): RedirectAction {
  const { scheme, hostname, port, path } = redirect;
  // The scheme's own port is never written into Location (HTTPRequestRedirectFilter.port).
  const wellKnown = (scheme === 'http' && port === 80) || (scheme === 'https' && port === 443);
  const rewrite = pathRewrite(path, match);
  return {
    httpsRedirect: false,
    ...(scheme === undefined ? {} : { schemeRedirect: scheme }),
    ...(hostname === undefined ? {} : { hostRedirect: hostname }),
    ...(port === undefined || wellKnown ? {} : { portRedirect: port }),
    ...(path?.replaceFullPath === undefined ? rewrite : { pathRedirect: path.replaceFullPath }),
    status: redirect.statusCode ?? 302,
    stripQuery: false,
  };
}

/** A full path replaces everything before the query; a prefix only what was matched, and never leaves or doubles a slash at the seam. */
function pathRewrite(path: PathModifier | undefined, match: RouteMatch): Pick<ForwardAction, 'prefixRewrite' | 'regexRewrite'> {
  if (path === undefined) return {};
  if (path.type === 'ReplaceFullPath') return { regexRewrite: { pattern: '^.*$', substitution: escaped(path.replaceFullPath!) } };
  const replacement = path.replacePrefixMatch!.replace(/\/+$/, '');
  if (match.path.kind === 'prefix') return { prefixRewrite: `${replacement}/` };
  if (match.path.kind !== 'segmentPrefix') return {};
  if (replacement !== '') return { prefixRewrite: replacement };
  return { regexRewrite: { pattern: `^${quoted(match.path.value)}/*`, substitution: '/' } };
}

/** In a substitution a backslash begins a group reference (RE2). */
const escaped = (text: string): string => text.replaceAll('\\', '\\\\');

const quoted = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
