/** Certificates for tests, as wrong as a test asks for: `testCa(nowMs, …)` and `testLeaf(ca, nowMs, …)` sign whatever they are told. */
import { Buffer } from 'node:buffer';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { buildCertificate, keyId, parseCertificate } from './certificate.ts';
import type { CertificateFields, San } from './certificate.ts';
import { encodePem } from './pem.ts';

export interface TestCa {
  readonly key: KeyObject;
  readonly der: Buffer;
  readonly pem: string;
}

export interface TestLeaf {
  readonly der: Buffer;
  readonly pem: string;
  readonly keyPem: string;
}

type Overrides = Partial<CertificateFields> & { readonly issuer?: never };

const DAY_MS = 86_400_000;

/** A root, or with `parent` an intermediate. */
export function testCa(nowMs: number, name: string, options: { readonly parent?: TestCa; readonly fields?: Overrides } = {}): TestCa {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const { parent } = options;
  const der = buildCertificate(
    {
      serial: Buffer.concat([Uint8Array.of(1), randomBytes(8)]),
      subject: { CN: name },
      notBeforeMs: nowMs - 10_000,
      notAfterMs: nowMs + DAY_MS,
      spki,
      sans: [],
      ca: { pathLength: 2 },
      keyUsage: ['keyCertSign', 'cRLSign'],
      ...options.fields,
      issuer: parent === undefined ? { CN: name } : parseCertificate(parent.der).subject,
      ...(parent === undefined ? {} : { authorityKeyId: keyId(parseCertificate(parent.der).spki) }),
    },
    parent?.key ?? privateKey,
  );
  return { key: privateKey, der, pem: encodePem('CERTIFICATE', der) };
}

/** A good SPIFFE leaf with the given URI names, unless `fields` says otherwise. Names may be raw bytes. */
export function testLeaf(ca: TestCa, nowMs: number, uris: readonly (string | Buffer)[], fields: Overrides = {}): TestLeaf {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const parent = parseCertificate(ca.der);
  const der = buildCertificate(
    {
      serial: Buffer.concat([Uint8Array.of(1), randomBytes(8)]),
      subject: { O: 'test' },
      notBeforeMs: nowMs - 10_000,
      notAfterMs: nowMs + DAY_MS / 2,
      spki: publicKey.export({ type: 'spki', format: 'der' }),
      sans: uris.map((uri): San => ({ type: 'URI', bytes: Buffer.from(uri as string, 'latin1') })),
      keyUsage: ['digitalSignature'],
      extendedKeyUsage: ['serverAuth', 'clientAuth'],
      authorityKeyId: keyId(parent.spki),
      ...fields,
      issuer: parent.subject,
    },
    ca.key,
  );
  return { der, pem: encodePem('CERTIFICATE', der), keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
}
