/** What a route does with a request, decoded: forward it, redirect it, answer it. */
import { RoutingPriority } from '../gen/envoy/config/core/v3/base_pb.js';
import {
  type RedirectAction as WireRedirect,
  RedirectAction_RedirectResponseCode as RedirectCode,
  type Route as WireRoute,
  type RouteAction as WireAction,
  RouteAction_ClusterNotFoundResponseCode as NotFoundCode,
  type RouteAction_HashPolicy,
  type WeightedCluster as WireWeighted,
} from '../gen/envoy/config/route/v3/route_components_pb.js';
import type { RegexMatchAndSubstitute } from '../gen/envoy/type/matcher/v3/regex_pb.js';
import type { ForwardAction, HashPolicy, RedirectAction, RouteAction, WeightedCluster } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { fromDuration, fromFraction } from './duration.ts';
import { decodeMutations } from './header-mutations.ts';
import { decodePerFilterConfig } from './http-filters.ts';
import { decodeData, decodeLbMetadata, decodeRegex } from './parts.ts';
import { decodeRetryPolicy } from './retry.ts';

const TIMEOUT_MS = 15_000;
const WEIGHT_SUM_MAX = 0xffff_ffff;

export function decodeAction(wire: WireRoute['action'], place: Place, bodyBytesMax: number): RouteAction {
  switch (wire.case) {
    case 'route':
      return { kind: 'forward', ...decodeForward(wire.value, inside(place, 'route')) };
    case 'redirect':
      return { kind: 'redirect', redirect: decodeRedirect(wire.value, inside(place, 'redirect')) };
    case 'directResponse': {
      const at = inside(place, 'direct_response');
      const body = decodeData(wire.value.body, inside(at, 'body'));
      if (body !== undefined && 'bytes' in body && body.bytes.length > bodyBytesMax) {
        refuse(inside(at, 'body'), `takes at most ${bodyBytesMax} bytes (max_direct_response_body_size_bytes)`, body.bytes.length);
      }
      const filled = body === undefined ? {} : 'from' in body ? { bodyFrom: body.from } : { body: body.bytes };
      return { kind: 'direct', status: wire.value.status, ...filled };
    }
    case 'nonForwardingAction':
      return { kind: 'nonForwarding' };
    default:
      return refuse(place, 'needs route, redirect, direct_response or non_forwarding_action', wire.case);
  }
}

function decodeForward(wire: WireAction, place: Place): ForwardAction {
  for (const [field, set] of [
    ['path_rewrite_policy', wire.pathRewritePolicy !== undefined],
    ['retry_policy_typed_config', wire.retryPolicyTypedConfig !== undefined],
  ] as const) {
    if (set) refuse(inside(place, field), 'is not supported');
  }
  if (wire.hedgePolicy !== undefined) warn(inside(place, 'hedge_policy'), 'is ignored');
  if (wire.internalRedirectPolicy !== undefined) warn(inside(place, 'internal_redirect_policy'), 'is ignored: redirects go to the client');
  if (wire.rateLimits.length > 0) warn(inside(place, 'rate_limits'), 'is ignored');
  const idleTimeoutMs = fromDuration(wire.idleTimeout);
  const maxStreamDurationMs = fromDuration(wire.maxStreamDuration?.maxStreamDuration);
  const metadataMatch = decodeLbMetadata(wire.metadataMatch);
  const hostRewrite = decodeHostRewrite(wire, place);
  return {
    target: decodeTarget(wire, place),
    clusterNotFoundStatus: NOT_FOUND_STATUS[wire.clusterNotFoundResponseCode] ?? 503,
    timeoutMs: fromDuration(wire.timeout, TIMEOUT_MS),
    ...(idleTimeoutMs === undefined ? {} : { idleTimeoutMs }),
    ...(maxStreamDurationMs === undefined ? {} : { maxStreamDurationMs }),
    ...(wire.retryPolicy === undefined ? {} : { retryPolicy: decodeRetryPolicy(wire.retryPolicy, inside(place, 'retry_policy')) }),
    ...(wire.prefixRewrite === '' ? {} : { prefixRewrite: wire.prefixRewrite }),
    ...(wire.regexRewrite === undefined ? {} : { regexRewrite: decodeRewrite(wire.regexRewrite, inside(place, 'regex_rewrite')) }),
    ...(hostRewrite === undefined ? {} : { hostRewrite }),
    appendXForwardedHost: wire.appendXForwardedHost,
    hashPolicies: wire.hashPolicy.flatMap((policy, i) => decodeHashPolicy(policy, inside(inside(place, 'hash_policy'), i)) ?? []),
    mirrors: wire.requestMirrorPolicies.map((mirror, i) => {
      if (mirror.cluster === '')
        refuse(
          inside(inside(inside(place, 'request_mirror_policies'), i), 'cluster'),
          'must not be empty; cluster_header is not supported',
        );
      const fraction = fromFraction(mirror.runtimeFraction?.defaultValue, 1);
      const runtimeKey = mirror.runtimeFraction?.runtimeKey ?? '';
      return {
        cluster: mirror.cluster,
        fraction,
        ...(runtimeKey === '' ? {} : { runtimeKey }),
        disableShadowHostSuffix: mirror.disableShadowHostSuffixAppend,
      };
    }),
    upgradeConfigs: wire.upgradeConfigs.map((upgrade, i) => decodeUpgrade(upgrade, inside(inside(place, 'upgrade_configs'), i))),
    priority: wire.priority === RoutingPriority.HIGH ? 'HIGH' : 'DEFAULT',
    ...(metadataMatch === undefined ? {} : { metadataMatch }),
  };
}

