/** Snapshot to Runtime: clusters are brought up to date, listeners are compiled with their routes, filters and TLS. Throws ConfigError with a path. */
import { ConfigError } from './errors.ts';
import { compileAccessLogs } from './filters/access-log.ts';
import { istioTcpMetrics } from './filters/istio-tcp-metrics.ts';
import { compileHttpChain, istioOptions } from './http-chain.ts';
import { compileChainMatch, needsInspection } from './listen/chain-match.ts';
import { isMeshTls, MUX_ALPN } from './mux/protocol.ts';
import { compileTcpProxy } from './tcp/serve.ts';
import { missingSecrets } from './tls/context.ts';
import { chainsOf, managersOf, routesOfListener } from './warming.ts';
import type { ChainDeps } from './http-chain.ts';
import type { CompiledChain, CompiledListener } from './listen/chain.ts';
import type { Compile, Runtime } from './runtime.ts';
import type { TlsContexts } from './tls/context.ts';
import type { ExtensionConfig, FilterChain, Listener, RouteConfiguration, Secret, Snapshot } from '../xds/snapshot.ts';

export interface CompileDeps extends ChainDeps {
  readonly contexts: TlsContexts;
  /** Peers of the mesh may carry many connections over one (`proxy/mux/`). */
  readonly mux: boolean;
}

/** Makes the compile function. What did not change since the previous runtime is taken over as it is. */
export function createCompile(deps: CompileDeps): Compile {
  return (snapshot, clusters, previous) => {
    for (const cluster of snapshot.clusters.values()) {
      if (previous.snapshot.clusters.get(cluster.name) !== cluster) checkClusterTls(cluster, snapshot, deps.contexts);
    }
    clusters.apply(snapshot.clusters, snapshot.endpoints);
    const listeners = new Map<string, CompiledListener>();
    for (const [name, listener] of snapshot.listeners) {
      const known = previous.listeners.get(name);
      listeners.set(
        name,
        known !== undefined && isUnchanged(listener, snapshot, previous) ? known : compileListener(listener, snapshot, deps),
      );
    }
    return { snapshot, listeners };
  };
}

function isUnchanged(listener: Listener, snapshot: Snapshot, previous: Runtime): boolean {
  const old = previous.snapshot;
  if (old.listeners.get(listener.name) !== listener) return false;
  if (old.secrets !== snapshot.secrets && chainsOf(listener).some((chain) => chain.tls !== undefined)) return false;
  for (const name of routesOfListener(listener)) {
    const routes = snapshot.routes.get(name);
    if (old.routes.get(name) !== routes || (routes?.vhds === true && old.virtualHosts !== snapshot.virtualHosts)) return false;
  }
  return old.virtualHosts === snapshot.virtualHosts || !managersOf(listener).some((manager) => manager.routeConfig?.vhds === true);
}

/** A bad certificate is told at push, not by the first connection. */
export function checkClusterTls(
  cluster: Snapshot['clusters'] extends ReadonlyMap<string, infer C> ? C : never,
  snapshot: Pick<Snapshot, 'secrets'>,
  contexts: TlsContexts,
): void {
  const path = `cluster ${JSON.stringify(cluster.name)}.transport_socket`;
  for (const tls of [cluster.tls, ...cluster.tlsMatches.map((match) => match.tls)]) {
    if (tls === undefined) continue;
    const refs = tls.validation === undefined ? tls.certificates : [...tls.certificates, tls.validation];
    // A secret that was waited for in vain fails its connections, not the push.
    if (refs.every((ref) => ref.kind === 'inline' || snapshot.secrets.has(ref.name))) contexts.upstream(tls, snapshot.secrets, path);
  }
}

/** Compiles one listener. Throws ConfigError whose path starts with `listener "name"`. */
export function compileListener(
  listener: Listener,
  snapshot: Pick<Snapshot, 'routes' | 'virtualHosts' | 'secrets'>,
  deps: CompileDeps,
): CompiledListener {
  const path = `listener ${JSON.stringify(listener.name)}`;
  if (listener.useOriginalDst) throw new ConfigError(`${path}.use_original_dst`, 'taking over redirected connections is not built in yet');
  const inspectors = compileInspectors(listener, path);
  const matches = listener.filterChains.map((chain) => chain.match);
  const wanted = needsInspection(matches);
  const chains = listener.filterChains.map((chain, index) =>
    compileChain(chain, listener, `${path}.filter_chains[${index}]`, snapshot, deps),
  );
  const defaultChain =
    listener.defaultFilterChain === undefined
      ? undefined
      : compileChain(listener.defaultFilterChain, listener, `${path}.default_filter_chain`, snapshot, deps);
  if (chains.length === 0 && defaultChain === undefined) throw new ConfigError(path, 'must have a filter chain');
  return {
    config: listener,
    choose: compileChainMatch(matches, path),
    chains,
    defaultChain,
    inspect: wanted && (inspectors.tls || inspectors.http) ? inspectors : undefined,
  };
}

