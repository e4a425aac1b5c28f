import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FieldWalk } from './field-walk.ts';

/** One field of each type on the wire, groups in groups included. */
const field = fc.letrec<{ field: Uint8Array; group: Uint8Array }>((tie) => ({
  field: fc.oneof(
    { depthSize: 'small' },
    fc.tuple(fc.integer({ min: 1, max: 2 ** 29 - 1 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })).map(([number, value]) => {
      return new BinaryWriter().tag(number, WireType.Varint).uint64(value).finish();
    }),
    fc.tuple(fc.nat(40), fc.uint8Array({ maxLength: 300 })).map(([number, bytes]) => {
      return new BinaryWriter()
        .tag(number + 1, WireType.LengthDelimited)
        .bytes(bytes)
        .finish();
    }),
    fc.nat(40).map((number) => {
      const writer = new BinaryWriter().tag(number + 1, WireType.Bit32).fixed32(7);
      return writer
        .tag(number + 1, WireType.Bit64)
        .fixed64(7)
        .finish();
    }),
    tie('group'),
  ),
  group: fc.tuple(fc.nat(40), fc.array(tie('field'), { maxLength: 4 })).map(([number, inner]) => {
    const writer = new BinaryWriter().tag(number + 1, WireType.StartGroup).raw(Buffer.concat(inner));
    return writer.tag(number + 1, WireType.EndGroup).finish();
  }),
})).field;

const message = fc.array(field, { maxLength: 12 }).map((fields) => Buffer.concat(fields));

/** What protobuf's own reader makes of it: number, type, begin and end of each field; undefined for what it refuses. */
function byReader(bytes: Uint8Array): number[][] | undefined {
  try {
    const reader = new BinaryReader(bytes);
    const found: number[][] = [];
    while (reader.pos < reader.len) {
      const start = reader.pos;
      const [number, wireType] = reader.tag();
      reader.skip(wireType, number);
      found.push([number, wireType, start, reader.pos]);
    }
    return found;
  } catch {
    return undefined;
  }
}

/** The same by ours; the reason for what it refuses. */
function byWalk(bytes: Uint8Array): number[][] | string {
  try {
    const walk = new FieldWalk(bytes);
    const found: number[][] = [];
    while (walk.next()) found.push([walk.number, walk.wireType, walk.start, walk.to]);
    return found;
  } catch (error) {
    return (error as Error).message;
  }
}

test('finds the fields that the library finds', () => {
  fc.assert(fc.property(message, (bytes) => expect(byWalk(bytes)).toEqual(byReader(bytes))));
});

test('refuses what the library refuses: messages that are cut or changed at any place', () => {
  fc.assert(
    fc.property(message, fc.nat(), fc.nat(255), fc.boolean(), (bytes, at, byte, cut) => {
      const place = bytes.length === 0 ? 0 : at % bytes.length;
      const changed = cut
        ? bytes.subarray(0, place)
        : Buffer.concat([bytes.subarray(0, place), Buffer.of(byte), bytes.subarray(place + 1)]);
      const found = byWalk(changed);
      // The library passes over varints of any length, and refuses them where it reads them.
      if (found !== 'a varint is longer than 64 bits') expect(typeof found === 'string' ? undefined : found).toEqual(byReader(changed));
    }),
    { numRuns: 2_000 },
  );
});

test('tells where the content of a field stands', () => {
  const bytes = new BinaryWriter().tag(1, WireType.Varint).uint32(300).tag(2, WireType.LengthDelimited).string('name').finish();
  const walk = new FieldWalk(bytes);
  walk.next();
  walk.next();
  expect(Buffer.from(bytes.subarray(walk.from, walk.to)).toString()).toBe('name');
  expect(walk.next()).toBe(false);
});

test.each([
  ['a tag of more than 32 bits', [0xff, 0xff, 0xff, 0xff, 0x1f, 0], 'a tag is longer than 32 bits'],
  ['number 0', [0x00, 0], 'no such field: number 0, wire type 0'],
  ['a type that there is not', [0x0e], 'no such field: number 1, wire type 6'],
  ['a length beyond the end', [0x0a, 5, 1], 'premature end of the message'],
  ['an end without a beginning', [0x0c], 'wire type 4 cannot stand here'],
  ['a group that is not closed', [0x0b, 0x10, 1], 'premature end of the message'],
  ['a group that is closed by another', [0x0b, 0x14], 'the end of a group does not match its start'],
  ['groups in groups', Array.from({ length: 200 }, () => 0x0b), 'groups nest more than 100 deep'],
  ['an endless varint', [0x08, ...Array.from({ length: 11 }, () => 0xff)], 'a varint is longer than 64 bits'],
])('says what is wrong with %s', (_, bytes, message) => {
  const walk = new FieldWalk(Uint8Array.from(bytes));
  expect(() => {
    while (walk.next());
  }).toThrow(message);
});
