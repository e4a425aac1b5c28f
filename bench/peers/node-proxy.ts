/** A proxy of a few lines, run as a process: `node node-proxy.ts undici|http-proxy LISTEN UPSTREAM`. */
import { Agent, createServer } from 'node:http';
import { createProxyServer } from 'http-proxy';
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';

const [library, listenPort, upstreamPort] = process.argv.slice(2) as [string, string, string];
const origin = `http://127.0.0.1:${upstreamPort}`;

if (library === 'undici') {
  const pool = new Pool(origin, { connections: 1024, pipelining: 1 });
  createServer((request, response) => {
    const body = request.method === 'GET' || request.method === 'HEAD' ? null : request;
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart: () => undefined,
      onResponseStart: (_controller, status, headers) => void response.writeHead(status, headers as Record<string, string>),
      onResponseData: (controller, chunk) => {
        if (response.write(chunk)) return;
        controller.pause();
        response.once('drain', () => controller.resume());
      },
      onResponseEnd: () => void response.end(),
      onResponseError: () => void response.destroy(),
    };
    const headers = request.rawHeaders.filter(
      (_, index, all) => !/^(?:connection|keep-alive|transfer-encoding)$/i.test(all[index - (index % 2)]!),
    );
    pool.dispatch({ path: request.url!, method: request.method as Dispatcher.HttpMethod, headers, body }, handler);
  }).listen(Number(listenPort), '127.0.0.1');
} else {
  const proxy = createProxyServer({ target: origin, agent: new Agent({ keepAlive: true, maxSockets: 1024 }) });
  proxy.on('error', (_error, _request, response) => void response.destroy());
  createServer((request, response) => void proxy.web(request, response)).listen(Number(listenPort), '127.0.0.1');
}
