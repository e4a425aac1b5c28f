/** Envoy's own field rules (protoc-gen-validate), read from the descriptors and checked on every message, with its unknown fields found. */
import { type DescField, type DescMessage, type DescOneof, getOption, hasOption, type Message } from '@bufbuild/protobuf';
import {
  disabled as disabledOption,
  type FieldRules,
  required as requiredOption,
  rules as rulesOption,
} from '../gen/validate/validate_pb.js';
import { joinPath, type Place, refuse, warn } from './decoding.ts';
import { type AnyCheck, broken, brokenAt, compileRules, pathOf, type Violation, type Walk } from './rule-values.ts';

/** Fields younger than the protos we generate from that a decoder reads by itself: not unknown, then. */
const YOUNG_FIELDS: Readonly<Record<string, readonly number[]>> = {
  // auto_host_sni, auto_sni_san_validation.
  'envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext': [6, 7],
};

const UNKNOWN_FIELD = 'unknown field';

/** Of the warnings of a resource those that tell of a field that is not known. */
export function isUnknownField(warning: string): boolean {
  return warning.includes(`${UNKNOWN_FIELD} `);
}

const checks = new WeakMap<DescMessage, AnyCheck>();

/** Throws DecodeError for the first broken rule; warns of each unknown field, which is otherwise ignored as Envoy does. */
export function checkRules(schema: DescMessage, message: Message, place: Place): void {
  const walk: Walk = { trail: [], unknown: [] };
  const violation = checkOf(schema)(message, walk);
  for (const path of walk.unknown) warn(place, `${UNKNOWN_FIELD} ${path} is ignored`);
  if (violation === undefined) return;
  refuse({ ...place, path: violation.path === '' ? place.path : joinPath(place.path, violation.path) }, violation.rule, violation.value);
}

/** Compiled on first use; the returned function looks itself up again where messages contain themselves. */
function checkOf(schema: DescMessage): AnyCheck {
  const known = checks.get(schema);
  if (known !== undefined) return known;
  let run: AnyCheck = () => undefined;
  checks.set(schema, (value, walk) => run(value, walk));
  run = compileMessage(schema);
  checks.set(schema, run);
  return run;
}

function compileMessage(schema: DescMessage): AnyCheck {
  const off = hasOption(schema, disabledOption) && getOption(schema, disabledOption);
  const fields = off ? [] : schema.fields.flatMap((field) => compileField(field) ?? []);
  const oneofs = off ? [] : schema.oneofs.filter((oneof) => hasOption(oneof, requiredOption) && getOption(oneof, requiredOption));
  const young = YOUNG_FIELDS[schema.typeName] ?? [];
  return (value, walk) => {
    const message = value as Message & Record<string, unknown>;
    for (const { no } of message.$unknown ?? []) if (!young.includes(no)) walk.unknown.push(pathOf([...walk.trail, `#${no}`]));
    for (const field of fields) {
      const violation = field(message, walk);
      if (violation !== undefined) return violation;
    }
    for (const oneof of oneofs) {
      if (chosen(message, oneof).case === undefined)
        return broken(walk, `one of ${oneof.fields.map((f) => f.name).join(', ')} must be set`, undefined);
    }
    return undefined;
  };
}

function chosen(message: Record<string, unknown>, oneof: DescOneof): { case?: string; value?: unknown } {
  return message[oneof.localName] as { case?: string; value?: unknown };
}

/** Undefined when there is nothing to check: a scalar without rules. */
function compileField(field: DescField): ((message: Record<string, unknown>, walk: Walk) => Violation | undefined) | undefined {
  const rules = hasOption(field, rulesOption) ? getOption(field, rulesOption) : undefined;
  const check = compileValue(field, rules);
  const required = isRequired(rules);
  if (check === undefined && !required) return undefined;
  const { localName, name, oneof } = field;
  return (message, walk) => {
    let value: unknown;
    if (oneof === undefined) value = message[localName];
    else {
      const choice = chosen(message, oneof);
      // A rule on a member of a oneof speaks only when that member is the one that is set.
      if (choice.case !== localName) return undefined;
      value = choice.value;
    }
    if (value === undefined) return required ? brokenAt(walk, name, 'is required', undefined) : undefined;
    if (check === undefined) return undefined;
    walk.trail.push(name);
    const violation = check(value, walk);
    walk.trail.pop();
    return violation;
  };
}

