import { Buffer } from 'node:buffer';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { PEM_BLOCKS_MAX, PEM_CHARS_MAX, PemError, decodeCertificates, decodePem, encodePem } from './pem.ts';

test('blocks come back in order, and text around them does not matter', () => {
  const [a, b] = [Buffer.from('first'), Buffer.from('second'.repeat(30))];
  const text = `subject=/CN=a\r\n${encodePem('CERTIFICATE', a)}\n# note\n${encodePem('PRIVATE KEY', b).replaceAll('\n', '\r\n')}`;

  expect(decodePem(text)).toEqual([
    { label: 'CERTIFICATE', der: a },
    { label: 'PRIVATE KEY', der: b },
  ]);
  expect(() => decodeCertificates(text)).toThrow(/certificates only, found PRIVATE KEY/);
  expect(() => decodeCertificates('')).toThrow(/holds no certificate/);
});

test('case 92: a block that is cut off, damaged or one of too many is refused', () => {
  const pem = encodePem('CERTIFICATE', Buffer.alloc(100, 1));

  expect(() => decodePem(pem.slice(0, -30))).toThrow(/has no end line/);
  expect(() => decodePem(pem.replace('AQEB', '!QEB'))).toThrow(/not base64/);
  expect(() => decodePem(pem.replace('AQEB', 'AQE'))).toThrow(/not base64/);
  expect(() => decodePem(pem.repeat(PEM_BLOCKS_MAX + 1))).toThrow(/at most 512 blocks/);
  expect(() => decodePem('x'.repeat(PEM_CHARS_MAX + 1))).toThrow(/at most 1048576 characters/);
});

test('no text makes the decoder do anything but answer or throw PemError', () => {
  const pieces = fc.constantFrom(
    '-----BEGIN CERTIFICATE-----',
    '-----END CERTIFICATE-----',
    '-----BEGIN X-----',
    'QUJD',
    '=',
    '\n',
    '-',
    ' ',
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
      try {
        for (const block of decodePem(parts.join(''))) expect(block.der.length).toBeGreaterThan(0);
      } catch (error) {
        expect(error).toBeInstanceOf(PemError);
      }
    }),
    { numRuns: 2000 },
  );
});
