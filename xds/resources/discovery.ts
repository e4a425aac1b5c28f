/** The discovery messages between the wire and our own plain types. Responses are joined from resources that were encoded once. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import type { DescMessage } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { memo } from '../../lib/memo.ts';
import type { Memo } from '../../lib/memo.ts';
import { NodeSchema } from '../gen/envoy/config/core/v3/base_pb.js';
import {
  DeltaDiscoveryRequestSchema,
  DeltaDiscoveryResponseSchema,
  DiscoveryRequestSchema,
  DiscoveryResponseSchema,
  ResourceSchema,
} from '../gen/envoy/service/discovery/v3/discovery_pb.js';
import type { Resource } from '../gen/envoy/service/discovery/v3/discovery_pb.js';
import { StatusSchema } from '../gen/google/rpc/status_pb.js';
import { CODES, StreamError } from '../session/messages.ts';
import type {
  DeltaRequest,
  DeltaResponse,
  DiscoveryResponse,
  ErrorDetail,
  SotwRequest,
  SotwResponse,
  WireResource,
} from '../session/messages.ts';
import { FieldWalk } from '../proto/field-walk.ts';
import { boundElements } from './bounded.ts';
import { fromDuration } from './duration.ts';
import { nodeInfo, nodeMessage } from './node.ts';
import { splitLists } from './request-lists.ts';
import type { RequestLists } from './request-lists.ts';

const RESOURCE_WRAPPER = 'type.googleapis.com/envoy.service.discovery.v3.Resource';

// ---- requests -------------------------------------------------------------------------------------------------------

export function encodeSotwRequest(request: SotwRequest): Buffer {
  const message = create(DiscoveryRequestSchema, {
    versionInfo: request.versionInfo,
    resourceNames: [...request.resourceNames],
    typeUrl: request.typeUrl,
    responseNonce: request.responseNonce,
    ...(request.node === undefined ? {} : { node: nodeMessage(request.node) }),
    ...(request.error === undefined ? {} : { errorDetail: create(StatusSchema, request.error) }),
  });
  return asBuffer(toBinary(DiscoveryRequestSchema, message));
}

/** Throws for bytes that are no DiscoveryRequest, and a StreamError for too much of one. Resource locators count as their names. */
export function decodeSotwRequest(bytes: Uint8Array): SotwRequest {
  boundRequest(DiscoveryRequestSchema, 2, bytes);
  const message = fromBinary(DiscoveryRequestSchema, bytes);
  return {
    mode: 'sotw',
    typeUrl: message.typeUrl,
    versionInfo: message.versionInfo,
    resourceNames: withLocators(message.resourceNames, message.resourceLocators),
    responseNonce: message.responseNonce,
    ...(message.node === undefined ? {} : { node: nodeInfo(message.node) }),
    ...(message.errorDetail === undefined ? {} : { error: errorDetail(message.errorDetail) }),
  };
}

export function encodeDeltaRequest(request: DeltaRequest): Buffer {
  const message = create(DeltaDiscoveryRequestSchema, {
    typeUrl: request.typeUrl,
    resourceNamesSubscribe: [...request.subscribe],
    resourceNamesUnsubscribe: [...request.unsubscribe],
    initialResourceVersions: Object.fromEntries(request.initialVersions),
    responseNonce: request.responseNonce,
    ...(request.node === undefined ? {} : { node: nodeMessage(request.node) }),
    ...(request.error === undefined ? {} : { errorDetail: create(StatusSchema, request.error) }),
  });
  return asBuffer(toBinary(DeltaDiscoveryRequestSchema, message));
}

/** Throws for bytes that are no DeltaDiscoveryRequest, and a StreamError for too much of one. Resource locators count as their names. Long lists are shared with other requests. */
export function decodeDeltaRequest(bytes: Uint8Array): DeltaRequest {
  return acknowledgement(bytes) ?? wholeDeltaRequest(bytes);
}