function isRequired(rules: FieldRules | undefined): boolean {
  if (rules === undefined) return false;
  if (rules.message !== undefined && rules.message.required) return true;
  return (rules.type.case === 'duration' || rules.type.case === 'any' || rules.type.case === 'timestamp') && rules.type.value.required;
}

function compileValue(field: DescField, rules: FieldRules | undefined): AnyCheck | undefined {
  switch (field.fieldKind) {
    case 'list': {
      const list = rules?.type.case === 'repeated' ? rules.type.value : undefined;
      const item =
        field.listKind === 'message'
          ? both(messageCheck(field.message, list?.items), compileRules(list?.items))
          : compileRules(list?.items, field);
      return compileList(list, item);
    }
    case 'map': {
      const map = rules?.type.case === 'map' ? rules.type.value : undefined;
      const item =
        field.mapKind === 'message' ? both(messageCheck(field.message, map?.values), compileRules(map?.values)) : compileRules(map?.values);
      return compileMap(map?.minPairs ?? 0n, compileRules(map?.keys), item);
    }
    case 'message':
      return both(messageCheck(field.message, rules), compileRules(rules));
    default:
      return compileRules(rules, field);
  }
}

function both(first: AnyCheck | undefined, second: AnyCheck | undefined): AnyCheck | undefined {
  if (first === undefined || second === undefined) return first ?? second;
  return (value, walk) => first(value, walk) ?? second(value, walk);
}

/** The rules inside a message; none for the well-known types, which protobuf-es represents as plain values. */
function messageCheck(schema: DescMessage, rules: FieldRules | undefined): AnyCheck | undefined {
  if (rules?.message?.skip === true || schema.typeName.startsWith('google.protobuf.')) return undefined;
  const lazy: AnyCheck = (value, walk) => checkOf(schema)(value, walk);
  return lazy;
}

function compileList(
  list: { minItems: bigint; maxItems: bigint; unique: boolean } | undefined,
  item: AnyCheck | undefined,
): AnyCheck | undefined {
  if (list === undefined && item === undefined) return undefined;
  const min = Number(list?.minItems ?? 0n);
  const max = list === undefined || list.maxItems === 0n ? Number.POSITIVE_INFINITY : Number(list.maxItems);
  return (value, walk) => {
    const items = value as readonly unknown[];
    if (items.length < min) return broken(walk, `needs at least ${min} ${min === 1 ? 'item' : 'items'}`, items.length);
    if (items.length > max) return broken(walk, `takes at most ${max} items`, items.length);
    if (list?.unique === true && new Set(items).size !== items.length) return broken(walk, 'items must be unique', items);
    if (item === undefined) return undefined;
    for (let i = 0; i < items.length; i++) {
      walk.trail.push(i);
      const violation = item(items[i], walk);
      walk.trail.pop();
      if (violation !== undefined) return violation;
    }
    return undefined;
  };
}

function compileMap(minPairs: bigint, key: AnyCheck | undefined, item: AnyCheck | undefined): AnyCheck | undefined {
  if (minPairs === 0n && key === undefined && item === undefined) return undefined;
  return (value, walk) => {
    const pairs = Object.entries(value as Record<string, unknown>);
    if (pairs.length < Number(minPairs)) return broken(walk, `needs at least ${minPairs} entries`, pairs.length);
    for (const [name, content] of pairs) {
      walk.trail.push(name);
      const violation = key?.(name, walk) ?? item?.(content, walk);
      walk.trail.pop();
      if (violation !== undefined) return violation;
    }
    return undefined;
  };
}
