/** The long lists of a delta request, decoded once for all streams that send the same: after an outage a thousand clients come with the same names and versions. */
import { fromBinary } from '@bufbuild/protobuf';
import { WireType } from '@bufbuild/protobuf/wire';
import { DeltaDiscoveryRequestSchema } from '../gen/envoy/service/discovery/v3/discovery_pb.js';
import { FieldWalk } from '../proto/field-walk.ts';
import { boundElements } from './bounded.ts';

/** Nobody may change them: other streams hold the same objects. */
export interface RequestLists {
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  readonly initialVersions: ReadonlyMap<string, string>;
  /** Fields and items in them, as `boundElements` counts. */
  readonly elements: number;
}

/** Shorter requests are decoded as they are. */
const LISTS_BYTES_MIN = 4_096;
const LISTS_BYTES_MAX = 1_048_576;
/** Lists that are remembered, the newest ones. */
const REMEMBERED_MAX = 8;

interface Remembered {
  readonly bytes: Uint8Array;
  readonly lists: RequestLists;
}

let remembered: readonly Remembered[] = [];

/**
 * Takes the lists out of a request, when they stand together and are long: the answer is them, and the request without them. Throws a
 * StreamError for more than `elementsMax` fields and items in them.
 */
export function splitLists(
  request: Uint8Array,
  elementsMax: number,
): { readonly lists: RequestLists; readonly rest: Uint8Array } | undefined {
  if (request.length < LISTS_BYTES_MIN) return undefined;
  const place = placeOfLists(request);
  if (place === undefined) return undefined;
  const { from, to, known } = place;
  if (to - from < LISTS_BYTES_MIN || to - from > LISTS_BYTES_MAX) return undefined;
  return {
    lists: known?.lists ?? listsOf(request.subarray(from, to), elementsMax),
    rest: Buffer.concat([request.subarray(0, from), request.subarray(to)]),
  };
}

/** Whether the lists of a request are remembered: decoding it takes next to no time and memory then. */
export function repeatsLists(request: Uint8Array): boolean {
  return request.length >= LISTS_BYTES_MIN && placeOfLists(request)?.known !== undefined;
}

function listsOf(bytes: Uint8Array, elementsMax: number): RequestLists {
  const elements = boundElements(DeltaDiscoveryRequestSchema, bytes, elementsMax);
  const message = fromBinary(DeltaDiscoveryRequestSchema, bytes);
  const lists: RequestLists = {
    subscribe: message.resourceNamesSubscribe,
    unsubscribe: message.resourceNamesUnsubscribe,
    initialVersions: new Map(Object.entries(message.initialResourceVersions)),
    elements,
  };
  // A copy of these bytes alone, and not the buffer of the connection that they came in.
  remembered = [{ bytes: Uint8Array.from(bytes), lists }, ...remembered.slice(0, REMEMBERED_MAX - 1)];
  return lists;
}

interface Place {
  readonly from: number;
  readonly to: number;
  /** Who has sent the same before. */
  readonly known: Remembered | undefined;
}

/** resource_names_subscribe = 3, resource_names_unsubscribe = 4, initial_resource_versions = 5. Undefined when other fields stand between them. */
function placeOfLists(request: Uint8Array): Place | undefined {
  const fields = new FieldWalk(request);
  let from = -1;
  let to = -1;
  let known: Remembered | undefined;
  while (fields.next()) {
    if (!isList(fields)) continue;
    if (from === -1) {
      from = fields.start;
      known = rememberedAt(request, from);
      to = known === undefined ? fields.to : from + known.bytes.length;
      fields.jump(to);
    } else if (fields.start === to) {
      to = fields.to;
      known = undefined;
    } else return undefined;
  }
  return from === -1 ? undefined : { from, to, known };
}

function isList({ number, wireType }: FieldWalk): boolean {
  return number >= 3 && number <= 5 && wireType === WireType.LengthDelimited;
}

/** Whole lists of another request, which stand here as well: nothing in them needs a look. */
function rememberedAt(request: Uint8Array, from: number): Remembered | undefined {
  return remembered.find(({ bytes }) => Buffer.compare(bytes, request.subarray(from, from + bytes.length)) === 0);
}