/** What nearly all requests are: type_url = 2 and response_nonce = 6, and nothing else. */
function acknowledgement(bytes: Uint8Array): DeltaRequest | undefined {
  if (bytes.length > ACKNOWLEDGEMENT_BYTES_MAX) return undefined;
  let typeUrl = '';
  let responseNonce = '';
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType !== WireType.LengthDelimited || (field !== 2 && field !== 6)) return undefined;
    if (field === 2) typeUrl = reader.string(true);
    else responseNonce = reader.string(true);
  }
  return { mode: 'delta', typeUrl, subscribe: [], unsubscribe: [], initialVersions: NO_VERSIONS, responseNonce };
}

const ACKNOWLEDGEMENT_BYTES_MAX = 256;
const NO_VERSIONS: ReadonlyMap<string, string> = new Map();

function wholeDeltaRequest(bytes: Uint8Array): DeltaRequest {
  const split = splitLists(bytes, REQUEST_ELEMENTS_MAX);
  const rest = split?.rest ?? bytes;
  boundRequest(DeltaDiscoveryRequestSchema, 1, rest, split?.lists.elements);
  const message = fromBinary(DeltaDiscoveryRequestSchema, rest);
  const lists: Omit<RequestLists, 'elements'> = split?.lists ?? {
    subscribe: message.resourceNamesSubscribe,
    unsubscribe: message.resourceNamesUnsubscribe,
    initialVersions: new Map(Object.entries(message.initialResourceVersions)),
  };
  return {
    mode: 'delta',
    typeUrl: message.typeUrl,
    subscribe: withLocators(lists.subscribe, message.resourceLocatorsSubscribe),
    unsubscribe: withLocators(lists.unsubscribe, message.resourceLocatorsUnsubscribe),
    initialVersions: lists.initialVersions,
    responseNonce: message.responseNonce,
    ...(message.node === undefined ? {} : { node: nodeInfo(message.node) }),
    ...(message.errorDetail === undefined ? {} : { error: errorDetail(message.errorDetail) }),
  };
}

/** A node is kept as long as its stream; Istio's biggest are some ten thousand bytes. */
const NODE_BYTES_MAX = 1024 * 1024;
const NODE_ELEMENTS_MAX = 20_000;
/** 100,000 names to subscribe, as many to give up, and as many with the versions that a client has. */
const REQUEST_ELEMENTS_MAX = 600_000;

/** What is not going to be kept is not decoded either: the bytes of a request are few beside what they become. `counted` elements are in its lists. */
function boundRequest(desc: DescMessage, nodeField: number, bytes: Uint8Array, counted = 0): void {
  const fields = new FieldWalk(bytes);
  while (fields.next()) {
    if (fields.number !== nodeField || fields.wireType !== WireType.LengthDelimited) continue;
    const nodeBytes = fields.to - fields.from;
    if (nodeBytes > NODE_BYTES_MAX)
      throw new StreamError(CODES.resourceExhausted, `a node may take at most ${NODE_BYTES_MAX} bytes, received ${nodeBytes}`);
    boundElements(NodeSchema, bytes.subarray(fields.from, fields.to), NODE_ELEMENTS_MAX);
  }
  boundElements(desc, bytes, REQUEST_ELEMENTS_MAX, counted);
}

// ---- responses ------------------------------------------------------------------------------------------------------

export function encodeSotwResponse(response: SotwResponse): Buffer {
  return Buffer.concat(sotwPieces(response));
}

export function encodeDeltaResponse(response: DeltaResponse): Buffer {
  return Buffer.concat(deltaPieces(response));
}

/** The same bytes in pieces, of which the long ones are shared with other streams that are sent the same: nobody may write into them. */
export function responsePieces(response: DiscoveryResponse): readonly Uint8Array[] {
  return response.mode === 'delta' ? deltaPieces(response) : sotwPieces(response);
}

/** DiscoveryResponse: version_info = 1, resources = 2, type_url = 4, nonce = 5. */
function sotwPieces(response: SotwResponse): readonly Uint8Array[] {
  const head = new BinaryWriter().tag(1, WireType.LengthDelimited).string(response.versionInfo);
  head.tag(4, WireType.LengthDelimited).string(response.typeUrl).tag(5, WireType.LengthDelimited).string(response.nonce);
  return [head.finish(), ...bodyOf(response.resources, response.wrapped ? WRAPPED_FRAME : ANY_FRAME)];
}

