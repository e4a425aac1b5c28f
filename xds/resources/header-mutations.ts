/** What routes, virtual hosts and weighted clusters add to and remove from the headers of requests and responses. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type HeaderValueOption as WireOption,
  HeaderValueOption_HeaderAppendAction as Append,
  type HeaderValueOptionSchema,
} from '../gen/envoy/config/core/v3/base_pb.js';
import { type HeaderMutations, type HeaderValueOption, NO_HEADER_MUTATIONS } from '../snapshot.ts';
import { inside, type Place, refuse } from './decoding.ts';
import { nameOf } from './duration.ts';

/** The four fields by which every message carries mutations. */
interface WireMutations {
  readonly requestHeadersToAdd: readonly WireOption[];
  readonly requestHeadersToRemove: readonly string[];
  readonly responseHeadersToAdd: readonly WireOption[];
  readonly responseHeadersToRemove: readonly string[];
}

export function decodeMutations(wire: WireMutations, place: Place): HeaderMutations {
  const mutations: HeaderMutations = {
    requestAdd: wire.requestHeadersToAdd.map((option, i) => decodeOption(option, inside(inside(place, 'request_headers_to_add'), i))),
    requestRemove: decodeRemovals(wire.requestHeadersToRemove, inside(place, 'request_headers_to_remove')),
    responseAdd: wire.responseHeadersToAdd.map((option, i) => decodeOption(option, inside(inside(place, 'response_headers_to_add'), i))),
    responseRemove: decodeRemovals(wire.responseHeadersToRemove, inside(place, 'response_headers_to_remove')),
  };
  const nothing = Object.values(mutations).every((list: readonly unknown[]) => list.length === 0);
  // One shared object: most routes change nothing, and the compiler sees that at a glance.
  return nothing ? NO_HEADER_MUTATIONS : mutations;
}

/** Envoy refuses the removal of what a request cannot be without. */
function decodeRemovals(names: readonly string[], place: Place): readonly string[] {
  return names.map((name, i) => {
    const lower = name.toLowerCase();
    if (isFixed(name)) refuse(inside(place, i), ':-prefixed or host headers may not be removed', name);
    return lower;
  });
}

export function decodeOption(wire: WireOption, place: Place): HeaderValueOption {
  const { header } = wire;
  if (header === undefined) return refuse(inside(place, 'header'), 'is required');
  if (isFixed(header.key)) refuse(inside(place, 'header.key'), ':-prefixed or host headers may not be modified', header.key);
  if (wire.append !== undefined && wire.appendAction !== Append.APPEND_IF_EXISTS_OR_ADD) {
    refuse(place, 'takes append or append_action, not both');
  }
  const action = nameOf(Append, wire.appendAction) ?? 'APPEND_IF_EXISTS_OR_ADD';
  const value = header.rawValue.length > 0 ? Buffer.from(header.rawValue).toString('latin1') : header.value;
  return {
    name: header.key.toLowerCase(),
    value,
    append: wire.append === false ? 'OVERWRITE_IF_EXISTS_OR_ADD' : action,
    keepEmptyValue: wire.keepEmptyValue,
  };
}

/** What a message cannot be without, and what a rewrite has fields of its own for. */
function isFixed(name: string): boolean {
  return name.startsWith(':') || name.toLowerCase() === 'host';
}

type OptionInit = MessageInitShape<typeof HeaderValueOptionSchema>;

export function encodeMutations(mutations: HeaderMutations): {
  requestHeadersToAdd: OptionInit[];
  requestHeadersToRemove: string[];
  responseHeadersToAdd: OptionInit[];
  responseHeadersToRemove: string[];
} {
  return {
    requestHeadersToAdd: mutations.requestAdd.map(encodeOption),
    requestHeadersToRemove: [...mutations.requestRemove],
    responseHeadersToAdd: mutations.responseAdd.map(encodeOption),
    responseHeadersToRemove: [...mutations.responseRemove],
  };
}

export function encodeOption(option: HeaderValueOption): OptionInit {
  return {
    header: { key: option.name, value: option.value },
    appendAction: Append[option.append],
    keepEmptyValue: option.keepEmptyValue,
  };
}
