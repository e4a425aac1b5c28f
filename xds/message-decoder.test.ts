import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { LongMessage, MessageDecoder, Scratch } from './message-decoder.ts';

const MAX = 1_000_000;

function framed(content: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(content.length, 1);
  return Buffer.concat([head, content]);
}

/** The content of each message, as it is after all of them were found. */
function contents(messages: readonly (Buffer | LongMessage)[]): string[] {
  const scratch = new Scratch();
  return messages.map((message) =>
    Buffer.isBuffer(message) ? message.toString('latin1', 5) : message.readIn(scratch, (content) => content.toString('latin1')),
  );
}

test('answers the messages that went in, however they were cut', () => {
  const sizes = fc.array(fc.oneof(fc.nat(20), fc.integer({ min: 16_000, max: 17_000 }), fc.constant(300_000)), { maxLength: 6 });
  const cuts = fc.array(fc.integer({ min: 1, max: 90_000 }), { minLength: 1 });
  fc.assert(
    fc.property(sizes, cuts, (lengths, ends) => {
      const sent = lengths.map((bytes, index) => Buffer.alloc(bytes, 97 + index));
      const stream = Buffer.concat(sent.map(framed));
      const decoder = new MessageDecoder(MAX);
      const found: (Buffer | LongMessage)[] = [];
      for (let at = 0, cut = 0; at < stream.length; cut++) {
        const end = at + ends[cut % ends.length]!;
        found.push(...decoder.write(stream.subarray(at, end)));
        at = end;
      }
      expect(contents(found)).toEqual(sent.map((content) => content.toString('latin1')));
    }),
    { numRuns: 60 },
  );
});

test('long messages are read in the same memory one after the other, those that do not fit in memory of their own', () => {
  const scratch = new Scratch();
  const decoder = new MessageDecoder(MAX);
  const messages = [20_000, 30_000, 300_000].map((bytes) => decoder.write(framed(Buffer.alloc(bytes, 'x')))[0] as LongMessage);
  const [one, two, large] = messages.map((message) => message.readIn(scratch, ({ buffer, length }) => ({ buffer, length })));
  expect([one!.length, two!.length, large!.length]).toEqual([20_000, 30_000, 300_000]);
  expect(two!.buffer).toBe(one!.buffer);
  expect(large!.buffer).not.toBe(one!.buffer);
});

test('a short message does not hold the memory that it came in', () => {
  const data = Buffer.alloc(100_000);
  framed(Buffer.from('short')).copy(data);
  const [message] = new MessageDecoder(MAX).write(data.subarray(0, 10));
  expect(contents([message!])).toEqual(['short']);
  expect((message as Buffer).buffer).not.toBe(data.buffer);
});

test('a message that is too large is refused at its head', () => {
  expect(() => new MessageDecoder(MAX).write(framed(Buffer.alloc(MAX + 1)).subarray(0, 5))).toThrow(
    'a message may take at most 1000000 bytes, received 1000001',
  );
});
