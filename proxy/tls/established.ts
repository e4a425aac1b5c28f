/** What both sides do with a connection whose handshake went well: describe the peer for logs and policy, and end it when a certificate ends. */
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../../lib/clock.ts';
import type { PeerTls } from '../service.ts';
import type { CheckedPeer } from './peer.ts';
import type { TrustedConnections } from './trust.ts';

interface LocalSide {
  readonly clock: Clock;
  readonly localUri: string | undefined;
  readonly localNotAfterMs: number;
  readonly trusted: TrustedConnections | undefined;
}

/** `servername` is false where the client named nobody. */
export function describePeer(socket: TLSSocket, local: LocalSide, peer: CheckedPeer | undefined): PeerTls {
  const named = (socket as unknown as { readonly servername?: string | false | null }).servername;
  return {
    peerUri: peer?.uri,
    localUri: local.localUri,
    sni: typeof named === 'string' && named !== '' ? named : undefined,
    alpn: typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined,
    version: socket.getProtocol() ?? '',
    cipher: socket.getCipher().standardName ?? '',
    peerHash: peer?.hash,
    peerSubject: peer?.subject,
    notAfterMs: Math.min(peer?.notAfterMs ?? Number.POSITIVE_INFINITY, local.localNotAfterMs),
  };
}

/** Sees to the end of a connection whose peer was believed: by a root that is revoked, or by its certificate's own end. */
export function settleIn(socket: TLSSocket, local: LocalSide, peer: CheckedPeer | undefined): void {
  if (peer === undefined) return;
  local.trusted?.add(socket);
  closeAtEnd(socket, local.clock, peer.notAfterMs);
}

/**
 * Destroys the connection when the peer's certificate ends (bad inputs 93). Connections that are recycled at each rotation never see it:
 * it is for those that were forgotten. Uses the wall clock, since that is what a certificate is about, and looks again if that was moved.
 */
function closeAtEnd(socket: TLSSocket, clock: Clock, notAfterMs: number): void {
  let cancel = (): void => undefined;
  const look = (): void => {
    const leftMs = notAfterMs - clock.wallMs();
    if (leftMs <= 0) socket.destroy();
    else cancel = clock.after(leftMs, look);
  };
  socket.once('close', () => cancel());
  look();
}
