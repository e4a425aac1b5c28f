/** A service of the compose example: answers its name and what the next one said. HTTP_PROXY sends its calls through its sidecar. */
import { createServer, get } from 'node:http';

const { NAME: name = 'app', NEXT: next = '', PORT: port = '3000' } = process.env;

createServer((_request, response) => {
  if (next === '') {
    response.end(`${name}\n`);
    return;
  }
  get(next, (reply) => {
    let text = '';
    reply.setEncoding('utf8');
    reply.on('data', (chunk: string) => (text += chunk));
    reply.on('end', () => response.end(`${name} > ${text}`));
  }).on('error', (error) => {
    response.statusCode = 502;
    response.end(`${name} > ${next}: ${error.message}\n`);
  });
}).listen(Number(port));
