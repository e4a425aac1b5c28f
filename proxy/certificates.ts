/** The certificates that TLS settings in force use: for `/certs`, and for the days until the first of them ends. */
import { X509Certificate } from 'node:crypto';
import { parseCertificate } from '../certs/certificate.ts';
import { DerError } from '../certs/der.ts';
import { decodeCertificates } from '../certs/pem.ts';
import type { CommonTls, Secret, SecretRef, Snapshot } from '../xds/snapshot.ts';

export interface CertificateView {
  /** The file that it came from, or what its secret is called. */
  readonly path: string;
  readonly serialNumber: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
}

/** Of one TLS setting: the roots that it trusts, and its own chains. */
export interface TlsCertificates {
  readonly roots: readonly CertificateView[];
  readonly chains: readonly CertificateView[];
}

/** One entry per setting; several listeners or clusters with the same certificates are one. */
export function certificatesInUse(snapshot: Snapshot): TlsCertificates[] {
  const found = new Map<string, TlsCertificates>();
  for (const tls of settingsOf(snapshot)) {
    const viewsOf = (refs: CommonTls['certificates']): CertificateView[] => refs.flatMap((ref) => views(secretOf(ref, snapshot)));
    const entry = { roots: viewsOf(tls.validation === undefined ? [] : [tls.validation]), chains: viewsOf(tls.certificates) };
    if (entry.roots.length + entry.chains.length > 0) found.set(JSON.stringify(entry), entry);
  }
  return [...found.values()];
}

/** Epoch milliseconds at which the first of them ends; `Infinity` = there is none. */
export function firstExpiryMs(snapshot: Snapshot): number {
  // Thousands of clusters have the same few secrets.
  const seen = new Set<Secret>();
  for (const { certificates, validation } of settingsOf(snapshot)) {
    for (const ref of certificates) addSecret(seen, secretOf(ref, snapshot));
    if (validation !== undefined) addSecret(seen, secretOf(validation, snapshot));
  }
  let first = Number.POSITIVE_INFINITY;
  for (const secret of seen) for (const { notAfterMs } of views(secret)) first = Math.min(first, notAfterMs);
  return first;
}

function addSecret(seen: Set<Secret>, secret: Secret | undefined): void {
  if (secret !== undefined) seen.add(secret);
}

function secretOf(ref: SecretRef, { secrets }: Snapshot): Secret | undefined {
  return ref.kind === 'inline' ? ref.secret : secrets.get(ref.name);
}

function* settingsOf({ listeners, clusters }: Snapshot): Generator<CommonTls> {
  for (const { filterChains, defaultFilterChain } of listeners.values()) {
    for (const chain of [...filterChains, defaultFilterChain]) if (chain?.tls !== undefined) yield chain.tls;
  }
  for (const { tls, tlsMatches } of clusters.values()) {
    if (tls !== undefined) yield tls;
    for (const match of tlsMatches) if (match.tls !== undefined) yield match.tls;
  }
}

const VIEWS = new WeakMap<Secret['content'], readonly CertificateView[]>();

function views(secret: Secret | undefined): readonly CertificateView[] {
  if (secret === undefined) return [];
  const { name, content } = secret;
  let known = VIEWS.get(content);
  if (known !== undefined) return known;
  const pem = content.kind === 'certificate' ? content.chainPem : content.rootsPem;
  known = pem === '' ? [] : decodeCertificates(pem).map((der) => view(name === '' ? '<inline>' : name, der));
  VIEWS.set(content, known);
  return known;
}

function view(path: string, der: Buffer): CertificateView {
  try {
    const { serialHex, notBeforeMs, notAfterMs, sans } = parseCertificate(der);
    const names = (type: string): string[] => sans.flatMap((san) => (san.type === type ? [san.bytes.toString('latin1')] : []));
    return { path, serialNumber: serialHex, notBeforeMs, notAfterMs, uris: names('URI'), dnsNames: names('DNS') };
  } catch (error) {
    if (!(error instanceof DerError)) throw error;
    // A bundle of public roots has some that our strict reader does not take; OpenSSL does.
    const { serialNumber, validFromDate, validToDate } = new X509Certificate(der);
    return {
      path,
      serialNumber: serialNumber.toLowerCase(),
      notBeforeMs: validFromDate.getTime(),
      notAfterMs: validToDate.getTime(),
      uris: [],
      dnsNames: [],
    };
  }
}