function decodeUpgrade(wire: WireAction['upgradeConfigs'][number], place: Place): ForwardAction['upgradeConfigs'][number] {
  const type = wire.upgradeType.toLowerCase();
  const { connectConfig } = wire;
  if (connectConfig === undefined) return { type, enabled: wire.enabled ?? true };
  const at = inside(place, 'connect_config');
  if (type !== 'connect') return refuse(at, 'must only be set with upgrade_type CONNECT', wire.upgradeType);
  if (connectConfig.proxyProtocolConfig !== undefined) refuse(inside(at, 'proxy_protocol_config'), 'is not supported');
  if (connectConfig.allowPost) refuse(inside(at, 'allow_post'), 'is not supported');
  return { type, enabled: wire.enabled ?? true, terminates: true };
}

const NOT_FOUND_STATUS: Readonly<Record<number, ForwardAction['clusterNotFoundStatus']>> = {
  [NotFoundCode.SERVICE_UNAVAILABLE]: 503,
  [NotFoundCode.NOT_FOUND]: 404,
  [NotFoundCode.INTERNAL_SERVER_ERROR]: 500,
};

function decodeTarget(wire: WireAction, place: Place): ForwardAction['target'] {
  const target = wire.clusterSpecifier;
  switch (target.case) {
    case 'cluster':
      return { kind: 'cluster', cluster: target.value };
    case 'clusterHeader':
      return { kind: 'header', header: target.value.toLowerCase() };
    case 'weightedClusters': {
      const at = inside(place, 'weighted_clusters');
      const { randomValueSpecifier: random } = target.value;
      const clusters = decodeWeighted(target.value, at);
      return { kind: 'weighted', clusters, ...(random.case === 'headerName' ? { randomHeader: random.value.toLowerCase() } : {}) };
    }
    default:
      return refuse(place, 'needs cluster, cluster_header or weighted_clusters', target.case);
  }
}

