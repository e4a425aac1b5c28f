/**
 * X.509 certificates (RFC 5280): `buildCertificate(fields)` signs one, `parseCertificate(der)` reads one strictly, SANs as bytes.
 * Chain building and signatures of peers are OpenSSL's job; this file sees to what identity is decided by.
 */
import { Buffer } from 'node:buffer';
import { createHash, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import {
  DerReader,
  TAG,
  bitString,
  boolean,
  explicit,
  implicit,
  integer,
  namedBits,
  octetString,
  oid,
  sequence,
  setOf,
  time,
  utf8,
} from './der.ts';

/** A subject alternative name with its bytes as they are in the certificate: nothing decoded, nothing joined. */
export interface San {
  readonly type: 'URI' | 'DNS' | 'EMAIL' | 'IP_ADDRESS' | 'OTHER';
  readonly bytes: Buffer;
}

/** What is put into a certificate. Times are epoch milliseconds, written in whole seconds. */
export interface CertificateFields {
  /** Big-endian, positive, at most 20 bytes. */
  readonly serial: Uint8Array;
  readonly issuer: DistinguishedName | Buffer;
  readonly subject: DistinguishedName;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SubjectPublicKeyInfo as DER. */
  readonly spki: Uint8Array;
  readonly sans: readonly San[];
  readonly ca?: { readonly pathLength: number };
  readonly keyUsage: readonly KeyUsage[];
  readonly extendedKeyUsage?: readonly ExtendedKeyUsage[];
  readonly authorityKeyId?: Uint8Array;
  /** Critical; URIs of the certificates below must have exactly this host (RFC 5280 section 4.2.1.10). */
  readonly permittedUriHost?: string;
}

/** Attribute values by short name, in order; an absent or empty name writes an empty sequence, and the SANs become critical. */
export interface DistinguishedName {
  readonly O?: string;
  readonly CN?: string;
}

export const KEY_USAGES = {
  digitalSignature: 0,
  contentCommitment: 1,
  keyEncipherment: 2,
  dataEncipherment: 3,
  keyAgreement: 4,
  keyCertSign: 5,
  cRLSign: 6,
  encipherOnly: 7,
  decipherOnly: 8,
} as const;
export type KeyUsage = keyof typeof KEY_USAGES;

export const EXTENDED_KEY_USAGES = { serverAuth: '1.3.6.1.5.5.7.3.1', clientAuth: '1.3.6.1.5.5.7.3.2' } as const;
export type ExtendedKeyUsage = keyof typeof EXTENDED_KEY_USAGES;

/** What was read. `subject` and `issuer` are DER, so that comparing them compares bytes. */
export interface ParsedCertificate {
  readonly der: Buffer;
  readonly serialHex: string;
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly spki: Buffer;
  readonly sans: readonly San[];
  readonly basicConstraints: { readonly ca: boolean; readonly pathLength: number | undefined } | undefined;
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined;
  /** Object identifiers, dotted. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly subjectKeyIdHex: string | undefined;
  readonly authorityKeyIdHex: string | undefined;
  /** Critical extensions that this file does not know. */
  readonly unknownCritical: readonly string[];
}

const OID = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
} as const;

/** Largest certificate taken, bytes. */
export const CERTIFICATE_BYTES_MAX = 65_536;
const SANS_MAX = 256;
const EXTENSIONS_MAX = 64;

/** Signs a certificate with an ECDSA P-256 key and answers its DER. */
export function buildCertificate(fields: CertificateFields, signer: KeyObject): Buffer {
  const algorithm = sequence(oid(OID.ecdsaWithSha256));
  const issuer = Buffer.isBuffer(fields.issuer) ? fields.issuer : encodeName(fields.issuer);
  const subject = encodeName(fields.subject);
  const tbs = sequence(
    explicit(0, integer(2n)),
    integer(fields.serial),
    algorithm,
    issuer,
    sequence(time(fields.notBeforeMs), time(fields.notAfterMs)),
    subject,
    fields.spki,
    explicit(3, sequence(...encodeExtensions(fields, subject.length === 2))),
  );
  return sequence(tbs, algorithm, bitString(sign('sha256', tbs, signer)));
}

