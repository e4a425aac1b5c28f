/** Slow clients in a process of their own: `node attackers.ts PORT COUNT KIND`. Prints `ready` when all have connected, a line of JSON at the end of stdin. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';

const [port, count, kind] = process.argv.slice(2) as [string, string, string];

/** How one client behaves. `opening` is sent at once, `drip` about every second for ever. */
interface Slow {
  readonly opening: string;
  readonly drip: string;
}

const KINDS: Readonly<Record<string, Slow>> = {
  heads: { opening: 'GET /small HTTP/1.1\r\nHost: app.test\r\nX-Slow: ', drip: 'x' },
  bodies: { opening: 'POST /body HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000\r\n\r\n', drip: 'x' },
  chunks: { opening: 'POST /body HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n', drip: '1\r\nx\r\n' },
  readers: { opening: 'GET /bytes/131072 HTTP/1.1\r\nHost: app.test\r\n\r\n', drip: '' },
  // Larger than what the kernel takes: this answer stands in the proxy. Few, for the kernel's memory for TCP has a bound of its own.
  'large-readers': { opening: 'GET /bytes/8388608 HTTP/1.1\r\nHost: app.test\r\n\r\n', drip: '' },
};

/** Which kind the `i`th client is. */
function kindOf(i: number): Slow {
  const reader = i % 100 === 3 ? 'large-readers' : 'readers';
  if (kind === 'readers') return KINDS[reader]!;
  if (kind === 'mixed') return KINDS[['heads', 'bodies', 'chunks', reader][i % 4]!]!;
  return KINDS[kind === 'bodies' && i % 2 === 1 ? 'chunks' : kind]!;
}

const CONNECTS_PER_SECOND = 1_000;
const TICK_MS = 2;
/** Clients are served in as many groups, one a tick, so that each has a turn a second. */
const GROUPS = 1_000 / TICK_MS;

const clients: (Socket | undefined)[] = [];
let opened = 0;
let closed = 0;

function open(i: number): void {
  const slow = kindOf(i);
  // A reader takes what fits here, and rests until its next turn.
  const socket = connect({
    port: Number(port),
    host: '127.0.0.1',
    onread: { buffer: Buffer.alloc(256), callback: () => slow.drip !== '' },
  });
  clients[i] = socket;
  opened++;
  socket.once('connect', () => void socket.write(slow.opening));
  socket.on('error', () => undefined);
  socket.once('close', () => {
    closed++;
    clients[i] = undefined;
  });
}

let next = 0;
let tick = 0;
let ready = false;
setInterval(() => {
  for (let k = 0; k < (CONNECTS_PER_SECOND * TICK_MS) / 1_000 && next < Number(count); k++) open(next++);
  const group = tick++ % GROUPS;
  for (let i = group; i < next; i += GROUPS) {
    const socket = clients[i];
    // Who was sent away comes back.
    if (socket === undefined) open(i);
    else if (!socket.connecting) {
      const { drip } = kindOf(i);
      if (drip === '') socket.resume();
      else socket.write(drip);
    }
  }
  if (!ready && next === Number(count)) {
    ready = true;
    process.stdout.write('ready\n');
  }
}, TICK_MS);

process.stdin.on('end', () => {
  process.stdout.write(
    `${JSON.stringify({ connected: clients.filter((socket) => socket !== undefined).length, opened, sentAway: closed })}\n`,
    () => process.exit(0),
  );
});
process.stdin.resume();
