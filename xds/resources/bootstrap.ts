/** Envoy bootstrap files as people write them, read into our own Bootstrap. */
import { create, merge, type MessageShape } from '@bufbuild/protobuf';
import {
  type Admin,
  type Bootstrap as WireBootstrap,
  BootstrapSchema,
  type RuntimeLayer as WireLayer,
} from '../gen/envoy/config/bootstrap/v3/bootstrap_pb.js';
import { ClusterSchema } from '../gen/envoy/config/cluster/v3/cluster_pb.js';
import { AccessLogSchema } from '../gen/envoy/config/accesslog/v3/accesslog_pb.js';
import { ListenerSchema } from '../gen/envoy/config/listener/v3/listener_pb.js';
import { StatsConfigSchema } from '../gen/envoy/config/metrics/v3/stats_pb.js';
import { FileAccessLogSchema } from '../gen/envoy/extensions/access_loggers/file/v3/file_pb.js';
import { SecretSchema } from '../gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js';
import type { Bootstrap, RuntimeLayer, StaticResource } from '../bootstrap.ts';
import type { ExtensionConfig, JsonObject } from '../snapshot.ts';
import { decodeAccessLogs } from './access-log.ts';
import { decodeClusterMessage } from './cluster.ts';
import { type ConfigText, parseConfigText, type TextFormat } from './config-text.ts';
import { DecodeError, inside, type Place, refuse, topOf, warn } from './decoding.ts';
import { fromDuration } from './duration.ts';
import { extensionOf, pack } from './extension.ts';
import { CONFIG_STYLE, DUMP_STYLE, messageJson } from './json.ts';
import { decodeListenerMessage } from './listener.ts';
import { messageFromJson } from './loose.ts';
import { decodeAddress } from './parts.ts';
import { typeUrlOf } from './registry.ts';
import { checkRules } from './rules.ts';
import { decodeSecretMessage } from './secret.ts';
import { decodeApiSource, decodeConfigSource } from './source.ts';

export interface BootstrapOptions {
  readonly format: TextFormat;
  /** For error messages; `bootstrap` when absent. */
  readonly file?: string;
  /** Unknown fields are refused unless set, and warned of then (Envoy's --allow-unknown-static-fields). */
  readonly allowUnknownStaticFields?: boolean;
  /** Merged over the file: lists are appended, single values replaced (Envoy's --config-yaml). */
  readonly configYaml?: string;
}

const STATS_FLUSH_INTERVAL_MS = 5_000;

/** Reads a bootstrap. Throws DecodeError that names file, line and column, the field, the rule and the value. */
export function parseBootstrap(
  text: string,
  options: BootstrapOptions,
): { readonly bootstrap: Bootstrap; readonly warnings: readonly string[] } {
  const warnings: string[] = [];
  const file = parseConfigText(text, options.format, options.file ?? 'bootstrap');
  const wire = readMessage(file, options, warnings);
  let source = file;
  if (options.configYaml !== undefined && options.configYaml.trim() !== '') {
    const overlay = parseConfigText(options.configYaml, 'yaml', '--config-yaml');
    merge(BootstrapSchema, wire, readMessage(overlay, options, warnings));
    // Fields may be of either text now; only the file has a place to point at, and only where nothing was put over it.
    source = { json: file.json, where: () => options.file ?? 'bootstrap' };
  }
  return { bootstrap: located(source, '', () => decodeBootstrap(wire, source, warnings)), warnings };
}

function readMessage(text: ConfigText, options: BootstrapOptions, warnings: string[]): WireBootstrap {
  const place = topOf('', warnings);
  return located(text, '', () => {
    const unknown: string[] = [];
    // An empty file is most likely one that was not written yet: Envoy does not start with it either.
    if (text.json === null || text.json === undefined) throw new DecodeError('', '', 'is empty');
    const message = messageFromJson(BootstrapSchema, text.json, place, unknown) as WireBootstrap;
    const [first] = unknown;
    if (first === undefined) return message;
    if (options.allowUnknownStaticFields !== true) {
      const others = unknown.length === 1 ? '' : ` (and ${unknown.length - 1} more: ${unknown.slice(1, 6).join(', ')})`;
      throw new DecodeError('', first, `is no field that is known${others}; --allow-unknown-static-fields lets it pass`);
    }
    for (const path of unknown) warn(place, `${text.where(path)}: unknown field ${path} is ignored`);
    return message;
  });
}

/** Runs a step; a DecodeError of it is told again with the position of its field below `base`. */
export function located<T>(text: ConfigText, base: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (!(error instanceof DecodeError) || error.located) throw error;
    const path = base === '' || error.path === '' || error.path.startsWith('[') ? base + error.path : `${base}.${error.path}`;
    throw error.at(text.where(path));
  }
}

