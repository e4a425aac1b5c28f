/** How a client keeps its stream: other targets, older servers, servers that hang, and what it tells about itself. */
import { createServer as http2Server } from 'node:http2';
import type { ServerHttp2Stream } from 'node:http2';
import { createServer, connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, expect, jest, test } from '@jest/globals';
import { credentials, logVerbosity, Server, ServerCredentials, setLogVerbosity } from '@grpc/grpc-js';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { sleep } from '../lib/clock.ts';
import { systemRandom } from '../lib/random.ts';
import { discoveryMethods } from './resources/services.ts';
import type { DiscoveryRequest, DiscoveryResponse } from './session/messages.ts';
import { testNode, testResource } from './session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE } from './session/type-urls.ts';
import { connectDiscovery } from './stream.ts';
import type { DiscoveryConnection } from './stream.ts';
import { clock, closeAll, controlPlane, onClose, sidecar, until } from './stream-testing.ts';

jest.setTimeout(30_000);
// grpc-js tells of pings that were too many by itself, on standard error.
setLogVerbosity(logVerbosity.NONE);
afterEach(closeAll);

/** A port on which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

test('rule 7: a server without delta is spoken to in the other mode, with the same subscriptions', async () => {
  const server = new Server();
  const sotw = discoveryMethods().find((method) => method.mode === 'sotw' && method.typeUrl === undefined)!;
  const handler = (call: ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>): void => {
    call.once('data', ({ typeUrl }: DiscoveryRequest) => {
      call.write({ mode: 'sotw', typeUrl, versionInfo: '1', nonce: '1', resources: [testResource(typeUrl, 'a')], wrapped: false });
    });
  };
  server.register(sotw.definition.path, handler, sotw.definition.responseSerialize, sotw.definition.requestDeserialize, 'bidi');
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  onClose(() => server.forceShutdown());
  const { client, has } = sidecar(`127.0.0.1:${port}`, 'delta');

  client.subscribe(CLUSTER_TYPE, ['*']);

  await until(() => has(CLUSTER_TYPE, 'a') !== undefined, 'the cluster came');
  expect(client.connection).toMatchObject({ state: 'synced', mode: 'sotw' });
});

test('rule 52: a target that is away is passed over, and taken back when it is there again', async () => {
  const port = await freePort();
  const second = await controlPlane([testResource(CLUSTER_TYPE, 'from-second')]);
  const { client, has } = sidecar('', 'delta', { targets: [`127.0.0.1:${port}`, second.target], returnMs: 30 });
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => has(CLUSTER_TYPE, 'from-second') !== undefined, 'the second target served');
  expect(client.connection.target).toBe(second.target);

  const first = await controlPlane([testResource(CLUSTER_TYPE, 'from-first')], { port, holdMsMax: 20 });

  await until(() => has(CLUSTER_TYPE, 'from-first') !== undefined, 'the first target served');
  await until(() => has(CLUSTER_TYPE, 'from-second') === undefined, 'what only the second knew is gone');
  expect(client.connection.target).toBe(first.target);
  await until(() => second.streams.size === 0, 'the second has no stream any more');
});

test('attempts that failed leave nothing behind: a control plane that comes back has one connection of each client', async () => {
  const port = await freePort();
  const failures: string[] = [];
  const onConnection = ({ state, error }: DiscoveryConnection): unknown => state === 'waiting' && failures.push(error);
  const { client } = sidecar(`127.0.0.1:${port}`, 'delta', { onConnection, backoff: { baseMs: 1, capMs: 1 } });
  await until(() => failures.length >= 5, 'five attempts failed');
  let connections = 0;
  const listener = createServer((socket) => {
    connections++;
    socket.on('error', () => socket.destroy());
    onClose(() => void socket.destroy());
  });
  await new Promise<void>((resolve) => listener.listen(port, '127.0.0.1', resolve));
  onClose(() => void listener.close());

  // grpc-js would try those again that were refused a second ago.
  await sleep(clock, 1_600);

  expect(failures.slice(0, 5)).toEqual(failures.slice(0, 5).map(() => expect.stringContaining('ECONNREFUSED')));
  expect(connections).toBe(1);
  client.close();
});

test('a client that is closed closes its connection at once', async () => {
  const plane = await controlPlane([testResource(CLUSTER_TYPE, 'a')]);
  let open = 0;
  const relay = createServer((near) => {
    open++;
    const far = connect(Number(plane.target.split(':')[1]), '127.0.0.1');
    for (const socket of [near, far]) socket.on('error', () => socket.destroy());
    near.on('close', () => {
      open--;
      far.destroy();
    });
    near.pipe(far).pipe(near);
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  onClose(() => void relay.close());
  const { client, has } = sidecar(`127.0.0.1:${(relay.address() as AddressInfo).port}`, 'delta');
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => has(CLUSTER_TYPE, 'a') !== undefined, 'the cluster came');
  expect(open).toBe(1);
  const closedMs = clock.now();
  client.close();

  await until(() => open === 0, 'the connection is closed');
  expect(clock.now() - closedMs).toBeLessThan(5_000);
});

test('a control plane that hangs is noticed by its missing pong, and served again by the next connection', async () => {
  const plane = await controlPlane([testResource(CLUSTER_TYPE, 'a')]);
  let frozen = false;
  const sockets = new Set<Socket>();
  const relay = createServer((near) => {
    const far = connect(Number(plane.target.split(':')[1]), '127.0.0.1');
    const mine = frozen;
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
    }
    // A connection made before the freeze stays open and silent for ever, as one to a stopped process does.
    near.on('data', (bytes: Buffer) => void (frozen === mine && far.write(bytes)));
    far.on('data', (bytes: Buffer) => void (frozen === mine && near.write(bytes)));
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  onClose(() => {
    for (const socket of sockets) socket.destroy();
    relay.close();
  });
  const states: string[] = [];
  const { client, has } = sidecar(`127.0.0.1:${(relay.address() as AddressInfo).port}`, 'delta', {
    keepaliveTimeMs: 100,
    keepaliveTimeoutMs: 100,
    onConnection: ({ state }) => states.push(state),
  });
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => has(CLUSTER_TYPE, 'a') !== undefined, 'the cluster came');
  states.length = 0;

  frozen = true;

  await until(() => states.includes('waiting'), 'the silence was noticed');
  plane.publish([testResource(CLUSTER_TYPE, 'a'), testResource(CLUSTER_TYPE, 'b')]);
  await until(() => has(CLUSTER_TYPE, 'b') !== undefined, 'the new connection was served');
});

test('a server that finds pings too many gets fewer, until it is content', async () => {
  let refusals = 0;
  let kept = 0;
  const server = http2Server();
  server.on('session', (session) => {
    let lastMs = clock.now();
    session.on('error', () => session.destroy());
    session.on('ping', () => {
      const nowMs = clock.now();
      if (nowMs - lastMs < 120) {
        refusals += 1;
        session.goaway(11, 0, Buffer.from('too_many_pings'));
      } else kept += 1;
      lastMs = nowMs;
    });
  });
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => stream.destroy());
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onClose(() => void server.close());
  const { client } = sidecar(`127.0.0.1:${(server.address() as AddressInfo).port}`, 'delta', { keepaliveTimeMs: 40 });
  client.subscribe(CLUSTER_TYPE, ['*']);

  await until(() => kept >= 3, 'pings were accepted');

  expect(refusals).toBeGreaterThanOrEqual(2);
  expect(refusals).toBeLessThanOrEqual(4);
});

test('a server that answers garbage is left, and tried again', async () => {
  let streams = 0;
  const server = new Server();
  const delta = discoveryMethods().find((method) => method.mode === 'delta' && method.typeUrl === undefined)!;
  const handler = (call: ServerDuplexStream<DiscoveryRequest, Uint8Array>): void => {
    streams += 1;
    call.write(Buffer.from([10, 255, 255, 3, 1, 2, 3]));
  };
  const raw = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
  server.register(delta.definition.path, handler, raw, delta.definition.requestDeserialize, 'bidi');
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  onClose(() => server.forceShutdown());
  const { client, updates } = sidecar(`127.0.0.1:${port}`, 'delta');
  client.subscribe(CLUSTER_TYPE, ['*']);

  await until(() => streams >= 3, 'it was tried again');

  expect(updates).toEqual([]);
});

test('rule 38: while nothing answers the attempts go on, and the state says why', async () => {
  const seen: DiscoveryConnection[] = [];
  const port = await freePort();
  const { client } = sidecar(`127.0.0.1:${port}`, 'delta', { onConnection: (connection) => seen.push(connection) });

  await until(() => seen.filter((connection) => connection.state === 'waiting').length >= 3, 'three attempts failed');

  expect(seen.some((connection) => connection.error.includes('ECONNREFUSED'))).toBe(true);
  await controlPlane([testResource(CLUSTER_TYPE, 'a')], { port });
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => client.connection.state === 'synced', 'it is served at last');
  expect(client.connection.error).toBe('');
});

test('credentials that cannot be made yet are asked for again', async () => {
  const plane = await controlPlane([testResource(CLUSTER_TYPE, 'a')]);
  let asked = 0;
  const { client, has } = sidecar(plane.target, 'delta', {
    credentials: () => {
      asked += 1;
      if (asked < 3) throw new Error('no certificate yet');
      return credentials.createInsecure();
    },
  });

  client.subscribe(CLUSTER_TYPE, ['*']);

  await until(() => has(CLUSTER_TYPE, 'a') !== undefined, 'the cluster came');
  expect(asked).toBe(3);
});

test('metadata of the stream reaches the server, and the peer is told', async () => {
  const plane = await controlPlane([]);
  const { client } = sidecar(plane.target, 'delta', { metadata: () => ({ authorization: 'Bearer token' }) });
  client.subscribe(ENDPOINT_TYPE, ['a']);
  await until(() => plane.streams.size === 1, 'the stream is there');

  const [stream] = plane.streams;

  expect(stream!.peer.metadata.get('authorization')).toBe('Bearer token');
  expect(stream!.peer).toMatchObject({ transport: 'plaintext', certificate: undefined });
  expect(stream!.peer.address).toMatch(/^127\.0\.0\.1:\d+$/);
});

test('targets that are none are refused with what one looks like', () => {
  const options = {
    credentials: () => credentials.createInsecure(),
    mode: 'delta',
    node: testNode(),
    clock,
    random: systemRandom,
    onUpdate: () => undefined,
  } as const;

  expect(() => connectDiscovery({ ...options, targets: [] })).toThrow(/at least one target is needed/);
  for (const target of ['nonsense://x:y:z', '', 'localhost', 'a b:1', 'http://127.0.0.1:15010']) {
    expect(() => connectDiscovery({ ...options, targets: [target] })).toThrow(/host:port, dns:\/\/\/host:port or unix:\/path, received "/);
  }
});

test.each(['[::1]:1', 'unix:/run/xds.sock', 'dns:///control-plane.mesh:15010', 'ipv4:127.0.0.1:1'])('%s is a target', (target) => {
  expect(() => sidecar(target, 'delta')).not.toThrow();
});
