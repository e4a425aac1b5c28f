/** The ports that an Istio agent has beside its proxy: 15021 for health probes, 15020 for metrics, those of the application among them. */
import { http } from '../../lib/on-demand.ts';
import { renderPrometheus } from '../../lib/metrics-text.ts';
import type { ServerState } from './endpoint.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Registry } from '../../lib/metrics.ts';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface AgentPortsOptions {
  readonly host: string;
  /** Undefined = no such port; 0 = any. */
  readonly healthPort: number | undefined;
  readonly metricsPort: number | undefined;
  /** URL of the application's own metrics, put behind ours; undefined = none. */
  readonly applicationMetrics: string | undefined;
}

export interface AgentPortsDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly state: () => ServerState;
  readonly refreshStats: () => void;
}

export interface AgentPorts {
  readonly healthPort: number | undefined;
  readonly metricsPort: number | undefined;
  close(): Promise<void>;
}

const CONNECTIONS_MAX = 128;
const APPLICATION_MS = 5_000;
const APPLICATION_BYTES_MAX = 16 * 1024 * 1024;

/** Opens the ports. Unlike the admin port they are for probes and scrapers of other machines: they only read, and only this. */
export async function openAgentPorts(options: AgentPortsOptions, deps: AgentPortsDeps): Promise<AgentPorts> {
  const health = (request: IncomingMessage, response: ServerResponse): void => answerHealth(request, response, deps);
  const metrics = (request: IncomingMessage, response: ServerResponse): void => {
    if (request.url?.split('?')[0] !== '/stats/prometheus' && request.url !== '/metrics') return health(request, response);
    return void writeMetrics(response, options, deps).catch((error: unknown) => {
      deps.log.warning('Metrics could not be written.', { error });
      response.destroy();
    });
  };
  const servers: Server[] = [];
  try {
    const healthPort = options.healthPort === undefined ? undefined : await listen(options.host, options.healthPort, health, servers);
    const metricsPort = options.metricsPort === undefined ? undefined : await listen(options.host, options.metricsPort, metrics, servers);
    return { healthPort, metricsPort, close: () => closeAll(servers) };
  } catch (error) {
    await closeAll(servers);
    throw error;
  }
}

function answerHealth(request: IncomingMessage, response: ServerResponse, { state }: AgentPortsDeps): void {
  const path = request.url?.split('?')[0] ?? '';
  const reads = request.method === 'GET' || request.method === 'HEAD';
  const live = path === '/healthz/live';
  const known = live || path === '/healthz/ready' || path === '/ready';
  const status = !known ? 404 : !reads ? 405 : live || state() === 'LIVE' ? 200 : 503;
  response.writeHead(status, { 'content-type': 'text/plain' });
  response.end(request.method === 'HEAD' ? undefined : `${status === 404 ? 'not found' : state()}\n`);
}

/** Ours first; an application that does not answer costs its part alone. */
async function writeMetrics(response: ServerResponse, options: AgentPortsOptions, deps: AgentPortsDeps): Promise<void> {
  deps.refreshStats();
  const application = options.applicationMetrics === undefined ? '' : await readApplication(options.applicationMetrics, deps);
  response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
  for (const slice of renderPrometheus(deps.registry)) response.write(slice);
  response.end(application);
}

function readApplication(url: string, { clock, log }: AgentPortsDeps): Promise<string> {
  return new Promise((resolve) => {
    const give = (error: unknown): void => {
      cancel();
      request.destroy();
      log.warning('The metrics of the application could not be read.', { url, error });
      resolve('');
    };
    const request = http().get(url, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > APPLICATION_BYTES_MAX) give(new Error(`more than ${APPLICATION_BYTES_MAX} bytes`));
        else chunks.push(chunk);
      });
      response.on('error', give);
      response.on('end', () => {
        cancel();
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString('utf8'));
        else give(new Error(`status ${response.statusCode ?? 0}`));
      });
    });
    const cancel = clock.after(APPLICATION_MS, () => give(new Error(`no answer within ${APPLICATION_MS} ms`)));
    request.on('error', give);
  });
}

function listen(
  host: string,
  port: number,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
  servers: Server[],
): Promise<number> {
  const server = http().createServer(handler);
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', (_error, socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      servers.push(server);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

async function closeAll(servers: readonly Server[]): Promise<void> {
  await Promise.all(
    servers.map(
      (server) =>
        new Promise<void>((resolve) => {
          server.close(() => resolve());
          server.closeAllConnections();
        }),
    ),
  );
}
