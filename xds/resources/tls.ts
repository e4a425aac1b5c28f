/** Transport sockets: the TLS settings of a filter chain or a cluster, and where their secrets come from. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type TransportSocket, type TransportSocketSchema } from '../gen/envoy/config/core/v3/base_pb.js';
import {
  TlsParameters_TlsProtocol as Version,
  type CertificateValidationContext,
  type TlsParameters,
} from '../gen/envoy/extensions/transport_sockets/tls/v3/common_pb.js';
import type { SdsSecretConfig, SdsSecretConfigSchema } from '../gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.js';
import {
  type CommonTlsContext,
  type CommonTlsContextSchema,
  DownstreamTlsContextSchema,
  UpstreamTlsContextSchema,
} from '../gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.js';
import type { CommonTls, DownstreamTls, SanMatch, SecretRef, UpstreamTls } from '../snapshot.ts';
import { inside, type Place, refuse, warn } from './decoding.ts';
import { openAs, pack, typeOf } from './extension.ts';
import { currentName } from './names.ts';
import { adsSource, decodeSource } from './parts.ts';
import { decodeCertificate, decodeSans, decodeValidation, encodeCertificate, encodeSans, encodeValidation } from './secret.ts';

const TLS_NAME = 'envoy.transport_sockets.tls';
const RAW_BUFFER_TYPE = 'envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer';
const CERTIFICATES_MAX = 8;

/** The TLS of a filter chain; undefined is plaintext. Any other kind of socket is refused: it would change who can read or connect. */
export function decodeDownstreamTls(socket: TransportSocket | undefined, place: Place): DownstreamTls | undefined {
  if (isPlaintext(socket, place)) return undefined;
  const at = inside(place, 'typed_config');
  const wire = openAs(DownstreamTlsContextSchema, configOf(socket), at) ?? refuseSocket(socket!, place);
  if (wire.requireSni === true) refuse(inside(at, 'require_sni'), 'is not supported');
  const common = decodeCommon(wire.commonTlsContext, inside(at, 'common_tls_context'));
  if (common.certificates.length === 0) refuse(inside(at, 'common_tls_context'), 'a server needs a certificate');
  return { ...common, requireClientCertificate: wire.requireClientCertificate ?? false };
}

/** The TLS that a cluster's connections are made with; undefined is plaintext. */
export function decodeUpstreamTls(socket: TransportSocket | undefined, place: Place): UpstreamTls | undefined {
  if (isPlaintext(socket, place)) return undefined;
  const at = inside(place, 'typed_config');
  const wire = openAs(UpstreamTlsContextSchema, configOf(socket), at) ?? refuseSocket(socket!, place);
  if (youngFlag(wire, AUTO_SNI_SAN_VALIDATION)) refuse(inside(at, 'auto_sni_san_validation'), 'is not supported');
  if (wire.allowRenegotiation) refuse(inside(at, 'allow_renegotiation'), 'is not supported');
  return {
    ...decodeCommon(wire.commonTlsContext, inside(at, 'common_tls_context')),
    sni: wire.sni,
    autoHostSni: youngFlag(wire, AUTO_HOST_SNI),
  };
}

// Fields of UpstreamTlsContext that are younger than the protos we generate from; both are bools.
const AUTO_HOST_SNI = 6;
const AUTO_SNI_SAN_VALIDATION = 7;

function youngFlag(wire: { $unknown?: { no: number; data: Uint8Array }[] | undefined }, no: number): boolean {
  return wire.$unknown?.some((field) => field.no === no && field.data[0] === 1) ?? false;
}

function configOf(socket: TransportSocket | undefined) {
  return socket?.configType.case === 'typedConfig' ? socket.configType.value : undefined;
}

function isPlaintext(socket: TransportSocket | undefined, place: Place): boolean {
  return socket === undefined || typeOf(socket.name, configOf(socket), place) === RAW_BUFFER_TYPE;
}

function refuseSocket(socket: TransportSocket, place: Place): never {
  const type = typeOf(socket.name, configOf(socket), place);
  if (currentName(socket.name) === TLS_NAME && configOf(socket) === undefined) return refuse(inside(place, 'typed_config'), 'is required');
  return refuse(inside(place, 'typed_config'), 'transport socket is not supported here', type === '' ? socket.name : type);
}

function decodeCommon(wire: CommonTlsContext | undefined, place: Place): CommonTls {
  if (wire?.customHandshaker !== undefined) refuse(inside(place, 'custom_handshaker'), 'is not supported');
  if (wire?.tlsCertificateCertificateProvider !== undefined)
    refuse(inside(place, 'tls_certificate_certificate_provider'), 'is not supported');
  const certificates = wire === undefined ? [] : decodeCertificates(wire, place);
  if (certificates.length > CERTIFICATES_MAX)
    refuse(inside(place, 'tls_certificates'), `takes at most ${CERTIFICATES_MAX}`, certificates.length);
  return {
    certificates,
    ...(wire === undefined ? { matchSubjectAltNames: [] } : decodeValidationRef(wire, place)),
    alpn: wire?.alpnProtocols ?? [],
    ...decodeVersions(wire?.tlsParams, inside(place, 'tls_params')),
  };
}

