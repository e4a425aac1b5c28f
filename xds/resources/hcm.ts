/** The HTTP connection manager: the network filter that turns a connection into requests. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { HttpProtocolOptions_HeadersWithUnderscoresAction as Underscores } from '../gen/envoy/config/core/v3/protocol_pb.js';
import {
  HttpConnectionManager_CodecType as Codec,
  HttpConnectionManager_ForwardClientCertDetails as ForwardCert,
  HttpConnectionManager_PathWithEscapedSlashesAction as Escaped,
  HttpConnectionManager_ServerHeaderTransformation as ServerHeader,
  HttpConnectionManagerSchema,
  LocalReplyConfigSchema,
  type HttpConnectionManager as WireManager,
  type HttpConnectionManager_Tracing,
} from '../gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js';
import type { RouteConfiguration as WireRoutes } from '../gen/envoy/config/route/v3/route_pb.js';
import type { HttpConnectionManager, JsonObject, RouteConfiguration } from '../snapshot.ts';
import { decodeAccessLogs, encodeAccessLogs } from './access-log.ts';
import { inside, type Place, refuse, warn, warnIgnored } from './decoding.ts';
import { fromDuration, fromPercent, nameOf, toDuration, toPercent } from './duration.ts';
import { extensionOf, packExtension } from './extension.ts';
import { decodeHttpFilters, encodeHttpFilters } from './http-filters.ts';
import { CONFIG_STYLE, messageJson } from './json.ts';
import { newMessage } from './loose.ts';
import { adsSource, decodeSource } from './parts.ts';
import { decodeRouteConfiguration, newRouteConfiguration } from './route.ts';

// Envoy's defaults where a field is absent.
const IDLE_TIMEOUT_MS = 3_600_000;
const STREAM_IDLE_TIMEOUT_MS = 300_000;
const DRAIN_TIMEOUT_MS = 5_000;
const HEADER_FIELDS_MAX = 100;
const HEAD_KIBIBYTES_MAX = 60;

/** From a message whose rules are checked. */
export function decodeHttpConnectionManager(wire: WireManager, place: Place): HttpConnectionManager {
  if (wire.codecType === Codec.HTTP3) refuse(inside(place, 'codec_type'), 'must be AUTO, HTTP1 or HTTP2', 'HTTP3');
  if (wire.originalIpDetectionExtensions.length > 0) refuse(inside(place, 'original_ip_detection_extensions'), 'is not supported');
  if (wire.earlyHeaderMutationExtensions.length > 0) refuse(inside(place, 'early_header_mutation_extensions'), 'is not supported');
  warnIgnored(place, {
    add_user_agent: wire.addUserAgent === true,
    via: wire.via !== '',
    internal_address_config: wire.internalAddressConfig !== undefined,
    scheme_header_transformation: wire.schemeHeaderTransformation !== undefined,
    path_normalization_options: wire.pathNormalizationOptions !== undefined,
    strip_trailing_host_dot: wire.stripTrailingHostDot,
    append_x_forwarded_port: wire.appendXForwardedPort,
    proxy_status_config: wire.proxyStatusConfig !== undefined,
    typed_header_validation_config: wire.typedHeaderValidationConfig !== undefined,
  });
  const common = wire.commonHttpProtocolOptions;
  const details = wire.setCurrentClientCertDetails;
  return {
    statPrefix: wire.statPrefix,
    codecType: wire.codecType === Codec.HTTP1 ? 'HTTP1' : wire.codecType === Codec.HTTP2 ? 'HTTP2' : 'AUTO',
    ...decodeRoutes(wire, place),
    httpFilters: decodeHttpFilters(wire.httpFilters, inside(place, 'http_filters')),
    accessLogs: decodeAccessLogs(wire.accessLog, inside(place, 'access_log')),
    ...(wire.tracing === undefined ? {} : { tracing: decodeTracing(wire.tracing, inside(place, 'tracing')) }),
    serverName: wire.serverName === '' ? 'envoy' : wire.serverName,
    serverHeader: nameOf(ServerHeader, wire.serverHeaderTransformation) ?? 'OVERWRITE',
    useRemoteAddress: wire.useRemoteAddress ?? false,
    xffNumTrustedHops: wire.xffNumTrustedHops,
    skipXffAppend: wire.skipXffAppend,
    generateRequestId: wire.generateRequestId ?? true,
    preserveExternalRequestId: wire.preserveExternalRequestId,
    alwaysSetRequestIdInResponse: wire.alwaysSetRequestIdInResponse,
    forwardClientCert: nameOf(ForwardCert, wire.forwardClientCertDetails) ?? 'SANITIZE',
    setCurrentClientCertDetails: {
      subject: details?.subject ?? false,
      cert: details?.cert ?? false,
      chain: details?.chain ?? false,
      dns: details?.dns ?? false,
      uri: details?.uri ?? false,
    },
    idleTimeoutMs: fromDuration(common?.idleTimeout, IDLE_TIMEOUT_MS),
    streamIdleTimeoutMs: fromDuration(wire.streamIdleTimeout, STREAM_IDLE_TIMEOUT_MS),
    requestTimeoutMs: fromDuration(wire.requestTimeout, 0),
    requestHeadersTimeoutMs: fromDuration(wire.requestHeadersTimeout, 0),
    drainTimeoutMs: fromDuration(wire.drainTimeout, DRAIN_TIMEOUT_MS),
    maxConnectionDurationMs: fromDuration(common?.maxConnectionDuration, 0),
    maxStreamDurationMs: fromDuration(common?.maxStreamDuration, 0),
    maxRequestsPerConnection: common?.maxRequestsPerConnection ?? 0,
    headerFieldsMax: common?.maxHeadersCount ?? HEADER_FIELDS_MAX,
    headBytesMax: (wire.maxRequestHeadersKb ?? HEAD_KIBIBYTES_MAX) * 1_024,
    normalizePath: wire.normalizePath ?? false,
    mergeSlashes: wire.mergeSlashes,
    pathWithEscapedSlashes: decodeEscaped(wire.pathWithEscapedSlashesAction),
    headersWithUnderscores: nameOf(Underscores, common?.headersWithUnderscoresAction ?? Underscores.ALLOW) ?? 'ALLOW',
    stripMatchingHostPort: wire.stripMatchingHostPort,
    stripAnyHostPort: wire.stripPortMode.case === 'stripAnyHostPort' && wire.stripPortMode.value,
    acceptHttp10: wire.httpProtocolOptions?.acceptHttp10 ?? false,
    defaultHostForHttp10: wire.httpProtocolOptions?.defaultHostForHttp10 ?? '',
    proxy100Continue: wire.proxy100Continue,
    upgradeTypes: decodeUpgrades(wire, inside(place, 'upgrade_configs')),
    ...(wire.localReplyConfig === undefined
      ? {}
      : { localReplyConfig: messageJson(LocalReplyConfigSchema, wire.localReplyConfig, CONFIG_STYLE) }),
  };
}

