/** An application for tests of large bodies: GET /down/N sends N bytes, POST /up answers how many bytes came and their digest. */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

const CHUNK = Buffer.alloc(64 * 1024, 'meshwork');
const parent = process.ppid;
setInterval(() => process.ppid !== parent && process.exit(0), 1_000).unref();

const server = createServer((request, response) => {
  const down = /^\/down\/(\d+)$/.exec(request.url ?? '');
  if (down !== null) {
    let left = Number(down[1]);
    response.setHeader('content-length', left);
    const send = (): void => {
      while (left > 0) {
        const chunk = left >= CHUNK.length ? CHUNK : CHUNK.subarray(0, left);
        left -= chunk.length;
        if (!response.write(chunk)) {
          response.once('drain', send);
          return;
        }
      }
      response.end();
    };
    send();
    return;
  }
  const hash = createHash('sha256');
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    hash.update(chunk);
  });
  request.on('end', () => response.end(JSON.stringify({ bytes, sha256: hash.digest('hex') })));
});
server.listen(Number(process.env['DEMO_PORT']), '127.0.0.1');
process.once('SIGTERM', () => process.exit(0));