/** Reads a certificate. Throws `DerError` for anything that is not one well-formed version 3 certificate and nothing else. */
export function parseCertificate(der: Uint8Array): ParsedCertificate {
  const outer = new DerReader(der, 'certificate');
  if (der.length > CERTIFICATE_BYTES_MAX) outer.fail(`takes at most ${CERTIFICATE_BYTES_MAX} bytes, received ${der.length}`);
  const body = outer.sequence();
  outer.end();
  const tbs = body.sequence(TAG.sequence, 'certificate');
  const outerAlgorithm = body.next(TAG.sequence).whole;
  body.bitString();
  body.end();

  const version = tbs.sequence(0xa0);
  if (version.smallInteger() !== 2) version.fail('must be version 3');
  version.end();
  const serial = tbs.integer();
  if (serial.length > 20) tbs.fail('a serial number takes at most 20 bytes');
  if (!tbs.next(TAG.sequence).whole.equals(outerAlgorithm)) tbs.fail('names two different signature algorithms');
  const issuer = tbs.next(TAG.sequence).whole;
  const validity = tbs.sequence();
  const notBeforeMs = validity.time();
  const notAfterMs = validity.time();
  validity.end();
  const subject = tbs.next(TAG.sequence).whole;
  const spki = tbs.next(TAG.sequence).whole;
  tbs.optional(0x81);
  tbs.optional(0x82);
  const extensions = tbs.peek() === 0xa3 ? readExtensions(tbs.sequence(0xa3)) : new Map<string, Extension>();
  tbs.end();

  const value = (id: string): DerReader | undefined => {
    const extension = extensions.get(id);
    return extension === undefined ? undefined : new DerReader(extension.value, `certificate extension ${id}`);
  };
  return {
    der: Buffer.from(der.buffer, der.byteOffset, der.byteLength),
    serialHex: serial.toString('hex'),
    issuer,
    subject,
    notBeforeMs,
    notAfterMs,
    spki,
    sans: readSans(value(OID.subjectAltName)),
    basicConstraints: readBasicConstraints(value(OID.basicConstraints)),
    keyUsage: readKeyUsage(value(OID.keyUsage)),
    extendedKeyUsage: readExtendedKeyUsage(value(OID.extendedKeyUsage)),
    subjectKeyIdHex: value(OID.subjectKeyIdentifier)?.next(TAG.octetString).content.toString('hex'),
    authorityKeyIdHex: value(OID.authorityKeyIdentifier)?.sequence().optional(0x80)?.content.toString('hex'),
    unknownCritical: [...extensions].filter(([id, { critical }]) => critical && !KNOWN_CRITICAL.has(id)).map(([id]) => id),
  };
}

/** The subject as people read it (`O=meshwork,CN=web`), with everything outside printable ASCII escaped. */
export function nameText(name: Buffer): string {
  const parts: string[] = [];
  const rdns = new DerReader(name, 'name').sequence();
  while (!rdns.done) {
    const rdn = rdns.sequence(TAG.set);
    while (!rdn.done) {
      const attribute = rdn.sequence();
      const id = attribute.oid();
      const label = id === OID.commonName ? 'CN' : id === OID.organization ? 'O' : id;
      parts.push(
        `${label}=${attribute
          .next()
          .content.toString('latin1')
          .replace(/[^\x20-\x7e]|[,+"\\<>;=]/g, escapeByte)}`,
      );
    }
  }
  return parts.join(',');
}

/** Key id of a public key: the left 160 bits of SHA-256 over the key's bits (RFC 7093 section 2, method 1). */
export function keyId(spki: Uint8Array): Buffer {
  const reader = new DerReader(spki, 'public key').sequence();
  reader.next(TAG.sequence);
  return createHash('sha256').update(reader.bitString().bytes).digest().subarray(0, 20);
}

export const uriSan = (uri: string): San => ({ type: 'URI', bytes: Buffer.from(uri, 'latin1') });
export const dnsSan = (name: string): San => ({ type: 'DNS', bytes: Buffer.from(name, 'latin1') });

// ---- extensions -----------------------------------------------------------------------------------------------------

const GENERAL_NAME_TAGS = { EMAIL: 1, DNS: 2, URI: 6, IP_ADDRESS: 7 } as const;
const KNOWN_CRITICAL: ReadonlySet<string> = new Set([
  OID.keyUsage,
  OID.subjectAltName,
  OID.basicConstraints,
  OID.nameConstraints,
  OID.extendedKeyUsage,
]);

interface Extension {
  readonly critical: boolean;
  readonly value: Buffer;
}

function encodeName(name: DistinguishedName): Buffer {
  const attribute = (id: string, text: string): Buffer => setOf(sequence(oid(id), utf8(text)));
  const parts: Buffer[] = [];
  if (name.O !== undefined) parts.push(attribute(OID.organization, name.O));
  if (name.CN !== undefined) parts.push(attribute(OID.commonName, name.CN));
  return sequence(...parts);
}

