/** Where resources come from besides the bootstrap itself: xDS streams and watched files. */
import { isLazy, StartError } from './boot.ts';
import { ConfigError } from './errors.ts';
import { watchFiles } from './file-source.ts';
import type { Ads } from './ads.ts';
import type { Parts } from './assemble.ts';
import type { FileWatch } from './file-source.ts';
import type { StateKeeper } from './stale-start.ts';
import type { ApiSource, Bootstrap, ConfigSource } from '../xds/bootstrap.ts';

const ADS_PATH = 'dynamic_resources.ads_config';

export interface Sources {
  close(): void;
}

/** Starts every source that the bootstrap names. Throws StartError for one that can never work. */
export async function connectSources(bootstrap: Bootstrap, parts: Parts): Promise<Sources> {
  const { lds, cds, ads } = bootstrap.dynamic;
  const streams: Ads[] = [];
  const files: FileWatch[] = [];
  const lazy = isLazy(parts.node);
  if (lazy && ads?.apiType !== 'DELTA_GRPC')
    throw new StartError(
      `a lazy proxy asks for virtual hosts by name, and needs dynamic_resources.ads_config with api_type DELTA_GRPC, received ${ads?.apiType ?? 'none'}`,
    );
  // A lazy proxy asks for its clusters by name, whatever the bootstrap says of CDS.
  const sources: readonly (readonly ['listeners' | 'clusters', ConfigSource | undefined])[] = [
    ['clusters', lazy && cds?.kind !== 'path' ? undefined : cds],
    ['listeners', lds],
  ];
  const shared = sources.flatMap(([kind, source]) => (source?.kind === 'ads' ? [kind] : []));
  const timers = sources.flatMap(([kind, source]) => (source === undefined ? [] : [expectFirst(kind, source, parts)]));
  const overXds = sources.flatMap(([kind, source]) => (source === undefined || source.kind === 'path' ? [] : [kind]));
  const keeper = overXds.length === 0 ? undefined : await openKeeper(streams, overXds, parts);
  const close = (): void => {
    keeper?.close();
    for (const cancel of timers) cancel();
    for (const stream of streams) stream.close();
    for (const file of files) file.close();
  };
  try {
    if (ads !== undefined) streams.push(await openStream(ads, shared, ADS_PATH, parts, keeper));
    for (const [kind, source] of sources) {
      if (source?.kind === 'api')
        streams.push(
          await openStream(source.api, [kind], `dynamic_resources.${kind === 'clusters' ? 'cds' : 'lds'}_config`, parts, keeper),
        );
      else if (source?.kind === 'path') files.push(await watchFiles(kind, source, parts));
    }
    files.push(...(await watchSecretFiles(parts)));
  } catch (error) {
    close();
    throw error instanceof ConfigError ? new StartError(`the configuration is not valid: ${error.message}`, error) : error;
  }
  return { close };
}

/** The start waits for the first answer of each kind, for as long as the source says; 0 = for ever. The answer stops the time. */
function expectFirst(kind: 'listeners' | 'clusters', source: ConfigSource, { awaited, clock, status, log }: Parts): () => void {
  awaited.add(kind);
  if (source.initialFetchTimeoutMs <= 0) return () => undefined;
  return clock.after(source.initialFetchTimeoutMs, () => {
    if (!awaited.delete(kind)) return;
    log.warning('No answer of the configuration source in time; the start goes on without.', { kind });
    status.check();
  });
}

/** With `--state-dir`, what keeps the last good configuration. Loaded only then. */
async function openKeeper(
  streams: readonly Ads[],
  kinds: readonly ('listeners' | 'clusters')[],
  parts: Parts,
): Promise<StateKeeper | undefined> {
  const { stateDir } = parts.options;
  if (stateDir === undefined) return undefined;
  const { keepState } = await import('./stale-start.ts');
  return keepState(stateDir, streams, kinds, parts);
}

/** gRPC is loaded here, since a proxy that is configured by files alone needs none of it. */
async function openStream(
  source: ApiSource,
  wildcards: readonly ('listeners' | 'clusters')[],
  path: string,
  parts: Parts,
  keeper: StateKeeper | undefined,
): Promise<Ads> {
  const [{ connectAds }, { controlPlaneTarget }] = await Promise.all([import('./ads.ts'), import('./control-plane-target.ts')]);
  const { store, runtime, log, registry, clock, random, node, awaited, status, onDemand, check } = parts;
  const target = controlPlaneTarget(source, store, parts.contexts, clock, path);
  const aggregated = path === ADS_PATH;
  let lastState = '';
  return connectAds({
    ...target,
    mode: source.apiType === 'DELTA_GRPC' ? 'delta' : 'sotw',
    node,
    clock,
    random,
    store,
    runtime,
    log,
    registry,
    wildcards,
    rejectUnknown: parts.options.rejectUnknownDynamicFields,
    clustersByName: aggregated && isLazy(node),
    ...(aggregated ? { onDemand } : {}),
    check,
    isLive: () => status.isLive,
    onSynced: (kind) => {
      if (awaited.delete(kind)) status.check();
      if ((kind === 'listeners' || kind === 'clusters') && wildcards.includes(kind)) keeper?.synced(kind);
    },
    onTaken: () => keeper?.changed(),
    onConnection: (connection) => {
      if (connection.state === lastState) return;
      lastState = connection.state;
      if (connection.state === 'waiting') keeper?.away();
      if (connection.state === 'waiting')
        log.warning('The control plane is not reachable; the last configuration stays in force.', {
          target: connection.target,
          error: connection.error,
        });
      else if (connection.state === 'synced')
        log.info('Connected to the control plane.', { target: connection.target, mode: connection.mode });
    },
  });
}

/** Secrets that TLS settings name together with a file. */
async function watchSecretFiles(parts: Parts): Promise<FileWatch[]> {
  const paths = new Set<string>();
  const add = (tls: { certificates: readonly unknown[]; validation?: unknown } | undefined): void => {
    for (const ref of [...(tls?.certificates ?? []), tls?.validation]) {
      const { source } = (ref ?? {}) as { source?: { kind: string; path?: string } };
      if (source?.kind === 'path' && source.path !== undefined) paths.add(source.path);
    }
  };
  for (const { value } of parts.store.clusters.values())
    for (const tls of [value.tls, ...value.tlsMatches.map((match) => match.tls)]) add(tls);
  for (const { value } of parts.store.listeners.values())
    for (const chain of [...value.filterChains, value.defaultFilterChain]) add(chain?.tls);
  return Promise.all([...paths].map((path) => watchFiles('secrets', { path }, parts)));
}
