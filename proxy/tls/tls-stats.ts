/** Envoy's `ssl.*` statistics of a listener or a cluster: handshakes, with what they were made, and why others failed. */
import { TLSSocket } from 'node:tls';
import { TlsError } from './peer.ts';
import type { TlsProblem } from './peer.ts';
import type { ProxyError } from '../errors.ts';
import type { Counter } from '../../lib/metrics.ts';
import type { Scope } from '../../lib/metrics-scope.ts';
import type { Dial } from '../upstream/dial.ts';
import type { Socket } from 'node:net';

export interface TlsStats {
  established(socket: Socket): void;
  failed(reason: TlsProblem): void;
}

/** Nobody can be blamed for a handshake that the peer left, and one that was not begun is no error of TLS. */
const UNCOUNTED: ReadonlySet<TlsProblem> = new Set<TlsProblem>(['aborted', 'overloaded']);
const PROTOCOL: ReadonlySet<TlsProblem> = new Set<TlsProblem>(['protocol', 'timeout']);
const CHAIN: ReadonlySet<TlsProblem> = new Set<TlsProblem>(['untrusted', 'expired', 'notYetValid']);

/** The same counts for the same scope. `server`: the peer is the client, who may have come without a certificate. */
export function tlsStats(scope: Scope, server: boolean): TlsStats {
  const counter = (name: string): Counter => scope.counter(`ssl.${name}`);
  const handshakes = counter('handshake');
  const errors = counter('connection_error');
  const reused = counter('session_reused');
  const noCertificate = counter('no_certificate');
  const [failNoCertificate, failChain, failName] = [
    counter('fail_verify_no_cert'),
    counter('fail_verify_error'),
    counter('fail_verify_san'),
  ];
  return {
    established: (socket) => {
      handshakes.inc();
      if (!(socket instanceof TLSSocket)) return;
      if (socket.isSessionReused()) reused.inc();
      if (server && socket.getPeerX509Certificate() === undefined) noCertificate.inc();
      const version = socket.getProtocol() ?? 'unknown';
      scope.counter('ssl.versions', { envoy_ssl_version: version }, `ssl.versions.${version}`).inc();
      const { name: cipher } = socket.getCipher();
      scope.counter('ssl.ciphers', { envoy_ssl_cipher: cipher }, `ssl.ciphers.${cipher}`).inc();
    },
    failed: (reason) => {
      if (UNCOUNTED.has(reason)) return;
      if (PROTOCOL.has(reason)) errors.inc();
      else if (reason === 'noCertificate') failNoCertificate.inc();
      else (CHAIN.has(reason) ? failChain : failName).inc();
    },
  };
}

/** The same dialler, counted. */
export function countedTls(dial: Dial, stats: TlsStats): Dial {
  return (done) =>
    dial((error: ProxyError | undefined, socket, notAfterMs) => {
      if (socket !== undefined) stats.established(socket);
      else if (error?.code === 'tlsFailed') stats.failed(error.cause instanceof TlsError ? error.cause.reason : 'protocol');
      done(error, socket, notAfterMs);
    });
}
