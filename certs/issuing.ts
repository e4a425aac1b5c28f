/** How roots and leaves are made: `makeRoot`, `issueLeaf`, and `restoreRoots` for what a store kept. The rules of the authority are next door. */
import type { Buffer } from 'node:buffer';
import { X509Certificate, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import { formatSpiffeId, parseSpiffeId } from '../lib/spiffe.ts';
import { readState } from './authority-state.ts';
import type { RootPhase, RootRecord } from './authority-state.ts';
import { buildCertificate, dnsSan, keyId, parseCertificate, uriSan } from './certificate.ts';
import type { San } from './certificate.ts';
import { verifyCsr } from './csr.ts';
import { ipBytes } from './ip.ts';
import { decodeCertificates, encodePem } from './pem.ts';

export interface IssueOptions {
  /** Cut down to `leafTtlMsMax` and to the end of the issuer. */
  readonly ttlMs?: number;
  /** A certificate request for the key. Its names must be absent or equal to the id; absent altogether, a P-256 key is made. */
  readonly csrPem?: string;
  /** Names of a server that is also reached by name, the control plane's own. Never from a request. */
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
}

/** Times are epoch milliseconds. */
export interface IssuedCertificate {
  readonly spiffeId: string;
  /** Leaf first, then whatever stands between it and a root of the bundle. */
  readonly chainPem: string;
  /** PKCS#8; undefined when a request brought its own key. */
  readonly keyPem: string | undefined;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Hex. */
  readonly serial: string;
  /** The root that signed it; ask `isTainted` with it. */
  readonly issuerId: string;
}

export type AuthorityProblem = 'wrongTrustDomain' | 'badRequest' | 'issuerExpired' | 'notAcknowledged' | 'wrongPhase' | 'stateDamaged';

/** What the authority refuses, with the reason as a word. */
export class AuthorityError extends Error {
  override readonly name = 'AuthorityError';
  readonly reason: AuthorityProblem;
  constructor(reason: AuthorityProblem, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}

/** A root with its key ready to sign. */
export interface Root extends RootRecord {
  readonly key: KeyObject;
  readonly der: Buffer;
  /** Its subject and key id as leaves name them. */
  readonly subject: Buffer;
  readonly subjectKeyId: Buffer;
}

/** Certificates are valid from this long before now, for clocks that run behind. */
export const BACKDATE_MS = 10_000;

/** Signs a leaf for an id that the caller has authenticated. `ttlMs` is cut down to the end of the root. */
export function issueLeaf(
  root: Root,
  trustDomain: string,
  spiffeId: string,
  options: IssueOptions,
  nowMs: number,
  ttlMs: number,
): IssuedCertificate {
  const id = parseSpiffeId(spiffeId);
  const uri = formatSpiffeId(id);
  if (id.trustDomain !== trustDomain || id.path === '') {
    throw new AuthorityError('wrongTrustDomain', `this authority issues ids below spiffe://${trustDomain}/, received ${uri}`);
  }
  if (!(ttlMs > 0)) throw new AuthorityError('badRequest', `a certificate lives for a positive time, received ${ttlMs} ms`);
  const notBeforeMs = wholeSeconds(nowMs - BACKDATE_MS);
  const notAfterMs = wholeSeconds(Math.min(nowMs + ttlMs, root.notAfterMs));
  if (notAfterMs <= nowMs) {
    throw new AuthorityError(
      'issuerExpired',
      `cannot issue for ${uri}: root ${root.id} of ${trustDomain} ends at ${new Date(root.notAfterMs).toISOString()}`,
    );
  }
  const own = options.csrPem === undefined ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : undefined;
  const spki = own === undefined ? spkiOfRequest(options.csrPem!, uri) : own.publicKey.export({ type: 'spki', format: 'der' });
  const serial = newSerial();
  const der = buildCertificate(
    {
      serial,
      issuer: root.subject,
      subject: { O: 'meshwork' },
      notBeforeMs,
      notAfterMs,
      spki,
      sans: [uriSan(uri), ...(options.dnsNames ?? []).map(dnsName), ...(options.ipAddresses ?? []).map(ipName)],
      keyUsage: ['digitalSignature'],
      extendedKeyUsage: ['serverAuth', 'clientAuth'],
      authorityKeyId: root.subjectKeyId,
    },
    root.key,
  );
  return {
    spiffeId: uri,
    chainPem: encodePem('CERTIFICATE', der),
    keyPem: own?.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string | undefined,
    notBeforeMs,
    notAfterMs,
    serial: serial.toString('hex'),
    issuerId: root.id,
  };
}

/** The request's key, after its names were held against the caller's. */
function spkiOfRequest(csrPem: string, uri: string): Buffer {
  let csr: ReturnType<typeof verifyCsr>;
  try {
    csr = verifyCsr(csrPem);
  } catch (error) {
    throw new AuthorityError('badRequest', error instanceof Error ? error.message : String(error), error);
  }
  if (csr.asksForCa) throw new AuthorityError('badRequest', 'the certificate request asks to be a certificate authority');
  if (csr.sans.length > 1 || csr.sans.some((san) => san.type !== 'URI' || san.bytes.toString('latin1') !== uri)) {
    throw new AuthorityError('badRequest', `the certificate request may name ${uri} or nothing, and names something else`);
  }
  return csr.spki;
}

function dnsName(name: string): San {
  if (!/^[a-z0-9*]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*$/.test(name) || name.length > 253) {
    throw new AuthorityError('badRequest', `not a DNS name: ${JSON.stringify(name.slice(0, 200))}`);
  }
  return dnsSan(name);
}

function ipName(address: string): San {
  if (isIP(address) === 0) throw new AuthorityError('badRequest', `not an IP address: ${JSON.stringify(address.slice(0, 200))}`);
  return { type: 'IP_ADDRESS', bytes: ipBytes(address) };
}

/** A new self-signed root: P-256, for this trust domain's URIs only, and only for leaves. */
export function makeRoot(trustDomain: string, nowMs: number, ttlMs: number, phase: RootPhase): Root {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const id = keyId(spki).toString('hex').slice(0, 16);
  const name = { O: 'meshwork', CN: `meshwork root ${id}` };
  const notBeforeMs = wholeSeconds(nowMs - BACKDATE_MS);
  const notAfterMs = wholeSeconds(nowMs + ttlMs);
  const der = buildCertificate(
    {
      serial: newSerial(),
      issuer: name,
      subject: name,
      notBeforeMs,
      notAfterMs,
      spki,
      sans: [uriSan(`spiffe://${trustDomain}`)],
      ca: { pathLength: 0 },
      keyUsage: ['keyCertSign', 'cRLSign'],
      authorityKeyId: keyId(spki),
      permittedUriHost: trustDomain,
    },
    privateKey,
  );
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  return {
    id,
    phase,
    certificatePem: encodePem('CERTIFICATE', der),
    keyPem,
    notBeforeMs,
    notAfterMs,
    lastLeafNotAfterMs: 0,
    ...signerOf(der, privateKey),
  };
}

/** Rebuilds the roots of a stored state. Whatever is not whole, not a pair or not of this trust domain stops it. */
export function restoreRoots(state: unknown, trustDomain: string): readonly Root[] {
  const damaged = (message: string, cause?: unknown): never => {
    throw new AuthorityError('stateDamaged', `the stored authority of ${trustDomain} cannot be used: ${message}`, cause);
  };
  try {
    const { trustDomain: stored, roots } = readState(state);
    if (stored !== trustDomain) damaged(`it is the authority of ${stored}`);
    if (roots.filter((root) => root.phase === 'active').length !== 1) damaged('exactly one root is active');
    return roots.map((record) => {
      const der = decodeCertificates(record.certificatePem)[0]!;
      const key = createPrivateKey(record.keyPem);
      const certificate = parseCertificate(der);
      if (!createPublicKey(key).export({ type: 'spki', format: 'der' }).equals(certificate.spki))
        damaged(`key and certificate of root ${record.id} do not belong together`);
      if (keyId(certificate.spki).toString('hex').slice(0, 16) !== record.id)
        damaged(`root ${record.id} has another key than its name says`);
      if (!new X509Certificate(der).verify(createPublicKey(key))) damaged(`root ${record.id} is not signed by itself`);
      return { ...record, notBeforeMs: certificate.notBeforeMs, notAfterMs: certificate.notAfterMs, ...signerOf(der, key) };
    });
  } catch (error) {
    if (error instanceof AuthorityError) throw error;
    return damaged(error instanceof Error ? error.message : String(error), error);
  }
}

function signerOf(der: Buffer, key: KeyObject): Pick<Root, 'key' | 'der' | 'subject' | 'subjectKeyId'> {
  const { subject, spki } = parseCertificate(der);
  return { key, der, subject, subjectKeyId: keyId(spki) };
}

const wholeSeconds = (epochMs: number): number => Math.floor(epochMs / 1000) * 1000;

/** 16 random bytes, positive and without a leading zero (RFC 5280 section 4.1.2.2). */
function newSerial(): Buffer {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes;
}
