/** Health probes on the wire: an HTTP request by undici, or a TCP connect. */
import { connect } from 'node:net';
import type { Probe } from './health.ts';

/** Makes the probe that clusters use. Each question has a connection of its own, as a new client would. Not for endpoints that demand TLS. */
export function plainProbe(): Probe {
  return (endpoint, check, signal) => {
    const { host, port, pipe } = endpoint.address;
    if (check.kind === 'tcp') return tcp(pipe === true ? { path: host } : { host, port }, signal);
    if (check.kind === 'grpc') return Promise.reject(new Error('gRPC health checks are not supported'));
    return http(
      pipe === true ? { socketPath: host } : {},
      `http://${pipe === true ? 'localhost' : authority(host, port)}${check.path}`,
      check,
      signal,
    );
  };
}

function authority(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

async function http(
  socket: { readonly socketPath?: string },
  url: string,
  check: { readonly host: string; readonly expectedStatuses: readonly { readonly start: number; readonly end: number }[] },
  signal: AbortSignal,
): Promise<boolean> {
  // Loaded by the first check: undici is a sixth of an idle sidecar's memory, and most have nothing to check.
  const { Agent, request } = await import('undici');
  const dispatcher = new Agent({ connect: { ...socket, timeout: 0 }, pipelining: 0 });
  try {
    const headers = { 'user-agent': 'meshwork/health', ...(check.host === '' ? {} : { host: check.host }) };
    const { statusCode, body } = await request(url, { dispatcher, signal, headers });
    await body.dump({ limit: 65_536 });
    const expected = check.expectedStatuses.length === 0 ? [{ start: 200, end: 201 }] : check.expectedStatuses;
    return expected.some(({ start, end }) => statusCode >= start && statusCode < end);
  } finally {
    await dispatcher.destroy();
  }
}

function tcp(address: { host: string; port: number } | { path: string }, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address);
    const done = (well: boolean): void => {
      signal.removeEventListener('abort', aborted);
      socket.destroy();
      resolve(well);
    };
    const aborted = (): void => done(false);
    signal.addEventListener('abort', aborted, { once: true });
    socket.on('error', () => done(false));
    socket.once('connect', () => done(true));
  });
}