/** DeltaDiscoveryResponse: system_version_info = 1, resources = 2, type_url = 4, nonce = 5, removed_resources = 6. */
function deltaPieces(response: DeltaResponse): readonly Uint8Array[] {
  const head = new BinaryWriter().tag(1, WireType.LengthDelimited).string(response.versionInfo);
  head.tag(4, WireType.LengthDelimited).string(response.typeUrl).tag(5, WireType.LengthDelimited).string(response.nonce);
  for (const name of response.removed) head.tag(6, WireType.LengthDelimited).string(name);
  return [head.finish(), ...bodyOf(response.resources, RESOURCE_FRAME)];
}

/** Throws for bytes that are no DiscoveryResponse. Wrapped resources are unwrapped; other names are read out of the resource itself. */
export function decodeSotwResponse(bytes: Uint8Array): SotwResponse {
  const message = fromBinary(DiscoveryResponseSchema, bytes);
  let wrapped = false;
  const resources = message.resources.map((any) => {
    if (any.typeUrl !== RESOURCE_WRAPPER) {
      return { name: resourceName(any.value), version: message.versionInfo, typeUrl: any.typeUrl, bytes: any.value };
    }
    wrapped = true;
    return wireResource(fromBinary(ResourceSchema, any.value), message.typeUrl, message.versionInfo);
  });
  return { mode: 'sotw', typeUrl: message.typeUrl, versionInfo: message.versionInfo, nonce: message.nonce, resources, wrapped };
}

/** Throws for bytes that are no DeltaDiscoveryResponse. */
export function decodeDeltaResponse(bytes: Uint8Array): DeltaResponse {
  const message = fromBinary(DeltaDiscoveryResponseSchema, bytes);
  return {
    mode: 'delta',
    typeUrl: message.typeUrl,
    versionInfo: message.systemVersionInfo,
    nonce: message.nonce,
    resources: message.resources.map((resource) => wireResource(resource, message.typeUrl, '')),
    removed: [...message.removedResources, ...message.removedResourceNames.map((removed) => removed.name)],
  };
}

/**
 * The name inside an encoded resource. Every resource type of xDS has it as the string field 1 (Cluster.name,
 * ClusterLoadAssignment.cluster_name …), so the message need not be decoded. Empty for bytes without one; its decoder will say more.
 */
export function resourceName(bytes: Uint8Array): string {
  let name = '';
  try {
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (field === 1 && wireType === WireType.LengthDelimited) {
        name = reader.string();
        break;
      }
      reader.skip(wireType, field);
    }
  } catch {
    return '';
  }
  return name;
}

// ---- parts ----------------------------------------------------------------------------------------------------------

/** What stands before a resource's own bytes in a response: made once per resource and way of framing, used for every stream. */
interface Frame {
  readonly made: Memo<WireResource, Uint8Array>;
  /** Nested messages from the outside in: each gets its head, and the payload's bytes come last. */
  readonly heads: (resource: WireResource) => readonly Uint8Array[];
}

/** `repeated Any resources = 2`. */
const ANY_FRAME: Frame = { made: memo(), heads: (resource) => [EMPTY, typeUrlField(resource.typeUrl)] };

/** `repeated Resource resources = 2`, the Any in its field 2. */
const RESOURCE_FRAME: Frame = {
  made: memo(),
  heads: (resource) => [EMPTY, resourceFields(resource), ...(resource.bytes === undefined ? [] : [typeUrlField(resource.typeUrl)])],
};

/** `repeated Any resources = 2`, each with a Resource inside. */
const WRAPPED_FRAME: Frame = {
  made: memo(),
  heads: (resource) => {
    const inside = RESOURCE_FRAME.heads(resource).slice(1);
    return [EMPTY, typeUrlField(RESOURCE_WRAPPER), ...inside];
  },
};

const EMPTY = new Uint8Array();

/** Resources up to this size are kept framed, bytes included: copying many short pieces costs more than copying their content. */
const WHOLE_BYTES_MAX = 4096;

/** Proxies that have nothing get the same resources one after the other: big bodies are joined once for all of them, and forgotten soon. */
interface Body {
  readonly resources: readonly WireResource[];
  readonly frame: Frame;
  readonly bytes: Buffer;
}
let bodies: readonly Body[] = [];
const BODIES_MAX = 4;
const BODY_RESOURCES_MIN = 100;

