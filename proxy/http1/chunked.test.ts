/** The chunked decoder: across cuts, in runs, within its limits. */
import { expect, test } from '@jest/globals';
import { ChunkedDecoder, lastChunk } from './chunked.ts';
import { Headers } from '../headers.ts';

const LIMITS = { extensionBytesMax: 64, trailerBytesMax: 200, trailerFieldsMax: 3 };

function decodeAll(parts: readonly string[]): { runs: string[]; decoder: ChunkedDecoder; ends: number[] } {
  const decoder = new ChunkedDecoder(LIMITS);
  const runs: string[] = [];
  const ends = parts.map((part) => decoder.decode(Buffer.from(part, 'latin1'), 0, (run) => runs.push(run.toString('latin1'))));
  return { runs, decoder, ends };
}

test('a body in one read ends where it ends', () => {
  const { runs, decoder, ends } = decodeAll(['5;x=y\r\nhello\r\n0\r\n\r\nGET /']);

  expect(runs).toEqual(['hello']);
  expect(decoder.done).toBe(true);
  expect(decoder.bytes).toBe(5);
  expect(decoder.trailers).toBeUndefined();
  expect(ends).toEqual([19]);
});

test('byte by byte it is the same body', () => {
  const text = 'a;q="r\\"s"\r\n0123456789\r\n1\r\nx\r\n0\r\nX-T: 1\r\nHost: b\r\n\r\n';
  const { runs, decoder } = decodeAll(Array.from(text, (char) => char));

  expect(runs.join('')).toBe('0123456789x');
  expect(decoder.done).toBe(true);
  expect(decoder.trailers?.fields).toEqual(['X-T', 'x-t', '1']);
});

test('many small chunks of one read come as one run', () => {
  const { runs } = decodeAll([`${'1\r\nx\r\n'.repeat(1_000)}0\r\n\r\n`]);

  expect(runs).toEqual(['x'.repeat(1_000)]);
});

test('large chunks of one read are not moved', () => {
  const { runs } = decodeAll([`1000\r\n${'a'.repeat(4_096)}\r\n1000\r\n${'b'.repeat(4_096)}\r\n0\r\n\r\n`]);

  expect(runs).toEqual(['a'.repeat(4_096), 'b'.repeat(4_096)]);
});

test('extensions and trailers are bounded over the whole body', () => {
  expect(() => decodeAll(['1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n1;bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n'])).toThrow(
    'extensions are longer',
  );
  expect(() => decodeAll(['0\r\n', `X: ${'a'.repeat(300)}`])).toThrow('Trailers are longer');
  expect(() => decodeAll(['0\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n'])).toThrow('may have 3 fields');
});

test('after reset it decodes the next body', () => {
  const { decoder } = decodeAll(['1\r\nx\r\n0\r\nX-T: 1\r\n\r\n']);

  decoder.reset();
  const runs: string[] = [];
  decoder.decode(Buffer.from('2\r\nyz\r\n0\r\n\r\n'), 0, (run) => runs.push(run.toString()));

  expect(runs).toEqual(['yz']);
  expect(decoder.done).toBe(true);
  expect(decoder.trailers).toBeUndefined();
});

test('the end is written with trailers or without', () => {
  expect(lastChunk(undefined)).toBe('0\r\n\r\n');
  expect(lastChunk(Headers.of({ 'X-T': '1' }))).toBe('0\r\nX-T: 1\r\n\r\n');
});
