import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { LongMessage, MessageDecoder, SLAB_BYTES, Scratch } from './message-decoder.ts';

const MAX = 1_000_000;

function framed(content: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(content.length, 1);
  return Buffer.concat([head, content]);
}

/** The content of each message, as it is after all of them were found. */
function contents(messages: readonly (Buffer | LongMessage)[]): string[] {
  return messages.map((message) =>
    Buffer.isBuffer(message) ? message.toString('latin1', 5) : message.readIn((content) => content.toString('latin1')),
  );
}

function release(messages: readonly (Buffer | LongMessage)[]): void {
  for (const message of messages) if (message instanceof LongMessage) message.release();
}

test('answers the messages that went in, however they were cut', () => {
  const sizes = fc.array(fc.oneof(fc.nat(20), fc.integer({ min: 16_000, max: 17_000 }), fc.constant(300_000)), { maxLength: 6 });
  const cuts = fc.array(fc.integer({ min: 1, max: 90_000 }), { minLength: 1 });
  fc.assert(
    fc.property(sizes, cuts, (lengths, ends) => {
      const sent = lengths.map((bytes, index) => Buffer.alloc(bytes, 97 + index));
      const stream = Buffer.concat(sent.map(framed));
      const expected = sent.map((content) => content.toString('latin1'));
      const scratch = new Scratch();
      // The second time in slabs that have been used, and each message is read and given back when it is there.
      for (const atOnce of [false, true]) {
        const decoder = new MessageDecoder(MAX, scratch);
        const found: (Buffer | LongMessage)[] = [];
        const read: string[] = [];
        for (let at = 0, cut = 0; at < stream.length; cut++) {
          const end = at + ends[cut % ends.length]!;
          const messages = decoder.write(stream.subarray(at, end));
          found.push(...messages);
          if (atOnce) read.push(...contents(messages));
          if (atOnce) release(messages);
          at = end;
        }
        expect(atOnce ? read : contents(found)).toEqual(expected);
        if (!atOnce) release(found);
      }
    }),
    { numRuns: 60 },
  );
});

test('long messages are read in the same memory one after the other, those that do not fit in memory of their own', () => {
  const decoder = new MessageDecoder(MAX, new Scratch());
  const messages = [20_000, 30_000, 300_000].map((bytes) => decoder.write(framed(Buffer.alloc(bytes, 'x')))[0] as LongMessage);
  const [one, two, large] = messages.map((message) => message.readIn(({ buffer, length }) => ({ buffer, length })));
  expect([one!.length, two!.length, large!.length]).toEqual([20_000, 30_000, 300_000]);
  expect(two!.buffer).toBe(one!.buffer);
  expect(large!.buffer).not.toBe(one!.buffer);
});

test('a thousand long messages, each released when it was read, take the memory of one; it is bounded, and a released one is not read', () => {
  const scratch = new Scratch();
  const taken = new Set<Buffer>();
  const take = scratch.take.bind(scratch);
  scratch.take = () => {
    const slab = take();
    taken.add(slab);
    return slab;
  };
  const decoder = new MessageDecoder(MAX, scratch);
  const sent = framed(Buffer.alloc(100_000, 'x'));
  for (let index = 0; index < 1_000; index++) {
    const message = decoder.write(sent)[0] as LongMessage;
    message.readIn(({ length }) => expect(length).toBe(100_000));
    message.release();
    expect(() => message.readIn(() => 0)).toThrow('a message is read after its memory was given back');
  }
  expect(taken.size).toBe(Math.ceil(100_000 / SLAB_BYTES));

  scratch.give(Array.from({ length: 5_000 }, () => Buffer.alloc(1)));
  let kept = 0;
  while (scratch.take().length === 1) kept++;
  expect(kept * SLAB_BYTES).toBeLessThanOrEqual(4 * 1024 * 1024);
});

test('a client that begins a long message makes the server hold at most twice what it has sent', () => {
  const scratch = new Scratch();
  let heldBytes = 0;
  scratch.take = () => {
    heldBytes += SLAB_BYTES;
    return Buffer.alloc(SLAB_BYTES);
  };
  const decoder = new MessageDecoder(MAX, scratch);
  const sent = framed(Buffer.alloc(MAX));
  for (let at = 0; at < 200_000; at += 1_000) {
    decoder.write(sent.subarray(at, at + 1_000));
    expect(heldBytes).toBeLessThanOrEqual(2 * (at + 1_000));
  }
  expect(heldBytes).toBeGreaterThan(190_000);
});

test('a short message does not hold the memory that it came in', () => {
  const data = Buffer.alloc(100_000);
  framed(Buffer.from('short')).copy(data);
  const [message] = new MessageDecoder(MAX, new Scratch()).write(data.subarray(0, 10));
  expect(contents([message!])).toEqual(['short']);
  expect((message as Buffer).buffer).not.toBe(data.buffer);
});

test('a message that is too large is refused at its head', () => {
  expect(() => new MessageDecoder(MAX, new Scratch()).write(framed(Buffer.alloc(MAX + 1)).subarray(0, 5))).toThrow(
    'a message may take at most 1000000 bytes, received 1000001',
  );
});
