/** What a route matches: path, headers, query parameters, a fraction of the traffic. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type {
  HeaderMatcher,
  HeaderMatcherSchema,
  QueryParameterMatcher,
  QueryParameterMatcherSchema,
  RouteMatch as WireMatch,
  RouteMatchSchema,
} from '../gen/envoy/config/route/v3/route_components_pb.js';
import type { HeaderMatch, QueryMatch, RouteMatch, ValueMatch } from '../snapshot.ts';
import { inside, type Place, refuse } from './decoding.ts';
import { fromFraction, toFraction } from './duration.ts';
import { decodeRegex, decodeStringMatch, encodeStringMatch } from './parts.ts';

/** A condition that we cannot check is refused: a route must not match more than it says. */
export function decodeRouteMatch(wire: WireMatch, place: Place): RouteMatch {
  if (wire.tlsContext !== undefined) refuse(inside(place, 'tls_context'), 'is not supported');
  if (wire.dynamicMetadata.length > 0) refuse(inside(place, 'dynamic_metadata'), 'is not supported');
  return {
    path: decodePath(wire, place),
    caseSensitive: wire.caseSensitive ?? true,
    headers: wire.headers.map((matcher, i) => decodeHeaderMatch(matcher, inside(inside(place, 'headers'), i))),
    queryParameters: wire.queryParameters.map((matcher, i) => decodeQueryMatch(matcher, inside(inside(place, 'query_parameters'), i))),
    runtimeFraction: fromFraction(wire.runtimeFraction?.defaultValue, 1),
    ...((wire.runtimeFraction?.runtimeKey ?? '') === '' ? {} : { runtimeKey: wire.runtimeFraction!.runtimeKey }),
    grpcOnly: wire.grpc !== undefined,
  };
}

function decodePath(wire: WireMatch, place: Place): RouteMatch['path'] {
  const path = wire.pathSpecifier;
  switch (path.case) {
    case 'prefix':
      return { kind: 'prefix', value: path.value };
    case 'path':
      return { kind: 'exact', value: path.value };
    case 'pathSeparatedPrefix':
      return { kind: 'segmentPrefix', value: path.value };
    case 'safeRegex':
      return { kind: 'regex', value: decodeRegex(path.value, inside(place, 'safe_regex')) };
    case 'connectMatcher':
      return { kind: 'connect' };
    case 'pathMatchPolicy':
      return refuse(inside(place, 'path_match_policy'), 'is not supported', path.value.name);
    default:
      return refuse(place, 'needs prefix, path, path_separated_prefix, safe_regex or connect_matcher');
  }
}

export function decodeHeaderMatch(wire: HeaderMatcher, place: Place): HeaderMatch {
  return {
    name: wire.name.toLowerCase(),
    match: decodeHeaderValue(wire, place),
    invert: wire.invertMatch,
    treatMissingAsEmpty: wire.treatMissingHeaderAsEmpty,
  };
}

function decodeHeaderValue(wire: HeaderMatcher, place: Place): ValueMatch {
  const specifier = wire.headerMatchSpecifier;
  switch (specifier.case) {
    case 'exactMatch':
      return { kind: 'exact', value: specifier.value, ignoreCase: false };
    case 'prefixMatch':
      return { kind: 'prefix', value: specifier.value, ignoreCase: false };
    case 'suffixMatch':
      return { kind: 'suffix', value: specifier.value, ignoreCase: false };
    case 'containsMatch':
      return { kind: 'contains', value: specifier.value, ignoreCase: false };
    case 'safeRegexMatch':
      return { kind: 'regex', value: decodeRegex(specifier.value, inside(place, 'safe_regex_match')) };
    case 'rangeMatch':
      return { kind: 'range', start: Number(specifier.value.start), end: Number(specifier.value.end) };
    case 'presentMatch':
      return { kind: 'present', present: specifier.value };
    case 'stringMatch':
      return decodeStringMatch(specifier.value, inside(place, 'string_match'));
    case undefined:
      return { kind: 'present', present: true };
  }
}

function decodeQueryMatch(wire: QueryParameterMatcher, place: Place): QueryMatch {
  const specifier = wire.queryParameterMatchSpecifier;
  switch (specifier.case) {
    case 'stringMatch':
      return { name: wire.name, match: decodeStringMatch(specifier.value, inside(place, 'string_match')) };
    case 'presentMatch':
      return { name: wire.name, match: { kind: 'present', present: specifier.value } };
    case undefined:
      return { name: wire.name, match: { kind: 'present', present: true } };
  }
}

export function encodeRouteMatch(match: RouteMatch): MessageInitShape<typeof RouteMatchSchema> {
  return {
    pathSpecifier: encodePath(match.path),
    ...(match.caseSensitive ? {} : { caseSensitive: false }),
    headers: match.headers.map(encodeHeaderMatch),
    queryParameters: match.queryParameters.map(encodeQueryMatch),
    ...(match.runtimeFraction === 1 && match.runtimeKey === undefined
      ? {}
      : { runtimeFraction: { defaultValue: toFraction(match.runtimeFraction), runtimeKey: match.runtimeKey ?? '' } }),
    ...(match.grpcOnly ? { grpc: {} } : {}),
  };
}

type PathInit = NonNullable<MessageInitShape<typeof RouteMatchSchema>['pathSpecifier']>;

function encodePath(path: RouteMatch['path']): PathInit {
  switch (path.kind) {
    case 'prefix':
      return { case: 'prefix', value: path.value };
    case 'exact':
      return { case: 'path', value: path.value };
    case 'segmentPrefix':
      return { case: 'pathSeparatedPrefix', value: path.value };
    case 'regex':
      return { case: 'safeRegex', value: { regex: path.value } };
    case 'connect':
      return { case: 'connectMatcher', value: {} };
  }
}

export function encodeHeaderMatch(header: HeaderMatch): MessageInitShape<typeof HeaderMatcherSchema> {
  return {
    name: header.name,
    headerMatchSpecifier: encodeHeaderValue(header.match),
    invertMatch: header.invert,
    treatMissingHeaderAsEmpty: header.treatMissingAsEmpty,
  };
}

type HeaderValueInit = NonNullable<MessageInitShape<typeof HeaderMatcherSchema>['headerMatchSpecifier']>;

function encodeHeaderValue(match: ValueMatch): HeaderValueInit {
  switch (match.kind) {
    case 'present':
      return { case: 'presentMatch', value: match.present };
    case 'range':
      return { case: 'rangeMatch', value: { start: BigInt(match.start), end: BigInt(match.end) } };
    default:
      return { case: 'stringMatch', value: encodeStringMatch(match) };
  }
}

function encodeQueryMatch(query: QueryMatch): MessageInitShape<typeof QueryParameterMatcherSchema> {
  const { name, match } = query;
  if (match.kind === 'range') throw new TypeError(`query parameter ${name}: a range can only be matched in a header`);
  return {
    name,
    queryParameterMatchSpecifier:
      match.kind === 'present' ? { case: 'presentMatch', value: match.present } : { case: 'stringMatch', value: encodeStringMatch(match) },
  };
}
