/** Frames: read alike however the bytes are cut, and everything else refused. */
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  CHANNEL_ID_MAX,
  CREDIT,
  DATA,
  END,
  FrameReader,
  GOAWAY,
  HEADER_BYTES,
  MuxError,
  PAYLOAD_BYTES_MAX,
  RESET,
  WINDOW_BYTES,
  channelText,
  creditFrame,
  typeText,
} from './protocol.ts';

/** What a sink heard, with the parts of a channel's bytes joined. */
function read(chunks: readonly Buffer[]): string[] {
  const heard: string[] = [];
  let bytesOf = 0;
  const reader = new FrameReader({
    data: (channel, bytes) => {
      const text = bytes.toString('latin1');
      if (bytesOf === channel && heard.at(-1)?.startsWith(`data ${channel} `)) heard[heard.length - 1] += text;
      else heard.push(`data ${channel} ${text}`);
      bytesOf = channel;
    },
    end: (channel) => heard.push(`end ${channel}`),
    reset: (channel) => heard.push(`reset ${channel}`),
    credit: (channel, bytes) => heard.push(`credit ${channel} ${bytes}`),
    goaway: () => heard.push('goaway'),
  });
  for (const chunk of chunks) reader.read(chunk, chunk.length);
  return heard;
}

const data = (channel: number, text: string): string => typeText(DATA, text.length) + channelText(channel) + text;
const frame = (type: number, channel: number, payload = ''): string => typeText(type, payload.length) + channelText(channel) + payload;
const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

const SCRIPT = bytes(
  data(1, 'GET / HTTP/1.1\r\n\r\n') +
    creditFrame(channelText(0x01020304), 70_000) +
    data(2, '\x00\xff') +
    frame(END, 1) +
    frame(RESET, CHANNEL_ID_MAX) +
    frame(GOAWAY, 0) +
    data(3, 'x'),
);
const HEARD = [
  'data 1 GET / HTTP/1.1\r\n\r\n',
  `credit ${0x01020304} 70000`,
  'data 2 \x00\xff',
  'end 1',
  `reset ${CHANNEL_ID_MAX}`,
  'goaway',
  'data 3 x',
];

test('frames are the same cut after any byte, and byte by byte', () => {
  expect(read([SCRIPT])).toEqual(HEARD);
  for (let at = 1; at < SCRIPT.length; at++) expect(read([SCRIPT.subarray(0, at), SCRIPT.subarray(at)])).toEqual(HEARD);
  expect(read([...SCRIPT].map((byte) => Buffer.of(byte)))).toEqual(HEARD);
});

test('a frame with its header fills one TLS record', () => {
  expect(HEADER_BYTES + PAYLOAD_BYTES_MAX).toBe(16_384);
  expect(data(1, 'x'.repeat(PAYLOAD_BYTES_MAX))).toHaveLength(16_384);
});

test.each([
  ['a type that there is not', frame(5, 1)],
  ['data for the connection', data(0, 'x')],
  ['GOAWAY for a channel', frame(GOAWAY, 1)],
  ['data without bytes', data(1, '')],
  ['data longer than a frame may be', typeText(DATA, PAYLOAD_BYTES_MAX + 1) + channelText(1)],
  ['END with a payload', frame(END, 1, 'x')],
  ['RESET with a payload', frame(RESET, 1, 'x')],
  ['credit of another size', frame(CREDIT, 1, 'xxx')],
  ['credit of nothing', creditFrame(channelText(1), 0)],
  ['credit for more than a window', creditFrame(channelText(1), WINDOW_BYTES + 1)],
  ['a number above the highest', frame(END, CHANNEL_ID_MAX + 1)],
])('refused: %s', (_name, text) => {
  expect(() => read([bytes(text)])).toThrow(MuxError);
  expect(() => read([...bytes(text)].map((byte) => Buffer.of(byte)))).toThrow(MuxError);
});

test('whatever comes, a reader throws nothing but its own error', () => {
  const part = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array)),
    fc
      .record({ type: fc.integer({ min: 0, max: 6 }), channel: fc.integer({ min: 0, max: 5 }), length: fc.integer({ min: 0, max: 6 }) })
      .map(({ type, channel, length }) => bytes(typeText(type, length) + channelText(channel) + '\0\0\0\x01zz'.slice(0, length))),
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 20 }), (parts) => {
      const whole = Buffer.concat(parts);
      const outcome = (chunks: readonly Buffer[]): unknown => {
        try {
          return read(chunks);
        } catch (error) {
          if (!(error instanceof MuxError)) throw error;
          return 'refused';
        }
      };
      expect(outcome([...whole].map((byte) => Buffer.of(byte)))).toEqual(outcome([whole]));
    }),
    { numRuns: 2_000 },
  );
});
