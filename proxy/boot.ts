/** From the command line to what the proxy starts with: the bootstrap file read, its static resources in the store, its runtime layers flattened. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseBootstrap } from '../xds/resources/bootstrap.ts';

import { readData, resolveCluster, resolveListener, resolveOwnSecret } from './data-files.ts';
import { ConfigError } from './errors.ts';
import { createRuntimeLayers } from './runtime-layers.ts';
import type { ProxyOptions } from './options.ts';
import type { Kind, ResourceKinds, ResourceStore } from './resource-store.ts';
import type { RuntimeLayers } from './runtime-layers.ts';
import type { Bootstrap, RuntimeLayer, StaticResource } from '../xds/bootstrap.ts';
import type { NodeInfo } from '../xds/session/messages.ts';
import type { JsonObject } from '../xds/snapshot.ts';

/** Why the proxy cannot start: one sentence for the person who wrote the file. Exit code 1. */
export class StartError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'StartError';
  }
}

/** Reads the bootstrap that the options name. Throws StartError with file, place, rule and value. */
export function readBootstrap(options: ProxyOptions): { readonly bootstrap: Bootstrap; readonly warnings: readonly string[] } {
  const file = options.configPath;
  let text = '{}';
  if (file !== undefined) {
    try {
      text = readFileSync(file, 'utf8');
    } catch (error) {
      throw new StartError(`cannot read the configuration ${JSON.stringify(file)}: ${reason(error)}`, error);
    }
  }
  try {
    return parseBootstrap(text, {
      format: file?.endsWith('.json') === true ? 'json' : 'yaml',
      file: file ?? '--config-yaml',
      allowUnknownStaticFields: options.allowUnknownStaticFields,
      ...(options.configYaml === undefined ? {} : { configYaml: options.configYaml }),
    });
  } catch (error) {
    throw new StartError(`the configuration is not valid: ${reason(error)}`, error);
  }
}

/** Puts the static resources into the store, with the files that they name. Throws StartError. */
export function seedStore(store: ResourceStore, bootstrap: Bootstrap, nowMs: number): void {
  const put = <K extends Kind>(kind: K, { resource, dump }: StaticResource<ResourceKinds[K] & { readonly name: string }>): void =>
    store.put(kind, { name: resource.name, value: resource, version: '', fixed: true, updatedMs: nowMs, dump });
  try {
    for (const secret of bootstrap.static.secrets) put('secrets', { ...secret, resource: resolveOwnSecret(secret.resource, readData) });
    for (const cluster of bootstrap.static.clusters) put('clusters', { ...cluster, resource: resolveCluster(cluster.resource, readData) });
    for (const listener of bootstrap.static.listeners)
      put('listeners', { ...listener, resource: resolveListener(listener.resource, readData) });
  } catch (error) {
    if (error instanceof ConfigError) throw new StartError(`the configuration is not valid: ${error.message}`, error);
    throw error;
  }
}

/** In the node's metadata: the control plane gives routes by name instead of the whole table, and the proxy asks for clusters by name. */
const LAZY = 'MESHWORK_LAZY';

export function isLazy({ metadata }: Pick<NodeInfo, 'metadata'>): boolean {
  return metadata[LAZY] === true || metadata[LAZY] === 'true';
}

/** The node as the control plane hears of it; flags win over the file. */
export function nodeOf(bootstrap: Bootstrap, options: ProxyOptions, version: string): NodeInfo {
  const { node } = bootstrap;
  return {
    id: options.serviceNode || node.id,
    cluster: options.serviceCluster || node.cluster,
    metadata: options.lazy ? { ...node.metadata, [LAZY]: true } : node.metadata,
    locality: options.serviceZone === '' ? node.locality : { ...node.locality, zone: options.serviceZone },
    userAgentName: 'meshwork',
    userAgentVersion: version,
    // Not `envoy.lb.does_not_support_overprovisioning`: priorities spill over here as they do in Envoy.
    clientFeatures: ['xds.config.resource-in-sotw'],
  };
}

/** The node in the JSON of the admin API. */
export function nodeJson(node: NodeInfo): JsonObject {
  const { region, zone, subZone } = node.locality;
  return {
    id: node.id,
    cluster: node.cluster,
    metadata: node.metadata,
    locality: { ...(region === '' ? {} : { region }), ...(zone === '' ? {} : { zone }), ...(subZone === '' ? {} : { sub_zone: subZone }) },
    user_agent_name: node.userAgentName,
    user_agent_version: node.userAgentVersion,
  };
}

/** The bootstrap's layers. A disk layer is read once, at the start. */
export function runtimeLayersOf(bootstrap: Bootstrap, options: ProxyOptions): RuntimeLayers {
  return createRuntimeLayers(
    bootstrap.runtimeLayers.flatMap((layer): { name: string; values: JsonObject | undefined }[] => {
      if (layer.kind === 'static') return [{ name: layer.name, values: layer.values }];
      if (layer.kind === 'disk') {
        const values = readDiskLayer(layer, options.serviceCluster || bootstrap.node.cluster);
        return values === undefined ? [] : [{ name: layer.name, values }];
      }
      return [{ name: layer.name, values: undefined }];
    }),
  );
}

const DISK_VALUES_MAX = 10_000;

/** Files below the layer's directory: the path is the key, the content the value. Undefined = the directory is not there, and then there is no such layer, as in Envoy. */
function readDiskLayer(layer: Extract<RuntimeLayer, { kind: 'disk' }>, cluster: string): JsonObject | undefined {
  const root = join(layer.symlinkRoot, layer.subdirectory, layer.appendServiceCluster ? cluster : '');
  const values: Record<string, string> = {};
  let names: string[];
  try {
    names = readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length).replace(/^\//, ''));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new StartError(`cannot read the runtime layer ${JSON.stringify(layer.name)} in ${root}: ${reason(error)}`, error);
  }
  for (const name of names.slice(0, DISK_VALUES_MAX)) values[name.replaceAll('/', '.')] = readFileSync(join(root, name), 'utf8').trim();
  return values;
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
