/** A service that registers itself with the control plane: what a program of yours would contain. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const API = process.env['CONTROL_PLANE'] ?? 'http://127.0.0.1:15080';

interface Registration {
  readonly lease: { readonly id: string; readonly secret: string; readonly ttlMs: number };
}

const server = createServer((_request, response) => void response.end('hello from a registered service\n'));
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address() as AddressInfo;

const answer = await fetch(`${API}/api/v1/registrations`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ service: 'greeter', address: '127.0.0.1', ports: { http: port }, ttlSeconds: 3 }),
});
if (!answer.ok) throw new Error(`registration refused: ${await answer.text()}`);
const { lease } = (await answer.json()) as Registration;
console.log(`registered as an instance of greeter on port ${port}`);

const call = (method: string, path: string): Promise<Response> =>
  fetch(`${API}/api/v1/registrations/${lease.id}${path}`, {
    method,
    headers: { authorization: `Bearer ${lease.secret}`, 'content-type': 'application/json' },
    body: '{}',
  });

// A third of the lease: two heartbeats may get lost.
const heartbeats = setInterval(
  () => void call('PUT', '/heartbeat').catch((error: unknown) => console.error('heartbeat failed:', error)),
  lease.ttlMs / 3,
);

process.once('SIGTERM', () => {
  clearInterval(heartbeats);
  void call('DELETE', '').finally(() => process.exit(0));
});