function decodeBootstrap(wire: WireBootstrap, text: ConfigText, warnings: string[]): Bootstrap {
  const place = topOf('', warnings);
  checkRules(BootstrapSchema, wire, place);
  warnIgnored(wire, place);
  const { node, staticResources: resources } = wire;
  const base = 'static_resources';
  const statics: Bootstrap['static'] = {
    listeners: decodeStatic(
      'listener',
      ListenerSchema,
      resources?.listeners ?? [],
      `${base}.listeners`,
      text,
      warnings,
      decodeListenerMessage,
    ),
    clusters: decodeStatic('cluster', ClusterSchema, resources?.clusters ?? [], `${base}.clusters`, text, warnings, decodeClusterMessage),
    secrets: decodeStatic('secret', SecretSchema, resources?.secrets ?? [], `${base}.secrets`, text, warnings, decodeSecretMessage),
  };
  const dynamic = decodeDynamic(wire, inside(place, 'dynamic_resources'));
  checkTargets(wire, dynamic, statics, place);
  const tracing = decodeTracing(wire, inside(place, 'tracing.http'));
  return {
    node: {
      id: node?.id ?? '',
      cluster: node?.cluster ?? '',
      locality: { region: node?.locality?.region ?? '', zone: node?.locality?.zone ?? '', subZone: node?.locality?.subZone ?? '' },
      metadata: (node?.metadata ?? {}) as JsonObject,
    },
    ...decodeAdmin(wire.admin, inside(place, 'admin')),
    static: statics,
    dynamic,
    runtimeLayers: decodeRuntime(wire, inside(place, 'layered_runtime.layers')),
    statsTags: new Map(
      wire.statsConfig?.statsTags.flatMap(({ tagName, tagValue }) => (tagValue.case === 'fixedValue' ? [[tagName, tagValue.value]] : [])),
    ),
    ...(wire.statsConfig === undefined ? {} : { statsConfig: messageJson(StatsConfigSchema, wire.statsConfig, CONFIG_STYLE) }),
    statsFlushIntervalMs: fromDuration(wire.statsFlushInterval, STATS_FLUSH_INTERVAL_MS),
    localClusterName: wire.clusterManager?.localClusterName ?? '',
    ...(tracing === undefined ? {} : { tracing }),
    headerPrefix: wire.headerPrefix === '' ? 'x-envoy' : wire.headerPrefix.toLowerCase(),
    dump: () => bootstrapJson(wire),
  };
}

/** The bootstrap as the first entry of a config dump has it, without secrets. */
function bootstrapJson(wire: WireBootstrap): JsonObject {
  return messageJson(BootstrapSchema, wire, DUMP_STYLE);
}

function warnIgnored(wire: WireBootstrap, place: Place): void {
  for (const [field, set] of [
    ['stats_sinks', wire.statsSinks.length > 0],
    ['overload_manager', wire.overloadManager !== undefined],
    ['hds_config', wire.hdsConfig !== undefined],
    ['bootstrap_extensions', wire.bootstrapExtensions.length > 0],
    ['config_sources', wire.configSources.length > 0],
    ['default_config_source', wire.defaultConfigSource !== undefined],
    ['xds_delegate_extension', wire.xdsDelegateExtension !== undefined],
    ['cluster_manager.local_cluster_name', (wire.clusterManager?.localClusterName ?? '') !== ''],
    ['header_prefix', wire.headerPrefix !== '' && wire.headerPrefix.toLowerCase() !== 'x-envoy'],
    ['stats_config', wire.statsConfig !== undefined],
    ['cluster_manager.load_stats_config', wire.clusterManager?.loadStatsConfig !== undefined],
  ] as const) {
    if (set) warn(inside(place, field), 'is ignored');
  }
}

type StaticSchema = typeof ListenerSchema | typeof ClusterSchema | typeof SecretSchema;

/** Decodes each resource and refuses two of one name. */
function decodeStatic<Schema extends StaticSchema, T extends { readonly name: string }>(
  kind: string,
  schema: Schema,
  list: readonly MessageShape<Schema>[],
  base: string,
  text: ConfigText,
  warnings: string[],
  decode: (wire: MessageShape<Schema>, place: Place) => T,
): readonly StaticResource<T>[] {
  const names = new Set<string>();
  return list.map((wire, i) =>
    located(text, `${base}[${i}]`, () => {
      const title = wire.name === '' ? kind : `${kind} "${wire.name}"`;
      const own: string[] = [];
      const place = topOf(title, own);
      const resource = decode(wire, place);
      if (names.has(resource.name)) refuse(inside(place, 'name'), `must be unique among the static ${kind}s`, resource.name);
      names.add(resource.name);
      for (const warning of own) warn(topOf('', warnings), `${text.where(`${base}[${i}]`)}: ${title}: ${warning}`);
      return { resource, dump: () => ({ '@type': typeUrlOf(schema.typeName), ...messageJson(schema, wire, DUMP_STYLE) }) };
    }),
  );
}