function decodeWeighted(wire: WireWeighted, place: Place): readonly WeightedCluster[] {
  const clusters = wire.clusters.map((item, i): WeightedCluster => {
    const at = inside(inside(place, 'clusters'), i);
    if (item.name === '') refuse(inside(at, 'name'), 'must not be empty; cluster_header is not supported');
    const metadataMatch = decodeLbMetadata(item.metadataMatch);
    return {
      cluster: item.name,
      weight: item.weight ?? 0,
      headerMutations: decodeMutations(item, at),
      perFilterConfig: decodePerFilterConfig(item.typedPerFilterConfig, at),
      ...(item.hostRewriteSpecifier.case === 'hostRewriteLiteral' ? { hostRewriteLiteral: item.hostRewriteSpecifier.value } : {}),
      ...(metadataMatch === undefined ? {} : { metadataMatch }),
    };
  });
  const sum = clusters.reduce((total, { weight }) => total + weight, 0);
  if (sum === 0) refuse(inside(place, 'clusters'), 'the weights must add up to more than 0', sum);
  if (sum > WEIGHT_SUM_MAX) refuse(inside(place, 'clusters'), `the weights must add up to at most ${WEIGHT_SUM_MAX}`, sum);
  return clusters;
}

function decodeHostRewrite(wire: WireAction, place: Place): ForwardAction['hostRewrite'] | undefined {
  const rewrite = wire.hostRewriteSpecifier;
  switch (rewrite.case) {
    case 'hostRewriteLiteral':
      return { kind: 'literal', value: rewrite.value };
    case 'autoHostRewrite':
      return rewrite.value.value ? { kind: 'auto' } : undefined;
    case 'hostRewriteHeader':
      return { kind: 'header', header: rewrite.value.toLowerCase() };
    case 'hostRewritePathRegex':
      return refuse(inside(place, 'host_rewrite_path_regex'), 'is not supported');
    case undefined:
      return undefined;
  }
}

function decodeRewrite(wire: RegexMatchAndSubstitute, place: Place): { pattern: string; substitution: string } {
  return { pattern: decodeRegex(wire.pattern, inside(place, 'pattern')), substitution: wire.substitution };
}

function decodeHashPolicy(wire: RouteAction_HashPolicy, place: Place): HashPolicy | undefined {
  const { policySpecifier: policy, terminal } = wire;
  switch (policy.case) {
    case 'header':
      if (policy.value.regexRewrite !== undefined) refuse(inside(place, 'header.regex_rewrite'), 'is not supported');
      return { kind: 'header', header: policy.value.headerName.toLowerCase(), terminal };
    case 'cookie': {
      const ttlMs = fromDuration(policy.value.ttl);
      return { kind: 'cookie', name: policy.value.name, ...(ttlMs === undefined ? {} : { ttlMs }), path: policy.value.path, terminal };
    }
    case 'connectionProperties':
      return policy.value.sourceIp ? { kind: 'sourceIp', terminal } : undefined;
    case 'queryParameter':
      return { kind: 'query', name: policy.value.name, terminal };
    case 'filterState':
      return { kind: 'filterState', key: policy.value.key, terminal };
    case undefined:
      return refuse(place, 'needs a policy');
  }
}

const REDIRECT_STATUS: Readonly<Record<number, RedirectAction['status']>> = {
  [RedirectCode.MOVED_PERMANENTLY]: 301,
  [RedirectCode.FOUND]: 302,
  [RedirectCode.SEE_OTHER]: 303,
  [RedirectCode.TEMPORARY_REDIRECT]: 307,
  [RedirectCode.PERMANENT_REDIRECT]: 308,
};

function decodeRedirect(wire: WireRedirect, place: Place): RedirectAction {
  const { schemeRewriteSpecifier: scheme, pathRewriteSpecifier: path } = wire;
  return {
    ...(scheme.case === 'schemeRedirect' && scheme.value !== '' ? { schemeRedirect: scheme.value } : {}),
    httpsRedirect: scheme.case === 'httpsRedirect' && scheme.value,
    ...(wire.hostRedirect === '' ? {} : { hostRedirect: wire.hostRedirect }),
    ...(wire.portRedirect === 0 ? {} : { portRedirect: wire.portRedirect }),
    ...(path.case === 'pathRedirect' ? { pathRedirect: path.value } : {}),
    ...(path.case === 'prefixRewrite' ? { prefixRewrite: path.value } : {}),
    ...(path.case === 'regexRewrite' ? { regexRewrite: decodeRewrite(path.value, inside(place, 'regex_rewrite')) } : {}),
    status: REDIRECT_STATUS[wire.responseCode] ?? 301,
    stripQuery: wire.stripQuery,
  };
}
