/** What resources name instead of carrying: certificates, keys and bodies from files and environment variables, read when the resource is taken. */
import { readFileSync, statSync } from 'node:fs';
import { ConfigError } from './errors.ts';
import { resolveSecret } from '../xds/resources/secret.ts';
import type { Decoded } from '../xds/resources/index.ts';
import type { Cluster, CommonTls, DataRef, Listener, RouteConfiguration, Secret, SecretRef, VirtualHost } from '../xds/snapshot.ts';

/** Reads one reference; throws an error that says what is wrong with it. */
export type ReadData = (from: DataRef) => string;

/** No certificate, key or body that a proxy needs is larger. */
const FILE_BYTES_MAX = 1024 * 1024;

/** From the machine's files and environment. */
export const readData: ReadData = (from) => {
  if (from.kind === 'environment') {
    const value = process.env[from.name];
    if (value === undefined) throw new Error(`the environment variable ${from.name} is not set`);
    return value;
  }
  const { size } = statSync(from.path);
  if (size > FILE_BYTES_MAX) throw new Error(`${from.path} has ${size} bytes, at most ${FILE_BYTES_MAX} are read`);
  return readFileSync(from.path, 'utf8');
};

/** Any resource with everything in place that it names. The same object when it names nothing. Throws ConfigError. */
export function resolveDecoded(decoded: Decoded, read: ReadData): Decoded['resource'] {
  switch (decoded.kind) {
    case 'cluster':
      return resolveCluster(decoded.resource, read);
    case 'listener':
      return resolveListener(decoded.resource, read);
    case 'route':
      return resolveRoutes(decoded.resource, read);
    case 'virtualHost':
      return resolveVirtualHost(decoded.resource, read);
    case 'secret':
      return resolveOwnSecret(decoded.resource, read);
    case 'endpoints':
      return decoded.resource;
  }
}

/** The cluster with its certificates in place. The same object when it names nothing. Throws ConfigError. */
export function resolveCluster(cluster: Cluster, read: ReadData): Cluster {
  const path = `cluster ${JSON.stringify(cluster.name)}.transport_socket`;
  const tls = cluster.tls === undefined ? undefined : resolveTls(cluster.tls, path, read);
  const tlsMatches = cluster.tlsMatches.map((match) =>
    match.tls === undefined ? match : { ...match, tls: resolveTls(match.tls, path, read) },
  );
  const same = tls === cluster.tls && tlsMatches.every((match, index) => match.tls === cluster.tlsMatches[index]!.tls);
  return same ? cluster : { ...cluster, ...(tls === undefined ? {} : { tls }), tlsMatches };
}

export function resolveListener(listener: Listener, read: ReadData): Listener {
  const path = `listener ${JSON.stringify(listener.name)}`;
  const chain = (one: Listener['filterChains'][number], place: string): Listener['filterChains'][number] => {
    const tls = one.tls === undefined ? undefined : resolveTls(one.tls, `${place}.transport_socket`, read);
    const filters = one.filters.map((filter) => {
      if (filter.kind !== 'http' || filter.http.routeConfig === undefined) return filter;
      const routeConfig = resolveRoutes(filter.http.routeConfig, read);
      return routeConfig === filter.http.routeConfig ? filter : { ...filter, http: { ...filter.http, routeConfig } };
    });
    const same = tls === one.tls && filters.every((filter, index) => filter === one.filters[index]);
    return same ? one : { ...one, ...(tls === undefined ? {} : { tls }), filters };
  };
  const filterChains = listener.filterChains.map((one, index) => chain(one, `${path}.filter_chains[${index}]`));
  const fallback = listener.defaultFilterChain;
  const defaultFilterChain = fallback === undefined ? undefined : chain(fallback, `${path}.default_filter_chain`);
  const same = filterChains.every((one, index) => one === listener.filterChains[index]) && defaultFilterChain === fallback;
  return same ? listener : { ...listener, filterChains, ...(defaultFilterChain === undefined ? {} : { defaultFilterChain }) };
}

/** Bodies of direct responses. */
export function resolveRoutes(routes: RouteConfiguration, read: ReadData): RouteConfiguration {
  const virtualHosts = routes.virtualHosts.map((host) => resolveVirtualHost(host, read, `routes ${JSON.stringify(routes.name)}.`));
  return virtualHosts.every((host, index) => host === routes.virtualHosts[index]) ? routes : { ...routes, virtualHosts };
}

/** The same for one virtual host. `path` is what stands before its own place. */
export function resolveVirtualHost(host: VirtualHost, read: ReadData, path = ''): VirtualHost {
  if (!host.routes.some(({ action }) => action.kind === 'direct' && action.bodyFrom !== undefined)) return host;
  return {
    ...host,
    routes: host.routes.map((route, index) => {
      const { action } = route;
      if (action.kind !== 'direct' || action.bodyFrom === undefined) return route;
      const { bodyFrom, ...rest } = action;
      const place = `${path}virtual_hosts ${JSON.stringify(host.name)}.routes[${index}].direct_response.body`;
      return { ...route, action: { ...rest, body: Buffer.from(at(place, () => read(bodyFrom))) } };
    }),
  };
}

export function resolveOwnSecret(secret: Secret, read: ReadData): Secret {
  return at(`secret ${JSON.stringify(secret.name)}`, () => resolveSecret(secret, read));
}

function resolveTls<T extends CommonTls>(tls: T, path: string, read: ReadData): T {
  const resolve = (ref: SecretRef, place: string): SecretRef => {
    if (ref.kind !== 'inline') {
      if (ref.source !== undefined && ref.source.kind !== 'path')
        throw new ConfigError(
          place,
          `secret ${JSON.stringify(ref.name)} comes from a ${ref.source.kind}, which is not supported; ads and files are`,
        );
      return ref;
    }
    const secret = at(place, () => resolveSecret(ref.secret, read));
    return secret.content === ref.secret.content ? ref : { kind: 'inline', secret };
  };
  const certificates = tls.certificates.map((ref, index) => resolve(ref, `${path}.certificates[${index}]`));
  const validation = tls.validation === undefined ? undefined : resolve(tls.validation, `${path}.validation_context`);
  const same = validation === tls.validation && certificates.every((ref, index) => ref === tls.certificates[index]);
  return same ? tls : { ...tls, certificates, ...(validation === undefined ? {} : { validation }) };
}

function at<T>(path: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}
