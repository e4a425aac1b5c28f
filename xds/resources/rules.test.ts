/** The rules that the protos carry, one of each sort, and the path at which each is told. */
import { expect, test } from '@jest/globals';
import { type DescMessage, getOption, hasOption, isFieldSet, type Message } from '@bufbuild/protobuf';
import { FieldRulesSchema, rules } from '../gen/validate/validate_pb.js';
import type { Json } from '../snapshot.ts';
import { DecodeError, topOf } from './decoding.ts';
import { newMessage } from './loose.ts';
import { messageType, types } from './registry.ts';
import { checkRules } from './rules.ts';

/** What is wrong with a message, by the rules; undefined when nothing is. */
function problem(typeName: string, json: Json): string | undefined {
  const schema = messageType(typeName)!;
  try {
    checkRules(schema, newMessage(schema, json, 'x'), topOf(''));
    return undefined;
  } catch (error) {
    if (error instanceof DecodeError) return error.message;
    throw error;
  }
}

const CORE = 'envoy.config.core.v3.';

test.each<[string, string, Json, string | undefined]>([
  ['a required message', `${CORE}HeaderValueOption`, {}, 'header: is required'],
  ['a length at least', `${CORE}HeaderValue`, { key: '' }, 'key: must not be empty, received ""'],
  ['a length at most', `${CORE}HeaderValue`, { key: 'a', value: 'x'.repeat(16_385) }, 'value: takes at most 16384 bytes'],
  ['a header name', `${CORE}HeaderValue`, { key: 'a\nb' }, 'key: must be a header name'],
  ['a header value', `${CORE}HeaderValue`, { key: 'a', value: 'x\r\ny' }, 'value: must be a header value, without control characters'],
  ['a range', 'envoy.type.v3.Percent', { value: 101 }, 'value: must be at least 0 and at most 100, received 101'],
  ['a range that holds', 'envoy.type.v3.Percent', { value: 100 }, undefined],
  [
    'a duration',
    `${CORE}HealthCheck`,
    { timeout: '0s', interval: '1s', unhealthyThreshold: 1, healthyThreshold: 1, tcpHealthCheck: {} },
    'timeout: must be more than 0ms, received "0ms"',
  ],
  ['a oneof that must be chosen', `${CORE}Address`, {}, 'one of socket_address, pipe, envoy_internal_address must be set'],
  ['a constant', `${CORE}AggregatedConfigSource`, {}, undefined],
  ['a number of items', 'envoy.config.rbac.v3.Permission.Set', {}, 'rules: needs at least 1 item, received 0'],
  [
    'a rule inside an item inside an item',
    'envoy.config.rbac.v3.Permission',
    { andRules: { rules: [{ any: true }, { orRules: {} }] } },
    'and_rules.rules[1].or_rules.rules: needs at least 1 item, received 0',
  ],
  [
    'a rule inside a map',
    'envoy.config.rbac.v3.RBAC',
    { policies: { p: {} } },
    'policies.p.permissions: needs at least 1 item, received 0',
  ],
  ['a value that must be true', 'envoy.config.rbac.v3.Permission', { any: false }, 'any: must be true, received false'],
  ['one of a set of words', 'envoy.config.accesslog.v3.ResponseFlagFilter', { flags: ['XX'] }, 'flags[0]: must be one of LH, UH'],
  [
    'an enum value that is not there',
    'envoy.config.listener.v3.FilterChainMatch',
    { sourceType: 77 },
    'source_type: must be one of ANY, SAME_IP_OR_LOOPBACK, EXTERNAL, received 77',
  ],
  ['a member of a oneof that is not the chosen one', `${CORE}SocketAddress`, { address: '::1', portValue: 1 }, undefined],
])('%s', (_what, typeName, json, expected) => {
  const told = problem(typeName, json);

  if (expected === undefined) expect(told).toBeUndefined();
  else expect(told).toContain(expected);
});

test('every constraint that the protos use is one that is checked', () => {
  const checked = new Set(
    'const lt lte gt gte in not_in required skip min_items max_items unique items min_pairs keys values defined_only min_len max_len min_bytes max_bytes pattern well_known_regex strict prefix suffix ignore_empty'.split(
      ' ',
    ),
  );
  const used = new Set<string>();
  const visit = (message: Message, schema: DescMessage): void => {
    for (const field of schema.fields) {
      if (!isFieldSet(message, field)) continue;
      if (schema.typeName !== FieldRulesSchema.typeName) used.add(field.name);
      const inner =
        field.oneof === undefined
          ? message[field.localName as never]
          : (message[field.oneof.localName as never] as { value: Message }).value;
      if (field.fieldKind === 'message' && field.message.typeName.startsWith('validate.')) visit(inner, field.message);
    }
  };
  for (const type of types()) {
    if (type.kind !== 'message') continue;
    for (const field of type.fields) if (hasOption(field, rules)) visit(getOption(field, rules), FieldRulesSchema);
  }

  expect(used.size).toBeGreaterThan(20);
  expect([...used].filter((name) => !checked.has(name))).toEqual([]);
});

test('a message that contains itself is checked to its end', () => {
  const nest = (depth: number): Json => (depth === 0 ? { orRules: {} } : { notRule: nest(depth - 1) });

  expect(problem('envoy.config.rbac.v3.Permission', nest(20))).toContain(`${'not_rule.'.repeat(20)}or_rules.rules: needs at least 1 item`);
});
