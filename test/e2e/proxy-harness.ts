/** What the end-to-end tests of the proxy share: applications, proxies from a bootstrap, raw clients, and a check that nothing is left behind. */
import { createHash } from 'node:crypto';
import { createServer, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog } from '../../lib/log.ts';
import { startProxy } from '../../proxy/main.ts';
import type { RunningProxy } from '../../proxy/main.ts';
import { encodeResource, TYPE_URLS } from '../../xds/resources/index.ts';
import type { Kind } from '../../xds/resources/index.ts';
import { parseResourceFile } from '../../xds/resources/resource-file.ts';
import type { EncodedResource } from '../../xds/session/messages.ts';
import type { IncomingHttpHeaders, RequestListener, Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export type Json = Record<string, unknown>;

const cleanups: (() => Promise<void> | void)[] = [];

/** Runs `fn` when the test is over, the last one first. */
export function onEnd(fn: () => Promise<void> | void): void {
  cleanups.push(fn);
}

/** Closes everything that a test opened, and fails when a socket or a server of it stays. */
export async function closeAll(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  await until(() => openHandles().length === 0, `nothing stays open, but ${openHandles().join(', ')} did`, 10_000);
}

function openHandles(): string[] {
  return process
    .getActiveResourcesInfo()
    .filter((kind) => /^(TCPSocketWrap|TCPServerWrap|PipeWrap|PipeServerWrap)$/.test(kind) && !stdio.has(kind));
}

/** Standard streams of a test runner may be pipes. */
const stdio: ReadonlySet<string> = new Set(process.getActiveResourcesInfo().filter((kind) => kind === 'PipeWrap'));

/** Polls until it holds; throws with `what` after half a minute. */
export async function until(test: () => boolean | Promise<boolean>, what: string, timeoutMs = 30_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await test())) {
    if (performance.now() > endMs) throw new Error(`waited in vain: ${what}`);
    await pause(5);
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export interface App {
  readonly port: number;
  readonly server: Server;
  hits: number;
  readonly requests: { method: string; url: string; headers: IncomingHttpHeaders }[];
}

/** A server of an application on a free port. Without a listener it answers with its name. */
export async function startApp(name: string, listener?: RequestListener): Promise<App> {
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    app.hits++;
    app.requests.push({ method: request.method!, url: request.url!, headers: request.headers });
    if (listener !== undefined) listener(request, response);
    else response.end(name);
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const app: App = { port: (server.address() as AddressInfo).port, server, hits: 0, requests: [] };
  onEnd(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  );
  return app;
}

export interface TestProxy {
  readonly running: RunningProxy;
  /** The port of the listener of that name; the first one's without a name. */
  port(listener?: string): number;
  admin(path: string, method?: string): Promise<{ status: number; text: string }>;
}

/** Starts a proxy from a bootstrap as an object; an admin port is added. Lines of its log go to `logged`. */
export async function startTestProxy(bootstrap: Json, options: { argv?: string[]; ready?: boolean } = {}): Promise<TestProxy> {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-proxy-'));
  const file = join(directory, 'bootstrap.json');
  writeFileSync(file, JSON.stringify({ admin: { address: address(0) }, ...bootstrap }));
  const running = await startProxy(['-c', file, ...(options.argv ?? [])], { log: silentLog });
  onEnd(async () => {
    await running.stop({ timeoutMs: 0 });
    rmSync(directory, { recursive: true, force: true });
  });
  if (options.ready !== false) await running.ready;
  return {
    running,
    port: (listener) => {
      const found = running.listeners().find(({ name }) => listener === undefined || name === listener);
      return found?.addresses[0]?.port ?? 0;
    },
    admin: async (path, method = 'GET') => {
      const answer = await call(running.adminAddress!.port, path, { method });
      return { status: answer.status, text: answer.body };
    },
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** One request over a connection of its own. */
export function call(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string; host?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        host: '127.0.0.1',
        port,
        path,
        method: options.method ?? 'GET',
        agent: false,
        headers: { ...options.headers, ...(options.host === undefined ? {} : { host: options.host }) },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks).toString() }),
        );
      },
    );
    request.on('error', reject);
    request.end(options.body);
  });
}

/** A raw connection that keeps what it reads. */
export async function rawClient(port: number): Promise<{ socket: Socket; text: () => string; closed: () => boolean }> {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  let closed = false;
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  socket.on('error', () => undefined);
  socket.on('close', () => (closed = true));
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  onEnd(() => void socket.destroy());
  return { socket, text: () => text, closed: () => closed };
}

// ---- parts of configurations ----------------------------------------------------------------------------------------

export function address(port: number, host = '127.0.0.1'): Json {
  return { socket_address: { address: host, port_value: port } };
}

const TYPE = 'type.googleapis.com/envoy.extensions';

export const ROUTER_FILTER: Json = {
  name: 'envoy.filters.http.router',
  typed_config: { '@type': `${TYPE}.filters.http.router.v3.Router` },
};

export function httpFilter(type: string, config: Json, name = 'filter'): Json {
  return { name, typed_config: { '@type': `${TYPE}.filters.http.${type}`, ...config } };
}

/** An HTTP connection manager as a network filter. */
export function manager(settings: Json): Json {
  return {
    name: 'http',
    typed_config: {
      '@type': `${TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: 'test',
      http_filters: [ROUTER_FILTER],
      ...settings,
    },
  };
}

export function routes(list: Json[], more: Json = {}): Json {
  return { name: 'local', virtual_hosts: [{ name: 'all', domains: ['*'], routes: list, ...more }] };
}

/** A listener on a free port with one HTTP chain. */
export function httpListener(name: string, settings: Json, more: Json = {}): Json {
  return { name, address: address(0), filter_chains: [{ filters: [manager(settings)] }], ...more };
}

export function routeTo(cluster: string, prefix = '/', more: Json = {}): Json {
  return { match: { prefix }, route: { cluster, ...more } };
}

export function cluster(name: string, ports: readonly number[], more: Json = {}): Json {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '1s',
    load_assignment: assignment(name, ports),
    ...more,
  };
}

export function assignment(name: string, ports: readonly number[]): Json {
  return { cluster_name: name, endpoints: [{ lb_endpoints: ports.map((port) => ({ endpoint: { address: address(port) } })) }] };
}

// ---- resources of a control plane -----------------------------------------------------------------------------------

/** A resource as a control plane sends it. */
export function wire(kind: Kind, json: Json): EncodedResource {
  const text = JSON.stringify({ resources: [{ '@type': TYPE_URLS[kind], ...json }] });
  const { resources, errors } = parseResourceFile(text, { format: 'json', file: 'test', kind });
  if (errors[0] !== undefined) throw errors[0];
  const { typeUrl, name, bytes } = encodeResource(kind, resources[0]!.resource as never);
  return { typeUrl, name, bytes, version: createHash('sha256').update(bytes).digest('hex').slice(0, 12) };
}

/** From the control plane that the bootstrap names. */
export const ADS_SOURCE: Json = { ads: {}, resource_api_version: 'V3' };

/** Settings of a connection manager whose routes come from the control plane, under the name `routes`. */
export const RDS: Json = { rds: { route_config_name: 'routes', config_source: ADS_SOURCE } };

export function edsCluster(name: string): Json {
  return { name, type: 'EDS', connect_timeout: '1s', eds_cluster_config: { eds_config: ADS_SOURCE } };
}
