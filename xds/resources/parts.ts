/** Small parts that many resources share: addresses, metadata, data sources, string matches, runtime defaults. */
import { isIP } from 'node:net';
import { create, type JsonObject as Struct, type MessageInitShape } from '@bufbuild/protobuf';
import { re2 } from '../../lib/on-demand.ts';
import {
  type Address as WireAddress,
  AddressSchema,
  type CidrRange,
  SocketAddress_Protocol,
} from '../gen/envoy/config/core/v3/address_pb.js';
import { type ConfigSource, ConfigSourceSchema, ApiVersion } from '../gen/envoy/config/core/v3/config_source_pb.js';
import { type DataSource, DataSourceSchema, type Metadata, MetadataSchema } from '../gen/envoy/config/core/v3/base_pb.js';
import type { RegexMatcher } from '../gen/envoy/type/matcher/v3/regex_pb.js';
import { type StringMatcher, StringMatcherSchema } from '../gen/envoy/type/matcher/v3/string_pb.js';
import type { Address, Cidr, DataRef, JsonObject, StringMatch } from '../snapshot.ts';
import { inside, type Place, refuse } from './decoding.ts';
import { sorted } from './loose.ts';

export function decodeAddress(wire: WireAddress | undefined, place: Place): Address {
  const address = wire?.address;
  switch (address?.case) {
    case 'socketAddress': {
      const at = inside(place, 'socket_address');
      if (address.value.protocol !== SocketAddress_Protocol.TCP) refuse(inside(at, 'protocol'), 'only TCP is supported', 'UDP');
      if (address.value.portSpecifier.case !== 'portValue') refuse(at, 'needs a port_value; named ports are not supported');
      return { host: address.value.address, port: address.value.portSpecifier.value };
    }
    case 'pipe':
      return { host: address.value.path, port: 0, pipe: true };
    case 'envoyInternalAddress':
      return refuse(place, 'internal addresses are not supported');
    default:
      return refuse(place, 'needs an address');
  }
}

export function encodeAddress(address: Address): MessageInitShape<typeof AddressSchema> {
  if (address.pipe === true) return { address: { case: 'pipe', value: { path: address.host } } };
  return {
    address: { case: 'socketAddress', value: { address: address.host, portSpecifier: { case: 'portValue', value: address.port } } },
  };
}

export function decodeCidr(wire: CidrRange, place: Place): Cidr {
  const family = isIP(wire.addressPrefix);
  if (family === 0) refuse(inside(place, 'address_prefix'), 'must be an IP address', wire.addressPrefix);
  const prefixLength = wire.prefixLen ?? 0;
  const bitsMax = family === 4 ? 32 : 128;
  if (prefixLength > bitsMax) refuse(inside(place, 'prefix_len'), `must be at most ${bitsMax}`, prefixLength);
  return { address: wire.addressPrefix, prefixLength };
}

export function encodeCidr(cidr: Cidr): { addressPrefix: string; prefixLen: number } {
  return { addressPrefix: cidr.address, prefixLen: cidr.prefixLength };
}

/** Filter metadata, by filter name; typed metadata has no reader here. */
export function decodeMetadata(wire: Metadata | undefined): JsonObject | undefined {
  if (wire === undefined || Object.keys(wire.filterMetadata).length === 0) return undefined;
  return wire.filterMetadata as JsonObject;
}

export function encodeMetadata(metadata: JsonObject | undefined): MessageInitShape<typeof MetadataSchema> | undefined {
  if (metadata === undefined || Object.keys(metadata).length === 0) return undefined;
  return { filterMetadata: sorted(metadata) as { [key: string]: Struct } };
}

/** The labels under `envoy.lb`, by which subsets are chosen. */
export function decodeLbMetadata(wire: Metadata | undefined): JsonObject | undefined {
  return decodeMetadata(wire)?.['envoy.lb'] as JsonObject | undefined;
}

export function encodeLbMetadata(labels: JsonObject | undefined): MessageInitShape<typeof MetadataSchema> | undefined {
  return labels === undefined ? undefined : encodeMetadata({ 'envoy.lb': labels });
}

