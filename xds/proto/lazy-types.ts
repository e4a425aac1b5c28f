/** Messages, enums, services and extensions that know their names at once and read their content when it is first looked at. */
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import type { DescEnum, DescExtension, DescField, DescFile, DescMessage, DescOneof, DescService } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { DescriptorProto, FieldDescriptorProto, FileDescriptorProto } from '@bufbuild/protobuf/wkt';
import { FILE, MESSAGE, NAME, OPTION_MAP_ENTRY, parts, text } from './wire-parts.ts';

/** Where types are found by name. */
export interface Types {
  getMessage(typeName: string): DescMessage | undefined;
  getEnum(typeName: string): DescEnum | undefined;
  file(path: string): DescFile;
}

/** A file whose types are read one by one. */
export interface TypeFile extends DescFile {
  readonly packageName: string;
  readonly types: Types;
  /** All fields of its descriptor but the types: name, package, syntax, options. */
  readonly header: readonly Uint8Array[];
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A message. Which messages and enums lie inside it is read by itself: finding one of them makes no other. */
export class LazyMessage implements DescMessage {
  readonly kind = 'message';
  readonly file: TypeFile;
  readonly parent: LazyMessage | undefined;
  readonly name: string;
  readonly typeName: string;
  readonly #bytes: Uint8Array;
  #messages: LazyMessage[] | undefined = undefined;
  #enums: LazyEnum[] | undefined = undefined;
  #body: DescMessage | undefined = undefined;

  constructor(file: TypeFile, parent: LazyMessage | undefined, bytes: Uint8Array) {
    this.file = file;
    this.parent = parent;
    this.name = nameIn(bytes);
    this.typeName = fullName(file, parent, this.name);
    this.#bytes = bytes;
  }

