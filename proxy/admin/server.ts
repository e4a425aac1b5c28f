/** The admin port: a small HTTP server that answers on addresses of this machine only, and only to those who ask for it by such a name. */
import { isIP } from 'node:net';
import { http } from '../../lib/on-demand.ts';
import { adminRoutes } from './index.ts';
import { isLoopback, parseIp } from '../listen/ip.ts';
import type { AdminContext, AdminEndpoint, AdminRequest, AdminResponse } from './endpoint.ts';
import type { Address } from '../../xds/snapshot.ts';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface AdminServer {
  readonly address: Address;
  close(): Promise<void>;
}

const BODY_BYTES_MAX = 1024 * 1024;
const CONNECTIONS_MAX = 256;

/** Starts the server. Rejects when the address cannot be bound. */
export function serveAdmin(address: Address, context: AdminContext): Promise<AdminServer> {
  const routes = adminRoutes();
  const server = http().createServer((request, response) => {
    answer(request, response, routes, context, boundAddress(server, address)).catch((error: unknown) => {
      context.log.warning('An admin request failed.', { path: request.url, error });
      response.destroy();
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', (_error, socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.pipe === true ? { path: address.host } : { host: address.host, port: address.port }, () => {
      server.off('error', reject);
      server.on('error', (error) => context.log.error('The admin server failed.', { error }));
      resolve({
        address: boundAddress(server, address),
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            server.closeAllConnections();
          }),
      });
    });
  });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  routes: ReadonlyMap<string, AdminEndpoint>,
  context: AdminContext,
  bound: Address,
): Promise<void> {
  if (!isOwnHost(request.headers.host, bound)) {
    send(response, request, {
      status: 403,
      contentType: 'text/plain',
      body: 'The admin port is asked for by an IP address or localhost only.\n',
    });
    return;
  }
  const url = new URL(request.url ?? '/', 'http://admin');
  const endpoint = routes.get(url.pathname);
  const method = request.method ?? 'GET';
  if (endpoint === undefined) {
    const help = routes.get('/help')!.handle({ method: 'GET', path: '/help', query: new URLSearchParams(), body: '' }, context);
    send(response, request, { ...help, status: 404, body: typeof help.body === 'string' ? `invalid path. ${help.body}` : '' });
    return;
  }
  // A page of a browser can send a GET anywhere, so that nothing may change by one.
  const allowed = endpoint.mutates ? ['POST'] : ['GET', 'HEAD'];
  if (!allowed.includes(method)) {
    response.setHeader('allow', allowed.join(', '));
    send(response, request, {
      status: 405,
      contentType: 'text/plain; charset=UTF-8',
      body: `Method ${method} not allowed, ${allowed[0]!} required.`,
    });
    return;
  }
  if (endpoint.mutates && isForeignPage(request)) {
    send(response, request, { status: 403, contentType: 'text/plain', body: 'Pages of other origins must not change this proxy.\n' });
    return;
  }
  const body = await readBody(request);
  if (body === undefined) {
    send(response, request, { status: 413, contentType: 'text/plain', body: `A body has at most ${BODY_BYTES_MAX} bytes.\n` });
    return;
  }
  const asked: AdminRequest = { method, path: url.pathname, query: url.searchParams, body };
  const made = endpoint.handle(asked, context);
  if (typeof made.body === 'string') {
    send(response, request, made);
    return;
  }
  response.writeHead(made.status, headersOf(made));
  for await (const slice of made.body) {
    if (response.destroyed) return;
    if (!response.write(slice)) await drained(response);
  }
  response.end();
}

function send(response: ServerResponse, request: IncomingMessage, made: AdminResponse): void {
  const body = typeof made.body === 'string' ? made.body : '';
  response.writeHead(made.status, { ...headersOf(made), 'content-length': Buffer.byteLength(body) });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function headersOf(made: AdminResponse): Record<string, string> {
  return { 'content-type': made.contentType, 'cache-control': 'no-cache, max-age=0', 'x-content-type-options': 'nosniff' };
}

/** DNS rebinding: a page of a stranger's name that resolves to this machine still sends that name as Host. */
function isOwnHost(host: string | undefined, bound: Address): boolean {
  if (bound.pipe === true || host === undefined) return true;
  const name = host.startsWith('[') ? host.slice(1, host.indexOf(']')) : host.split(':')[0]!;
  return isIP(name) !== 0 || name.toLowerCase() === 'localhost' || name === bound.host;
}

function isForeignPage(request: IncomingMessage): boolean {
  const origin = request.headers.origin;
  return origin !== undefined && origin !== `http://${request.headers.host}`;
}

function readBody(request: IncomingMessage): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
    });
    request.on('end', () => resolve(bytes > BODY_BYTES_MAX ? undefined : Buffer.concat(chunks).toString('utf8')));
    request.on('error', reject);
  });
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done);
      response.off('close', done);
      resolve();
    };
    response.on('drain', done);
    response.on('close', done);
  });
}

function boundAddress(server: Server, configured: Address): Address {
  const bound = server.address() as AddressInfo | string | null;
  return bound === null || typeof bound === 'string' ? configured : { host: bound.address, port: bound.port };
}

/** Whether an address is reachable from this machine alone. */
export function isLocalAddress(address: Address): boolean {
  if (address.pipe === true || address.host === 'localhost') return true;
  const ip = parseIp(address.host);
  return ip !== undefined && isLoopback(ip);
}
