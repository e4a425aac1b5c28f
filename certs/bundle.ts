/**
 * Trust bundles: the roots that one trust domain's certificates are checked against, as PEM and as SPIFFE bundle JSON.
 * `createBundle(trustDomain, rootDers)`; `version` is a hash of the roots, so two bundles with the same roots are the same bundle.
 */
import { Buffer } from 'node:buffer';
import { X509Certificate, createHash } from 'node:crypto';
import { parseCertificate } from './certificate.ts';
import { parseSpiffeId } from '../lib/spiffe.ts';
import { decodeCertificates, encodePem } from './pem.ts';

export interface TrustBundle {
  readonly trustDomain: string;
  /** Root certificates as DER, oldest first. */
  readonly roots: readonly Buffer[];
  /** The same as PEM, one block after the other. */
  readonly pem: string;
  /** SHA-256 over the roots, hex; what acknowledgements name. */
  readonly version: string;
}

/** Makes a bundle. Throws when there is no root, or one of them is not a certificate authority. */
export function createBundle(trustDomain: string, roots: readonly Buffer[]): TrustBundle {
  parseSpiffeId(`spiffe://${trustDomain}`);
  if (roots.length === 0) throw new Error(`the bundle of trust domain ${trustDomain} has no root`);
  for (const root of roots) {
    if (parseCertificate(root).basicConstraints?.ca !== true) {
      throw new Error(`the bundle of trust domain ${trustDomain} holds a certificate that is not a certificate authority`);
    }
  }
  const hash = createHash('sha256');
  for (const root of roots) hash.update(createHash('sha256').update(root).digest());
  return { trustDomain, roots, pem: roots.map((root) => encodePem('CERTIFICATE', root)).join(''), version: hash.digest('hex') };
}

/** Reads roots from PEM. */
export function parseBundle(trustDomain: string, pem: string): TrustBundle {
  return createBundle(trustDomain, decodeCertificates(pem));
}

/** The SPIFFE bundle format (SPIFFE Trust Domain and Bundle, section 4): an RFC 7517 JWK set with one `x509-svid` key per root. */
export function spiffeBundleJson(bundle: TrustBundle, options: { sequence: number; refreshHintSeconds: number }): string {
  const keys = bundle.roots.map((root) => ({
    ...new X509Certificate(root).publicKey.export({ format: 'jwk' }),
    use: 'x509-svid',
    x5c: [root.toString('base64')],
  }));
  return JSON.stringify({ keys, spiffe_sequence: options.sequence, spiffe_refresh_hint: options.refreshHintSeconds });
}

/** Roots of a SPIFFE bundle document. Keys for other uses are passed over; one that is for X.509 and broken throws. */
export function parseSpiffeBundleJson(trustDomain: string, json: string): TrustBundle {
  const document = JSON.parse(json) as { keys?: unknown };
  if (!Array.isArray(document.keys)) throw new Error('a SPIFFE bundle has a list "keys"');
  const roots: Buffer[] = [];
  for (const key of document.keys as { use?: unknown; x5c?: unknown }[]) {
    if (key?.use !== 'x509-svid') continue;
    if (!Array.isArray(key.x5c) || key.x5c.length !== 1 || typeof key.x5c[0] !== 'string') {
      throw new Error('a SPIFFE bundle key for x509-svid has exactly one certificate in "x5c"');
    }
    roots.push(Buffer.from(key.x5c[0], 'base64'));
  }
  return createBundle(trustDomain, roots);
}
