/** Connections that ask once and stay, in a process of their own: `node idle.ts PORT COUNT`. Opens COUNT for each line on stdin and prints `ready` when every one has its answer; ends with its stdin. */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const [port, count] = process.argv.slice(2).map(Number) as [number, number];
const AT_ONCE = 50;
const REQUEST = 'GET /1k HTTP/1.1\r\nHost: app.test\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n';

let wanted = 0;
let opened = 0;
let answered = 0;

function open(): void {
  if (opened === wanted) return;
  opened++;
  let bytes = 0;
  const socket = connect({ port, host: '127.0.0.1' }, () => void socket.write(REQUEST));
  socket.on('data', (chunk: Buffer) => {
    const before = bytes;
    bytes += chunk.length;
    if (before >= 1024 || bytes < 1024) return;
    if (++answered === wanted) process.stdout.write('ready\n');
    open();
  });
  socket.on('error', (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
}

createInterface({ input: process.stdin })
  .on('line', () => {
    wanted += count;
    for (let i = 0; i < AT_ONCE; i++) open();
  })
  .on('close', () => process.exit(0));
