/** Streamed bodies arrive unchanged, whoever is slow: the buffers that sockets read into are lent to writers, and must not be read into meanwhile. */
import { afterEach, expect, test } from '@jest/globals';
import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { listen, startProxy } from './harness.ts';
import type { Listening, Proxy } from './harness.ts';

const BODY_BYTES = 3 * 1024 * 1024 + 16;
const STREAMS = 4;

let upstream: Listening;
let proxy: Proxy;

afterEach(async () => {
  await proxy.close();
  await upstream.close();
});

/** Bytes in which no part is like another, different for each `seed`. */
function content(seed: number): Buffer {
  const known = contents.get(seed);
  if (known !== undefined) return known;
  const words = new Uint32Array(BODY_BYTES / 4);
  for (let i = 0; i < words.length; i++) words[i] = imul(i, 2_654_435_761) + seed * 97;
  const made = Buffer.from(words.buffer);
  contents.set(seed, made);
  return made;
}

/** Globals are slow to reach in a test's context, and this is asked millions of times. */
const { imul } = Math;
const contents = new Map<number, Buffer>();

const hash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

function framed(body: Buffer, chunked: boolean): Buffer {
  if (!chunked) return Buffer.concat([Buffer.from(`Content-Length: ${body.length}\r\n\r\n`), body]);
  const parts: Buffer[] = [Buffer.from('Transfer-Encoding: chunked\r\n\r\n')];
  for (let at = 0, size = 1; at < body.length; at += size, size = (size * 7 + 3) % 90_001 || 1) {
    const part = body.subarray(at, at + size);
    parts.push(Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n'));
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]);
}

/** The body of a message whose head ends with an empty line. */
function unframed(message: Buffer): Buffer {
  const end = message.indexOf('\r\n\r\n');
  const head = message.toString('latin1', 0, end + 2);
  if (!head.includes('Transfer-Encoding: chunked')) return message.subarray(end + 4);
  const parts: Buffer[] = [];
  for (let at = end + 4; ;) {
    const eol = message.indexOf('\r\n', at);
    const size = Number.parseInt(message.toString('latin1', at, eol), 16);
    if (size === 0) return Buffer.concat(parts);
    parts.push(message.subarray(eol + 2, eol + 2 + size));
    at = eol + 4 + size;
  }
}

const isComplete = (message: Buffer): boolean => {
  const end = message.indexOf('\r\n\r\n');
  if (end === -1) return false;
  const length = /Content-Length: (\d+)/.exec(message.toString('latin1', 0, end + 2));
  if (length !== null) return message.length >= end + 4 + Number(length[1]);
  return message.subarray(-7).equals(Buffer.from('\r\n0\r\n\r\n'));
};

/** Collects a message; stops reading for a moment every 300 KB. */
function readSlowly(socket: Socket, onMessage: (message: Buffer) => void): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let restAt = 300_000;
  socket.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > restAt) {
      restAt += 300_000;
      socket.pause();
      setTimeout(() => socket.resume(), 3);
    }
    if (bytes < BODY_BYTES) return;
    const message = Buffer.concat(chunks);
    if (isComplete(message)) onMessage(message);
  });
}

test.each(['Content-Length', 'chunks'])(
  'answers with %s arrive unchanged at several slow readers',
  async (framing) => {
    upstream = await listen((socket) => {
      socket.on('data', (chunk: Buffer) => {
        const seed = Number(/GET \/(\d+) /.exec(chunk.toString('latin1'))![1]);
        socket.write('HTTP/1.1 200 OK\r\n');
        socket.write(framed(content(seed), framing === 'chunks'));
      });
    });
    proxy = await startProxy(upstream.port);

    const hashes = await Promise.all(
      Array.from(
        { length: STREAMS },
        (_, seed) =>
          new Promise<string>((resolve, reject) => {
            const socket = connect({ port: proxy.port, host: '127.0.0.1' });
            socket.on('error', reject);
            readSlowly(socket, (message) => {
              socket.destroy();
              resolve(hash(unframed(message)));
            });
            socket.write(`GET /${seed} HTTP/1.1\r\nHost: a\r\n\r\n`);
          }),
      ),
    );

    expect(hashes).toEqual(Array.from({ length: STREAMS }, (_, seed) => hash(content(seed))));
  },
  120_000,
);

test.each(['Content-Length', 'chunks'])(
  'requests with %s arrive unchanged at a slow upstream',
  async (framing) => {
    upstream = await listen((socket) => {
      readSlowly(socket, (message) => {
        const answer = hash(unframed(message));
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${answer.length}\r\n\r\n${answer}`);
      });
    });
    proxy = await startProxy(upstream.port);

    const hashes = await Promise.all(
      Array.from(
        { length: STREAMS },
        (_, seed) =>
          new Promise<string>((resolve, reject) => {
            const socket = connect({ port: proxy.port, host: '127.0.0.1' });
            let text = '';
            socket.on('error', reject);
            socket.on('data', (chunk: Buffer) => {
              text += chunk.toString('latin1');
              const at = text.indexOf('\r\n\r\n');
              if (at === -1 || text.length < at + 4 + 64) return;
              socket.destroy();
              resolve(text.slice(at + 4));
            });
            socket.write('POST / HTTP/1.1\r\nHost: a\r\n');
            socket.write(framed(content(seed), framing === 'chunks'));
          }),
      ),
    );

    expect(hashes).toEqual(Array.from({ length: STREAMS }, (_, seed) => hash(content(seed))));
  },
  120_000,
);
