/** Client status (CSDS) between the wire and our own plain types. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { AnySchema, TimestampSchema } from '@bufbuild/protobuf/wkt';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { ClientResourceStatus } from '../gen/envoy/admin/v3/config_dump_shared_pb.js';
import {
  ClientStatusDiscoveryService,
  ClientStatusRequestSchema,
  ClientStatusResponseSchema,
  ConfigStatus,
} from '../gen/envoy/service/status/v3/csds_pb.js';
import type { StringMatcher } from '../gen/envoy/type/matcher/v3/string_pb.js';
import { CODES, StreamError } from '../session/messages.ts';
import type { NodeInfo } from '../session/messages.ts';
import { boundElements } from './bounded.ts';
import { nodeInfo, nodeMessage } from './node.ts';

/** Where one resource stands: `config` as the server sees it, `client` as the client does; either may be unknown. */
export interface ResourceState {
  readonly typeUrl: string;
  readonly name: string;
  readonly version: string;
  readonly bytes?: Uint8Array;
  readonly config: 'UNKNOWN' | 'SYNCED' | 'NOT_SENT' | 'STALE' | 'ERROR';
  readonly client: 'UNKNOWN' | 'REQUESTED' | 'DOES_NOT_EXIST' | 'ACKED' | 'NACKED';
  /** Milliseconds since the Unix epoch. */
  readonly lastUpdatedWallMs?: number;
  readonly error?: { readonly message: string; readonly version: string };
}

export interface ClientState {
  readonly node: NodeInfo;
  readonly resources: readonly ResourceState[];
}

export interface StatusRequest {
  /** Whether a node is asked for. */
  readonly matches: (node: NodeInfo) => boolean;
  readonly withContents: boolean;
}

const FETCH = ClientStatusDiscoveryService.method.fetchClientStatus;
const STREAM = ClientStatusDiscoveryService.method.streamClientStatus;
const CODEC = {
  requestSerialize: encodeStatusRequest,
  requestDeserialize: decodeStatusRequest,
  responseSerialize: encodeStatusResponse,
  responseDeserialize: decodeStatusResponse,
} as const;

export const FETCH_STATUS_METHOD = { path: `/${FETCH.parent.typeName}/${FETCH.name}`, ...CODEC } as const;
export const STREAM_STATUS_METHOD = { path: `/${STREAM.parent.typeName}/${STREAM.name}`, ...CODEC } as const;

/** Asks for everything; what a node must match is said by servers only. */
function encodeStatusRequest(request: { readonly withContents: boolean }): Buffer {
  return Buffer.from(
    toBinary(ClientStatusRequestSchema, create(ClientStatusRequestSchema, { excludeResourceContents: !request.withContents })),
  );
}

const REQUEST_ELEMENTS_MAX = 10_000;

function decodeStatusRequest(bytes: Uint8Array): StatusRequest | StreamError {
  boundElements(ClientStatusRequestSchema, bytes, REQUEST_ELEMENTS_MAX);
  const message = fromBinary(ClientStatusRequestSchema, bytes);
  const tests: ((node: NodeInfo) => boolean)[] = [];
  for (const matcher of message.nodeMatchers) {
    if (matcher.nodeMetadatas.length > 0) return unsupported('by metadata');
    const test = matcher.nodeId === undefined ? () => true : textTest(matcher.nodeId);
    if (test === undefined) return unsupported('by a regular expression or an extension');
    tests.push((node) => test(node.id));
  }
  return { matches: (node) => tests.length === 0 || tests.some((test) => test(node)), withContents: !message.excludeResourceContents };
}

function unsupported(what: string): StreamError {
  return new StreamError(CODES.unimplemented, `nodes cannot be matched ${what} here; match node_id by exact, prefix, suffix or contains`);
}

function textTest(matcher: StringMatcher): ((text: string) => boolean) | undefined {
  const { matchPattern: pattern, ignoreCase } = matcher;
  const fold = (text: string): string => (ignoreCase ? text.toLowerCase() : text);
  switch (pattern.case) {
    case 'exact':
      return (text) => fold(text) === fold(pattern.value);
    case 'prefix':
      return (text) => fold(text).startsWith(fold(pattern.value));
    case 'suffix':
      return (text) => fold(text).endsWith(fold(pattern.value));
    case 'contains':
      return (text) => fold(text).includes(fold(pattern.value));
    default:
      return undefined;
  }
}

function encodeStatusResponse(clients: readonly ClientState[]): Buffer {
  const message = create(ClientStatusResponseSchema, {
    config: clients.map(({ node, resources }) => ({
      node: nodeMessage(node),
      genericXdsConfigs: resources.map((resource) => ({
        typeUrl: resource.typeUrl,
        name: resource.name,
        versionInfo: resource.version,
        configStatus: ConfigStatus[resource.config],
        clientStatus: ClientResourceStatus[resource.client],
        ...(resource.bytes === undefined ? {} : { xdsConfig: create(AnySchema, { typeUrl: resource.typeUrl, value: resource.bytes }) }),
        ...(resource.lastUpdatedWallMs === undefined ? {} : { lastUpdated: timestamp(resource.lastUpdatedWallMs) }),
        ...(resource.error === undefined ? {} : { errorState: { details: resource.error.message, versionInfo: resource.error.version } }),
      })),
    })),
  });
  return Buffer.from(toBinary(ClientStatusResponseSchema, message));
}

function decodeStatusResponse(bytes: Uint8Array): ClientState[] {
  return fromBinary(ClientStatusResponseSchema, bytes).config.map((config) => ({
    node: nodeInfo(config.node!),
    resources: config.genericXdsConfigs.map((resource) => ({
      typeUrl: resource.typeUrl,
      name: resource.name,
      version: resource.versionInfo,
      config: nameIn(ConfigStatus, resource.configStatus),
      client: nameIn(ClientResourceStatus, resource.clientStatus) as ResourceState['client'],
      ...(resource.xdsConfig === undefined ? {} : { bytes: resource.xdsConfig.value }),
      ...(resource.lastUpdated === undefined
        ? {}
        : { lastUpdatedWallMs: Number(resource.lastUpdated.seconds) * 1000 + resource.lastUpdated.nanos / 1e6 }),
      ...(resource.errorState === undefined
        ? {}
        : { error: { message: resource.errorState.details, version: resource.errorState.versionInfo } }),
    })),
  }));
}

function nameIn<Name extends string>(values: Readonly<Record<Name, number>>, value: number): Name | 'UNKNOWN' {
  for (const name in values) if (values[name] === value) return name;
  return 'UNKNOWN';
}

function timestamp(wallMs: number): Timestamp {
  const seconds = Math.floor(wallMs / 1000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: Math.round((wallMs - seconds * 1000) * 1e6) });
}
