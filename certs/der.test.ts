import { Buffer } from 'node:buffer';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { DerError, DerReader, TAG, bitString, boolean, integer, namedBits, oid, sequence, setOf, time, tlv, utf8 } from './der.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('values are written in the shortest form that DER allows', () => {
  expect(hex(integer(0n))).toBe('020100');
  expect(hex(integer(127n))).toBe('02017f');
  expect(hex(integer(128n))).toBe('02020080');
  expect(hex(integer(Buffer.from('0000ff', 'hex')))).toBe('020200ff');
  expect(hex(oid('1.2.840.10045.4.3.2'))).toBe('06082a8648ce3d040302');
  expect(hex(namedBits([0]))).toBe('03020780');
  expect(hex(namedBits([5, 6]))).toBe('03020106');
  expect(hex(boolean(true))).toBe('0101ff');
  expect(hex(tlv(TAG.octetString, Buffer.alloc(200)).subarray(0, 3))).toBe('0481c8');
  expect(hex(tlv(TAG.octetString, Buffer.alloc(70_000)).subarray(0, 5))).toBe('0483011170');
  expect(hex(setOf(utf8('b'), utf8('a')))).toBe('31060c01610c0162');
});

test('a time is UTCTime until 2049 and GeneralizedTime from 2050, and reads back to the second', () => {
  const before = Date.UTC(2049, 11, 31, 23, 59, 59);

  expect(time(before)[0]).toBe(TAG.utcTime);
  expect(time(before + 1000)[0]).toBe(TAG.generalizedTime);
  for (const ms of [before, before + 1000, 0, Date.UTC(1999, 1, 28)]) expect(new DerReader(time(ms)).time()).toBe(ms);
});

test.each([
  ['an indefinite length', '3080020100', /definite/],
  ['a length in more bytes than needed', '04810161', /fewest bytes/],
  ['a length of four bytes', '048400000001', /below 16 MiB/],
  ['a value past the end', '040561', /past the end/],
  ['nothing', '', /ends too early/],
  ['a high tag', '1f8100', /tags above 30/],
])('%s is refused', (_name, bytes, rule) => {
  expect(() => new DerReader(Buffer.from(bytes, 'hex')).next()).toThrow(rule);
});

test.each([
  ['an INTEGER with a needless zero', '02020001', (r: DerReader) => r.integer()],
  ['a negative INTEGER', '0201ff', (r: DerReader) => r.integer()],
  ['an empty INTEGER', '0200', (r: DerReader) => r.integer()],
  ['a BOOLEAN of 1', '010101', (r: DerReader) => r.boolean()],
  ['an arc with a leading zero septet', '06038001ff', (r: DerReader) => r.oid()],
  ['unused bits that are set', '03020701', (r: DerReader) => r.bitString()],
  ['eight unused bits', '03020800', (r: DerReader) => r.bitString()],
  ['the thirteenth month', hex(tlv(TAG.utcTime, Buffer.from('261301000000Z'))), (r: DerReader) => r.time()],
  ['a time without its Z', hex(tlv(TAG.utcTime, Buffer.from('2601010000000'))), (r: DerReader) => r.time()],
  ['a time with a zone', hex(tlv(TAG.utcTime, Buffer.from('260101000000+0100'))), (r: DerReader) => r.time()],
])('%s is refused', (_name, bytes, read) => {
  expect(() => read(new DerReader(Buffer.from(bytes, 'hex')))).toThrow(DerError);
});

test('whole numbers and identifiers read back as written', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 160n }), fc.array(fc.nat(2 ** 31), { minLength: 1, maxLength: 6 }), (number, arcs) => {
      const dotted = [1, 3, ...arcs].join('.');
      const reader = new DerReader(sequence(integer(number), oid(dotted), bitString(Buffer.from('ab')))).sequence();

      expect(BigInt(`0x${reader.integer().toString('hex') || '0'}`)).toBe(number);
      expect(reader.oid()).toBe(dotted);
      expect(reader.bitString().bytes.toString()).toBe('ab');
      expect(reader.done).toBe(true);
    }),
    { numRuns: 200 },
  );
});

test('no bytes make the reader do anything but answer or throw DerError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      for (const read of ['next', 'integer', 'smallInteger', 'boolean', 'oid', 'bitString', 'time'] as const) {
        try {
          new DerReader(bytes)[read]();
        } catch (error) {
          expect(error).toBeInstanceOf(DerError);
        }
      }
    }),
    { numRuns: 2000 },
  );
});