  get fields(): DescField[] {
    return (this.#body ?? this.#read()).fields;
  }

  get field(): Record<string, DescField> {
    return (this.#body ?? this.#read()).field;
  }

  get oneofs(): DescOneof[] {
    return (this.#body ?? this.#read()).oneofs;
  }

  get members(): (DescField | DescOneof)[] {
    return (this.#body ?? this.#read()).members;
  }

  get nestedExtensions(): DescExtension[] {
    return (this.#body ?? this.#read()).nestedExtensions;
  }

  get deprecated(): boolean {
    return (this.#body ?? this.#read()).deprecated;
  }

  get proto(): DescriptorProto {
    return (this.#body ?? this.#read()).proto;
  }

  get nestedMessages(): LazyMessage[] {
    return (this.#messages ??= [...parts(this.#bytes)]
      .filter((part) => part.no === MESSAGE.nestedType && !isMapEntry(part.data))
      .map((part) => new LazyMessage(this.file, this, part.data)));
  }

  get nestedEnums(): LazyEnum[] {
    return (this.#enums ??= [...parts(this.#bytes)]
      .filter((part) => part.no === MESSAGE.enumType)
      .map((part) => new LazyEnum(this.file, this, part.data)));
  }

  toString(): string {
    return `message ${this.typeName}`;
  }

  /** Reads the outermost message with all that is inside it: fields of one may be of another's type. */
  #read(): DescMessage {
    if (this.parent === undefined) this.#take(readAlone(this.file, FILE.messageType, this.#bytes).messages[0]!);
    else this.parent.#readAll();
    return this.#body!;
  }

  #readAll(): void {
    if (this.#body === undefined) this.#read();
  }

  /** Takes the library's description and puts itself and its siblings where that one names stand-ins. */
  #take(body: DescMessage): void {
    this.#body = body;
    const own = body as Mutable<DescMessage>;
    own.file = this.file;
    for (const field of body.fields) {
      relink(field, this.file.types);
      (field as Mutable<typeof field>).parent = this;
    }
    for (const oneof of body.oneofs) (oneof as Mutable<DescOneof>).parent = this;
    for (const extension of body.nestedExtensions) relinkExtension(extension, this.file, this);
    this.nestedMessages.forEach((message, i) => message.#take(body.nestedMessages[i]!));
    // Nobody comes to these by way of the body, and what they hold would stay.
    own.nestedMessages = [];
    own.nestedEnums = [];
    own.parent = undefined;
  }
}

export class LazyEnum implements DescEnum {
  readonly kind = 'enum';
  readonly file: TypeFile;
  readonly parent: DescMessage | undefined;
  readonly name: string;
  readonly typeName: string;
  readonly #bytes: Uint8Array;
  #body: DescEnum | undefined = undefined;

  constructor(file: TypeFile, parent: DescMessage | undefined, bytes: Uint8Array) {
    this.file = file;
    this.parent = parent;
    this.name = nameIn(bytes);
    this.typeName = fullName(file, parent, this.name);
    this.#bytes = bytes;
  }

  get open(): boolean {
    return this.#content.open;
  }

  get values(): DescEnum['values'] {
    return this.#content.values;
  }

  get value(): DescEnum['value'] {
    return this.#content.value;
  }

  get sharedPrefix(): string | undefined {
    return this.#content.sharedPrefix;
  }

  get deprecated(): boolean {
    return this.#content.deprecated;
  }

  get proto(): DescEnum['proto'] {
    return this.#content.proto;
  }

  get #content(): DescEnum {
    if (this.#body === undefined) {
      // Read without the message around it: an enum refers to nothing.
      const body = readAlone(this.file, FILE.enumType, this.#bytes).enums[0]!;
      (body as Mutable<DescEnum>).file = this.file;
      (body as Mutable<DescEnum>).typeName = this.typeName;
      for (const value of body.values) (value as Mutable<typeof value>).parent = this;
      this.#body = body;
    }
    return this.#body;
  }

  toString(): string {
    return `enum ${this.typeName}`;
  }
}

export class LazyService implements DescService {
  readonly kind = 'service';
  readonly file: TypeFile;
  readonly name: string;
  readonly typeName: string;
  readonly #bytes: Uint8Array;
  #body: DescService | undefined = undefined;

  constructor(file: TypeFile, bytes: Uint8Array) {
    this.file = file;
    this.name = nameIn(bytes);
    this.typeName = fullName(file, undefined, this.name);
    this.#bytes = bytes;
  }

  get methods(): DescService['methods'] {
    return this.#content.methods;
  }

  get method(): DescService['method'] {
    return this.#content.method;
  }

  get deprecated(): boolean {
    return this.#content.deprecated;
  }

  get proto(): DescService['proto'] {
    return this.#content.proto;
  }

  get #content(): DescService {
    if (this.#body === undefined) {
      const body = readAlone(this.file, FILE.service, this.#bytes).services[0]!;
      (body as Mutable<DescService>).file = this.file;
      for (const method of body.methods) {
        const own = method as Mutable<typeof method>;
        own.parent = this;
        own.input = found(this.file.types.getMessage(method.input.typeName), method.input.typeName);
        own.output = found(this.file.types.getMessage(method.output.typeName), method.output.typeName);
      }
      this.#body = body;
    }
    return this.#body;
  }

  toString(): string {
    return `service ${this.typeName}`;
  }
}

/** The extensions at the top of a file: few, and read at once. */
export function readExtensions(file: TypeFile, extensions: readonly Uint8Array[]): DescExtension[] {
  return extensions.map((bytes) => {
    const extension = readAlone(file, FILE.extension, bytes).extensions[0]!;
    relinkExtension(extension, file, undefined);
    return extension;
  });
}

/** The library reads one type in a file of its own; the types that it refers to are stand-ins with nothing but a name. */
function readAlone(file: TypeFile, no: number, bytes: Uint8Array): DescFile {
  const proto = fromBinary(FileDescriptorProtoSchema, joined([...file.header, framed(no, bytes)]));
  proto.dependency = [STAND_INS];
  proto.publicDependency = [];
  proto.weakDependency = [];
  const standIns = standInsFor(proto, file.types);
  return createFileRegistry(proto, () => standIns).getFile(proto.name)!;
}

const STAND_INS = 'stand-ins';

function standInsFor(proto: FileDescriptorProto, types: Types): DescFile {
  const messages = new Map<string, unknown>();
  const enums = new Map<string, unknown>();
  const message = (name: string): unknown =>
    messages.set(name, { kind: 'message', typeName: name.slice(1), nestedMessages: [], nestedEnums: [], nestedExtensions: [] });
  const visitFields = (fields: readonly FieldDescriptorProto[]): void => {
    for (const field of fields) {
      if (field.extendee !== '') message(field.extendee);
      if (field.type === TYPE_MESSAGE || field.type === TYPE_GROUP) message(field.typeName);
      // An enum in person, since a default value is read from it.
      else if (field.type === TYPE_ENUM) enums.set(field.typeName, types.getEnum(field.typeName.slice(1)));
    }
  };
  const own: string[] = [];
  const visit = (type: DescriptorProto, prefix: string): void => {
    own.push(`${prefix}.${type.name}`);
    visitFields(type.field);
    visitFields(type.extension);
    for (const inner of type.nestedType) visit(inner, `${prefix}.${type.name}`);
  };
  for (const type of proto.messageType) visit(type, proto.package === '' ? '' : `.${proto.package}`);
  visitFields(proto.extension);
  for (const method of proto.service.flatMap((service) => service.method)) {
    message(method.inputType);
    message(method.outputType);
  }
  for (const name of own) messages.delete(name);
  return {
    kind: 'file',
    proto: { name: STAND_INS },
    dependencies: [],
    messages: [...messages.values()],
    enums: [...enums.values()],
    services: [],
    extensions: [],
  } as unknown as DescFile;
}

// google.protobuf.FieldDescriptorProto.Type.
const TYPE_GROUP = 10;
const TYPE_MESSAGE = 11;
const TYPE_ENUM = 14;

/** Puts the types themselves where the library was given stand-ins. */
function relink(field: DescField | DescExtension, types: Types): void {
  const own = field as { message?: DescMessage | undefined; enum?: DescEnum | undefined };
  if (own.message !== undefined) own.message = found(types.getMessage(own.message.typeName), own.message.typeName);
  if (own.enum !== undefined) own.enum = found(types.getEnum(own.enum.typeName), own.enum.typeName);
}

function relinkExtension(extension: DescExtension, file: TypeFile, parent: DescMessage | undefined): void {
  relink(extension, file.types);
  const own = extension as Mutable<DescExtension>;
  own.file = file;
  own.parent = parent;
  own.extendee = found(file.types.getMessage(extension.extendee.typeName), extension.extendee.typeName);
}

function found<T>(type: T | undefined, typeName: string): T {
  if (type === undefined) throw new Error(`the protobuf image refers to ${typeName}, which is not in it`);
  return type;
}

function nameIn(bytes: Uint8Array): string {
  for (const part of parts(bytes)) if (part.no === NAME) return text(part);
  return '';
}

function fullName(file: TypeFile, parent: DescMessage | undefined, name: string): string {
  if (parent !== undefined) return `${parent.typeName}.${name}`;
  return file.packageName === '' ? name : `${file.packageName}.${name}`;
}

function isMapEntry(message: Uint8Array): boolean {
  for (const part of parts(message))
    if (part.no === MESSAGE.options) for (const option of parts(part.data)) if (option.no === OPTION_MAP_ENTRY) return true;
  return false;
}

/** A field with a length, as it stands in a message. */
function framed(no: number, content: Uint8Array): Uint8Array {
  const head = [(no << 3) | 2];
  let length = content.length;
  for (; length > 127; length >>>= 7) head.push((length & 127) | 128);
  head.push(length);
  return joined([Uint8Array.from(head), content]);
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(chunks);
}
