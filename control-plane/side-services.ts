/** What is served beside discovery: load reports, client status, health and reflection, each to those who may have it. */
import type { Server } from '@grpc/grpc-js';
import { WatchValue } from '../lib/watch.ts';
import type { Watch } from '../lib/watch.ts';
import { serveClientStatus, serverView } from '../xds/client-status.ts';
import { serveHealth } from '../xds/health.ts';
import type { ServiceHealth } from '../xds/health.ts';
import { serveLoadReports } from '../xds/load-report.ts';
import { serveReflection } from '../xds/reflection.ts';
import type { NodeInfo } from '../xds/session/messages.ts';
import type { Peer, ServerStream } from '../xds/stream.ts';
import { isLeaseCredential } from './lease-credential.ts';
import type { Identities } from './identity.ts';
import type { LoadTable } from './load.ts';
import type { World } from './world.ts';

export interface SideServicesDeps {
  readonly identities: Identities;
  readonly world: Watch<World>;
  readonly load: LoadTable;
  /** The streams of discovery, for client status. */
  readonly streams: () => Iterable<ServerStream>;
  /** Default 5,000. */
  readonly loadReportIntervalMs?: number;
}

const ADS = 'envoy.service.discovery.v3.AggregatedDiscoveryService';

/**
 * Adds them to `server`; the answer tells health watchers that this is the end. Client status says what every proxy has, so it is served on
 * the loopback port only, as the API is.
 */
export function serveSideServices(server: Server, transport: 'plaintext' | 'tls', deps: SideServicesDeps): () => void {
  const { identities, world, load } = deps;
  const admit = (peer: Peer, node: NodeInfo): void => {
    const bearer = bearerOf(peer);
    // A join token is good for one stream, and that is the one of discovery.
    const token = bearer !== undefined && isLeaseCredential(bearer) ? bearer : undefined;
    const credentials = { secure: peer.transport === 'tls', certificate: peer.certificate, token, peer: peer.address };
    identities.checkClaim(identities.authenticate(credentials), node, world.current);
  };
  serveLoadReports(server, load.report, { intervalMs: deps.loadReportIntervalMs ?? 5_000, transport, admit });
  if (transport === 'plaintext') serveClientStatus(server, () => [...deps.streams()].flatMap((stream) => serverView(stream) ?? []));
  const health = new WatchValue<ServiceHealth>(healthOf(true));
  serveHealth(server, health);
  serveReflection(server);
  return () => health.set(healthOf(false));
}

/** The bearer token of a stream, undefined when there is none. */
export function bearerOf(peer: Peer): string | undefined {
  return /^Bearer (.{1,512})$/i.exec(peer.metadata.get('authorization') ?? '')?.[1];
}

function healthOf(serves: boolean): ServiceHealth {
  return new Map([
    ['', serves],
    [ADS, serves],
  ]);
}
