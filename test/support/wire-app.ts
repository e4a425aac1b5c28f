/** An application that shows what reached it: header fields as they came, upgraded connections echoed, slow answers on request. */
import { createServer } from 'node:http';

const server = createServer((request, response) => {
  const waitMs = Number(new URL(request.url ?? '/', 'http://app').searchParams.get('waitMs') ?? 0);
  setTimeout(() => {
    response.setHeader('X-MiXeD-Case', 'Answer');
    response.end(JSON.stringify({ pid: process.pid, rawHeaders: request.rawHeaders }));
  }, waitMs);
});
server.on('upgrade', (_request, socket, head) => {
  socket.on('error', () => undefined);
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  if (head.length > 0) socket.write(head);
  socket.pipe(socket);
});
server.listen(Number(process.env['DEMO_PORT']), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
// A test kills the sidecar that started this: it must not outlive it.
const sidecar = process.ppid;
setInterval(() => process.ppid !== sidecar && process.exit(0), 200);