function decodeCertificates(wire: CommonTlsContext, place: Place): readonly SecretRef[] {
  const provider = wire.tlsCertificateProviderInstance ?? wire.tlsCertificateCertificateProviderInstance;
  if (provider !== undefined)
    return [{ kind: 'sds', name: provider.certificateName, source: { kind: 'provider', instance: provider.instanceName } }];
  return [
    ...wire.tlsCertificates.map((item, i): SecretRef => {
      return { kind: 'inline', secret: { name: '', content: decodeCertificate(item, inside(inside(place, 'tls_certificates'), i)) } };
    }),
    ...wire.tlsCertificateSdsSecretConfigs.map((item, i) =>
      decodeSds(item, inside(inside(place, 'tls_certificate_sds_secret_configs'), i)),
    ),
  ];
}

/** A secret by name. Without a config source it is one of the static secrets of the bootstrap. */
function decodeSds(wire: SdsSecretConfig, place: Place): SecretRef {
  const source = decodeSource(wire.sdsConfig, inside(place, 'sds_config'));
  return { kind: 'sds', name: wire.name, ...(source === undefined || source.kind === 'ads' ? {} : { source }) };
}

function decodeValidationRef(wire: CommonTlsContext, place: Place): Pick<CommonTls, 'validation' | 'matchSubjectAltNames'> {
  const type = wire.validationContextType;
  switch (type.case) {
    case undefined:
      return { matchSubjectAltNames: [] };
    case 'validationContext':
      return decodeInlineValidation(type.value, inside(place, 'validation_context'));
    case 'validationContextSdsSecretConfig':
      return { validation: decodeSds(type.value, inside(place, 'validation_context_sds_secret_config')), matchSubjectAltNames: [] };
    case 'combinedValidationContext': {
      const at = inside(place, 'combined_validation_context');
      const { defaultValidationContext, validationContextSdsSecretConfig } = type.value;
      const defaults = inside(at, 'default_validation_context');
      if (defaultValidationContext === undefined) return refuse(defaults, 'is required');
      if (validationContextSdsSecretConfig === undefined) return refuse(inside(at, 'validation_context_sds_secret_config'), 'is required');
      // Checked as a whole too: a condition that we do not know must not be lost by being in the default part.
      if (!decodesFully(defaultValidationContext, defaults)) return refuse(defaults, 'is not supported');
      if (defaultValidationContext.trustedCa !== undefined)
        warn(inside(defaults, 'trusted_ca'), 'is ignored: the roots come from the named secret');
      return {
        validation: decodeSds(validationContextSdsSecretConfig, inside(at, 'validation_context_sds_secret_config')),
        matchSubjectAltNames: decodeSans(defaultValidationContext, defaults),
      };
    }
    default:
      return refuse(inside(place, type.case), 'is not supported');
  }
}

function decodesFully(wire: CertificateValidationContext, place: Place): boolean {
  const content = decodeValidation(wire, place);
  return content.kind === 'validation' && !content.trustUnverified;
}

function decodeInlineValidation(wire: CertificateValidationContext, place: Place): Pick<CommonTls, 'validation' | 'matchSubjectAltNames'> {
  const provider = wire.caCertificateProviderInstance;
  if (provider === undefined)
    return { validation: { kind: 'inline', secret: { name: '', content: decodeValidation(wire, place) } }, matchSubjectAltNames: [] };
  decodeValidation(wire, place);
  return {
    validation: { kind: 'sds', name: provider.certificateName, source: { kind: 'provider', instance: provider.instanceName } },
    matchSubjectAltNames: decodeSans(wire, place),
  };
}

/** Versions before 1.2 are not offered, whatever the resource allows. Where none is named, 1.3 is allowed to clients too; Envoy stops at 1.2 there. */
function decodeVersions(wire: TlsParameters | undefined, place: Place): Pick<CommonTls, 'minVersion' | 'maxVersion'> {
  const min = wire?.tlsMinimumProtocolVersion ?? Version.TLS_AUTO;
  const max = wire?.tlsMaximumProtocolVersion ?? Version.TLS_AUTO;
  if (min === Version.TLSv1_0 || min === Version.TLSv1_1)
    warn(inside(place, 'tls_minimum_protocol_version'), 'TLSv1_2 is used: older versions are not offered');
  if (max === Version.TLSv1_0 || max === Version.TLSv1_1) refuse(inside(place, 'tls_maximum_protocol_version'), 'must be at least TLSv1_2');
  if (wire !== undefined && (wire.cipherSuites.length > 0 || wire.ecdhCurves.length > 0 || wire.signatureAlgorithms.length > 0)) {
    warn(place, 'cipher_suites, ecdh_curves and signature_algorithms are ignored: the safe defaults are used');
  }
  const minVersion = min === Version.TLSv1_3 ? 'TLSv1_3' : 'TLSv1_2';
  const maxVersion = max === Version.TLSv1_2 ? 'TLSv1_2' : 'TLSv1_3';
  if (minVersion > maxVersion) refuse(place, 'tls_minimum_protocol_version must not be above tls_maximum_protocol_version');
  return { minVersion, maxVersion };
}

