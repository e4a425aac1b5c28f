/** A service of the demo: answers JSON, asks the next service first, and can be told to break or to be slow. */
import { createServer, get } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { systemClock } from '../../lib/clock.ts';

interface Behaviour {
  broken: boolean;
  delayMs: number;
}

/** Headers that an application hands on so that its mesh can join the parts of a trace. */
const TRACE_HEADERS = ['traceparent', 'tracestate', 'x-request-id', 'baggage'];

const service = process.env['DEMO_SERVICE'] ?? 'service';
const version = process.env['DEMO_VERSION'] ?? 'v1';
const instance = process.env['DEMO_INSTANCE'] ?? service;
const nextService = process.env['DEMO_NEXT'] ?? '';
const behaviour: Behaviour = { broken: false, delayMs: 0 };
const clock = systemClock();

const server = createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/demo/behaviour') setBehaviour(request, response);
  else clock.after(behaviour.delayMs, () => answer(request, response));
});
server.keepAliveTimeout = 75_000;
server.listen(Number(process.env['DEMO_PORT'] ?? 0), '127.0.0.1');
// Whoever started it is gone without a word (killed): so is this.
const parent = process.ppid;
const lookUp = (): void => {
  if (process.ppid === parent) clock.after(1_000, lookUp);
  else process.exit(0);
};
lookUp();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}

function setBehaviour(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    Object.assign(behaviour, JSON.parse(Buffer.concat(chunks).toString()) as Partial<Behaviour>);
    response.end();
  });
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  request.resume();
  if (behaviour.broken) {
    send(response, 503, { service, version, instance, error: 'told to be broken' });
    return;
  }
  if (nextService === '') {
    send(response, 200, { service, version, instance });
    return;
  }
  const headers: Record<string, string> = {};
  for (const name of TRACE_HEADERS) if (typeof request.headers[name] === 'string') headers[name] = request.headers[name];
  // HTTP_PROXY is set by `meshwork run`, so this plain call goes through the sidecar.
  const call = get(`http://${nextService}/`, { headers }, (reply) => {
    const chunks: Buffer[] = [];
    reply.on('data', (chunk: Buffer) => chunks.push(chunk));
    reply.on('error', (error) => send(response, 502, { service, version, instance, error: error.message }));
    reply.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      if (reply.statusCode === 200) send(response, 200, { service, version, instance, next: JSON.parse(text) as unknown });
      else
        send(response, 502, {
          service,
          version,
          instance,
          error: `${nextService} answered ${String(reply.statusCode)}: ${text.slice(0, 200)}`,
        });
    });
  });
  call.on('error', (error) => send(response, 502, { service, version, instance, error: error.message }));
}

function send(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent) return;
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
