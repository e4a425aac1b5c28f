/** Every protobuf type by name, read from the compiled image when it is first used: a sidecar meets a tenth of the two thousand that there are. */
import { readFileSync } from 'node:fs';
import { fromBinary } from '@bufbuild/protobuf';
import type { DescEnum, DescExtension, DescFile, DescMessage, DescService, FileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { FileDescriptorProto } from '@bufbuild/protobuf/wkt';
import { LazyEnum, LazyMessage, LazyService, readExtensions } from './lazy-types.ts';
import type { TypeFile, Types } from './lazy-types.ts';
import { FILE, IMAGE_FILE, NAME, parts, text } from './wire-parts.ts';

type Type = DescMessage | DescEnum | DescExtension | DescService;

/** One proto file. Its own descriptors are listed when it is asked for one, and their content is read when somebody looks inside. */
class LazyFile implements TypeFile {
  readonly kind = 'file';
  readonly name: string;
  readonly packageName: string;
  readonly edition: DescFile['edition'];
  readonly types: Types;
  readonly #bytes: Uint8Array;
  #proto: FileDescriptorProto | undefined = undefined;
  #messages: LazyMessage[] | undefined = undefined;
  #enums: LazyEnum[] | undefined = undefined;
  #services: LazyService[] | undefined = undefined;
  #extensions: DescExtension[] | undefined = undefined;

  constructor(bytes: Uint8Array, types: Types) {
    this.#bytes = bytes;
    this.types = types;
    let path = '';
    let packageName = '';
    let syntax = '';
    for (const part of parts(bytes)) {
      if (part.no === FILE.name) path = text(part);
      else if (part.no === FILE.package) packageName = text(part);
      else if (part.no === FILE.syntax) syntax = text(part);
    }
    if (syntax !== '' && syntax !== 'proto2' && syntax !== 'proto3')
      throw new Error(`${path} has syntax ${syntax}, which is not read here`);
    // The library's numbers for the two.
    this.edition = syntax === 'proto3' ? 999 : 998;
    this.name = path.replace(/\.proto$/, '');
    this.packageName = packageName;
  }

  get proto(): FileDescriptorProto {
    return (this.#proto ??= fromBinary(FileDescriptorProtoSchema, this.#bytes));
  }

  get header(): Uint8Array[] {
    const kept: Uint8Array[] = [];
    for (const part of parts(this.#bytes)) if (part.no < FILE.messageType || part.no > FILE.extension) kept.push(part.whole);
    return kept;
  }

  get deprecated(): boolean {
    return this.proto.options?.deprecated ?? false;
  }

  get dependencies(): DescFile[] {
    return this.proto.dependency.map((path) => this.types.file(path));
  }

  get messages(): LazyMessage[] {
    return (this.#messages ??= this.#parts(FILE.messageType).map((bytes) => new LazyMessage(this, undefined, bytes)));
  }

  get enums(): LazyEnum[] {
    return (this.#enums ??= this.#parts(FILE.enumType).map((bytes) => new LazyEnum(this, undefined, bytes)));
  }

  get services(): LazyService[] {
    return (this.#services ??= this.#parts(FILE.service).map((bytes) => new LazyService(this, bytes)));
  }

  get extensions(): DescExtension[] {
    return (this.#extensions ??= readExtensions(this, this.#parts(FILE.extension)));
  }

  toString(): string {
    return `file ${this.name}.proto`;
  }

  /** Full names of what the file defines at its top. */
  *topNames(): Generator<string> {
    const prefix = this.packageName === '' ? '' : `${this.packageName}.`;
    for (const part of parts(this.#bytes)) {
      if (part.no < FILE.messageType || part.no > FILE.extension) continue;
      for (const inner of parts(part.data)) {
        if (inner.no !== NAME) continue;
        yield prefix + text(inner);
        break;
      }
    }
  }

  #parts(no: number): Uint8Array[] {
    return [...parts(this.#bytes)].filter((part) => part.no === no).map((part) => part.data);
  }
}

/** A registry over a compiled image (a FileDescriptorSet) that makes nothing before it is asked for. */
export class LazyRegistry implements Types {
  readonly kind = 'registry';
  readonly #files = new Map<string, LazyFile>();
  /** By the full name of a type at the top of a file. */
  readonly #tops = new Map<string, LazyFile>();
  #extensions: Map<string, DescExtension> | undefined = undefined;

  constructor(image: Uint8Array) {
    for (const part of parts(image)) {
      if (part.no !== IMAGE_FILE) continue;
      const file = new LazyFile(part.data, this);
      this.#files.set(`${file.name}.proto`, file);
      for (const name of file.topNames()) this.#tops.set(name, file);
    }
  }

  get files(): Iterable<DescFile> {
    return this.#files.values();
  }

  *[Symbol.iterator](): IterableIterator<Type> {
    for (const file of this.#files.values()) {
      for (const message of file.messages) yield* inside(message);
      yield* file.enums;
      yield* file.services;
      yield* file.extensions;
    }
  }

  getFile(path: string): DescFile | undefined {
    return this.#files.get(path);
  }

  /** Throws for a path that the image does not have. */
  file(path: string): DescFile {
    const file = this.#files.get(path);
    if (file === undefined) throw new Error(`there is no proto file ${JSON.stringify(path)}; generate anew with npm run gen`);
    return file;
  }

  get(typeName: string): Type | undefined {
    return (
      this.getMessage(typeName) ??
      this.getEnum(typeName) ??
      this.#tops.get(typeName)?.services.find((one) => one.typeName === typeName) ??
      this.getExtension(typeName)
    );
  }

  getMessage(typeName: string): DescMessage | undefined {
    const file = this.#tops.get(typeName);
    if (file !== undefined) return file.messages.find((one) => one.typeName === typeName);
    return this.#outer(typeName)?.nestedMessages.find((one) => one.typeName === typeName);
  }

  getEnum(typeName: string): DescEnum | undefined {
    const file = this.#tops.get(typeName);
    if (file !== undefined) return file.enums.find((one) => one.typeName === typeName);
    return this.#outer(typeName)?.nestedEnums.find((one) => one.typeName === typeName);
  }

  getService(typeName: string): DescService | undefined {
    return this.#tops.get(typeName)?.services.find((one) => one.typeName === typeName);
  }

  getExtension(typeName: string): DescExtension | undefined {
    return this.#allExtensions().get(typeName);
  }

  getExtensionFor(extendee: DescMessage, no: number): DescExtension | undefined {
    for (const one of this.#allExtensions().values()) if (one.number === no && one.extendee.typeName === extendee.typeName) return one;
    return undefined;
  }

  #outer(typeName: string): DescMessage | undefined {
    const dot = typeName.lastIndexOf('.');
    return dot === -1 ? undefined : this.getMessage(typeName.slice(0, dot));
  }

  #allExtensions(): Map<string, DescExtension> {
    if (this.#extensions === undefined) {
      this.#extensions = new Map();
      for (const type of this) if (type.kind === 'extension') this.#extensions.set(type.typeName, type);
    }
    return this.#extensions;
  }
}

function* inside(message: DescMessage): Generator<Type> {
  yield message;
  for (const inner of message.nestedMessages) yield* inside(inner);
  yield* message.nestedEnums;
  yield* message.nestedExtensions;
}

/** All types of the protos in entries.txt. */
export const registry: FileRegistry = new LazyRegistry(readFileSync(new URL('../gen/descriptors.binpb', import.meta.url)));

/** The file of a path; generated code calls it. Throws when the image lacks it. */
export function fileOf(path: string): DescFile {
  return (registry as unknown as LazyRegistry).file(path);
}