/** Envoy: routes that stand inside a listener must name clusters that exist, unless they say otherwise; those of RDS need not. */
function decodeInlineRoutes(wire: WireRoutes, place: Place): RouteConfiguration {
  const routes = decodeRouteConfiguration(wire, place);
  return wire.validateClusters === undefined ? { ...routes, validateClusters: true } : routes;
}

function decodeRoutes(wire: WireManager, place: Place): Pick<HttpConnectionManager, 'routeConfig' | 'rdsName'> {
  const routes = wire.routeSpecifier;
  switch (routes.case) {
    case 'routeConfig':
      return { routeConfig: decodeInlineRoutes(routes.value, inside(place, 'route_config')) };
    case 'rds': {
      const at = inside(place, 'rds');
      const source = decodeSource(routes.value.configSource, inside(at, 'config_source'));
      if (source === undefined) refuse(inside(at, 'config_source'), 'must name a source');
      if (routes.value.routeConfigName === '') refuse(inside(at, 'route_config_name'), 'must not be empty');
      if (source?.kind === 'path')
        refuse(inside(at, 'config_source'), 'routes from a file of their own are not supported; use route_config or ADS', source.path);
      if (source?.kind === 'cluster')
        warn(inside(at, 'config_source'), `routes are asked for over ADS, not from cluster ${source.cluster}`);
      return { rdsName: routes.value.routeConfigName };
    }
    default:
      if (routes.case === 'scopedRoutes')
        refuse(inside(place, 'scoped_routes'), 'is not built in (SRDS); routes come from rds or route_config');
      return refuse(inside(place, 'route_specifier'), 'must be rds or route_config');
  }
}

function decodeTracing(wire: HttpConnectionManager_Tracing, place: Place): NonNullable<HttpConnectionManager['tracing']> {
  const { provider } = wire;
  const any = provider?.configType.case === 'typedConfig' ? provider.configType.value : undefined;
  const extension = provider === undefined ? undefined : extensionOf(provider.name, any, inside(place, 'provider'));
  const serviceName = extension?.config['serviceName'];
  return {
    randomSamplingPercent: fromPercent(wire.randomSampling, 100),
    clientSamplingPercent: fromPercent(wire.clientSampling, 100),
    overallSamplingPercent: fromPercent(wire.overallSampling, 100),
    ...(typeof serviceName === 'string' ? { serviceName } : {}),
    ...(extension === undefined ? {} : { provider: extension }),
  };
}

function decodeEscaped(action: Escaped): HttpConnectionManager['pathWithEscapedSlashes'] {
  const name = nameOf(Escaped, action);
  return name === undefined || name === 'IMPLEMENTATION_SPECIFIC_DEFAULT' ? 'KEEP_UNCHANGED' : name;
}

function decodeUpgrades(wire: WireManager, place: Place): readonly string[] {
  return wire.upgradeConfigs.flatMap((upgrade, i) => {
    if (upgrade.filters.length > 0)
      refuse(inside(inside(place, i), 'filters'), 'is not supported: an upgrade passes through the filters of the listener');
    return upgrade.enabled === false ? [] : [upgrade.upgradeType.toLowerCase()];
  });
}

