/** How the control plane is reached: addresses, TLS and tokens, from the bootstrap's API sources and static clusters. */
import { X509Certificate } from 'node:crypto';
import { ChannelCredentials } from '@grpc/grpc-js';
import { ConfigError } from './errors.ts';
import type { ResourceStore } from './resource-store.ts';
import type { TlsContexts, UpstreamTlsContext } from './tls/context.ts';
import type { ApiSource } from '../xds/bootstrap.ts';
import type { Clock } from '../lib/clock.ts';
import type { Cluster, Secret, SecretRef, UpstreamTls } from '../xds/snapshot.ts';

export interface ControlPlaneTarget {
  readonly targets: readonly string[];
  /** For a new connection: with the certificate of this moment. */
  readonly credentials: () => ChannelCredentials;
  /** For a new stream. A join token is shown only while there is no certificate to speak for the proxy. */
  readonly metadata: () => Readonly<Record<string, string>>;
}

/**
 * Metadata of our own bootstraps beside `authorization`: a credential for the time when the join token was shown and no certificate came of it, or the
 * certificate is over. It is never sent under this name.
 */
const LEASE_KEY = 'x-meshwork-lease';

/** Reads a source. Throws ConfigError when its cluster has no address to connect to. */
export function controlPlaneTarget(
  source: ApiSource,
  store: ResourceStore,
  contexts: TlsContexts,
  clock: Clock,
  path: string,
): ControlPlaneTarget {
  const service = source.services[0]!;
  const clusters = source.services.flatMap(({ target }) => (target.kind === 'cluster' ? [clusterOf(target.cluster, store, path)] : []));
  const targets = source.services.flatMap(({ target }) =>
    target.kind === 'uri' ? [target.uri] : addressesOf(clusterOf(target.cluster, store, path)),
  );
  if (targets.length === 0) throw new ConfigError(path, 'its cluster has no address to connect to');
  const tls = clusters[0]?.tls;
  const secrets = (): ReadonlyMap<string, Secret> => store.snapshot().secrets;
  const hasCertificate = (): boolean => tls !== undefined && tls.certificates.some((ref) => isUsable(ref, secrets(), clock.wallMs()));
  let tokenShown = false;
  return {
    targets,
    credentials: () => (tls === undefined ? ChannelCredentials.createInsecure() : tlsCredentials(tls, secrets(), contexts, clock, path)),
    metadata: () => {
      const {
        authorization,
        [LEASE_KEY]: lease,
        ...rest
      } = Object.fromEntries(service.initialMetadata.map(({ key, value }) => [key.toLowerCase(), value] as const));
      if (hasCertificate()) return rest;
      const again = tokenShown && lease !== undefined;
      tokenShown = true;
      if (again) return { ...rest, authorization: `Bearer ${lease}` };
      return authorization === undefined ? rest : { ...rest, authorization };
    },
  };
}

function clusterOf(name: string, store: ResourceStore, path: string): Cluster {
  const cluster = store.clusters.get(name)?.value;
  if (cluster === undefined) throw new ConfigError(path, `names cluster ${JSON.stringify(name)}, which is not among the static clusters`);
  return cluster;
}

/** gRPC's names for the cluster's endpoints, the best priority first. */
function addressesOf(cluster: Cluster): string[] {
  const localities = [...(cluster.loadAssignment?.localities ?? [])].sort((a, b) => a.priority - b.priority);
  return localities.flatMap((locality) =>
    locality.endpoints.map(({ address }) => {
      if (address.pipe === true) return `unix:${address.host}`;
      const host = address.host.includes(':') ? `[${address.host}]` : address.host;
      return cluster.type === 'STATIC' ? `${host}:${address.port}` : `dns:///${host}:${address.port}`;
    }),
  );
}

/** There, and not over. One that cannot be read is left to the TLS context, whose error names it. */
function isUsable(ref: SecretRef, secrets: ReadonlyMap<string, Secret>, nowMs: number): boolean {
  const secret = ref.kind === 'inline' ? ref.secret : secrets.get(ref.name);
  if (secret === undefined) return false;
  if (secret.content.kind !== 'certificate' || secret.content.chainPem === '') return true;
  try {
    return new X509Certificate(secret.content.chainPem).validToDate.getTime() > nowMs;
  } catch {
    return true;
  }
}

/** Certificates that did not come yet, or are over, are left out: the connection is made with a token instead. Roots must be there. */
function tlsCredentials(
  tls: UpstreamTls,
  secrets: ReadonlyMap<string, Secret>,
  contexts: TlsContexts,
  clock: Clock,
  path: string,
): ChannelCredentials {
  const certificates = tls.certificates.filter((ref) => isUsable(ref, secrets, clock.wallMs()));
  const context: UpstreamTlsContext = contexts.upstream({ ...tls, certificates }, secrets, `${path}.transport_socket`);
  const { checkPeer } = context;
  return ChannelCredentials.createFromSecureContext(context.secureContext, {
    rejectUnauthorized: checkPeer !== undefined,
    checkServerIdentity: (_host, certificate) => {
      if (checkPeer === undefined) return undefined;
      try {
        checkPeer(new X509Certificate(certificate.raw), context.clock.wallMs(), {
          sans: undefined,
          serverName: tls.sni === '' ? undefined : tls.sni,
        });
        return undefined;
      } catch (error) {
        return error instanceof Error ? error : new Error(String(error));
      }
    },
  });
}
