/** The application behind the proxy that is attacked: small and large answers, and bodies that it waits for; a few lines, so that its own cost hides nobody else's. `node app.ts PORT`. */
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { latin1 } from '../../proxy/http1/bytes.ts';
import { readFrom } from '../../proxy/http1/reading.ts';

const SMALL = `HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n${'x'.repeat(1024)}`;
const BLOCK = Buffer.alloc(64 * 1024, 'x');

/** Writes `bytes`, no faster than they are taken. */
function pour(socket: Socket, bytes: number): void {
  socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`);
  let left = bytes;
  const more = (): void => {
    while (left > 0 && !socket.destroyed) {
      const block = left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK;
      left -= block.length;
      if (!socket.write(block)) return;
    }
    socket.off('drain', more);
  };
  socket.on('drain', more);
  more();
}

// What comes is the proxy's canonical form: a head is in one read, and a body that is slow is never whole here.
createServer({ noDelay: true }, (socket) => {
  let inBody = false;
  socket.on('error', () => undefined);
  const read = (buffer: Buffer, bytes: number): void => {
    if (inBody) return;
    const head = latin1(buffer, 0, bytes);
    if (head.startsWith('GET /small')) socket.write(SMALL, 'latin1');
    else if (head.startsWith('GET /bytes/')) pour(socket, Number(/^GET \/bytes\/(\d+)/.exec(head)![1]));
    else inBody = true;
  };
  readFrom(socket, { read });
}).listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4_096 });