function bodyOf(resources: readonly WireResource[], frame: Frame): readonly Uint8Array[] {
  if (resources.length < BODY_RESOURCES_MIN) return framed(resources, frame);
  let body = bodies.find((known) => known.frame === frame && sameResources(known.resources, resources));
  if (body === undefined) {
    body = { resources, frame, bytes: Buffer.concat(framed(resources, frame)) };
    bodies = [body, ...bodies.slice(0, BODIES_MAX - 1)];
  }
  return [body.bytes];
}

function sameResources(left: readonly WireResource[], right: readonly WireResource[]): boolean {
  return left === right || (left.length === right.length && left.every((resource, index) => resource === right[index]));
}

function framed(resources: readonly WireResource[], frame: Frame): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (const resource of resources) {
    const { bytes = EMPTY } = resource;
    const whole = bytes.length <= WHOLE_BYTES_MAX;
    let made = frame.made.get(resource);
    if (made === undefined) {
      const prefix = nested(frame.heads(resource), bytes.length);
      made = whole ? Buffer.concat([prefix, bytes]) : prefix;
      frame.made.set(resource, made);
    }
    chunks.push(made);
    if (!whole) chunks.push(bytes);
  }
  return chunks;
}

/** Every nested message is field 2 of the one around it: of the response, of Resource, and of Any alike. */
function nested(heads: readonly Uint8Array[], payloadBytes: number): Uint8Array {
  let prefix: Uint8Array = EMPTY;
  let insideBytes = payloadBytes;
  for (let level = heads.length - 1; level >= 0; level--) {
    const opened = level === heads.length - 1 && payloadBytes === 0 ? EMPTY : header(2, insideBytes);
    prefix = Buffer.concat([heads[level]!, opened, prefix]);
    insideBytes = prefix.length + payloadBytes;
  }
  return prefix;
}

/** Resource: version = 1, name = 3, aliases = 4, ttl = 6. */
function resourceFields(resource: WireResource): Uint8Array {
  const writer = new BinaryWriter().tag(1, WireType.LengthDelimited).string(resource.version);
  writer.tag(3, WireType.LengthDelimited).string(resource.name);
  for (const alias of resource.aliases ?? []) writer.tag(4, WireType.LengthDelimited).string(alias);
  if (resource.ttlMs !== undefined) writer.tag(6, WireType.LengthDelimited).fork().raw(durationBytes(resource.ttlMs)).join();
  return writer.finish();
}

function typeUrlField(typeUrl: string): Uint8Array {
  return new BinaryWriter().tag(1, WireType.LengthDelimited).string(typeUrl).finish();
}

function header(fieldNumber: number, length: number): Uint8Array {
  return new BinaryWriter().tag(fieldNumber, WireType.LengthDelimited).uint32(length).finish();
}

function durationBytes(ms: number): Uint8Array {
  const seconds = Math.floor(ms / 1000);
  const writer = new BinaryWriter().tag(1, WireType.Varint).int64(seconds);
  return writer
    .tag(2, WireType.Varint)
    .int32(Math.round((ms - seconds * 1000) * 1e6))
    .finish();
}

function wireResource(resource: Resource, typeUrl: string, version: string): WireResource {
  const payload: Any | undefined = resource.resource;
  return {
    name: resource.name || (resource.resourceName?.name ?? '') || (payload === undefined ? '' : resourceName(payload.value)),
    version: resource.version || version,
    typeUrl: payload?.typeUrl ?? typeUrl,
    ...(payload === undefined ? {} : { bytes: payload.value }),
    ...(resource.ttl === undefined ? {} : { ttlMs: fromDuration(resource.ttl) }),
    ...(resource.aliases.length === 0 ? {} : { aliases: resource.aliases }),
  };
}

function withLocators(names: readonly string[], locators: readonly { name: string }[]): readonly string[] {
  return locators.length === 0 ? names : [...names, ...locators.map((locator) => locator.name)];
}

function errorDetail(status: { code: number; message: string }): ErrorDetail {
  return { code: status.code, message: status.message };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