/** `rds` goes over ADS. */
export function newHttpConnectionManager(manager: HttpConnectionManager): WireManager {
  const { setCurrentClientCertDetails: details } = manager;
  return create(HttpConnectionManagerSchema, {
    statPrefix: manager.statPrefix,
    codecType: Codec[manager.codecType],
    ...encodeRoutes(manager),
    httpFilters: encodeHttpFilters(manager.httpFilters),
    accessLog: encodeAccessLogs(manager.accessLogs),
    ...(manager.tracing === undefined ? {} : { tracing: encodeTracing(manager.tracing) }),
    serverName: manager.serverName,
    serverHeaderTransformation: ServerHeader[manager.serverHeader],
    useRemoteAddress: manager.useRemoteAddress,
    xffNumTrustedHops: manager.xffNumTrustedHops,
    skipXffAppend: manager.skipXffAppend,
    generateRequestId: manager.generateRequestId,
    preserveExternalRequestId: manager.preserveExternalRequestId,
    alwaysSetRequestIdInResponse: manager.alwaysSetRequestIdInResponse,
    forwardClientCertDetails: ForwardCert[manager.forwardClientCert],
    setCurrentClientCertDetails: { subject: details.subject, cert: details.cert, chain: details.chain, dns: details.dns, uri: details.uri },
    commonHttpProtocolOptions: {
      idleTimeout: toDuration(manager.idleTimeoutMs),
      // Zero means none to us; on the wire none is absence, and Envoy refuses some of the zeros.
      ...(manager.maxConnectionDurationMs === 0 ? {} : { maxConnectionDuration: toDuration(manager.maxConnectionDurationMs) }),
      ...(manager.maxStreamDurationMs === 0 ? {} : { maxStreamDuration: toDuration(manager.maxStreamDurationMs) }),
      ...(manager.maxRequestsPerConnection === 0 ? {} : { maxRequestsPerConnection: manager.maxRequestsPerConnection }),
      maxHeadersCount: manager.headerFieldsMax,
      headersWithUnderscoresAction: Underscores[manager.headersWithUnderscores],
    },
    streamIdleTimeout: toDuration(manager.streamIdleTimeoutMs),
    requestTimeout: toDuration(manager.requestTimeoutMs),
    requestHeadersTimeout: toDuration(manager.requestHeadersTimeoutMs),
    drainTimeout: toDuration(manager.drainTimeoutMs),
    maxRequestHeadersKb: Math.max(1, Math.ceil(manager.headBytesMax / 1_024)),
    normalizePath: manager.normalizePath,
    mergeSlashes: manager.mergeSlashes,
    pathWithEscapedSlashesAction: Escaped[manager.pathWithEscapedSlashes],
    stripMatchingHostPort: manager.stripMatchingHostPort,
    ...(manager.stripAnyHostPort ? { stripPortMode: { case: 'stripAnyHostPort', value: true } } : {}),
    ...(manager.acceptHttp10 || manager.defaultHostForHttp10 !== ''
      ? { httpProtocolOptions: { acceptHttp10: manager.acceptHttp10, defaultHostForHttp10: manager.defaultHostForHttp10 } }
      : {}),
    proxy100Continue: manager.proxy100Continue,
    upgradeConfigs: manager.upgradeTypes.map((upgradeType) => ({ upgradeType })),
    ...(manager.localReplyConfig === undefined
      ? {}
      : { localReplyConfig: newMessage(LocalReplyConfigSchema, manager.localReplyConfig, 'local reply') }),
  });
}

type ManagerInit = Exclude<MessageInitShape<typeof HttpConnectionManagerSchema>, { $typeName: string }>;

function encodeRoutes(manager: HttpConnectionManager): Pick<ManagerInit, 'routeSpecifier'> {
  if (manager.routeConfig !== undefined)
    return { routeSpecifier: { case: 'routeConfig', value: newRouteConfiguration(manager.routeConfig) } };
  if (manager.rdsName === undefined) throw new TypeError('an HTTP connection manager needs routeConfig or rdsName');
  return { routeSpecifier: { case: 'rds', value: { routeConfigName: manager.rdsName, configSource: adsSource() } } };
}

function encodeTracing(tracing: NonNullable<HttpConnectionManager['tracing']>): NonNullable<ManagerInit['tracing']> {
  const { provider, serviceName } = tracing;
  const config: JsonObject = provider === undefined || serviceName === undefined ? {} : { serviceName };
  const any = provider === undefined ? undefined : packExtension({ ...provider, config: { ...provider.config, ...config } });
  return {
    randomSampling: toPercent(tracing.randomSamplingPercent),
    clientSampling: toPercent(tracing.clientSamplingPercent),
    overallSampling: toPercent(tracing.overallSamplingPercent),
    ...(provider === undefined
      ? {}
      : { provider: { name: provider.name, ...(any === undefined ? {} : { configType: { case: 'typedConfig', value: any } }) } }),
  };
}
