/**
 * Certificate requests (PKCS#10, RFC 2986): `createCsr(privateKey, spiffeId?)` writes one, `verifyCsr(pem)` checks key strength and proof of possession.
 * What a request asks to be called decides nothing: the issuer takes the name from the authenticated caller and refuses a request that names another.
 */
import { createPublicKey, createSign, createVerify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { encodeSans, readSans, uriSan } from './certificate.ts';
import type { San } from './certificate.ts';
import { DerReader, TAG, bitString, integer, octetString, oid, sequence, setOf, tlv } from './der.ts';
import { decodePem, encodePem } from './pem.ts';

export interface VerifiedCsr {
  readonly publicKey: KeyObject;
  /** SubjectPublicKeyInfo as DER. */
  readonly spki: Buffer;
  /** Names that the request asks for. */
  readonly sans: readonly San[];
  /** Whether it asks to be a certificate authority. */
  readonly asksForCa: boolean;
}

/** A request that is malformed, weak or not signed by its own key. */
export class CsrError extends Error {
  override readonly name = 'CsrError';
}

/** Largest request taken, characters of PEM. */
export const CSR_CHARS_MAX = 16_384;

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
const SUBJECT_ALT_NAME = '2.5.29.17';
const BASIC_CONSTRAINTS = '2.5.29.19';
const SIGNATURES: Readonly<Record<string, string>> = {
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
};
const CURVES: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1']);
const RSA_BITS_MIN = 2048;
const RSA_BITS_MAX = 8192;

/** A request for the given P-256 key, PEM. The name is optional; if it is there it must equal the caller's identity. */
export function createCsr(privateKey: KeyObject, spiffeId?: string): string {
  const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  const extensions = spiffeId === undefined ? [] : [sequence(oid(SUBJECT_ALT_NAME), octetString(encodeSans([uriSan(spiffeId)])))];
  const attributes = extensions.length === 0 ? [] : [sequence(oid(EXTENSION_REQUEST), setOf(sequence(...extensions)))];
  const info = sequence(integer(0n), sequence(), spki, tlv(0xa0, ...attributes));
  const signature = createSign('sha256').update(info).sign(privateKey);
  return encodePem('CERTIFICATE REQUEST', sequence(info, sequence(oid('1.2.840.10045.4.3.2')), bitString(signature)));
}

/** Checks a request: one PEM block, strict DER, key of P-256 or better or RSA of 2048 to 8192 bits, signed by that key with SHA-2. Throws `CsrError` or `DerError`. */
export function verifyCsr(pem: string): VerifiedCsr {
  if (pem.length > CSR_CHARS_MAX)
    throw new CsrError(`a certificate request takes at most ${CSR_CHARS_MAX} characters, received ${pem.length}`);
  const blocks = decodePem(pem);
  const block = blocks[0];
  if (blocks.length !== 1 || block === undefined || !/^(NEW )?CERTIFICATE REQUEST$/.test(block.label)) {
    throw new CsrError(
      `a certificate request is one PEM block CERTIFICATE REQUEST, received ${blocks.map((b) => b.label).join(', ') || 'none'}`,
    );
  }
  const outer = new DerReader(block.der, 'certificate request');
  const body = outer.sequence();
  outer.end();
  const info = body.next(TAG.sequence);
  const algorithm = body.sequence().oid();
  const signature = body.bitString().bytes;
  body.end();

  const fields = new DerReader(info.content, 'certificate request');
  if (fields.smallInteger() !== 0) fields.fail('must be version 1');
  fields.next(TAG.sequence);
  const spki = fields.next(TAG.sequence).whole;
  const requested = fields.done ? { sans: [], asksForCa: false } : readAttributes(fields.sequence(0xa0));
  fields.end();

  const publicKey = readKey(spki);
  const digest = SIGNATURES[algorithm];
  const wantsRsa = algorithm.startsWith('1.2.840.113549.');
  if (digest === undefined || wantsRsa !== (publicKey.asymmetricKeyType === 'rsa')) {
    throw new CsrError(`a certificate request is signed by ECDSA or RSA with SHA-256, 384 or 512, received algorithm ${algorithm}`);
  }
  if (!createVerify(digest).update(info.whole).verify(publicKey, signature)) {
    throw new CsrError('the certificate request is not signed by the key that it is for');
  }
  return { publicKey, spki, ...requested };
}

function readKey(spki: Buffer): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey({ key: spki, format: 'der', type: 'spki' });
  } catch (error) {
    throw new CsrError(
      `the public key of the certificate request cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const details = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ec' && CURVES.has(details.namedCurve ?? '')) return key;
  const bits = details.modulusLength ?? 0;
  if (key.asymmetricKeyType === 'rsa' && bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX) return key;
  throw new CsrError(
    `a key is EC P-256, P-384 or P-521, or RSA of ${RSA_BITS_MIN} to ${RSA_BITS_MAX} bits, received ${key.asymmetricKeyType} ${details.namedCurve ?? bits}`,
  );
}

function readAttributes(attributes: DerReader): { sans: San[]; asksForCa: boolean } {
  let sans: San[] = [];
  let asksForCa = false;
  while (!attributes.done) {
    const attribute = attributes.sequence();
    const id = attribute.oid();
    const values = attribute.sequence(TAG.set);
    if (id !== EXTENSION_REQUEST) continue;
    const extensions = values.sequence();
    while (!extensions.done) {
      const extension = extensions.sequence();
      const extensionId = extension.oid();
      if (extension.peek() === TAG.boolean) extension.boolean();
      const value = new DerReader(extension.next(TAG.octetString).content, `certificate request extension ${extensionId}`);
      if (extensionId === SUBJECT_ALT_NAME) sans = [...sans, ...readSans(value)];
      if (extensionId === BASIC_CONSTRAINTS) {
        const constraints = value.sequence();
        if (constraints.peek() === TAG.boolean) asksForCa = constraints.boolean();
      }
    }
  }
  return { sans, asksForCa };
}
