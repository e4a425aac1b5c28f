/** Walks over the fields of an encoded message without decoding, copying or viewing them: a first request after an outage has thousands. */
import { WireType } from '@bufbuild/protobuf/wire';

/** Groups in groups, as protobuf's own readers have it. */
const DEPTH_MAX = 100;
/** Bits of a varint that are read; longer ones are refused. */
const VARINT_BITS_MAX = 70;

/** Stands before the first field; `next` goes on. What cannot be read is thrown as an Error. */
export class FieldWalk {
  readonly bytes: Uint8Array;
  readonly #end: number;
  #position: number;
  /** Of the field that `next` found: its number and its type on the wire. */
  number = 0;
  wireType: WireType = WireType.Varint;
  /** Where its tag begins, where its content does (behind the length, if it has one), and where it ends. */
  start = 0;
  from = 0;
  to = 0;

  constructor(bytes: Uint8Array, from = 0, to = bytes.length) {
    this.bytes = bytes;
    this.#position = from;
    this.#end = to;
  }

  /** Goes to the next field; false at the end. */
  next(): boolean {
    if (this.#position >= this.#end) return false;
    this.start = this.#position;
    this.#tag();
    this.from = this.#position;
    if (this.wireType === WireType.LengthDelimited) {
      const length = this.#varint32();
      this.from = this.#position;
      this.#position += length;
    } else if (this.wireType === WireType.StartGroup) this.#skipGroup();
    else this.#skipScalar();
    if (this.#position > this.#end) throw new RangeError('premature end of the message');
    this.to = this.#position;
    return true;
  }

  /** The next field is looked for from here on; for who knows what stands before. */
  jump(position: number): void {
    this.#position = position;
  }

  #tag(): void {
    const tag = this.#varint32();
    const taken = this.#position - this.start;
    if (taken > 5 || (taken === 5 && this.bytes[this.#position - 1]! > 0x0f)) throw new Error('a tag is longer than 32 bits');
    this.number = tag >>> 3;
    this.wireType = tag & 7;
    if (this.number === 0 || this.wireType > WireType.Bit32)
      throw new Error(`no such field: number ${this.number}, wire type ${this.wireType}`);
  }

  #skipScalar(): void {
    if (this.wireType === WireType.Varint) this.#varint32();
    else if (this.wireType === WireType.Bit64) this.#position += 8;
    else if (this.wireType === WireType.Bit32) this.#position += 4;
    else throw new Error(`wire type ${this.wireType} cannot stand here`);
  }

  /** Goes behind the end of the group that has begun. Number, type and start are the group's again afterwards. */
  #skipGroup(): void {
    const { number, start } = this;
    const open = [number];
    while (open.length > 0) {
      if (this.#position >= this.#end) throw new RangeError('premature end of the message');
      this.start = this.#position;
      this.#tag();
      if (this.wireType === WireType.StartGroup) {
        if (open.push(this.number) > DEPTH_MAX) throw new Error(`groups nest more than ${DEPTH_MAX} deep`);
      } else if (this.wireType === WireType.EndGroup) {
        if (open.pop() !== this.number) throw new Error('the end of a group does not match its start');
      } else if (this.wireType === WireType.LengthDelimited) {
        const length = this.#varint32();
        this.#position += length;
      } else this.#skipScalar();
    }
    this.number = number;
    this.start = start;
    this.wireType = WireType.StartGroup;
  }

  /** The low 32 bits of a varint. */
  #varint32(): number {
    let value = 0;
    for (let shift = 0; shift < VARINT_BITS_MAX; shift += 7) {
      if (this.#position >= this.#end) throw new RangeError('premature end of the message');
      const byte = this.bytes[this.#position++]!;
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new Error('a varint is longer than 64 bits');
  }
}
