import { connect, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { REVIEWS, issued } from '../tls/testing-mesh.ts';
import { Output, writesDirectly } from './output.ts';

const open: (() => void)[] = [];
afterEach(() => open.splice(0).forEach((close) => close()));

/** Two ends of a connection; what the far end got is in `text()`. */
async function pair(): Promise<{ near: Socket; far: Socket; text: () => string }> {
  const server = createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const far = await accepted;
  let text = '';
  far.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  for (const socket of [near, far]) socket.on('error', () => undefined);
  open.push(() => (near.destroy(), far.destroy(), server.close()));
  return { near, far, text: () => text };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function until(test: () => boolean): Promise<void> {
  for (let i = 0; i < 2_000 && !test(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(test()).toBe(true);
}

test('this Node writes texts past the stream layer', () => {
  expect(writesDirectly()).toBe(Number(process.versions.node.split('.', 1)[0]) >= 26);
});

test('what is said in one turn leaves at its end, in order and in one piece', async () => {
  const { near, far, text } = await pair();
  const chunks: string[] = [];
  far.on('data', (chunk: Buffer) => chunks.push(chunk.toString('latin1')));
  const output = new Output(near);

  output.later('one ');
  output.later('two \xe4');
  expect(near.bytesWritten).toBe(0);

  await until(() => text() === 'one two \xe4');
  expect(chunks).toEqual(['one two \xe4']);
});

test('the socket is handed out after what was said before', async () => {
  const { near, text } = await pair();
  const output = new Output(near);

  output.later('head ');
  output.now().write('body ');
  output.later('head ');
  output.now().end('end');

  await until(() => text().endsWith('end'));
  expect(text()).toBe('head body head end');
});

test('more than the kernel takes arrives whole and in order', async () => {
  const { near, far, text } = await pair();
  const output = new Output(near);
  far.pause();
  let expected = '';
  for (let i = 0; i < 64; i++) {
    const part = `${i} `.padEnd(200_000, String(i % 10));
    expected += part;
    output.later(part);
    await turn();
  }
  expect(output.waitingBytes).toBeGreaterThan(0);

  far.resume();

  await until(() => text().length === expected.length);
  expect(text()).toBe(expected);
});

test('a TLS client that reads late gets everything, however the writes follow each other', async () => {
  const { content } = issued(REVIEWS);
  if (content.kind !== 'certificate') throw new Error('the test certificate is none');
  const text = 'x'.repeat(8_000);
  const server = createTlsServer({ cert: content.chainPem, key: content.keyPem }, (socket) => {
    socket.on('error', () => undefined);
    const output = new Output(socket);
    const write = (left: number): void => {
      output.later(text);
      if (left === 500) output.now().write('');
      if (left > 1) setImmediate(write, left - 1);
    };
    write(1_500);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = connectTls({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', rejectUnauthorized: false });
  client.on('error', () => undefined);
  open.push(() => (client.destroy(), server.close()));
  let bytes = 0;
  setTimeout(() => client.on('data', (chunk: Buffer) => (bytes += chunk.length)), 500);

  await until(() => bytes === 1_500 * text.length);
});

test('a socket that is gone takes nothing and harms nobody', async () => {
  const [gone, there] = [await pair(), await pair()];
  const [first, second] = [new Output(gone.near), new Output(there.near)];

  first.later('lost');
  second.later('kept');
  gone.near.destroy();

  await until(() => there.text() === 'kept');
  expect(gone.text()).toBe('');
});

test('a peer that is gone ends the socket', async () => {
  const { near, far } = await pair();
  const output = new Output(near);
  far.resetAndDestroy();

  for (let i = 0; i < 200 && !near.destroyed; i++) {
    output.later('x'.repeat(1_000));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }

  expect(near.destroyed).toBe(true);
});
