/** The long lists of a delta request, decoded once for all streams that send the same: after an outage a thousand clients come with the same names and versions. */
import { fromBinary } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { DeltaDiscoveryRequestSchema } from '../gen/envoy/service/discovery/v3/discovery_pb.js';

/** Nobody may change them: other streams hold the same objects. */
export interface RequestLists {
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  readonly initialVersions: ReadonlyMap<string, string>;
}

/** Shorter requests are decoded as they are. */
const LISTS_BYTES_MIN = 4_096;
const LISTS_BYTES_MAX = 1_048_576;
/** Lists that are remembered, the newest ones. */
const REMEMBERED_MAX = 8;

let remembered: readonly { readonly bytes: Uint8Array; readonly lists: RequestLists }[] = [];

/** Takes the lists out of a request, when they stand together and are long: the answer is them, and the request without them. */
export function splitLists(request: Uint8Array): { readonly lists: RequestLists; readonly rest: Uint8Array } | undefined {
  if (request.length < LISTS_BYTES_MIN) return undefined;
  const place = placeOfLists(request);
  if (place === undefined) return undefined;
  const [from, to] = place;
  if (to - from < LISTS_BYTES_MIN || to - from > LISTS_BYTES_MAX) return undefined;
  return { lists: listsOf(request.subarray(from, to)), rest: Buffer.concat([request.subarray(0, from), request.subarray(to)]) };
}

function listsOf(bytes: Uint8Array): RequestLists {
  const known = remembered.find((one) => Buffer.compare(one.bytes, bytes) === 0);
  if (known !== undefined) return known.lists;
  const message = fromBinary(DeltaDiscoveryRequestSchema, bytes);
  const lists: RequestLists = {
    subscribe: message.resourceNamesSubscribe,
    unsubscribe: message.resourceNamesUnsubscribe,
    initialVersions: new Map(Object.entries(message.initialResourceVersions)),
  };
  // A copy of these bytes alone, and not the buffer of the connection that they came in.
  remembered = [{ bytes: Uint8Array.from(bytes), lists }, ...remembered.slice(0, REMEMBERED_MAX - 1)];
  return lists;
}

/** resource_names_subscribe = 3, resource_names_unsubscribe = 4, initial_resource_versions = 5. Undefined when other fields stand between them. */
function placeOfLists(request: Uint8Array): readonly [from: number, to: number] | undefined {
  const reader = new BinaryReader(request);
  let from = -1;
  let to = -1;
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const [field, wireType] = reader.tag();
    reader.skip(wireType, field);
    if (field < 3 || field > 5 || wireType !== WireType.LengthDelimited) continue;
    if (from === -1) from = start;
    else if (start !== to) return undefined;
    to = reader.pos;
  }
  return from === -1 ? undefined : [from, to];
}
