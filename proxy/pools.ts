/** Connections to endpoints: how an endpoint is dialled (plaintext or TLS by the cluster's rules) and the pool that keeps its connections. */
import { ConfigError, ProxyError } from './errors.ts';
import { filterMetadata } from './filters/workload.ts';
import { isMeshTls, MUX_ALPN } from './mux/protocol.ts';
import { shareConnections } from './mux/sharing.ts';
import { connectTls } from './tls/client.ts';
import { countedTls } from './tls/tls-stats.ts';
import { createDial } from './upstream/dial.ts';
import { createPool } from './upstream/pool.ts';
import type { TlsContexts, UpstreamTlsContext } from './tls/context.ts';
import type { Dial, Secure } from './upstream/dial.ts';
import type { Endpoint } from './upstream/endpoint.ts';
import type { MakePool } from './upstream/cluster.ts';
import type { Member } from './upstream/member.ts';
import type { PoolEvents } from './upstream/pool.ts';
import type { Clock } from '../lib/clock.ts';
import type { Cluster, Secret, UpstreamTls } from '../xds/snapshot.ts';
import type { Socket } from 'node:net';

export interface DialDeps {
  readonly clock: Clock;
  readonly contexts: TlsContexts;
  /** The secrets of this moment: a connection made after a rotation uses the new certificate. */
  readonly secrets: () => ReadonlyMap<string, Secret>;
  /** Whether to offer other sidecars to carry many connections over one at all. */
  readonly mux: boolean;
  /** Whether a local address is one of this proxy's own outbound listeners: what is sent there comes back for ever. */
  readonly isOwn: (host: string, port: number) => boolean;
}

/** `mux`: offer the peer to carry many connections over one (`proxy/mux/`), where both are of the mesh; ask the socket what it chose. */
export type DialEndpoint = (endpoint: Endpoint, cluster: Cluster, mux?: boolean) => Dial;

/** The dialler for endpoints. Which TLS holds is decided once per endpoint, its certificate anew for each connection. */
export function endpointDialler(deps: DialDeps): DialEndpoint {
  const known = new WeakMap<UpstreamTls, { secrets: ReadonlyMap<string, Secret>; context: UpstreamTlsContext }>();
  const contextOf = (tls: UpstreamTls, cluster: Cluster): UpstreamTlsContext => {
    const secrets = deps.secrets();
    const cached = known.get(tls);
    if (cached?.secrets === secrets) return cached.context;
    const context = deps.contexts.upstream(tls, secrets, `cluster ${JSON.stringify(cluster.name)}.transport_socket`);
    known.set(tls, { secrets, context });
    return context;
  };
  return (endpoint, cluster, mux = false) => {
    const tls = tlsOf(cluster, endpoint);
    const base = { address: endpoint.address, connectTimeoutMs: cluster.connectTimeoutMs, clock: deps.clock };
    const refuseLoop = (raw: Socket): ProxyError | undefined => {
      const { remoteAddress, remotePort, localAddress } = raw;
      // Only a connection to this machine has the same address at both ends.
      if (
        remoteAddress === undefined ||
        remotePort === undefined ||
        remoteAddress !== localAddress ||
        !deps.isOwn(remoteAddress, remotePort)
      )
        return undefined;
      raw.destroy();
      return new ProxyError('loopDetected', `Cluster ${cluster.name} names ${remoteAddress}:${remotePort}, which is this proxy.`);
    };
    if (tls === undefined) {
      return createDial({
        ...base,
        secure: (raw, done) => {
          const loop = refuseLoop(raw);
          done(loop, loop === undefined ? raw : undefined);
          return () => undefined;
        },
      });
    }
    const secure: Secure = (raw, done) => {
      const loop = refuseLoop(raw);
      if (loop !== undefined) {
        done(loop, undefined);
        return () => undefined;
      }
      let context: UpstreamTlsContext;
      try {
        context = contextOf(tls, cluster);
      } catch (error) {
        raw.destroy();
        const detail = error instanceof ConfigError ? error.message : String(error);
        done(new ProxyError('tlsFailed', detail, error), undefined);
        return () => undefined;
      }
      const alpn = mux && deps.mux && isMeshTls(context) ? [MUX_ALPN, ...context.alpn] : context.alpn;
      const socket = connectTls({ context, socket: raw, hostName: endpoint.hostname, alpn }, (error, secured, peer) =>
        done(error, secured, peer?.notAfterMs),
      );
      return () => socket.destroy();
    };
    return createDial({ ...base, secure });
  };
}

/** How long a connection to another sidecar is kept without use: each costs a handshake. */
const SIDECAR_IDLE_MS = 60_000;

/** Pools of HTTP/1.1 connections over that dialler. */
export function poolMaker(dial: DialEndpoint, clock: Clock): MakePool {
  return (endpoint, cluster) => {
    if (cluster.config.protocol === 'http2') return refusingPool(cluster.name);
    const secure = tlsOf(cluster.config, endpoint) !== undefined;
    const dialled = dial(endpoint, cluster.config, true);
    const shared = shareConnections(secure ? countedTls(dialled, cluster.stats.tls) : dialled, clock);
    return createPool({
      dial: shared.dial,
      drained: () => shared.drain(),
      clock,
      limits: cluster.limits,
      events: memberEvents(endpoint, cluster.stats.connections, () => cluster.stats.rqTotal.inc()),
      idleTimeoutMs: cluster.config.idleTimeoutMs,
      // A peer that proves an identity of the mesh is a sidecar, which keeps idle connections for an hour; others may close theirs after seconds.
      ...(secure ? { silentPeerIdleMs: SIDECAR_IDLE_MS } : {}),
      client: { maxRequestsPerConnection: cluster.config.maxRequestsPerConnection },
    });
  };
}

/** The same events, counted on the endpoint too, for `/clusters`. */
function memberEvents(member: Member, ofCluster: PoolEvents, requestStarted: () => void): PoolEvents {
  return {
    ...ofCluster,
    connectionOpened: (connectMs) => {
      member.connectionsTotal += 1;
      member.connectionsActive += 1;
      ofCluster.connectionOpened?.(connectMs);
    },
    connectionClosed: (end) => {
      member.connectionsActive -= 1;
      ofCluster.connectionClosed?.(end);
    },
    connectFailed: (error) => {
      member.connectionsTotal += 1;
      member.connectFailures += 1;
      ofCluster.connectFailed?.(error);
    },
    requestStarted: () => {
      member.started += 1;
      requestStarted();
    },
  };
}

/** HTTP/1.1 to an endpoint that expects HTTP/2 would only fail in a way that nobody understands. */
function refusingPool(name: string): ReturnType<MakePool> {
  const refusal = (): ProxyError =>
    new ProxyError('upstreamProtocol', `Cluster ${name} asks for HTTP/2, which is not built in yet; HTTP/1.1 is.`);
  return { start: (exchange) => exchange.over(refusal()), drain: () => undefined };
}

/** The TLS that an endpoint asks for: the first transport socket match that its metadata meets, else the cluster's own. */
export function tlsOf(cluster: Cluster, endpoint: Endpoint): UpstreamTls | undefined {
  if (cluster.tlsMatches.length === 0) return cluster.tls;
  const wanted = filterMetadata(endpoint.metadata)['envoy.transport_socket_match'];
  const values = typeof wanted === 'object' && wanted !== null && !Array.isArray(wanted) ? (wanted as Record<string, unknown>) : {};
  const match = cluster.tlsMatches.find((candidate) => Object.entries(candidate.match).every(([key, value]) => values[key] === value));
  return match === undefined ? cluster.tls : match.tls;
}