const extension = (id: string, critical: boolean, value: Buffer): Buffer =>
  sequence(oid(id), ...(critical ? [boolean(true)] : []), octetString(value));

function encodeExtensions(fields: CertificateFields, subjectIsEmpty: boolean): Buffer[] {
  const { ca } = fields;
  const list = [
    extension(OID.basicConstraints, true, ca === undefined ? sequence() : sequence(boolean(true), integer(BigInt(ca.pathLength)))),
    extension(OID.keyUsage, true, namedBits(fields.keyUsage.map((usage) => KEY_USAGES[usage]))),
    extension(OID.subjectKeyIdentifier, false, octetString(keyId(fields.spki))),
  ];
  if (fields.extendedKeyUsage !== undefined) {
    list.push(extension(OID.extendedKeyUsage, false, sequence(...fields.extendedKeyUsage.map((usage) => oid(EXTENDED_KEY_USAGES[usage])))));
  }
  if (fields.authorityKeyId !== undefined) {
    list.push(extension(OID.authorityKeyIdentifier, false, sequence(implicit(0, fields.authorityKeyId))));
  }
  if (fields.sans.length > 0) list.push(extension(OID.subjectAltName, subjectIsEmpty, encodeSans(fields.sans)));
  if (fields.permittedUriHost !== undefined) {
    const subtree = sequence(implicit(GENERAL_NAME_TAGS.URI, Buffer.from(fields.permittedUriHost, 'latin1')));
    list.push(extension(OID.nameConstraints, true, sequence(explicit(0, subtree))));
  }
  return list;
}

/** GeneralNames of a SAN extension. */
export function encodeSans(sans: readonly San[]): Buffer {
  return sequence(
    ...sans.map((san) => {
      if (san.type === 'OTHER') throw new Error('a SAN of type OTHER cannot be written');
      return implicit(GENERAL_NAME_TAGS[san.type], san.bytes);
    }),
  );
}

function readExtensions(wrapper: DerReader): Map<string, Extension> {
  const list = wrapper.sequence(TAG.sequence, 'certificate extensions');
  wrapper.end();
  const extensions = new Map<string, Extension>();
  while (!list.done) {
    const entry = list.sequence();
    const id = entry.oid();
    const critical = entry.peek() === TAG.boolean ? entry.boolean() : false;
    const value = entry.next(TAG.octetString).content;
    entry.end();
    if (extensions.has(id)) list.fail(`extension ${id} is there twice`);
    if (extensions.size >= EXTENSIONS_MAX) list.fail(`at most ${EXTENSIONS_MAX} extensions`);
    extensions.set(id, { critical, value });
  }
  return extensions;
}

/** SANs of an extension's value; exported for certificate requests, which carry the same extension. */
export function readSans(reader: DerReader | undefined): San[] {
  if (reader === undefined) return [];
  const names = reader.sequence();
  reader.end();
  const sans: San[] = [];
  while (!names.done) {
    const { tag, content } = names.next();
    const type = tag === 0x81 ? 'EMAIL' : tag === 0x82 ? 'DNS' : tag === 0x86 ? 'URI' : tag === 0x87 ? 'IP_ADDRESS' : 'OTHER';
    if (sans.length >= SANS_MAX) names.fail(`at most ${SANS_MAX} names`);
    sans.push({ type, bytes: content });
  }
  return sans;
}

function readBasicConstraints(reader: DerReader | undefined): ParsedCertificate['basicConstraints'] {
  if (reader === undefined) return undefined;
  const body = reader.sequence();
  reader.end();
  const ca = body.peek() === TAG.boolean ? body.boolean() : false;
  const pathLength = body.peek() === TAG.integer ? body.smallInteger() : undefined;
  body.end();
  return { ca, pathLength };
}

function readKeyUsage(reader: DerReader | undefined): ReadonlySet<KeyUsage> | undefined {
  if (reader === undefined) return undefined;
  const { bytes } = reader.bitString();
  reader.end();
  const usages = new Set<KeyUsage>();
  for (const [name, bit] of Object.entries(KEY_USAGES)) {
    if (((bytes[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0) usages.add(name as KeyUsage);
  }
  return usages;
}

function readExtendedKeyUsage(reader: DerReader | undefined): string[] | undefined {
  if (reader === undefined) return undefined;
  const body = reader.sequence();
  reader.end();
  const ids: string[] = [];
  while (!body.done) ids.push(body.oid());
  return ids;
}

function escapeByte(character: string): string {
  const code = character.charCodeAt(0);
  return code < 0x20 || code > 0x7e ? `\\${code.toString(16).padStart(2, '0')}` : `\\${character}`;
}
