/** Secrets (SDS): a certificate with its key, or the roots that peers are checked against. */
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import {
  type CertificateValidationContext,
  type CertificateValidationContextSchema,
  CertificateValidationContext_TrustChainVerification as Trust,
  SubjectAltNameMatcher_SanType as SanType,
  type TlsCertificate,
  type TlsCertificateSchema,
} from '../gen/envoy/extensions/transport_sockets/tls/v3/common_pb.js';
import { type Secret as WireSecret, SecretSchema } from '../gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js';
import type { DataRef, SanMatch, Secret } from '../snapshot.ts';
import { inside, type Place, refuse, topOf, warn } from './decoding.ts';
import { nameOf } from './duration.ts';
import { decodeMessage } from './extension.ts';
import { decodeStringMatch, decodeText, encodeStringMatch, encodeText } from './parts.ts';
import { checkRules } from './rules.ts';

/** Decodes an SDS resource. Throws DecodeError, whose text never holds the key. */
export function decodeSecret(bytes: Uint8Array, warnings: string[] = []): Secret {
  const wire = decodeMessage(SecretSchema, bytes, topOf('secret', warnings));
  const place = topOf(`secret "${wire.name}"`, warnings);
  checkRules(SecretSchema, wire, place);
  return decodeSecretMessage(wire, place);
}

export function decodeSecretMessage(wire: WireSecret, place: Place): Secret {
  switch (wire.type.case) {
    case 'tlsCertificate':
      return { name: wire.name, content: decodeCertificate(wire.type.value, inside(place, 'tls_certificate')) };
    case 'validationContext':
      return { name: wire.name, content: decodeValidation(wire.type.value, inside(place, 'validation_context')) };
    case undefined:
      return refuse(place, 'needs tls_certificate or validation_context');
    default:
      return refuse(place, 'only tls_certificate and validation_context are supported', wire.type.case);
  }
}

export function decodeCertificate(wire: TlsCertificate, place: Place): Secret['content'] {
  for (const [field, set] of [
    ['pkcs12', wire.pkcs12 !== undefined],
    ['private_key_provider', wire.privateKeyProvider !== undefined],
    ['password', wire.password !== undefined],
  ] as const) {
    if (set) refuse(inside(place, field), 'is not supported');
  }
  const chain = decodeText(wire.certificateChain, inside(place, 'certificate_chain'));
  const key = decodeText(wire.privateKey, inside(place, 'private_key'));
  if (chain.text === '' && chain.from === undefined) refuse(inside(place, 'certificate_chain'), 'must hold a certificate');
  if (key.text === '' && key.from === undefined) refuse(inside(place, 'private_key'), 'must hold a key');
  return {
    kind: 'certificate',
    chainPem: chain.text,
    keyPem: key.text,
    ...(chain.from === undefined ? {} : { chainFrom: chain.from }),
    ...(key.from === undefined ? {} : { keyFrom: key.from }),
  };
}

/** Refuses every check on the peer that would not be made: a weaker check than the one asked for is no answer. */
export function decodeValidation(wire: CertificateValidationContext, place: Place): Secret['content'] {
  for (const [field, set] of [
    ['verify_certificate_spki', wire.verifyCertificateSpki.length > 0],
    ['verify_certificate_hash', wire.verifyCertificateHash.length > 0],
    ['crl', wire.crl !== undefined],
    ['require_signed_certificate_timestamp', wire.requireSignedCertificateTimestamp === true],
    ['custom_validator_config', wire.customValidatorConfig !== undefined],
    ['max_verify_depth', wire.maxVerifyDepth !== undefined],
    ['system_root_certs', wire.systemRootCerts !== undefined],
  ] as const) {
    if (set) refuse(inside(place, field), 'is not supported');
  }
  // A younger field may hold one more condition, and a condition must not be lost.
  const [young] = wire.$unknown ?? [];
  if (young !== undefined) refuse(place, `has a field #${young.no} that is not known here`);
  if (wire.allowExpiredCertificate) warn(inside(place, 'allow_expired_certificate'), 'is ignored: expired certificates are refused');
  const roots = decodeText(wire.trustedCa, inside(place, 'trusted_ca'));
  return {
    kind: 'validation',
    rootsPem: roots.text,
    ...(roots.from === undefined ? {} : { rootsFrom: roots.from }),
    matchSubjectAltNames: decodeSans(wire, place),
    trustUnverified: wire.trustChainVerification === Trust.ACCEPT_UNTRUSTED,
  };
}

