/** Ports on this computer: the usual one when it is free, else any. */
import { createServer } from 'node:net';
import { below, systemRandom } from '../lib/random.ts';

/** True when a server could listen there right now. */
export function isPortFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** Below where systems take ports for outgoing connections from, so that nobody gets one of these by chance meanwhile. */
const LOWEST = 18_000;
const HIGHEST = 32_000;
const given = new Set<number>();

/** `count` different free ports, never the same twice in one process; a usual port comes first when it is free. Another program may still take one before it is used. */
export async function freePorts(count: number, usual: readonly number[] = [], host = '127.0.0.1'): Promise<number[]> {
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const port = usual[i];
    found.push(port !== undefined && !given.has(port) && (await isPortFree(port, host)) ? port : await anyFreePort(host));
    given.add(found[i]!);
  }
  return found;
}

async function anyFreePort(host: string): Promise<number> {
  for (;;) {
    const port = LOWEST + below(systemRandom, HIGHEST - LOWEST);
    if (!given.has(port) && (await isPortFree(port, host))) return port;
  }
}
