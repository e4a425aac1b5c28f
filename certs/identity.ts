/**
 * Who a peer is: `peerIdentity(der, nowMs)` reads a certificate by the rules of a SPIFFE X509-SVID and answers its one identity, or throws `IdentityError`.
 * The chain must have been verified before: this file decides what a good certificate says, not whether to believe it.
 */
import { createHash } from 'node:crypto';
import { EXTENDED_KEY_USAGES, nameText, parseCertificate } from './certificate.ts';
import type { ParsedCertificate, San } from './certificate.ts';
import { formatSpiffeId, parseSpiffeId } from '../lib/spiffe.ts';
import type { SpiffeId } from '../lib/spiffe.ts';

/** Times are epoch milliseconds. */
export interface PeerIdentity {
  readonly id: SpiffeId;
  /** The id as text. */
  readonly uri: string;
  readonly sans: readonly San[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly serialHex: string;
  /** SHA-256 of the certificate, hex. */
  readonly hash: string;
  /** `O=meshwork`, empty when the certificate has no subject. */
  readonly subject: string;
}

/** Why a certificate gives no identity; words of metrics and logs. */
export type IdentityProblem =
  | 'malformed'
  | 'expired'
  | 'notYetValid'
  | 'notOneUri'
  | 'badSpiffeId'
  | 'isCa'
  | 'keyUsage'
  | 'extendedKeyUsage';

export class IdentityError extends Error {
  override readonly name = 'IdentityError';
  readonly reason: IdentityProblem;
  constructor(reason: IdentityProblem, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** Clocks of two machines may differ by this much before a certificate counts as not yet valid. */
export const SKEW_MS_MAX = 10_000;

/** Strict X509-SVID reading: sections 2 (one URI SAN, a SPIFFE id with a path), 4 and 5 (leaf constraints). Takes DER, never the text form of names. */
export function peerIdentity(der: Uint8Array, nowMs: number): PeerIdentity {
  const certificate = readCertificate(der);
  checkLeaf(certificate);
  checkValidity(certificate, nowMs);
  const id = spiffeIdOf(certificate.sans);
  return {
    id,
    uri: formatSpiffeId(id),
    sans: certificate.sans,
    notBeforeMs: certificate.notBeforeMs,
    notAfterMs: certificate.notAfterMs,
    serialHex: certificate.serialHex,
    hash: createHash('sha256').update(der).digest('hex'),
    subject: nameText(certificate.subject),
  };
}

/** Parses, turning every failure into `IdentityError` with the reason `malformed`. */
export function readCertificate(der: Uint8Array): ParsedCertificate {
  try {
    return parseCertificate(der);
  } catch (error) {
    throw new IdentityError('malformed', error instanceof Error ? error.message : String(error));
  }
}

/** Not before its time (10 s of clock skew are fine) and not after it. */
export function checkValidity(certificate: { readonly notBeforeMs: number; readonly notAfterMs: number }, nowMs: number): void {
  if (nowMs > certificate.notAfterMs) {
    throw new IdentityError('expired', `the certificate expired at ${new Date(certificate.notAfterMs).toISOString()}`);
  }
  if (nowMs + SKEW_MS_MAX < certificate.notBeforeMs) {
    const earlyMs = Math.round(certificate.notBeforeMs - nowMs);
    throw new IdentityError(
      'notYetValid',
      `the certificate is valid from ${new Date(certificate.notBeforeMs).toISOString()}, ${earlyMs} ms from now: one of the two clocks is wrong`,
    );
  }
}

/** What every end-entity certificate has to be: no authority, fit for signatures, and for both sides of TLS when it says what it is for. */
export function checkLeaf(certificate: ParsedCertificate): void {
  if (certificate.basicConstraints?.ca === true) throw new IdentityError('isCa', 'a certificate authority is not a workload');
  const { keyUsage } = certificate;
  if (keyUsage === undefined || !keyUsage.has('digitalSignature')) {
    throw new IdentityError('keyUsage', 'the certificate must have the key usage digitalSignature');
  }
  if (keyUsage.has('keyCertSign') || keyUsage.has('cRLSign')) {
    throw new IdentityError('keyUsage', 'a leaf must not have the key usages keyCertSign or cRLSign');
  }
  const purposes = certificate.extendedKeyUsage;
  if (purposes !== undefined && !(purposes.includes(EXTENDED_KEY_USAGES.serverAuth) && purposes.includes(EXTENDED_KEY_USAGES.clientAuth))) {
    throw new IdentityError('extendedKeyUsage', 'the certificate must be for serverAuth and clientAuth');
  }
  if (certificate.unknownCritical.length > 0) {
    throw new IdentityError(
      'malformed',
      `the certificate has a critical extension that is not understood: ${certificate.unknownCritical.join(', ')}`,
    );
  }
}

/** The one SPIFFE id among the names: exactly one URI, of safe bytes, with a path. */
export function spiffeIdOf(sans: readonly San[]): SpiffeId {
  const uris = sans.filter((san) => san.type === 'URI');
  const uri = uris[0];
  if (uris.length !== 1 || uri === undefined) {
    throw new IdentityError('notOneUri', `the certificate must have exactly one URI name, found ${uris.length}`);
  }
  let id: SpiffeId;
  try {
    // latin1 keeps one character per byte: nothing outside the SPIFFE alphabet can be mistaken for something inside it.
    id = parseSpiffeId(uri.bytes.toString('latin1'));
  } catch (error) {
    throw new IdentityError('badSpiffeId', error instanceof Error ? error.message : String(error));
  }
  if (id.path === '')
    throw new IdentityError('badSpiffeId', `${formatSpiffeId(id)} names a trust domain, not a workload: the path is missing`);
  return id;
}