export function encodeDownstreamTls(tls: DownstreamTls): MessageInitShape<typeof TransportSocketSchema> {
  const message = create(DownstreamTlsContextSchema, {
    commonTlsContext: encodeCommon(tls),
    requireClientCertificate: tls.requireClientCertificate,
  });
  return { name: TLS_NAME, configType: { case: 'typedConfig', value: pack(DownstreamTlsContextSchema, message) } };
}

export function encodeUpstreamTls(tls: UpstreamTls | undefined): MessageInitShape<typeof TransportSocketSchema> {
  if (tls === undefined) {
    return {
      name: 'envoy.transport_sockets.raw_buffer',
      configType: { case: 'typedConfig', value: { typeUrl: `type.googleapis.com/${RAW_BUFFER_TYPE}` } },
    };
  }
  const message = create(UpstreamTlsContextSchema, { commonTlsContext: encodeCommon(tls), sni: tls.sni });
  if (tls.autoHostSni) message.$unknown = [{ no: AUTO_HOST_SNI, wireType: 0, data: new Uint8Array([1]) }];
  return { name: TLS_NAME, configType: { case: 'typedConfig', value: pack(UpstreamTlsContextSchema, message) } };
}

function encodeCommon(tls: CommonTls): MessageInitShape<typeof CommonTlsContextSchema> {
  const refs = tls.validation === undefined ? tls.certificates : [...tls.certificates, tls.validation];
  const provider = tls.certificates.find((ref) => ref.kind === 'sds' && ref.source?.kind === 'provider');
  const validation = encodeValidationRef(tls.validation, tls.matchSubjectAltNames);
  // Proxyless gRPC, the one user of providers, refuses tls_params.
  const forGrpc = refs.some((ref) => ref.kind === 'sds' && ref.source?.kind === 'provider');
  const versions = { tlsMinimumProtocolVersion: Version[tls.minVersion], tlsMaximumProtocolVersion: Version[tls.maxVersion] };
  return {
    ...(forGrpc ? {} : { tlsParams: versions }),
    ...(provider?.kind === 'sds' && provider.source?.kind === 'provider'
      ? { tlsCertificateProviderInstance: { instanceName: provider.source.instance, certificateName: provider.name } }
      : {
          tlsCertificates: tls.certificates.flatMap((ref) =>
            ref.kind === 'inline' && ref.secret.content.kind === 'certificate' ? [encodeCertificate(ref.secret.content)] : [],
          ),
          tlsCertificateSdsSecretConfigs: tls.certificates.flatMap((ref) => (ref.kind === 'sds' ? [encodeSds(ref)] : [])),
        }),
    ...(validation === undefined ? {} : { validationContextType: validation }),
    alpnProtocols: [...tls.alpn],
  };
}

type ValidationInit = NonNullable<MessageInitShape<typeof CommonTlsContextSchema>['validationContextType']>;

function encodeValidationRef(ref: SecretRef | undefined, sans: readonly SanMatch[]): ValidationInit | undefined {
  if (ref === undefined) {
    if (sans.length > 0) throw new TypeError('names of peers can only be checked together with a validation secret');
    return undefined;
  }
  if (ref.kind === 'inline') {
    if (ref.secret.content.kind !== 'validation') throw new TypeError('a validation secret must hold roots, not a certificate');
    const { content } = ref.secret;
    return {
      case: 'validationContext',
      value: encodeValidation({ ...content, matchSubjectAltNames: [...content.matchSubjectAltNames, ...sans] }),
    };
  }
  if (ref.source?.kind === 'provider') {
    const instance = { instanceName: ref.source.instance, certificateName: ref.name };
    return { case: 'validationContext', value: { caCertificateProviderInstance: instance, ...encodeSans(sans) } };
  }
  if (sans.length === 0) return { case: 'validationContextSdsSecretConfig', value: encodeSds(ref) };
  return {
    case: 'combinedValidationContext',
    value: { defaultValidationContext: encodeSans(sans), validationContextSdsSecretConfig: encodeSds(ref) },
  };
}

/** Over ADS unless the reference names another source. */
function encodeSds(ref: Extract<SecretRef, { kind: 'sds' }>): MessageInitShape<typeof SdsSecretConfigSchema> {
  const { source } = ref;
  if (source === undefined || source.kind === 'provider') return { name: ref.name, sdsConfig: adsSource() };
  if (source.kind === 'path')
    return { name: ref.name, sdsConfig: { configSourceSpecifier: { case: 'pathConfigSource', value: { path: source.path } } } };
  return { name: ref.name, sdsConfig: grpcSource(source.cluster) };
}

function grpcSource(cluster: string): NonNullable<MessageInitShape<typeof SdsSecretConfigSchema>['sdsConfig']> {
  return {
    resourceApiVersion: 2,
    configSourceSpecifier: {
      case: 'apiConfigSource',
      value: {
        apiType: 2,
        transportApiVersion: 2,
        grpcServices: [{ targetSpecifier: { case: 'envoyGrpc', value: { clusterName: cluster } } }],
      },
    },
  };
}
