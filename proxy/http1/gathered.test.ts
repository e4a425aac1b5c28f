/** Bytes that wait: whole, in order, and in little memory however they come. */
import { expect, test } from '@jest/globals';
import { gather } from './gathered.ts';
import type { Gathered } from './gathered.ts';

test('bytes that come one by one, in pieces and beyond the room are all there in order', () => {
  const text = Array.from({ length: 5_000 }, (_, i) => String.fromCharCode(i % 256)).join('');
  for (const pieceBytes of [1, 2, 7, 300, 4_999]) {
    let gathered: Gathered | undefined;
    const buffer = Buffer.alloc(8_192);
    for (let at = 0; at < text.length; at += pieceBytes) {
      const piece = text.slice(at, at + pieceBytes);
      buffer.write(piece, 'latin1');
      // The first piece is taken over, those after it are copied.
      gathered = gather(gathered, gathered === undefined ? Buffer.from(piece, 'latin1') : buffer, piece.length);
    }
    buffer.fill(0);
    expect(gathered!.bytes).toBe(text.length);
    expect(gathered!.all().toString('latin1') === text).toBe(true);
    if (pieceBytes < 4_999) expect(gathered!.memory.length).toBeLessThanOrEqual(4 * text.length);
  }
});

test('what was taken over first is never written to', () => {
  const first = Buffer.from('first and its neighbour');
  const gathered = gather(undefined, first.subarray(0, 5), 5);
  gather(gathered, Buffer.from('!'), 1);
  expect(gathered.all().toString()).toBe('first!');
  expect(first.toString()).toBe('first and its neighbour');
});
