/** A dialler that shares: one connection for all, none for peers that do not know the protocol, and an end for what is not needed. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { ManualClock } from '../../lib/clock.ts';
import { ProxyError } from '../errors.ts';
import type { Dialled } from '../upstream/dial.ts';
import { Carrier } from './carrier.ts';
import { Channel } from './channel.ts';
import { CHANNELS_MAX, MUX_ALPN } from './protocol.ts';
import { shareConnections } from './sharing.ts';
import type { SharedDial } from './sharing.ts';
import { socketPair } from './testing.ts';

let clock: ManualClock;
let shared: SharedDial;
/** Dials that have no answer yet, and those that were given up. */
let dials: { done: Dialled; cancelled: boolean }[];
let servers: Carrier[];
let closing: (() => Promise<void>)[];

beforeEach(() => {
  clock = new ManualClock();
  dials = [];
  servers = [];
  closing = [];
  shared = shareConnections((done) => {
    const dial = { done, cancelled: false };
    dials.push(dial);
    return () => (dial.cancelled = true);
  }, clock);
});
afterEach(async () => {
  for (const server of servers) server.destroy();
  for (const close of closing) await close();
});

/** Answers a dial with a connection of that ALPN. */
async function connected(index: number, alpn: string | false = MUX_ALPN, notAfterMs?: number): Promise<Socket> {
  const [client, accepted, close] = await socketPair();
  closing.push(close);
  (client as unknown as { alpnProtocol: string | false }).alpnProtocol = alpn;
  if (alpn === MUX_ALPN)
    servers.push(new Carrier(accepted, 'server', { opened: (one) => one.resume(), changed: () => undefined, closed: () => undefined }));
  dials[index]!.done(undefined, client, notAfterMs);
  return client;
}

function ask(): { error: ProxyError | undefined; socket: Socket | undefined; notAfterMs: number | undefined; cancel: () => void } {
  const got: ReturnType<typeof ask> = { error: undefined, socket: undefined, notAfterMs: undefined, cancel: () => undefined };
  got.cancel = shared.dial((error, socket, notAfterMs) => Object.assign(got, { error, socket, notAfterMs }));
  return got;
}

async function until(what: () => boolean): Promise<void> {
  const endMs = performance.now() + 5_000;
  while (!what()) {
    if (performance.now() > endMs) throw new Error(`not within 5 s: ${what.toString()}`);
    await turn();
  }
}

test('those who ask while the first connection is being made all get channels of it, and those after it at once', async () => {
  const first = [ask(), ask(), ask()];
  expect(dials).toHaveLength(1);
  await connected(0, MUX_ALPN, clock.wallMs() + 60_000);
  expect(first.every((one) => (one.socket as unknown) instanceof Channel)).toBe(true);
  expect(first[2]!.notAfterMs).toBe(clock.wallMs() + 60_000);
  expect((ask().socket as unknown) instanceof Channel).toBe(true);
  expect(dials).toHaveLength(1);
});

test('a peer that speaks another protocol gets one connection for each who asks', async () => {
  const [first, second, third] = [ask(), ask(), ask()];
  const socket = await connected(0, 'http/1.1');
  expect(first.socket).toBe(socket);
  expect(second.socket).toBeUndefined();
  expect(dials).toHaveLength(3);
  expect(third.socket).toBeUndefined();
  expect(await connected(2, false)).toBe(third.socket);
  ask();
  expect(dials).toHaveLength(4);
  // A peer that was upgraded meanwhile.
  await connected(1);
  expect((second.socket as unknown) instanceof Channel).toBe(true);
  expect((ask().socket as unknown) instanceof Channel).toBe(true);
  expect(dials).toHaveLength(4);
});

test('a dial that fails fails for all who wait for it, and the next one dials again', () => {
  const both = [ask(), ask()];
  dials[0]!.done(new ProxyError('connectFailed', 'no'), undefined);
  expect(both.map((one) => one.error?.detail)).toEqual(['no', 'no']);
  ask();
  expect(dials).toHaveLength(2);
});

test('the dial is given up when the last who waits for it gives up', () => {
  const [first, second] = [ask(), ask()];
  first.cancel();
  expect(dials[0]!.cancelled).toBe(false);
  second.cancel();
  expect(dials[0]!.cancelled).toBe(true);
  ask();
  expect(dials).toHaveLength(2);
});

test('who waited for the first connection can give up the dial of its own that followed', async () => {
  ask();
  const second = ask();
  await connected(0, false);
  expect(dials).toHaveLength(2);
  second.cancel();
  expect(dials[1]!.cancelled).toBe(true);
});

test('a connection that is full is joined by another', async () => {
  ask();
  await connected(0);
  for (let i = 1; i < CHANNELS_MAX; i++) ask();
  expect(dials).toHaveLength(1);
  const next = ask();
  expect(dials).toHaveLength(2);
  await connected(1);
  expect((next.socket as unknown) instanceof Channel).toBe(true);
});

test('a connection without channels is kept for a minute', async () => {
  const one = ask();
  const below = await connected(0);
  one.socket!.destroy();
  clock.advance(59_000);
  expect(below.destroyed).toBe(false);
  const again = ask();
  expect((again.socket as unknown) instanceof Channel).toBe(true);
  clock.advance(59_000);
  expect(below.destroyed).toBe(false);
  again.socket!.destroy();
  clock.advance(60_000);
  expect(below.destroyed).toBe(true);
  ask();
  expect(dials).toHaveLength(2);
});

test('before its certificates end a connection takes no new channels, and ends with the last one', async () => {
  const one = ask();
  const below = await connected(0, MUX_ALPN, clock.wallMs() + 100_000);
  clock.advance(80_000);
  ask();
  expect(dials).toHaveLength(2);
  expect(below.destroyed).toBe(false);
  one.socket!.destroy();
  expect(below.destroyed).toBe(true);
});

test('a peer that drains gets no new channels, and the connection ends with the last one', async () => {
  const one = ask();
  const below = await connected(0);
  servers[0]!.goAway();
  await until(() => {
    const before = dials.length;
    const next = ask();
    if (dials.length > before) return true;
    next.socket!.destroy();
    return false;
  });
  expect(below.destroyed).toBe(false);
  one.socket!.destroy();
  expect(below.destroyed).toBe(true);
});

test('drained: connections without channels end at once, others with their last', async () => {
  const [one, two] = [ask(), ask()];
  const below = await connected(0);
  one.socket!.destroy();
  shared.drain();
  expect(below.destroyed).toBe(false);
  two.socket!.destroy();
  expect(below.destroyed).toBe(true);
});