function decodeAdmin(wire: Admin | undefined, place: Place): Pick<Bootstrap, 'admin'> {
  if (wire?.address === undefined) return {};
  const old = wire.accessLogPath === '' ? [] : [oldAccessLog(wire.accessLogPath)];
  return {
    admin: {
      address: decodeAddress(wire.address, inside(place, 'address')),
      accessLogs: decodeAccessLogs([...wire.accessLog, ...old], inside(place, 'access_log')),
    },
  };
}

function oldAccessLog(path: string) {
  const value = pack(FileAccessLogSchema, create(FileAccessLogSchema, { path }));
  return create(AccessLogSchema, { name: 'envoy.access_loggers.file', configType: { case: 'typedConfig', value } });
}

function decodeDynamic(wire: WireBootstrap, place: Place): Bootstrap['dynamic'] {
  const { dynamicResources: resources } = wire;
  if (resources === undefined) return {};
  if (resources.ldsResourcesLocator !== '' || resources.cdsResourcesLocator !== '')
    refuse(place, 'xdstp resource locators are not supported');
  const { ldsConfig, cdsConfig, adsConfig } = resources;
  const dynamic: Bootstrap['dynamic'] = {
    ...(ldsConfig === undefined ? {} : { lds: decodeConfigSource(ldsConfig, inside(place, 'lds_config')) }),
    ...(cdsConfig === undefined ? {} : { cds: decodeConfigSource(cdsConfig, inside(place, 'cds_config')) }),
    ...(adsConfig === undefined ? {} : { ads: decodeApiSource(adsConfig, inside(place, 'ads_config')) }),
  };
  for (const [field, source] of [
    ['lds_config', dynamic.lds],
    ['cds_config', dynamic.cds],
  ] as const) {
    if (source?.kind === 'ads' && dynamic.ads === undefined)
      refuse(inside(place, field), 'names ads, which needs dynamic_resources.ads_config');
  }
  return dynamic;
}

/** A stream to the control plane needs a cluster that is there before the stream is, and a node that says who asks. */
function checkTargets(wire: WireBootstrap, dynamic: Bootstrap['dynamic'], statics: Bootstrap['static'], place: Place): void {
  const clusters = new Map(statics.clusters.map(({ resource }) => [resource.name, resource]));
  const sources = [
    ['ads_config', dynamic.ads],
    ['lds_config', dynamic.lds?.kind === 'api' ? dynamic.lds.api : undefined],
    ['cds_config', dynamic.cds?.kind === 'api' ? dynamic.cds.api : undefined],
  ] as const;
  for (const [field, source] of sources) {
    if (source === undefined) continue;
    const at = inside(inside(place, 'dynamic_resources'), field);
    for (const { target } of source.services) {
      if (target.kind !== 'cluster') continue;
      const cluster = clusters.get(target.cluster);
      if (cluster === undefined) return refuse(at, 'must name a cluster of static_resources', target.cluster);
      if (cluster.type === 'EDS') refuse(at, 'must name a cluster that needs no EDS', target.cluster);
    }
    if ((wire.node?.id ?? '') === '' || (wire.node?.cluster ?? '') === '') {
      warn(
        inside(place, 'node'),
        'id and cluster should be set (or --service-node and --service-cluster given): a control plane tells proxies apart by them',
      );
    }
  }
}

function decodeTracing(wire: WireBootstrap, place: Place): ExtensionConfig | undefined {
  const http = wire.tracing?.http;
  return http === undefined ? undefined : extensionOf(http.name, http.configType.value, place);
}

function decodeRuntime(wire: WireBootstrap, place: Place): readonly RuntimeLayer[] {
  const names = new Set<string>();
  let admins = 0;
  return (wire.layeredRuntime?.layers ?? []).flatMap((layer, i) => {
    const at = inside(place, i);
    if (names.has(layer.name)) refuse(inside(at, 'name'), 'must be unique among the runtime layers', layer.name);
    names.add(layer.name);
    if (layer.layerSpecifier.case === 'adminLayer' && ++admins > 1)
      refuse(at, 'may be the only admin layer: there is another one before it');
    return decodeLayer(layer, at) ?? [];
  });
}

function decodeLayer(wire: WireLayer, place: Place): RuntimeLayer | undefined {
  const { name, layerSpecifier: layer } = wire;
  switch (layer.case) {
    case 'staticLayer':
      return { kind: 'static', name, values: layer.value as JsonObject };
    case 'diskLayer':
      return {
        kind: 'disk',
        name,
        symlinkRoot: layer.value.symlinkRoot,
        subdirectory: layer.value.subdirectory,
        appendServiceCluster: layer.value.appendServiceCluster,
      };
    case 'adminLayer':
      return { kind: 'admin', name };
    case 'rtdsLayer':
      warn(inside(place, 'rtds_layer'), 'is ignored: RTDS is not supported');
      return undefined;
    case undefined:
      return refuse(place, 'needs static_layer, disk_layer or admin_layer');
  }
}
