/** Channels over a real socket pair: bytes in order, windows, ends, resets, and peers that do not keep to the protocol. */
import { afterEach, expect, test } from '@jest/globals';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { readFrom, stopReadFrom } from '../http1/reading.ts';
import { seededRandom } from '../../lib/random.ts';
import type { Channel } from './channel.ts';
import { CHANNELS_MAX, DATA, END, GOAWAY, PAYLOAD_BYTES_MAX, RESET, WINDOW_BYTES, channelText, creditFrame, typeText } from './protocol.ts';
import { asSocket } from './sharing.ts';
import { carrierPair } from './testing.ts';
import type { CarrierPair } from './testing.ts';

let pair: CarrierPair;
afterEach(() => pair.close());

async function until(what: () => boolean): Promise<void> {
  const endMs = performance.now() + 5_000;
  while (!what()) {
    if (performance.now() > endMs) throw new Error(`not within 5 s: ${what.toString()}`);
    await turn();
  }
}

function collect(channel: Channel): { text: () => string; bytes: number; ended: boolean } {
  const parts: Buffer[] = [];
  const got = { text: () => Buffer.concat(parts).toString('latin1'), bytes: 0, ended: false };
  channel.on('data', (chunk: Buffer) => {
    parts.push(chunk);
    got.bytes += chunk.length;
  });
  channel.on('end', () => (got.ended = true));
  return got;
}

test('many channels at once: every byte of each arrives once and in order, by the stream and past it', async () => {
  const random = seededRandom(7);
  pair = await carrierPair((channel) => {
    // Every other one as the HTTP codec reads, and with pauses.
    if (channel.id % 2 === 0) channel.on('data', (chunk: Buffer) => channel.write(chunk));
    else {
      const read = (buffer: Buffer, bytes: number): void => {
        channel.later(buffer.toString('latin1', 0, bytes));
        if (random() < 0.2) {
          channel.pause();
          setTimeout(() => channel.resume(), random() * 5);
        }
      };
      readFrom(asSocket(channel), { read });
    }
    channel.resume();
  });
  const sent = new Map<Channel, string>();
  const got = new Map<Channel, ReturnType<typeof collect>>();
  for (let i = 0; i < 40; i++) {
    const channel = pair.client.open();
    sent.set(channel, '');
    got.set(channel, collect(channel));
  }
  for (let step = 0; step < 2_000; step++) {
    const channel = [...sent.keys()][Math.floor(random() * 40)]!;
    const text = String.fromCharCode(32 + Math.floor(random() * 90)).repeat(1 + Math.floor(random() ** 4 * 60_000));
    sent.set(channel, sent.get(channel)! + text);
    if (random() < 0.5) channel.later(text);
    else channel.write(Buffer.from(text, 'latin1'));
    if (step % 20 === 0) await turn();
  }
  await until(() => [...sent].every(([channel, text]) => got.get(channel)!.bytes === text.length));
  for (const [channel, text] of sent) expect(got.get(channel)!.text() === text).toBe(true);
  expect(pair.client.channels).toBe(40);
}, 30_000);

test('who is not read may send a window and no more, and holds no other channel up', async () => {
  pair = await carrierPair();
  const slow = pair.client.open();
  const quick = pair.client.open();
  slow.write(Buffer.alloc(4 * WINDOW_BYTES, 's'));
  quick.later('hello');
  await until(() => pair.opened.length === 2);
  const [first, second] = pair.opened as [Channel, Channel];
  const seen = collect(second);
  await until(() => seen.text() === 'hello');
  await until(() => first.bytesRead === WINDOW_BYTES);
  for (let i = 0; i < 20; i++) await turn();
  expect(first.bytesRead).toBe(WINDOW_BYTES);
  expect(slow.writableLength).toBe(4 * WINDOW_BYTES);
  const all = collect(first);
  await until(() => all.bytes === 4 * WINDOW_BYTES);
  await until(() => slow.writableLength === 0);
});

test('each side ends for itself, and the channel is gone when both have', async () => {
  pair = await carrierPair((channel) => {
    channel.allowHalfOpen = true;
    channel.on('end', () => channel.end('and the answer'));
    channel.resume();
  });
  const channel = pair.client.open();
  channel.allowHalfOpen = true;
  const got = collect(channel);
  channel.end('a question');
  await once(channel, 'close');
  expect(got.text()).toBe('and the answer');
  expect(got.ended).toBe(true);
  await until(() => pair.server.channels === 0 && pair.client.channels === 0);
  expect(pair.ends).toEqual({});
});

test('a destroyed channel is reset at the other side, and the next one goes on', async () => {
  pair = await carrierPair();
  const channel = pair.client.open();
  channel.later('x');
  await until(() => pair.opened.length === 1);
  const ended = collect(pair.opened[0]!);
  channel.destroy();
  await once(pair.opened[0]!, 'close');
  expect(ended.ended).toBe(false);
  const next = pair.client.open();
  next.later('y');
  await until(() => pair.opened.length === 2);
  expect(pair.client.channels).toBe(1);
});

