/** The application behind the proxy that is attacked: small and large answers, and bodies that it waits for. `node app.ts PORT`. */
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';

const SMALL = Buffer.alloc(1024, 'x');
const BLOCK = Buffer.alloc(64 * 1024, 'x');

/** Writes `bytes`, no faster than they are taken. */
function pour(response: ServerResponse, bytes: number): void {
  response.writeHead(200, { 'content-length': bytes });
  let left = bytes;
  const more = (): void => {
    while (left > 0) {
      const block = left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK;
      left -= block.length;
      if (!response.write(block)) return;
    }
    response.end();
    response.off('drain', more);
  };
  response.on('drain', more);
  more();
}

const server = createServer((request, response) => {
  const large = /^\/bytes\/(\d+)$/.exec(request.url ?? '');
  if (large !== null) pour(response, Number(large[1]));
  else if (request.method === 'GET') response.end(SMALL);
  else {
    request.resume();
    request.on('end', () => response.end(SMALL));
  }
});
// The attack is on the proxy: the application must not cut it short.
server.requestTimeout = server.headersTimeout = 0;
server.keepAliveTimeout = 300_000;
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4_096 });
