/** `/api/v1/proxies`: who is connected, what each accepted and refused; and a relay to a sidecar's admin port, for reading. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import httpProxy from 'http-proxy';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { inSlices } from '../../lib/slices.ts';
import { problemBody, ApiProblem } from './problem.ts';
import type { ApiContext } from './context.ts';
import type { Area } from './index.ts';
import { doc } from './schema.ts';

interface Path {
  Params: { id: string };
}
const ID = { id: 'Node id: `<workload>.<namespace>`.' };

type Relay = (request: IncomingMessage, response: ServerResponse, target: string, failed: (error: Error) => void) => void;

/** Read-only paths of the admin port; nothing that changes a sidecar, and no heap or CPU dumps. */
const ADMIN_PATHS: ReadonlySet<string> = new Set([
  'ready',
  'server_info',
  'config_dump',
  'clusters',
  'listeners',
  'certs',
  'stats',
  'stats/prometheus',
  'memory',
  'init_dump',
]);
const ADMIN_TIMEOUT_MS = 10_000;

export const proxies: Area = (app, context) => {
  app.get(
    '/api/v1/proxies',
    { schema: doc({ tag: 'proxies', summary: 'Every proxy with its state per type: acked, pending or rejected with the reason.' }) },
    async (_request, reply) => {
      const all = await inSlices(context.clock, proxyTexts(context));
      return reply.type('application/json; charset=utf-8').send(`{"proxies":[${all.join()}]}`);
    },
  );
  app.get(
    '/api/v1/load',
    { schema: doc({ tag: 'proxies', summary: 'What clients reported of their load (LRS): totals per client and cluster.' }) },
    () => ({ load: context.load.list() }),
  );
  app.get<Path>('/api/v1/proxies/:id', { schema: doc({ tag: 'proxies', summary: 'One proxy.', path: ID }) }, (request) => {
    const view = context.proxies.get(request.params.id);
    if (view === undefined)
      throw new ApiProblem(404, `there is no proxy ${JSON.stringify(request.params.id)}, connected or known from before`);
    return view;
  });
  const server = httpProxy.createProxyServer({
    proxyTimeout: ADMIN_TIMEOUT_MS,
    timeout: ADMIN_TIMEOUT_MS,
    changeOrigin: true,
    ignorePath: true,
  });
  const relay: Relay = (request, response, target, failed) =>
    server.web(request, response, { target, headers: { authorization: '', cookie: '' } }, (error) => failed(asError(error)));
  app.get<{ Params: { id: string; '*': string } }>(
    '/api/v1/proxies/:id/admin/*',
    {
      schema: doc({
        tag: 'proxies',
        summary: "The sidecar's own admin port, reading only.",
        path: { ...ID, '*': [...ADMIN_PATHS].join(', ') },
      }),
    },
    (request, reply) => relayAdmin(context, relay, request, reply),
  );
};

/** JSON of each, one a step: a thousand of them are 20 ms and more. */
function* proxyTexts(context: ApiContext): Generator<void, string[]> {
  const texts: string[] = [];
  for (const proxy of context.proxies.views()) {
    // A workload that was taken out of the mesh takes its proxy with it; one that is still there and not connected is news.
    if (proxy.connected || proxy.workload === '' || context.world.current.workloads.has(proxy.workload)) texts.push(JSON.stringify(proxy));
    yield;
  }
  return texts;
}

function relayAdmin(
  context: ApiContext,
  relay: Relay,
  request: FastifyRequest<{ Params: { id: string; '*': string } }>,
  reply: FastifyReply,
): void {
  const { id, '*': path } = request.params;
  if (!ADMIN_PATHS.has(path))
    throw new ApiProblem(403, `the admin path ${JSON.stringify(path)} is not relayed; these are: ${[...ADMIN_PATHS].join(', ')}`);
  const target = adminTarget(context, id);
  const search = request.url.indexOf('?');
  const query = search === -1 ? '' : request.url.slice(search);
  reply.hijack();
  relay(request.raw, reply.raw, `${target}/${path}${query}`, (error) => answerAway(context, id, error, request, reply.raw));
}

/** Where a workload's admin port is. Only what the mesh knows is dialled, never what a caller names. */
function adminTarget(context: ApiContext, id: string): string {
  const view = context.proxies.get(id);
  if (view === undefined) throw new ApiProblem(404, `there is no proxy ${JSON.stringify(id)}`);
  const workload = context.world.current.workloads.get(view.workload);
  if (workload?.sidecar === undefined)
    throw new ApiProblem(404, `the proxy ${JSON.stringify(id)} is no known workload with a sidecar, so its admin port is not known`);
  const host = workload.address.includes(':') ? `[${workload.address}]` : workload.address;
  return `http://${host}:${workload.sidecar.adminPort}`;
}

function answerAway(context: ApiContext, id: string, error: Error, request: FastifyRequest, response: ServerResponse): void {
  context.log.warning('A sidecar did not answer on its admin port.', { proxy: id, error });
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const problem = new ApiProblem(502, `the admin port of ${id} did not answer: ${error.message}`);
  response.writeHead(502, { 'content-type': 'application/problem+json' });
  response.end(JSON.stringify(problemBody(problem, request.url)));
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
