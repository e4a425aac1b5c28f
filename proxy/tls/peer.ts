/**
 * Whether a peer's certificate may be who the configuration asks for: `createPeerCheck(options)` -> `check(certificate, nowMs, expected)`.
 * OpenSSL has verified the chain by then; here the leaf is read as DER, strictly, and its names decide. One parse per certificate, kept by hash.
 */
import { X509Certificate, createHash } from 'node:crypto';
import { nameText, parseCertificate } from '../../certs/certificate.ts';
import type { San } from '../../certs/certificate.ts';
import { DerError } from '../../certs/der.ts';
import { IdentityError, checkValidity, peerIdentity, readCertificate } from '../../certs/identity.ts';
import type { IdentityProblem } from '../../certs/identity.ts';
import { parseSpiffeId } from '../../lib/spiffe.ts';
import { namesServer } from './san-match.ts';
import type { SanTest } from './san-match.ts';
import { chainReaches } from './trust.ts';

/** Why a handshake ended without a connection; words of metrics and logs. */
export type TlsProblem =
  | IdentityProblem
  | 'noCertificate'
  | 'untrusted'
  | 'wrongTrustDomain'
  | 'wrongName'
  | 'timeout'
  | 'aborted'
  | 'protocol'
  | 'overloaded';

export class TlsError extends Error {
  override readonly name = 'TlsError';
  readonly reason: TlsProblem;
  constructor(reason: TlsProblem, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

/** What is known of a peer whose certificate is good. Times are epoch milliseconds. */
export interface CheckedPeer {
  /** The SPIFFE id; undefined for a certificate that has none. */
  readonly uri: string | undefined;
  readonly hash: string;
  readonly subject: string;
  readonly sans: readonly San[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

export interface PeerCheckOptions {
  /** Roots as DER. When each of them carries the SPIFFE id of a trust domain, peers must be SPIFFE identities of one of those. */
  readonly roots: readonly Buffer[];
  /** Undefined = the configuration asks for no name. */
  readonly names: SanTest | undefined;
  /** `server`: the peer is a server; without any name asked for, one that is no SPIFFE identity must be named by `fallbackName`. */
  readonly peer: 'client' | 'server';
}

/** What a connection expects beyond the configuration: all must hold. */
export interface PeerExpectation {
  /** One of these must be among the names exactly (URI, DNS or IP address); undefined = not asked. */
  readonly sans?: readonly string[] | undefined;
  /** The server name that was asked for. */
  readonly serverName?: string | undefined;
}

/** Takes the leaf with the chain that came along. Throws `TlsError`. */
export type PeerCheck = (leaf: X509Certificate, nowMs: number, expected?: PeerExpectation) => CheckedPeer;

/** Peers remembered per context; the oldest is forgotten first. */
const PEERS_MAX = 1024;

export function createPeerCheck(options: PeerCheckOptions): PeerCheck {
  const anchors = anchorsOf(options.roots);
  const known = new Map<string, CheckedPeer>();
  return (leaf, nowMs, expected = {}) => {
    try {
      const der = leaf.raw;
      const hash = createHash('sha256').update(der).digest('hex');
      let peer = known.get(hash);
      if (peer === undefined) {
        peer = readPeer(der, hash, nowMs, anchors !== undefined);
        if (anchors !== undefined) checkAnchor(leaf, peer, anchors);
        if (options.names !== undefined && !options.names(peer.sans)) throw wrongName(peer, 'the names that the configuration allows');
        if (known.size >= PEERS_MAX) known.delete(known.keys().next().value!);
        known.set(hash, peer);
      } else {
        checkValidity(peer, nowMs);
      }
      checkExpected(peer, expected, options);
      return peer;
    } catch (error) {
      throw error instanceof IdentityError ? new TlsError(error.reason, error.message, error) : error;
    }
  };
}

/** Roots by the trust domain that each is for; undefined when one of them does not say, as roots of other meshes do not. */
type Anchors = ReadonlyMap<string, readonly X509Certificate[]>;

function anchorsOf(roots: readonly Buffer[]): Anchors | undefined {
  const anchors = new Map<string, X509Certificate[]>();
  for (const root of roots) {
    const domain = trustDomainOf(root);
    if (domain === undefined) return undefined;
    anchors.set(domain, [...(anchors.get(domain) ?? []), new X509Certificate(root)]);
  }
  return anchors.size === 0 ? undefined : anchors;
}

/** `spiffe://mesh.test` among the names of a root; a root that our strict parser does not read says nothing. */
function trustDomainOf(root: Buffer): string | undefined {
  try {
    const uri = parseCertificate(root)
      .sans.find((san) => san.type === 'URI')
      ?.bytes.toString('latin1');
    return /^spiffe:\/\/([a-z0-9._-]+)$/.exec(uri ?? '')?.[1];
  } catch (error) {
    if (error instanceof DerError) return undefined;
    throw error;
  }
}

/** The bundle is chosen by the id's trust domain (gRFC A87): a root of one domain vouches for nobody in another. */
function checkAnchor(leaf: X509Certificate, peer: CheckedPeer, anchors: Anchors): void {
  const trustDomain = parseSpiffeId(peer.uri!).trustDomain;
  const own = anchors.get(trustDomain);
  if (own === undefined) throw new TlsError('wrongTrustDomain', `${peer.uri} is not of trust domain ${[...anchors.keys()].join(', ')}`);
  if (anchors.size > 1 && !chainReaches(leaf, own))
    throw new TlsError('wrongTrustDomain', `${peer.uri} was vouched for by a root of another trust domain`);
}

function readPeer(der: Buffer, hash: string, nowMs: number, spiffeOnly: boolean): CheckedPeer {
  const certificate = readCertificate(der);
  const claimsSpiffe = certificate.sans.some((san) => san.type === 'URI' && /^spiffe:/i.test(san.bytes.toString('latin1')));
  if (!spiffeOnly && !claimsSpiffe) {
    if (certificate.basicConstraints?.ca === true) throw new TlsError('isCa', 'a certificate authority is not a peer');
    checkValidity(certificate, nowMs);
    const { sans, notBeforeMs, notAfterMs } = certificate;
    return { uri: undefined, hash, subject: nameText(certificate.subject), sans, notBeforeMs, notAfterMs };
  }
  const identity = peerIdentity(der, nowMs);
  const { uri, subject, sans, notBeforeMs, notAfterMs } = identity;
  return { uri, hash, subject, sans, notBeforeMs, notAfterMs };
}

function checkExpected(peer: CheckedPeer, expected: PeerExpectation, options: PeerCheckOptions): void {
  if (expected.sans !== undefined) {
    if (!expected.sans.some((name) => namesServer(peer.sans, name))) throw wrongName(peer, expected.sans.slice(0, 5).join(', '));
    return;
  }
  // A server of the mesh is known by its identity; any other one has to be the server that was asked for, or the chain alone would do.
  if (options.peer !== 'server' || options.names !== undefined || peer.uri !== undefined) return;
  const { serverName } = expected;
  if (serverName === undefined)
    throw new TlsError('wrongName', 'no name is expected of the server: set sni or match_typed_subject_alt_names');
  if (!namesServer(peer.sans, serverName)) throw wrongName(peer, serverName);
}

function wrongName(peer: CheckedPeer, wanted: string): TlsError {
  const names = peer.uri ?? peer.sans.map((san) => `${san.type}:${san.bytes.toString('latin1').replace(/[^\x21-\x7e]/g, '?')}`).join(', ');
  return new TlsError('wrongName', `the peer is ${names.slice(0, 500) || 'without a name'}, expected ${wanted}`);
}

/** What OpenSSL said about a chain (`CERT_HAS_EXPIRED`, `SELF_SIGNED_CERT_IN_CHAIN` …), in our words. */
export function chainError(code: string): TlsError {
  const reason = code === 'CERT_HAS_EXPIRED' ? 'expired' : code === 'CERT_NOT_YET_VALID' ? 'notYetValid' : 'untrusted';
  return new TlsError(reason, `the certificate chain cannot be verified: ${code || 'no reason given'}`);
}

/** The code of an error of Node's TLS, which has it as a property or is it. */
export function codeOf(value: unknown): string {
  if (typeof value === 'string') return value;
  const code = (value as { readonly code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : '';
}
