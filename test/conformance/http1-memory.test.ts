/** Memory of the HTTP/1.1 codec, read from the operating system for a proxy in a process of its own (case 55, and idle connections). */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { listen } from './harness.ts';
import type { Listening } from './harness.ts';

const MIB = 1024 * 1024;
const BODY_BYTES = 256 * MIB;

let source: Listening;
let child: ChildProcess;
let port: number;
const sockets: Socket[] = [];

beforeEach(async () => {
  source = await listen((socket) => {
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      if (text.length > 1_000) return;
      text += chunk.toString('latin1');
      if (!text.endsWith('\r\n\r\n')) return;
      if (text.includes('GET /small')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi');
      else pour(socket);
      text = '';
    });
  });
  child = spawn(process.execPath, [new URL('./proxy-process.ts', import.meta.url).pathname, String(source.port)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  port = await new Promise<number>((resolve) => createInterface({ input: child.stdout! }).once('line', (line) => resolve(Number(line))));
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.stdin!.end();
  await exited;
  await source.close();
});

function pour(socket: Socket): void {
  socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${BODY_BYTES}\r\n\r\n`);
  const chunk = Buffer.alloc(65_536);
  let left = BODY_BYTES;
  const more = (): void => {
    while (left > 0 && !socket.destroyed) {
      left -= chunk.length;
      if (!socket.write(chunk)) return;
    }
  };
  socket.on('drain', more);
  more();
}

/** Resident memory of the proxy. */
const residentBytes = (): number => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) * 1024;

/** Opens a connection and asks; `read` gets every chunk. */
function ask(path: string, read: (socket: Socket, chunk: Buffer) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1' }, () => {
      socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n`);
      resolve(socket);
    });
    sockets.push(socket);
    socket.on('data', (chunk: Buffer) => read(socket, chunk));
    socket.on('error', reject);
  });
}

/** Reads 256 MiB with a rest after each MiB; answers the most that the proxy's memory was above `before`. */
async function readSlowly(before: number): Promise<number> {
  let most = 0;
  await new Promise<void>((resolve, reject) => {
    let bytes = 0;
    let nextRest = MIB;
    void ask('/large', (socket, chunk) => {
      bytes += chunk.length;
      if (bytes >= BODY_BYTES) resolve();
      if (bytes < nextRest) return;
      nextRest += MIB;
      most = Math.max(most, residentBytes() - before);
      socket.pause();
      setTimeout(() => socket.resume(), 2);
    }).catch(reject);
  });
  return most;
}

const readable = process.platform === 'linux' ? test : test.skip;

readable(
  'case 55: 256 MiB to a slow reader grow the proxy by less than 16 MiB',
  async () => {
    // The first time through, code is compiled and buffers are made that stay.
    await readSlowly(residentBytes());

    const most = await readSlowly(residentBytes());

    expect(most).toBeLessThan(16 * MIB);
  },
  60_000,
);

readable(
  'a thousand idle connections cost at most 12 KiB each',
  async () => {
    const open = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i += 50) {
        await Promise.all(
          Array.from({ length: 50 }, () => new Promise<void>((resolve, reject) => void ask('/small', () => resolve()).catch(reject))),
        );
      }
    };
    await open(1_000);
    const before = residentBytes();

    await open(1_000);

    expect((residentBytes() - before) / 1_000).toBeLessThan(12 * 1024);
  },
  60_000,
);
