/** Between two sidecars many connections share one of TLS: what applications see is as if each had its own. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { clock, eventually, kill, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';
import { sleep } from '../../lib/clock.ts';

const APP = fileURLToPath(new URL('../support/wire-app.ts', import.meta.url));

let mesh: TestMesh;
let outboundPort = 0;

beforeAll(async () => {
  mesh = await startMesh({
    resources: [
      { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'default' }, spec: { mtls: 'STRICT' } },
      service('wire', { app: 'wire' }),
    ],
    instances: [
      { name: 'wire-1', service: 'wire', application: APP },
      { name: 'caller-1', service: 'caller', application: 'none' },
      { name: 'loner-1', service: 'loner', application: 'none', args: ['--no-mux'] },
    ],
  });
  await mesh.settled(1);
  outboundPort = mesh.instances.get('caller-1')!.outboundPort;
}, 120_000);

afterAll(() => mesh?.stop(), 30_000);

/** A number from a sidecar's statistics; 0 = it has none of that name. */
async function statistic(instance: string, name: RegExp): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${mesh.instances.get(instance)!.adminPort}/stats`)).text();
  return text
    .split('\n')
    .filter((line) => name.test(line))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(':') + 1)), 0);
}

/** Sends a text to a sidecar, the caller's by default, and answers all of the reply, which ends with the connection or with `until`. */
async function exchange(text: string, until?: (reply: string) => boolean, port = outboundPort): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.setEncoding('latin1');
  socket.setTimeout(20_000, () => socket.destroy(new Error('nothing came for 20 s')));
  let reply = '';
  const enough = new Promise<void>((resolve, reject) => {
    socket.on('data', (chunk: string) => {
      reply += chunk;
      if (until?.(reply) === true) resolve();
    });
    socket.on('end', resolve);
    socket.on('error', reject);
  });
  socket.write(text, 'latin1');
  await enough;
  socket.destroy();
  return reply;
}

const get = (path: string): Promise<string> => exchange(`GET ${path} HTTP/1.1\r\nHost: wire\r\nConnection: close\r\n\r\n`);

test('fifty requests at once take one handshake', async () => {
  const replies = await Promise.all(Array.from({ length: 50 }, () => get('/?waitMs=300')));
  expect(replies.every((reply) => reply.startsWith('HTTP/1.1 200 '))).toBe(true);
  expect(await statistic('caller-1', /^cluster\.outbound\|80\|\|wire.*\.ssl\.handshake: /)).toBe(1);
  expect(await statistic('caller-1', /^cluster\.outbound\|80\|\|wire.*\.upstream_cx_active: /)).toBeGreaterThanOrEqual(50);
  expect(await statistic('wire-1', /^http\.inbound\.downstream_cx_active: /)).toBeGreaterThanOrEqual(50);
});

test('a sidecar with --no-mux makes a connection for each', async () => {
  const port = mesh.instances.get('loner-1')!.outboundPort;
  const request = 'GET /?waitMs=500 HTTP/1.1\r\nHost: wire\r\nConnection: close\r\n\r\n';
  const replies = await Promise.all(Array.from({ length: 4 }, () => exchange(request, undefined, port)));
  expect(replies.every((reply) => reply.startsWith('HTTP/1.1 200 '))).toBe(true);
  expect(await statistic('loner-1', /^cluster\.outbound\|80\|\|wire.*\.ssl\.handshake: /)).toBe(4);
});

test('fields keep their case and order in both directions', async () => {
  const reply = await exchange('GET / HTTP/1.1\r\nHost: wire\r\nX-B-First: 1\r\nx-a-Second: 2\r\nConnection: close\r\n\r\n');
  expect(reply).toContain('\r\nX-MiXeD-Case: Answer\r\n');
  const names = (JSON.parse(reply.slice(reply.indexOf('{'), reply.lastIndexOf('}') + 1)) as { rawHeaders: string[] }).rawHeaders;
  expect(names.indexOf('X-B-First')).toBeGreaterThan(-1);
  expect(names.indexOf('x-a-Second')).toBeGreaterThan(names.indexOf('X-B-First'));
});

test('a connection that is upgraded carries bytes both ways, until one side ends', async () => {
  const large = 'z'.repeat(700_000);
  const reply = await exchange(
    'GET /chat HTTP/1.1\r\nHost: wire\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n' +
      large,
    (text) => text.length - text.indexOf('\r\n\r\n') - 4 === large.length,
  );
  expect(reply).toMatch(/^HTTP\/1\.1 101 /);
  expect(reply.endsWith(large)).toBe(true);
});

test('the called sidecar dies: requests under way fail, and are served again when there is another', async () => {
  const underWay = get('/?waitMs=5000');
  await eventually('it is under way', 5_000, async () => (await statistic('wire-1', /^http\.inbound\.downstream_rq_active: /)) > 0);
  await kill(mesh.instances.get('wire-1')!.member);
  expect(await underWay).toMatch(/^HTTP\/1\.1 50[234] /);
  await mesh.startInstance({ name: 'wire-2', service: 'wire', application: APP });
  await eventually('it serves again', 30_000, async () => (await get('/')).startsWith('HTTP/1.1 200 '));
}, 60_000);

test('a sidecar that is told to stop lets requests finish that came over a shared connection', async () => {
  await sleep(clock, 500);
  const underWay = Array.from({ length: 5 }, () => get('/?waitMs=1500'));
  await eventually('they are under way', 5_000, async () => (await statistic('wire-2', /^http\.inbound\.downstream_rq_active: /)) === 5);
  await fetch(`http://127.0.0.1:${mesh.instances.get('wire-2')!.adminPort}/drain_listeners?graceful`, { method: 'POST' });
  for (const reply of await Promise.all(underWay)) expect(reply).toMatch(/^HTTP\/1\.1 200 /);
}, 60_000);