/** Bytes, or the name of where they are; undefined when nothing is given. */
export function decodeData(wire: DataSource | undefined, place: Place): { bytes: Uint8Array } | { from: DataRef } | undefined {
  const data = wire?.specifier;
  switch (data?.case) {
    case 'inlineBytes':
      return { bytes: data.value };
    case 'inlineString':
      return { bytes: Buffer.from(data.value) };
    case 'filename':
      return { from: { kind: 'file', path: data.value } };
    case 'environmentVariable':
      return { from: { kind: 'environment', name: data.value } };
    default:
      return wire === undefined ? undefined : refuse(place, 'needs filename, inline_bytes, inline_string or environment_variable');
  }
}

/** The same as text and reference, ready to be spread into a secret. */
export function decodeText(wire: DataSource | undefined, place: Place): { text: string; from?: DataRef } {
  const data = decodeData(wire, place);
  if (data === undefined) return { text: '' };
  return 'from' in data ? { text: '', from: data.from } : { text: Buffer.from(data.bytes).toString('utf8') };
}

export function encodeText(text: string, from: DataRef | undefined): MessageInitShape<typeof DataSourceSchema> | undefined {
  if (from !== undefined) return encodeDataRef(from);
  return text === '' ? undefined : { specifier: { case: 'inlineBytes', value: Buffer.from(text) } };
}

export function encodeDataRef(from: DataRef): MessageInitShape<typeof DataSourceSchema> {
  return from.kind === 'file'
    ? { specifier: { case: 'filename', value: from.path } }
    : { specifier: { case: 'environmentVariable', value: from.name } };
}

export function decodeStringMatch(wire: StringMatcher, place: Place): StringMatch {
  const pattern = wire.matchPattern;
  switch (pattern.case) {
    case 'exact':
    case 'prefix':
    case 'suffix':
    case 'contains':
      return { kind: pattern.case, value: pattern.value, ignoreCase: wire.ignoreCase };
    case 'safeRegex':
      if (wire.ignoreCase) refuse(inside(place, 'ignore_case'), 'has no effect on safe_regex and must not be set with it');
      return { kind: 'regex', value: decodeRegex(pattern.value, inside(place, 'safe_regex')) };
    case 'custom':
      return refuse(inside(place, 'custom'), 'custom string matchers are not supported', pattern.value.name);
    default:
      return refuse(place, 'needs exact, prefix, suffix, contains or safe_regex');
  }
}

export function encodeStringMatch(match: StringMatch): MessageInitShape<typeof StringMatcherSchema> {
  if (match.kind === 'regex') return { matchPattern: { case: 'safeRegex', value: { regex: match.value } } };
  return { matchPattern: { case: match.kind, value: match.value }, ignoreCase: match.ignoreCase };
}

/** The pattern, known to be RE2's: linear time, so a pushed pattern cannot stop the proxy. */
export function decodeRegex(wire: RegexMatcher | undefined, place: Place): string {
  const pattern = wire?.regex ?? '';
  try {
    re2().RE2JS.compile(pattern);
  } catch (error) {
    refuse(
      inside(place, 'regex'),
      `must be a regular expression of RE2 (${error instanceof Error ? error.message : String(error)})`,
      pattern,
    );
  }
  return pattern;
}

/** The ADS config source, as our control plane writes it. */
export function adsSource(): MessageInitShape<typeof ConfigSourceSchema> {
  return { configSourceSpecifier: { case: 'ads', value: {} }, resourceApiVersion: ApiVersion.V3 };
}

/** Where a config source points: ADS or the stream it came on, a cluster that serves it, or a file. */
export function decodeSource(
  wire: ConfigSource | undefined,
  place: Place,
): { kind: 'ads' } | { kind: 'cluster'; cluster: string } | { kind: 'path'; path: string } | undefined {
  const source = wire?.configSourceSpecifier;
  switch (source?.case) {
    case 'ads':
    case 'self':
      return { kind: 'ads' };
    case 'path':
      return { kind: 'path', path: source.value };
    case 'pathConfigSource':
      return { kind: 'path', path: source.value.path };
    case 'apiConfigSource': {
      const target = source.value.grpcServices[0]?.targetSpecifier;
      const cluster = target?.case === 'envoyGrpc' ? target.value.clusterName : source.value.clusterNames[0];
      if (cluster === undefined) return refuse(inside(place, 'api_config_source'), 'needs grpc_services with an envoy_grpc cluster_name');
      return { kind: 'cluster', cluster };
    }
    default:
      return undefined;
  }
}

export function newAddress(address: Address): WireAddress {
  return create(AddressSchema, encodeAddress(address));
}
