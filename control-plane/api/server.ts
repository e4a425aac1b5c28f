/** The REST API: one fastify instance with its doors (host, origin, body), its error mapping, and the areas of the registry. */
import fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import swagger from '@fastify/swagger';
import { isIP } from 'node:net';
import { turn } from '../../lib/slices.ts';
import { StoreFullError } from '../store/store.ts';
import type { Span } from '../tracing.ts';
import type { ApiContext } from './context.ts';
import { AREAS } from './index.ts';
import { ApiProblem, problemBody } from './problem.ts';

export const API_BODY_BYTES_MAX = 1_048_576;
const CONNECTIONS_MAX = 1_024;
const YAML_TYPES = ['application/yaml', 'application/x-yaml', 'text/yaml', 'text/x-yaml'];

/** A body as it came: handlers that want JSON parse it, those that want resources keep line numbers. */
export interface RawBody {
  readonly text: string;
  readonly yaml: boolean;
}

/** Makes the API, ready to listen. `hosts` are names it answers to beside IP addresses and `localhost`. */
export async function createApi(context: ApiContext, hosts: readonly string[]): Promise<FastifyInstance> {
  const app = fastify({
    logger: false,
    bodyLimit: API_BODY_BYTES_MAX,
    requestTimeout: 30_000,
    keepAliveTimeout: 10_000,
    http: { headersTimeout: 10_000, maxHeaderSize: 16_384 },
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 512, ignoreTrailingSlash: true },
    exposeHeadRoutes: false,
    // Without any here fastify loads its own, a hundred files.
    schemaController: { compilersFactory: { buildValidator: replaced, buildSerializer: replaced } },
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  // Bodies and queries are checked by the handlers' own schemas, whose messages say rule and value.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  parseBodies(app);
  guardDoors(app, new Set(hosts.map((host) => host.toLowerCase())));
  mapErrors(app, context);
  measure(app, context);
  const { clock } = context;
  await turn(clock);
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Meshwork control plane',
        version: '1',
        description: 'What the mesh is, what its proxies accepted, and how to change it. Errors are problem documents (RFC 9457).',
      },
    },
  });
  await turn(clock);
  await app.register(async (scope) => {
    for (const area of Object.values(AREAS)) {
      area(scope, context);
      await turn(clock);
    }
  });
  app.get('/api/v1/openapi.json', { schema: { hide: true } }, () => app.swagger());
  await app.ready();
  return app;
}

function replaced(): never {
  throw new Error('the compilers of the API are set where it is made');
}

function parseBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, text, done) => {
    done(null, { text: text as string, yaml: false } satisfies RawBody);
  });
  app.addContentTypeParser(YAML_TYPES, { parseAs: 'string' }, (_request, text, done) => {
    done(null, { text: text as string, yaml: true } satisfies RawBody);
  });
}

/** A page in somebody's browser must not reach a loopback API: by another host name (DNS rebinding), or by a request across origins. */
function guardDoors(app: FastifyInstance, names: ReadonlySet<string>): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const name = hostName(request.headers.host ?? '');
    if (name !== 'localhost' && isIP(name) === 0 && !names.has(name)) {
      done(new ApiProblem(403, `this API does not answer to the host name ${JSON.stringify(name)}; --api-host adds one`));
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      const { origin } = request.headers;
      const site = request.headers['sec-fetch-site'];
      const foreign = origin !== undefined && hostOf(origin) !== request.headers.host;
      if (foreign || (site !== undefined && site !== 'same-origin' && site !== 'none')) {
        done(new ApiProblem(403, `writes from another origin are refused, received ${JSON.stringify(origin ?? site)}`));
        return;
      }
    }
    done();
  });
  app.addHook('onSend', (_request, reply, _payload, done) => {
    reply.header('x-content-type-options', 'nosniff');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
    done();
  });
}

function mapErrors(app: FastifyInstance, context: ApiContext): void {
  app.setErrorHandler((error, request, reply) => {
    const problem = asProblem(error);
    if (problem.status >= 500) context.log.error('An API request failed.', { method: request.method, url: request.url, error });
    return sendProblem(reply, request, problem);
  });
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, request, new ApiProblem(404, `${request.method} ${request.url} is not part of the API; see /api/v1/openapi.json`)),
  );
}

function sendProblem(reply: FastifyReply, request: FastifyRequest, problem: ApiProblem): FastifyReply {
  return reply
    .code(problem.status)
    .header('content-type', 'application/problem+json')
    .send(JSON.stringify(problemBody(problem, request.url)));
}

function asProblem(error: unknown): ApiProblem {
  if (error instanceof ApiProblem) return error;
  if (error instanceof StoreFullError) return new ApiProblem(507, error.message);
  const { statusCode, message } = error as { statusCode?: number; message?: string };
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return new ApiProblem(statusCode, message ?? 'the request is not valid');
  return new ApiProblem(500, 'the control plane failed to answer; its log says more');
}

function measure(app: FastifyInstance, context: ApiContext): void {
  const spans = new WeakMap<FastifyRequest, { span: Span; startMs: number }>();
  app.addHook('onRequest', (request, _reply, done) => {
    const span = context.spans.start(`${request.method} ${request.routeOptions.url ?? 'unknown'}`, {
      'http.request.method': request.method,
    });
    spans.set(request, { span, startMs: context.clock.now() });
    done();
  });
  app.addHook('onResponse', (request, reply, done) => {
    const started = spans.get(request);
    if (started !== undefined) {
      started.span.set('http.response.status_code', reply.statusCode);
      started.span.end(reply.statusCode >= 500 ? `status ${reply.statusCode}` : undefined);
      const route = request.routeOptions.url ?? 'unknown';
      context.metrics.apiRequest(request.method, route, reply.statusCode, context.clock.now() - started.startMs);
    }
    done();
  });
}

/** The body as JSON. Throws a 400 that says where it breaks. */
export function jsonBody(request: FastifyRequest): unknown {
  const body = request.body as RawBody | undefined | null;
  if (body === undefined || body === null || body.text === '') return {};
  if (body.yaml) throw new ApiProblem(415, 'this request takes application/json');
  try {
    return JSON.parse(body.text);
  } catch (error) {
    throw new ApiProblem(400, `the body is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The host name of a Host header, without port and brackets, lower case. */
function hostName(host: string): string {
  const match = /^(?:\[([^\]]+)\]|([^:]*))(?::\d+)?$/.exec(host);
  return (match?.[1] ?? match?.[2] ?? host).toLowerCase();
}

function hostOf(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).host : '';
}
