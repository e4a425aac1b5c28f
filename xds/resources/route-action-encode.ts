/** What a route does with a request, encoded; the mirror of route-action.ts. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { RoutingPriority } from '../gen/envoy/config/core/v3/base_pb.js';
import {
  RedirectAction_RedirectResponseCode as RedirectCode,
  type RedirectActionSchema,
  RouteAction_ClusterNotFoundResponseCode as NotFoundCode,
  type RouteAction_HashPolicySchema,
  type RouteActionSchema,
  type RouteSchema,
  type WeightedClusterSchema,
} from '../gen/envoy/config/route/v3/route_components_pb.js';
import type { ForwardAction, HashPolicy, RedirectAction, RouteAction, WeightedCluster } from '../snapshot.ts';
import { toDuration, toFraction } from './duration.ts';
import { encodeMutations } from './header-mutations.ts';
import { encodePerFilterConfig } from './http-filters.ts';
import { encodeDataRef, encodeLbMetadata } from './parts.ts';
import { encodeRetryPolicy } from './retry.ts';

type RouteInit = Exclude<MessageInitShape<typeof RouteSchema>, { $typeName: string }>;
type ActionInit = Exclude<MessageInitShape<typeof RouteActionSchema>, { $typeName: string }>;
type RedirectInit = Exclude<MessageInitShape<typeof RedirectActionSchema>, { $typeName: string }>;

export function encodeAction(action: RouteAction): NonNullable<RouteInit['action']> {
  switch (action.kind) {
    case 'forward':
      return { case: 'route', value: encodeForward(action) };
    case 'redirect':
      return { case: 'redirect', value: encodeRedirect(action.redirect) };
    case 'direct': {
      const { status, body, bodyFrom } = action;
      if (bodyFrom !== undefined) return { case: 'directResponse', value: { status, body: encodeDataRef(bodyFrom) } };
      if (body === undefined) return { case: 'directResponse', value: { status } };
      return { case: 'directResponse', value: { status, body: { specifier: { case: 'inlineBytes', value: body } } } };
    }
    case 'nonForwarding':
      return { case: 'nonForwardingAction', value: {} };
  }
}

const NOT_FOUND_CODE = {
  503: NotFoundCode.SERVICE_UNAVAILABLE,
  404: NotFoundCode.NOT_FOUND,
  500: NotFoundCode.INTERNAL_SERVER_ERROR,
} as const;

function encodeForward(action: ForwardAction): ActionInit {
  const hostRewrite = encodeHostRewrite(action.hostRewrite);
  const metadataMatch = encodeLbMetadata(action.metadataMatch);
  return {
    clusterSpecifier: encodeTarget(action.target),
    clusterNotFoundResponseCode: NOT_FOUND_CODE[action.clusterNotFoundStatus],
    timeout: toDuration(action.timeoutMs),
    ...(action.idleTimeoutMs === undefined ? {} : { idleTimeout: toDuration(action.idleTimeoutMs) }),
    ...(action.maxStreamDurationMs === undefined
      ? {}
      : { maxStreamDuration: { maxStreamDuration: toDuration(action.maxStreamDurationMs) } }),
    ...(action.retryPolicy === undefined ? {} : { retryPolicy: encodeRetryPolicy(action.retryPolicy) }),
    prefixRewrite: action.prefixRewrite ?? '',
    ...(action.regexRewrite === undefined ? {} : { regexRewrite: encodeRewrite(action.regexRewrite) }),
    ...(hostRewrite === undefined ? {} : { hostRewriteSpecifier: hostRewrite }),
    appendXForwardedHost: action.appendXForwardedHost,
    hashPolicy: action.hashPolicies.map(encodeHashPolicy),
    requestMirrorPolicies: action.mirrors.map(({ cluster, fraction, runtimeKey, disableShadowHostSuffix }) => ({
      cluster,
      disableShadowHostSuffixAppend: disableShadowHostSuffix,
      ...(fraction === 1 && runtimeKey === undefined
        ? {}
        : { runtimeFraction: { defaultValue: toFraction(fraction), runtimeKey: runtimeKey ?? '' } }),
    })),
    upgradeConfigs: action.upgradeConfigs.map(({ type, enabled, terminates }) => ({
      upgradeType: type,
      enabled,
      ...(terminates ? { connectConfig: {} } : {}),
    })),
    priority: RoutingPriority[action.priority],
    ...(metadataMatch === undefined ? {} : { metadataMatch }),
  };
}

function encodeTarget(target: ForwardAction['target']): NonNullable<ActionInit['clusterSpecifier']> {
  switch (target.kind) {
    case 'cluster':
      return { case: 'cluster', value: target.cluster };
    case 'header':
      return { case: 'clusterHeader', value: target.header };
    case 'weighted': {
      const random = target.randomHeader;
      const clusters = target.clusters.map(encodeWeighted);
      return {
        case: 'weightedClusters',
        value: { clusters, ...(random === undefined ? {} : { randomValueSpecifier: { case: 'headerName', value: random } }) },
      };
    }
  }
}

function encodeWeighted(
  item: WeightedCluster,
): NonNullable<Exclude<MessageInitShape<typeof WeightedClusterSchema>, { $typeName: string }>['clusters']>[number] {
  const metadataMatch = encodeLbMetadata(item.metadataMatch);
  return {
    name: item.cluster,
    weight: item.weight,
    ...encodeMutations(item.headerMutations),
    typedPerFilterConfig: encodePerFilterConfig(item.perFilterConfig),
    ...(metadataMatch === undefined ? {} : { metadataMatch }),
    ...(item.hostRewriteLiteral === undefined
      ? {}
      : { hostRewriteSpecifier: { case: 'hostRewriteLiteral', value: item.hostRewriteLiteral } }),
  };
}

function encodeHostRewrite(rewrite: ForwardAction['hostRewrite']): NonNullable<ActionInit['hostRewriteSpecifier']> | undefined {
  switch (rewrite?.kind) {
    case 'literal':
      return { case: 'hostRewriteLiteral', value: rewrite.value };
    case 'auto':
      return { case: 'autoHostRewrite', value: { value: true } };
    case 'header':
      return { case: 'hostRewriteHeader', value: rewrite.header };
    case undefined:
      return undefined;
  }
}

function encodeRewrite(rewrite: { pattern: string; substitution: string }) {
  return { pattern: { regex: rewrite.pattern }, substitution: rewrite.substitution };
}

function encodeHashPolicy(policy: HashPolicy): MessageInitShape<typeof RouteAction_HashPolicySchema> {
  const { terminal } = policy;
  switch (policy.kind) {
    case 'header':
      return { terminal, policySpecifier: { case: 'header', value: { headerName: policy.header } } };
    case 'cookie': {
      const ttl = policy.ttlMs === undefined ? {} : { ttl: toDuration(policy.ttlMs) };
      return { terminal, policySpecifier: { case: 'cookie', value: { name: policy.name, path: policy.path, ...ttl } } };
    }
    case 'sourceIp':
      return { terminal, policySpecifier: { case: 'connectionProperties', value: { sourceIp: true } } };
    case 'query':
      return { terminal, policySpecifier: { case: 'queryParameter', value: { name: policy.name } } };
    case 'filterState':
      return { terminal, policySpecifier: { case: 'filterState', value: { key: policy.key } } };
  }
}

const REDIRECT_CODE = {
  301: RedirectCode.MOVED_PERMANENTLY,
  302: RedirectCode.FOUND,
  303: RedirectCode.SEE_OTHER,
  307: RedirectCode.TEMPORARY_REDIRECT,
  308: RedirectCode.PERMANENT_REDIRECT,
} as const;

function encodeRedirect(redirect: RedirectAction): RedirectInit {
  const path = encodeRedirectPath(redirect);
  return {
    ...(redirect.schemeRedirect !== undefined
      ? { schemeRewriteSpecifier: { case: 'schemeRedirect', value: redirect.schemeRedirect } }
      : redirect.httpsRedirect
        ? { schemeRewriteSpecifier: { case: 'httpsRedirect', value: true } }
        : {}),
    hostRedirect: redirect.hostRedirect ?? '',
    portRedirect: redirect.portRedirect ?? 0,
    ...(path === undefined ? {} : { pathRewriteSpecifier: path }),
    responseCode: REDIRECT_CODE[redirect.status],
    stripQuery: redirect.stripQuery,
  };
}

function encodeRedirectPath(redirect: RedirectAction): NonNullable<RedirectInit['pathRewriteSpecifier']> | undefined {
  if (redirect.pathRedirect !== undefined) return { case: 'pathRedirect', value: redirect.pathRedirect };
  if (redirect.prefixRewrite !== undefined) return { case: 'prefixRewrite', value: redirect.prefixRewrite };
  return redirect.regexRewrite === undefined ? undefined : { case: 'regexRewrite', value: encodeRewrite(redirect.regexRewrite) };
}
