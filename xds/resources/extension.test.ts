/** Extensions: known types, TypedStruct, unknown types, names without a configuration. */
import { expect, test } from '@jest/globals';
import { toBinary } from '@bufbuild/protobuf';
import { AnySchema } from '@bufbuild/protobuf/wkt';
import type { Json, JsonObject } from '../snapshot.ts';
import { topOf } from './decoding.ts';
import { extensionOf, packExtension } from './extension.ts';
import { anyJson, BYTES_KEY, DUMP_STYLE } from './json.ts';
import { newMessage } from './loose.ts';

const BUFFER = 'envoy.extensions.filters.http.buffer.v3.Buffer';

const any = (json: Json) => newMessage(AnySchema, json, 'test');

test('a known type becomes camelCase JSON and goes back to the same bytes', () => {
  const wire = any({ '@type': `type.googleapis.com/${BUFFER}`, max_request_bytes: 10 });

  const extension = extensionOf('buffer', wire, topOf('x'));

  expect(extension).toEqual({ name: 'buffer', type: BUFFER, config: { maxRequestBytes: 10 } });
  expect(packExtension(extension)).toEqual(wire);
});

test.each(['udpa.type.v1.TypedStruct', 'xds.type.v3.TypedStruct'])(
  'a %s is unwrapped, checked and becomes what it stands for',
  (struct) => {
    const wrapped = (value: JsonObject) =>
      any({ '@type': `type.googleapis.com/${struct}`, type_url: `type.googleapis.com/${BUFFER}`, value });

    expect(extensionOf('b', wrapped({ max_request_bytes: 10 }), topOf('x'))).toEqual({
      name: 'b',
      type: BUFFER,
      config: { maxRequestBytes: 10 },
    });
    expect(() => extensionOf('b', wrapped({}), topOf('x'))).toThrow('x: typed_config.max_request_bytes: is required');
  },
);

test('an unknown type in JSON or TypedStruct keeps its name and its fields', () => {
  const extension = { name: 'stats', type: 'stats.PluginConfig', config: { a_b: 1, deep: { list: [1, 'x'] } } };

  expect(extensionOf('stats', any({ '@type': 'type.googleapis.com/stats.PluginConfig', ...extension.config }), topOf('x'))).toEqual(
    extension,
  );
  expect(extensionOf('stats', packExtension(extension), topOf('x'))).toEqual(extension);
});

test('an unknown type in bytes keeps its name and its bytes', () => {
  const wire = { ...any({}), typeUrl: 'type.googleapis.com/a.B', value: new Uint8Array([8, 1]) };

  const extension = extensionOf('b', wire, topOf('x'));

  expect(extension).toEqual({ name: 'b', type: 'a.B', config: { [BYTES_KEY]: 'CAE=' } });
  expect(toBinary(AnySchema, packExtension(extension)!)).toEqual(toBinary(AnySchema, wire));
});

test.each([
  ['envoy.router', 'envoy.extensions.filters.http.router.v3.Router'],
  ['envoy.filters.http.router', 'envoy.extensions.filters.http.router.v3.Router'],
  ['envoy.listener.tls_inspector', 'envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector'],
  ['somebody.elses', ''],
])('%s without a configuration has the type %j', (name, type) => {
  expect(extensionOf(name, undefined, topOf('x'))).toEqual({ name, type, config: {} });
  expect(extensionOf(name, any({}), topOf('x'))).toEqual({ name, type, config: {} });
});

test('our own configuration with a field that the type has not is a mistake that throws', () => {
  expect(() => packExtension({ name: 'b', type: BUFFER, config: { maxRequestByte: 1 } })).toThrow(`${BUFFER} has no field maxRequestByte`);
});

test('a dump shows no bytes that it cannot search for secrets', () => {
  expect(anyJson({ ...any({}), typeUrl: 'type.googleapis.com/a.B', value: new Uint8Array([1]) }, DUMP_STYLE)).toEqual({
    '@type': 'type.googleapis.com/a.B',
    [BYTES_KEY]: '[redacted]',
  });
});
