import { once } from 'node:events';
import { connect as http2 } from 'node:http2';
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { connect as tcp } from 'node:net';
import type { Socket } from 'node:net';
import { afterEach, expect, jest, test } from '@jest/globals';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { encodeDeltaRequest } from './resources/discovery.ts';
import { testNode, testResource, testSet } from './session/testing.ts';
import { CLUSTER_TYPE } from './session/type-urls.ts';
import { createIntake, discoveryServerOptions, serveDiscovery } from './stream.ts';
import type { Intake, IntakeOptions, ServeDiscoveryOptions } from './stream.ts';
import { clock, closeAll, onClose, until } from './stream-testing.ts';

jest.setTimeout(30_000);
afterEach(closeAll);

const DELTA_ADS = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';
const expected = (): void => undefined;

/** A control plane behind an intake; who calls itself `stranger` is never proven. */
async function started(
  options: Partial<IntakeOptions> = {},
  discovery: Partial<ServeDiscoveryOptions> = {},
): Promise<{ port: number; intake: Intake }> {
  const intake = createIntake({ clock, ...options });
  const server = new Server({ ...discoveryServerOptions(), interceptors: [intake.interceptor] });
  const set = testSet([testResource(CLUSTER_TYPE, 'a')]);
  const served = serveDiscovery(
    server,
    {
      identified: (stream, node) => {
        if (node.id !== 'stranger') stream.prove();
        stream.publish(set);
      },
    },
    { clock, transport: 'plaintext', intake, ...discovery },
  );
  const port = await intake.listen(server, ServerCredentials.createInsecure(), { host: '127.0.0.1', port: 0 });
  onClose(() => {
    intake.close();
    served.close();
    server.forceShutdown();
  });
  return { port, intake };
}

function session(port: number): ClientHttp2Session {
  const opened = http2(`http://127.0.0.1:${port}`);
  opened.on('error', expected);
  onClose(() => opened.destroy());
  return opened;
}

interface Stream {
  readonly stream: ClientHttp2Stream;
  /** gRPC status, or the reset when there was none. */
  readonly ended: Promise<string>;
  readonly answered: Promise<unknown>;
}

function open(on: ClientHttp2Session, headers: Record<string, string> = {}): Stream {
  const stream = on.request({ ':method': 'POST', ':path': DELTA_ADS, 'content-type': 'application/grpc', te: 'trailers', ...headers });
  let told = '';
  const note = (fields: IncomingHttpHeaders): void => {
    const code = fields['grpc-status'];
    if (typeof code === 'string') told = `${code} ${decodeURIComponent([fields['grpc-message'] ?? ''].flat().join())}`;
  };
  stream.on('response', note);
  stream.on('trailers', note);
  stream.on('error', expected);
  const answered = once(stream, 'data');
  answered.catch(expected);
  const ended = new Promise<string>((resolve) => stream.once('close', () => resolve(told === '' ? `reset ${stream.rstCode}` : told)));
  return { stream, ended, answered };
}

function message(id: string, padding = 0): Buffer {
  const node = testNode({ id, metadata: { padding: 'x'.repeat(padding) } });
  const shared = { subscribe: [], unsubscribe: [], initialVersions: new Map(), responseNonce: '' };
  return framed(encodeDeltaRequest({ mode: 'delta', typeUrl: CLUSTER_TYPE, node, ...shared }));
}

function framed(bytes: Uint8Array, length = bytes.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, bytes]);
}

test('a compressed message is refused before it is unpacked', async () => {
  const { port } = await started();
  const { stream, ended } = open(session(port), { 'grpc-encoding': 'gzip' });
  stream.write(message('a'));

  expect(await ended).toBe(`${status.UNIMPLEMENTED} compressed messages are not taken, received gzip`);
});

test('a stranger may send less in one message than a caller that is known', async () => {
  const { port } = await started({ strangerMessageBytesMax: 1_000 });
  const known = open(session(port));
  known.stream.write(message('known'));
  await known.answered;
  known.stream.write(message('known', 5_000));
  const stranger = open(session(port));
  stranger.stream.write(message('stranger', 5_000));

  expect(await stranger.ended).toMatch(
    new RegExp(`^${status.RESOURCE_EXHAUSTED} a message may take at most 1000 bytes here, received 5\\d{3}$`),
  );
  // Another node than before ends the stream, so the first message was the same node and the second one arrived.
  expect(await known.ended).toMatch(/a stream keeps its node/);
});