test('a channel that never sent anything is not spoken of', async () => {
  pair = await carrierPair();
  pair.client.open().destroy();
  const ended = pair.client.open();
  ended.resume();
  ended.end();
  await once(ended, 'close');
  const channel = pair.client.open();
  channel.later('x');
  await until(() => pair.opened.length === 1);
  expect(channel.id).toBe(1);
  expect(pair.client.channels).toBe(1);
});

test('when the connection breaks, so does every channel, without an end', async () => {
  pair = await carrierPair();
  const channels = Array.from({ length: 3 }, () => pair.client.open());
  for (const channel of channels) channel.later('x');
  await until(() => pair.opened.length === 3);
  const seen = [...channels, ...pair.opened].map(collect);
  const closed = [...channels, ...pair.opened].map((channel) => once(channel, 'close'));
  pair.sockets[1].destroy();
  await Promise.all(closed);
  expect(seen.some((one) => one.ended)).toBe(false);
  expect(pair.ends).toEqual({ client: 'orderly', server: 'orderly' });
});

test('a write that waits for credit when the channel goes is answered with an error', async () => {
  pair = await carrierPair();
  const channel = pair.client.open();
  const written = new Promise<Error | null | undefined>((resolve) => channel.write(Buffer.alloc(2 * WINDOW_BYTES), resolve));
  await until(() => pair.opened[0]?.bytesRead === WINDOW_BYTES);
  channel.destroy();
  expect(await written).toBeInstanceOf(Error);
});

test('GOAWAY: no more channels, those there are go on', async () => {
  pair = await carrierPair((channel) => channel.pipe(channel));
  const channel = pair.client.open();
  channel.later('one');
  await until(() => pair.opened.length === 1);
  pair.server.goAway();
  await until(() => pair.client.peerDrains);
  expect(pair.client.usable).toBe(false);
  const got = collect(channel);
  channel.later('two');
  await until(() => got.text() === 'onetwo');
});

test('more channels than a connection may have are reset', async () => {
  pair = await carrierPair();
  for (let i = 0; i < CHANNELS_MAX; i++) pair.client.open().later('x');
  await until(() => pair.opened.length === CHANNELS_MAX);
  expect(pair.client.usable).toBe(false);
  const refused = pair.client.open();
  const closed = once(refused, 'close');
  refused.later('x');
  await closed;
  expect(pair.opened).toHaveLength(CHANNELS_MAX);
  expect(pair.ends).toEqual({});
});

test('bytes that were read past the stream go through it again when reading is given back', async () => {
  pair = await carrierPair();
  const channel = pair.client.open();
  channel.later('head');
  await until(() => pair.opened.length === 1);
  const server = pair.opened[0]!;
  let past = '';
  readFrom(asSocket(server), { read: (buffer, bytes) => void (past += buffer.toString('latin1', 0, bytes)) });
  server.resume();
  await until(() => past === 'head');
  server.pause();
  channel.later('held');
  await until(() => server.bytesRead === 8);
  stopReadFrom(asSocket(server));
  channel.later('more');
  await until(() => server.bytesRead === 12);
  const got = collect(server);
  server.resume();
  await until(() => got.text() === 'heldmore');
});

const frame = (type: number, id: number, payload = ''): string => typeText(type, payload.length) + channelText(id) + payload;

test.each([
  ['more than it has credit for', frame(DATA, 1, 'x'.repeat(PAYLOAD_BYTES_MAX)).repeat(17)],
  ['credit for what was not sent', frame(DATA, 1, 'x') + creditFrame(channelText(1), 1)],
  ['bytes after the end', frame(DATA, 1, 'x') + frame(END, 1) + frame(DATA, 1, 'y')],
  ['two ends', frame(DATA, 1, 'x') + frame(END, 1) + frame(END, 1)],
  ['an unknown frame', frame(9, 1)],
])('a client that sends %s is cut off', async (_name, text) => {
  pair = await carrierPair();
  pair.sockets[0].write(text, 'latin1');
  await until(() => pair.ends.server !== undefined);
  expect(pair.ends.server).toMatchObject({ name: 'MuxError' });
  expect(pair.server.channels).toBe(0);
});

test('a server that opens channels is cut off', async () => {
  pair = await carrierPair();
  pair.sockets[1].write(frame(DATA, 5, 'x'), 'latin1');
  await until(() => pair.ends.client !== undefined);
  expect(pair.ends.client).toMatchObject({ name: 'MuxError' });
});

test('what is still on its way to a channel that is gone is dropped', async () => {
  pair = await carrierPair();
  pair.sockets[0].write(
    frame(DATA, 3, 'x') + frame(RESET, 3) + frame(DATA, 3, 'late') + frame(END, 2) + creditFrame(channelText(1), 5) + frame(GOAWAY, 0),
    'latin1',
  );
  await until(() => pair.server.peerDrains);
  expect(pair.opened).toHaveLength(1);
  expect(pair.ends.server).toBeUndefined();
});
