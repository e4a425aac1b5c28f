/** The lazily read descriptors say what the library says when it reads the whole image. */
import { readFileSync } from 'node:fs';
import { createFileRegistry, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { DescEnum, DescExtension, DescField, DescFile, DescMessage, DescService } from '@bufbuild/protobuf';
import {
  DescriptorProtoSchema,
  EnumDescriptorProtoSchema,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from '@jest/globals';
import { LazyRegistry, registry } from './descriptors.ts';

const IMAGE = readFileSync(new URL('../gen/descriptors.binpb', import.meta.url));
const eager = createFileRegistry(fromBinary(FileDescriptorSetSchema, IMAGE));

/** All that a field says, with types by name. */
function fieldWords(field: DescField | DescExtension): unknown {
  const {
    kind,
    name,
    number,
    scalar,
    presence,
    utf8Validation,
    fieldKind,
    listKind,
    mapKind,
    mapKey,
    packed,
    jsonName,
    delimitedEncoding,
  } = field as DescField & Record<string, unknown>;
  const where =
    field.kind === 'field'
      ? [field.localName, field.oneof?.localName, field.parent.typeName, defaultOf(field)]
      : [field.extendee.typeName, field.parent?.typeName, field.file.name];
  const types = [field.message?.typeName, field.enum?.typeName];
  const proto = Buffer.from(toBinary(FieldDescriptorProtoSchema, field.proto)).toString('base64');
  const shape = [kind, name, number, scalar, presence, utf8Validation, fieldKind, listKind, mapKind, mapKey, packed, jsonName];
  return [...shape, delimitedEncoding, ...where, ...types, field.deprecated, proto, field.toString()];
}

function defaultOf(field: DescField): unknown {
  return field.fieldKind === 'scalar' || field.fieldKind === 'enum' ? field.getDefaultValue() : undefined;
}

function messageWords(message: DescMessage): unknown {
  return {
    names: [message.kind, message.name, message.typeName, message.file.name, message.parent?.typeName, message.deprecated, String(message)],
    fields: message.fields.map(fieldWords),
    byName: Object.entries(message.field).map(([name, field]) => [name, field.number]),
    members: message.members.map((member) => member.localName),
    oneofs: message.oneofs.map((oneof) => [oneof.name, oneof.localName, oneof.parent.typeName, oneof.fields.map((field) => field.number)]),
    inside: [message.nestedMessages, message.nestedEnums, message.nestedExtensions].map((list) => list.map((one) => one.typeName)),
    proto: Buffer.from(toBinary(DescriptorProtoSchema, message.proto)).toString('base64'),
  };
}

function enumWords(one: DescEnum): unknown {
  return {
    names: [one.kind, one.name, one.typeName, one.file.name, one.parent?.typeName, one.open, one.sharedPrefix, one.deprecated, String(one)],
    values: one.values.map((value) => [value.name, value.localName, value.number, value.jsonName, value.parent.typeName, String(value)]),
    numbers: Object.keys(one.value),
    proto: Buffer.from(toBinary(EnumDescriptorProtoSchema, one.proto)).toString('base64'),
  };
}

function serviceWords(service: DescService): unknown {
  const methods = service.methods.map((method) => [
    [method.name, method.localName, method.methodKind, method.input.typeName, method.output.typeName, method.idempotency],
    [method.parent.typeName, String(method), Object.keys(service.method)],
  ]);
  return [service.kind, service.name, service.typeName, service.file.name, methods];
}

function words(type: DescMessage | DescEnum | DescExtension | DescService): unknown {
  switch (type.kind) {
    case 'message':
      return messageWords(type);
    case 'enum':
      return enumWords(type);
    case 'service':
      return serviceWords(type);
    case 'extension':
      return fieldWords(type);
  }
}

function fileWords(file: DescFile): unknown {
  return {
    head: [file.kind, file.name, file.edition, file.deprecated, String(file)],
    dependencies: file.dependencies.map((one) => one.name),
    types: [file.messages, file.enums, file.services, file.extensions].map((list) => list.map((one) => one.typeName)),
    proto: Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)).toString('base64'),
  };
}

describe('lazy descriptors', () => {
  test('every type says what the library reads in it', () => {
    const types = [...eager];
    expect(types.length).toBeGreaterThan(1_000);
    const wrong = types.filter((type) => JSON.stringify(words(type)) !== JSON.stringify(words(registry.get(type.typeName)!)));
    expect(wrong.map((type) => type.typeName)).toEqual([]);
    expect([...registry].map((type) => type.typeName).sort()).toEqual(types.map((type) => type.typeName).sort());
  });

  test('every file lists what the library lists', () => {
    for (const file of eager.files) expect(fileWords(registry.getFile(file.proto.name)!)).toEqual(fileWords(file));
    expect(registry.getFile('no/such.proto')).toBeUndefined();
  });

  test('a type is one object, whichever way one comes to it', () => {
    const cluster = registry.getMessage('envoy.config.cluster.v3.Cluster')!;
    const inner = registry.getMessage('envoy.config.cluster.v3.Cluster.CommonLbConfig')!;
    expect(cluster.field['commonLbConfig']!.message).toBe(inner);
    expect(inner.parent).toBe(cluster);
    expect(inner.fields[0]!.parent).toBe(inner);
    expect(cluster.field['lbPolicy']!.enum).toBe(registry.getEnum('envoy.config.cluster.v3.Cluster.LbPolicy'));
    expect(cluster.field['circuitBreakers']!.message).toBe(registry.getMessage('envoy.config.cluster.v3.CircuitBreakers'));
  });

  test('a name of another kind, or of nothing, is not found', () => {
    expect(registry.getMessage('envoy.config.cluster.v3.Cluster.LbPolicy')).toBeUndefined();
    expect(registry.getEnum('envoy.config.cluster.v3.Cluster')).toBeUndefined();
    expect(registry.getService('envoy.config.cluster.v3.Cluster')).toBeUndefined();
    expect(registry.get('envoy.config.cluster.v3.Cluster.Nothing')).toBeUndefined();
    expect(registry.getMessage('')).toBeUndefined();
  });

  test('an extension is found by what it extends', () => {
    const options = registry.getMessage('google.protobuf.FieldOptions')!;
    expect(registry.getExtensionFor(options, 1071)?.typeName).toBe('validate.rules');
    expect(registry.getExtensionFor(options, 1)).toBeUndefined();
  });

  test('an image that refers to a type that it lacks is told by name', () => {
    const set = fromBinary(FileDescriptorSetSchema, IMAGE);
    set.file = set.file.filter((file) => file.name === 'envoy/config/cluster/v3/cluster.proto');
    const part = new LazyRegistry(toBinary(FileDescriptorSetSchema, set));
    const cluster = part.getMessage('envoy.config.cluster.v3.Cluster')!;
    expect(() => cluster.fields).toThrow(/refers to google\.protobuf\.\w+|not in it/);
  });
});