test('of messages that begin and do not end the largest goes when all together are too many', async () => {
  const { port } = await started({ partialBytesMax: 100_000 });
  const [large, small] = [open(session(port)), open(session(port))];
  small.stream.write(framed(Buffer.alloc(30_000), 40_000));
  large.stream.write(framed(Buffer.alloc(60_000), 200_000));
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect([large.stream.closed, small.stream.closed]).toEqual([false, false]);

  small.stream.write(Buffer.alloc(9_000));
  large.stream.write(Buffer.alloc(20_000));

  expect(await large.ended).toMatch(/too many large messages|^reset 11$/);
  expect(small.stream.closed).toBe(false);
});

test('connections of strangers give way to newer ones, those of callers that are known stay', async () => {
  const { port, intake } = await started({ strangersMax: 2 });
  const known = open(session(port));
  known.stream.write(message('known'));
  await known.answered;

  const sockets = [];
  for (let count = 0; count < 3; count++) {
    const socket = tcp(port, '127.0.0.1');
    socket.on('error', expected);
    onClose(() => void socket.destroy());
    socket.resume();
    await once(socket, 'connect');
    sockets.push(socket);
  }

  await once(sockets[0]!, 'close');
  expect(sockets.slice(1).map((socket) => socket.closed)).toEqual([false, false]);
  expect(known.stream.closed).toBe(false);
  expect(intake.connections).toBe(3);
});

/** Connections that say nothing, opened at once; with the time at which each was first spoken to. */
function silent(port: number, count: number): { readonly sockets: readonly Socket[]; readonly greetedMs: number[] } {
  const greetedMs: number[] = [];
  const sockets = Array.from({ length: count }, () => {
    const socket = tcp(port, '127.0.0.1');
    socket.on('error', expected);
    socket.once('data', () => greetedMs.push(clock.now()));
    onClose(() => void socket.destroy());
    return socket;
  });
  return { sockets, greetedMs };
}

test('of many connections that come at once a few begin at a time, and those that say nothing do not hold up the others', async () => {
  const { port } = await started();
  const { greetedMs } = silent(port, 200);
  const late = open(session(port));
  late.stream.write(message('late'));

  await late.answered;
  await until(() => greetedMs.length === 200, 'all have begun');
  // Node's SETTINGS are the first that a connection hears when it has begun; twelve times 16 give way to the next after 60 ms each.
  expect(greetedMs.at(-1)! - greetedMs[0]!).toBeGreaterThanOrEqual(300);
});

test('connections that have not begun are closed with the intake', async () => {
  const { port, intake } = await started();
  const { sockets, greetedMs } = silent(port, 300);
  await until(() => greetedMs.length > 0 && intake.connections === 300, 'all are there and the first have begun');

  intake.close();

  await until(() => sockets.every((socket) => socket.closed || socket.bytesRead > 0), 'the others are closed');
  expect(sockets.filter(({ closed }) => closed).length).toBeGreaterThanOrEqual(30);
});

test('a connection and a stream that never say who they are end', async () => {
  const { port } = await started({ strangerMsMax: 1_200 }, { strangerMsMax: 100 });
  const silent = open(session(port));
  const socket = tcp(port, '127.0.0.1');
  socket.on('error', expected);
  socket.resume();

  expect(await silent.ended).toBe(`${status.UNAUTHENTICATED} who calls has not shown who it is within 100 ms`);
  await once(socket, 'close');
});

test('streams of strangers give way to newer ones, and one connection may have few of them', async () => {
  const { port } = await started({}, { strangersMax: 3 });
  const first = open(session(port));
  first.stream.write(message('stranger'));
  await first.answered;
  const on = session(port);
  const later = Array.from({ length: 17 }, () => open(on));

  expect(await first.ended).toBe(`${status.UNAVAILABLE} too many streams whose callers have not shown who they are`);
  // REFUSED_STREAM: it was not looked at, and may be tried again.
  expect(await later[16]!.ended).toBe('reset 7');
});

test('a stream whose client leaves it open after its status is reset', async () => {
  const { port } = await started();
  const { stream } = open(session(port));
  stream.resume();
  stream.write(framed(Buffer.from([10, 255, 255, 3])));

  await until(() => stream.closed, 'it is closed');
  expect(stream.rstCode).toBe(0);
});