export function decodeSans(wire: CertificateValidationContext, place: Place): readonly SanMatch[] {
  const typed = wire.matchTypedSubjectAltNames.map((matcher, i): SanMatch => {
    const at = inside(inside(place, 'match_typed_subject_alt_names'), i);
    const type = nameOf(SanType, matcher.sanType);
    if (type !== 'URI' && type !== 'DNS' && type !== 'EMAIL' && type !== 'IP_ADDRESS') {
      return refuse(inside(at, 'san_type'), 'must be URI, DNS, EMAIL or IP_ADDRESS', type ?? matcher.sanType);
    }
    if (matcher.matcher === undefined) return refuse(inside(at, 'matcher'), 'is required');
    return { type, match: decodeStringMatch(matcher.matcher, inside(at, 'matcher')) };
  });
  const untyped = wire.matchSubjectAltNames.map((matcher, i): SanMatch => {
    return { type: 'ANY', match: decodeStringMatch(matcher, inside(inside(place, 'match_subject_alt_names'), i)) };
  });
  return [...typed, ...untyped];
}

export function encodeSecret(secret: Secret): Uint8Array {
  return toBinary(SecretSchema, newSecret(secret));
}

export function newSecret(secret: Secret): WireSecret {
  const { content } = secret;
  return create(SecretSchema, {
    name: secret.name,
    type:
      content.kind === 'certificate'
        ? { case: 'tlsCertificate', value: encodeCertificate(content) }
        : { case: 'validationContext', value: encodeValidation(content) },
  });
}

type Certificate = Extract<Secret['content'], { kind: 'certificate' }>;
type Validation = Extract<Secret['content'], { kind: 'validation' }>;

export function encodeCertificate(content: Certificate): MessageInitShape<typeof TlsCertificateSchema> {
  const chain = encodeText(content.chainPem, content.chainFrom);
  const key = encodeText(content.keyPem, content.keyFrom);
  return { ...(chain === undefined ? {} : { certificateChain: chain }), ...(key === undefined ? {} : { privateKey: key }) };
}

export function encodeValidation(content: Validation): MessageInitShape<typeof CertificateValidationContextSchema> {
  const roots = encodeText(content.rootsPem, content.rootsFrom);
  return {
    ...(roots === undefined ? {} : { trustedCa: roots }),
    ...encodeSans(content.matchSubjectAltNames),
    trustChainVerification: content.trustUnverified ? Trust.ACCEPT_UNTRUSTED : Trust.VERIFY_TRUST_CHAIN,
  };
}

export function encodeSans(sans: readonly SanMatch[]) {
  return {
    matchTypedSubjectAltNames: sans.flatMap(({ type, match }) =>
      type === 'ANY' ? [] : [{ sanType: SanType[type], matcher: encodeStringMatch(match) }],
    ),
    matchSubjectAltNames: sans.flatMap(({ type, match }) => (type === 'ANY' ? [encodeStringMatch(match)] : [])),
  };
}

/** The secret with everything read that it only names; `read` throws when a file or variable is not there. */
export function resolveSecret(secret: Secret, read: (from: DataRef) => string): Secret {
  const { content } = secret;
  if (content.kind === 'certificate') {
    const { chainFrom, keyFrom } = content;
    const chainPem = chainFrom === undefined ? content.chainPem : read(chainFrom);
    const keyPem = keyFrom === undefined ? content.keyPem : read(keyFrom);
    return { name: secretName(secret, chainFrom), content: { kind: 'certificate', chainPem, keyPem } };
  }
  const { rootsFrom, ...rest } = content;
  return rootsFrom === undefined ? secret : { name: secretName(secret, rootsFrom), content: { ...rest, rootsPem: read(rootsFrom) } };
}

/** A secret that stands inside another resource has no name: it is known by its file. */
function secretName({ name }: Secret, from: DataRef | undefined): string {
  return name === '' && from?.kind === 'file' ? from.path : name;
}
