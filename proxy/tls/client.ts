/**
 * The client's side of TLS: `connectTls({ host, port | socket, context, … }, onReady)` dials, runs the handshake, checks the server's
 * chain and names, and answers once. The returned socket is for giving up early: destroying it ends the attempt.
 */
import { isIP } from 'node:net';
import type { Socket } from 'node:net';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import type { PeerTls } from '../service.ts';
import { ProxyError } from '../errors.ts';
import type { UpstreamTlsContext } from './context.ts';
import { describePeer, settleIn } from './established.ts';
import { TlsError, chainError, codeOf } from './peer.ts';
import type { CheckedPeer } from './peer.ts';

export interface ConnectTlsOptions {
  readonly context: UpstreamTlsContext;
  /** A connected socket that nobody reads; or host and port, or a path, to dial. */
  readonly socket?: Socket;
  readonly host?: string;
  readonly port?: number;
  readonly path?: string;
  /** Server name for this connection; default the context's, or `hostName` where the context says so. */
  readonly sni?: string;
  /** Protocols to offer in ALPN, best first. Default the context's. */
  readonly alpn?: readonly string[];
  /** The endpoint's host name, for `autoHostSni`. */
  readonly hostName?: string;
  /** The certificate must have one of these (URI, DNS name, IP address) besides what the context asks for. */
  readonly expectedSans?: readonly string[];
  /** Longest wait for connection and handshake, ms. Default the context's. */
  readonly timeoutMs?: number;
  readonly localAddress?: string;
}

/** Called exactly once, never before `connectTls` returned. After an error the socket is destroyed already; `connectFailed`, `connectTimeout` or `tlsFailed`. */
export type TlsConnected = (error: ProxyError | undefined, socket: TLSSocket | undefined, peer: PeerTls | undefined) => void;

export function connectTls(options: ConnectTlsOptions, onReady: TlsConnected): TLSSocket {
  const { context } = options;
  const sni =
    options.sni ?? (context.autoHostSni && options.hostName !== undefined && options.hostName !== '' ? options.hostName : context.sni);
  /** Whether the connection below stands: before that a failure is one of connecting, after it one of TLS. */
  let tcp = options.socket !== undefined;
  let settled = false;
  let checked: CheckedPeer | undefined;
  let refused: Error | undefined;
  const socket = connect({
    ...targetOf(options),
    secureContext: context.secureContext,
    ALPNProtocols: [...(options.alpn ?? context.alpn)],
    // An IP address is no server name (RFC 6066 section 3), and an empty one sends none.
    servername: isIP(sni) === 0 ? sni : '',
    rejectUnauthorized: context.checkPeer !== undefined,
    checkServerIdentity: () => {
      if (context.checkPeer === undefined) return undefined;
      const certificate = socket.getPeerX509Certificate();
      try {
        if (certificate === undefined) throw new TlsError('noCertificate', 'the server sent no certificate');
        const expected = { sans: options.expectedSans, serverName: sni === '' ? undefined : sni };
        checked = context.checkPeer(certificate, context.clock.wallMs(), expected);
        return undefined;
      } catch (error) {
        refused = error instanceof Error ? error : new Error(String(error));
        return refused;
      }
    },
  });
  // Node builds the whole chain as objects for checkServerIdentity, which costs a quarter of a handshake and has leaked; ours reads the DER.
  socket.getPeerCertificate = noCertificateObject;
  const settle = (error: ProxyError | undefined, peer?: PeerTls): void => {
    if (settled) return;
    settled = true;
    cancelTimeout();
    socket.removeListener('close', closed);
    if (error !== undefined) socket.destroy();
    onReady(error, error === undefined ? socket : undefined, peer);
  };
  const closed = (): void =>
    settle(tcp ? new ProxyError('tlsFailed', 'The server closed the connection during the handshake.') : new ProxyError('connectFailed'));
  const timeoutMs = options.timeoutMs ?? context.handshakeTimeoutMs;
  const cancelTimeout = context.clock.after(timeoutMs, () =>
    settle(new ProxyError('connectTimeout', `${tcp ? 'The TLS handshake' : 'Connecting'} took longer than ${timeoutMs} ms.`)),
  );
  socket.once('connect', () => (tcp = true));
  // Stays for good, so that a late error cannot end the process; whoever owns the socket hears its close event.
  socket.on('error', (error) => settle(tcp ? tlsFailure(refused ?? error) : new ProxyError('connectFailed', error.message, error)));
  socket.once('close', closed);
  socket.once('secureConnect', () => {
    if (context.checkPeer !== undefined && (checked === undefined || !socket.authorized)) {
      settle(tlsFailure(chainError(codeOf(socket.authorizationError))));
      return;
    }
    settleIn(socket, context, checked);
    settle(undefined, describePeer(socket, context, checked));
  });
  return socket;
}

/** An empty object is what Node itself answers when there is no certificate. */
const noCertificateObject = (() => ({})) as TLSSocket['getPeerCertificate'];

function targetOf(options: ConnectTlsOptions): ConnectionOptions {
  if (options.socket !== undefined) return { socket: options.socket };
  if (options.path !== undefined) return { path: options.path };
  const target: ConnectionOptions & { localAddress?: string } = { host: options.host ?? '', port: options.port ?? 0 };
  if (options.localAddress !== undefined) target.localAddress = options.localAddress;
  return target;
}

/** The reason that a server was refused, kept as the cause; OpenSSL's chain errors come as codes. */
function tlsFailure(error: Error): ProxyError {
  if (error instanceof TlsError) return new ProxyError('tlsFailed', error.message, error);
  const code = codeOf(error);
  const isChain = /^(CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|INVALID_|PATH_LENGTH|ERROR_IN_CERT)/.test(code);
  const cause = isChain ? chainError(code) : new TlsError(code === 'ECONNRESET' ? 'aborted' : 'protocol', error.message, error);
  return new ProxyError('tlsFailed', cause.message, cause);
}
