/** Ports on this computer: the usual one when it is free, else any. */
import { createServer } from 'node:net';

/** True when a server could listen there right now. */
export function isPortFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** `count` different free ports; a usual port comes first when it is free. Another program may still take one before it is used. */
export async function freePorts(count: number, usual: readonly number[] = [], host = '127.0.0.1'): Promise<number[]> {
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const port = usual[i];
    found.push(port !== undefined && (await isPortFree(port, host)) ? port : 0);
  }
  const missing = found.filter((port) => port === 0).length;
  const fresh = await openTogether(missing, host, new Set(found));
  return found.map((port) => (port === 0 ? fresh.pop()! : port));
}

/** Opens all at once, so that they differ, then closes them. */
async function openTogether(count: number, host: string, taken: ReadonlySet<number>): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer();
          server.once('error', reject);
          server.listen(0, host, () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  if (ports.some((port) => taken.has(port))) return openTogether(count, host, taken);
  return ports;
}
