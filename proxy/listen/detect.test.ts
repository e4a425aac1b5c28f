import { createServer, connect } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { detect, inspect } from './detect.ts';
import type { AddressInfo, Server, Socket } from 'node:net';

const open: { server: Server; sockets: Socket[] }[] = [];

afterEach(async () => {
  for (const { server, sockets } of open.splice(0)) {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** Both ends of a connection. */
async function pair(): Promise<[client: Socket, accepted: Socket]> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => void server.once('connection', resolve));
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const sockets = [client, await accepted];
  open.push({ server, sockets });
  return [client, sockets[1]!];
}

test.each<[string, string, string | undefined]>([
  ['GET / HTTP/1.1\r\n', 'http/1.1', undefined],
  ['\r\nPOST /a HTTP/1.0\r\nHost: x\r\n', 'http/1.0', undefined],
  ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'h2c', undefined],
  ['SSH-2.0-OpenSSH\r\n', '', undefined],
  ['GET / HTTP/1.1', '', 'more'],
  ['PRI * HT', '', 'more'],
  ['\u0000\u0001\u0002', '', undefined],
])('%j is recognised as %j', (text, protocol, more) => {
  const seen = inspect(Buffer.from(text, 'latin1'), { tls: true, http: true });

  if (more === undefined)
    expect(seen).toMatchObject({ transportProtocol: 'raw_buffer', applicationProtocols: protocol === '' ? [] : [protocol] });
  else expect(seen).toBeUndefined();
});

test('what was looked at is still there for whoever reads next, in pieces or not', async () => {
  const [client, accepted] = await pair();
  const looking = detect(accepted, { tls: true, http: true, timeoutMs: 0, clock: new ManualClock() });

  client.write('GET / HT');
  setTimeout(() => client.write('TP/1.1\r\nHost: a\r\n\r\n'), 5);
  const seen = await looking;
  const text = await new Promise<string>((resolve) => void accepted.once('data', (chunk: Buffer) => resolve(chunk.toString())));

  expect(seen).toMatchObject({ outcome: 'detected', applicationProtocols: ['http/1.1'] });
  expect(text).toBe('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
});

test('a silent client is told after the time-out, never later than ten seconds, and one that leaves at once', async () => {
  const clock = new ManualClock();
  const [, silent] = await pair();
  const [leaver, left] = await pair();
  const looks = [
    detect(silent, { tls: true, http: false, timeoutMs: 3_600_000, clock }),
    detect(left, { tls: true, http: false, timeoutMs: 0, clock }),
  ];

  leaver.end();
  expect((await looks[1])!.outcome).toBe('closed');
  clock.advance(10_000);

  expect((await looks[0])!.outcome).toBe('timeout');
  expect(clock.pending).toBe(0);
});