const TLS_INSPECTOR = [
  'envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector',
  'envoy.filters.listener.tls_inspector',
  'envoy.listener.tls_inspector',
];
const HTTP_INSPECTOR = [
  'envoy.extensions.filters.listener.http_inspector.v3.HttpInspector',
  'envoy.filters.listener.http_inspector',
  'envoy.listener.http_inspector',
];
const ORIGINAL_DST = [
  'envoy.extensions.filters.listener.original_dst.v3.OriginalDst',
  'envoy.filters.listener.original_dst',
  'envoy.listener.original_dst',
];

function compileInspectors(listener: Listener, path: string): { tls: boolean; http: boolean } {
  let tls = false;
  let http = false;
  listener.listenerFilters.forEach((filter, index) => {
    const place = `${path}.listener_filters[${index}]`;
    if (filter.filterDisabled !== undefined)
      throw new ConfigError(`${place}.filter_disabled`, 'predicates on listener filters are not supported');
    if (isOneOf(filter, TLS_INSPECTOR)) tls = true;
    else if (isOneOf(filter, HTTP_INSPECTOR)) http = true;
    else if (isOneOf(filter, ORIGINAL_DST))
      throw new ConfigError(place, 'original_dst is not built in yet: send connections to the listener itself');
    else
      throw new ConfigError(
        place,
        `the extension ${filter.type || filter.name} is not built in; there are ${TLS_INSPECTOR[0]!} and ${HTTP_INSPECTOR[0]!}`,
      );
  });
  // Envoy finds TLS by itself when a chain asks for a server name or a transport protocol.
  const matches = listener.filterChains.map((chain) => chain.match);
  if (matches.some((match) => (match.serverNames?.length ?? 0) > 0 || match.transportProtocol === 'tls')) tls = true;
  return { tls, http };
}

function isOneOf(filter: ExtensionConfig, names: readonly string[]): boolean {
  return filter.type === '' ? names.includes(filter.name) : filter.type === names[0];
}

function compileChain(
  chain: FilterChain,
  listener: Listener,
  path: string,
  snapshot: Pick<Snapshot, 'routes' | 'virtualHosts' | 'secrets'>,
  deps: CompileDeps,
): CompiledChain {
  const key = chain.name === '' ? JSON.stringify(chain.match) : chain.name;
  // A secret that was waited for in vain: connections are refused until it comes, and never served without it.
  if (chain.tls !== undefined && missingSecrets(chain.tls, snapshot.secrets).length > 0)
    return { key, tls: undefined, send: undefined, serve: refuse };
  const tls = chain.tls === undefined ? undefined : compileTls(chain, path, snapshot.secrets, deps);
  const [filter, ...more] = chain.filters;
  if (filter === undefined) return { key, tls, send: undefined, serve: refuse };
  if (more.length > 0 || filter.kind === 'other') {
    const other = chain.filters.find((one) => one.kind === 'other');
    const name = other?.kind === 'other' ? other.extension.type || other.name : more[0]!.name;
    throw new ConfigError(
      `${path}.filters`,
      `the network filter ${name} is not built in; a chain has one filter, http_connection_manager or tcp_proxy`,
    );
  }
  if (filter.kind === 'tcp') {
    const place = `${path}.tcp_proxy`;
    const options = istioOptions(listener, deps);
    const metrics = options === undefined ? [] : [istioTcpMetrics(options)];
    const observers = [...metrics, ...compileAccessLogs(filter.tcp.accessLogs, place, deps)];
    return { key, tls, send: undefined, serve: compileTcpProxy(filter.tcp, place, { ...deps, pool: deps.clusters, observers }) };
  }
  const place = { path: `${path}.http_connection_manager`, key, virtualHosts: snapshot.virtualHosts };
  const routes: RouteConfiguration | undefined = filter.http.routeConfig ?? snapshot.routes.get(filter.http.rdsName ?? '');
  return { key, tls, ...compileHttpChain(filter.http, routes, listener, place, deps) };
}

/** HTTP/2 is not offered in ALPN while it is not served; connections that carry others are, to peers of the mesh. */
function compileTls(chain: FilterChain, path: string, secrets: ReadonlyMap<string, Secret>, deps: CompileDeps): CompiledChain['tls'] {
  const tls = chain.tls!;
  const alpn = tls.alpn.filter((protocol) => protocol !== 'h2');
  const served = { ...tls, alpn: deps.mux && isMeshTls(tls) ? [MUX_ALPN, ...alpn] : alpn };
  return deps.contexts.downstream(served, secrets, `${path}.transport_socket`);
}

/** A chain without filters takes connections and ends them (Envoy closes them at once). */
const refuse: CompiledChain['serve'] = (connection) => connection.destroy();
