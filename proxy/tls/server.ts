/**
 * The server's side of TLS: `acceptTls(socket, head, context, onReady)` runs the handshake on an accepted socket whose first bytes may
 * have been read already, checks the client's certificate and answers once, with the secure socket and who is on the other side, or with the reason.
 */
import type { Buffer } from 'node:buffer';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { PeerTls } from '../service.ts';
import type { DownstreamTlsContext } from './context.ts';
import { describePeer, settleIn } from './established.ts';
import { TlsError, chainError, codeOf } from './peer.ts';
import type { CheckedPeer } from './peer.ts';

/** Called exactly once. After an error the socket is destroyed already. */
export type TlsAccepted = (error: TlsError | undefined, socket: TLSSocket | undefined, peer: PeerTls | undefined) => void;

/**
 * Takes the socket over: until `onReady` nobody else may read from it or write to it, and no byte of the application is read before the
 * client is known. The secure socket is destroyed when the client's certificate ends.
 */
export function acceptTls(socket: Socket, head: Buffer | undefined, context: DownstreamTlsContext, onReady: TlsAccepted): void {
  let settled = false;
  const settle = (error: TlsError | undefined, secure?: TLSSocket, peer?: PeerTls): void => {
    if (settled) return;
    settled = true;
    cancelTimeout();
    if (context.pending.delete(socket)) context.handshakes.current--;
    socket.removeListener('close', closed);
    if (error !== undefined) {
      secure?.destroy();
      socket.destroy();
    }
    onReady(error, error === undefined ? secure : undefined, peer);
  };
  const closed = (): void => settle(new TlsError('aborted', 'the client closed the connection during the TLS handshake'));
  const cancelTimeout = context.clock.after(context.handshakeTimeoutMs, () =>
    settle(new TlsError('timeout', `the TLS handshake took longer than ${context.handshakeTimeoutMs} ms`)),
  );
  // Stays for good: what goes wrong below the TLS socket shows there too, and must not end the process here.
  socket.on('error', ignore);
  socket.once('close', closed);
  if (socket.destroyed) {
    closed();
    return;
  }
  if (context.handshakes.current >= context.handshakes.max) {
    settle(new TlsError('overloaded', `${context.handshakes.max} TLS handshakes are under way already`));
    return;
  }
  context.handshakes.current++;
  context.pending.set(socket, {
    failed: (error) => settle(handshakeError(error)),
    secured: (secure) => {
      secure.on('error', ignore);
      let checked: CheckedPeer | undefined;
      try {
        checked = checkClient(secure, context);
      } catch (error) {
        settle(error instanceof TlsError ? error : new TlsError('protocol', String(error), error), secure);
        return;
      }
      settleIn(secure, context, checked);
      settle(undefined, secure, describePeer(secure, context, checked));
    },
  });
  if (head !== undefined && head.length > 0) socket.unshift(head);
  context.server.emit('connection', socket);
}

/** The client's identity, undefined when none was asked for or given. Throws when one is needed and missing, or not good. */
function checkClient(secure: TLSSocket, context: DownstreamTlsContext): CheckedPeer | undefined {
  const certificate = context.checkPeer === undefined && !context.requireClientCertificate ? undefined : secure.getPeerX509Certificate();
  if (certificate === undefined) {
    if (context.requireClientCertificate) throw new TlsError('noCertificate', 'the client sent no certificate');
    return undefined;
  }
  if (context.checkPeer === undefined) return undefined;
  if (!secure.authorized) throw chainError(codeOf(secure.authorizationError));
  return context.checkPeer(certificate, context.clock.wallMs());
}

function handshakeError(error: Error): TlsError {
  const code = codeOf(error);
  if (code === 'ECONNRESET' || code === 'EPIPE')
    return new TlsError('aborted', 'the client closed the connection during the TLS handshake', error);
  return new TlsError('protocol', `the TLS handshake failed: ${error.message}`, error);
}

/** Errors of a socket that nobody uses yet are told by its close event. */
function ignore(): void {}
