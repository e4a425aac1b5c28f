/** Clients that misbehave: each is contained, and one that behaves is served all the while. */
import { connect, constants } from 'node:http2';
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { Client, credentials, status } from '@grpc/grpc-js';
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { seededRandom } from '../lib/random.ts';
import { discoveryChannelOptions, StreamError } from './stream.ts';
import { encodeDeltaRequest } from './resources/discovery.ts';
import type { DeltaRequest } from './session/messages.ts';
import { testNode, testResource } from './session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE } from './session/type-urls.ts';
import { closeAll, controlPlane, onClose, sidecar, until } from './stream-testing.ts';
import type { TestControlPlane, TestSidecar } from './stream-testing.ts';

const DELTA_ADS = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';

let plane: TestControlPlane;
let good: TestSidecar;

beforeEach(async () => {
  plane = await controlPlane([testResource(CLUSTER_TYPE, 'a', '0')], {
    stallMsMax: 2_000,
    namesMax: 1_000,
    identified: (_stream, node) => {
      if (node.id === 'banned') throw new StreamError(status.PERMISSION_DENIED, 'this node is not its own');
    },
  });
  good = sidecar(plane.target, 'delta', { node: testNode({ id: 'good' }) });
  good.client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => good.has(CLUSTER_TYPE, 'a') !== undefined, 'the good client is served');
});

jest.setTimeout(30_000);
afterEach(closeAll);

/** The good client is on its first stream and gets a change within the patience of `until`. */
async function othersAreServed(): Promise<void> {
  plane.publish([testResource(CLUSTER_TYPE, 'a', 'still served')]);
  await until(() => good.has(CLUSTER_TYPE, 'a')!.endsWith('still served'), 'the good client got the change');
  expect(plane.ended.filter((end) => end.nodeId === 'good')).toEqual([]);
}

interface RawStream {
  readonly call: ClientDuplexStream<Uint8Array, Uint8Array>;
  readonly ended: Promise<ServiceError>;
}

/** A stream that sends whatever bytes it is given, and reads only if told to. */
function rawStream(): RawStream {
  const client = new Client(plane.target, credentials.createInsecure(), discoveryChannelOptions());
  const call = client.makeBidiStreamRequest(
    DELTA_ADS,
    (bytes: Uint8Array) => Buffer.from(bytes),
    (bytes) => new Uint8Array(bytes),
  );
  const ended = new Promise<ServiceError>((resolve) => {
    call.on('error', resolve);
  });
  onClose(() => {
    call.cancel();
    client.close();
  });
  return { call, ended };
}

function request(extra: Partial<DeltaRequest>): Buffer {
  return encodeDeltaRequest({
    mode: 'delta',
    typeUrl: CLUSTER_TYPE,
    subscribe: [],
    unsubscribe: [],
    initialVersions: new Map(),
    responseNonce: '',
    ...extra,
  });
}

test('a client that never reads costs one message and then its stream', async () => {
  plane.publish([testResource(CLUSTER_TYPE, 'a', 'x'.repeat(500_000))]);
  const session = connect(`http://${plane.target}`);
  const stream = session.request({ ':method': 'POST', ':path': DELTA_ADS, 'content-type': 'application/grpc', te: 'trailers' });
  session.on('error', ignore);
  stream.on('error', ignore);
  onClose(() => session.destroy());
  const message = request({ node: testNode({ id: 'deaf' }) });
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  stream.write(Buffer.concat([frame, message]));
  await until(() => plane.events.some((event) => event.nodeId === 'deaf' && event.kind === 'sent'), 'the deaf client was written to');

  for (let change = 0; change < 100; change++) plane.publish([testResource(CLUSTER_TYPE, 'a', `${change}`)]);

  await until(() => plane.ended.some((end) => end.nodeId === 'deaf'), 'the deaf client lost its stream');
  expect(plane.ended[0]!.error?.message).toMatch(/^did not take a message of 50\d{4} bytes within 2501 ms$/);
  expect(plane.events.filter((event) => event.nodeId === 'deaf' && event.kind === 'sent').length).toBe(1);
  await until(() => stream.closed, 'its HTTP/2 stream was reset');
  expect(stream.rstCode).toBe(constants.NGHTTP2_CANCEL);
  await othersAreServed();
});

test('a client that reads and never answers gets one message of a type', async () => {
  const { call } = rawStream();
  let received = 0;
  call.on('data', () => (received += 1));
  call.write(request({ node: testNode({ id: 'mute' }) }));
  await until(() => received === 1, 'the first message came');

  for (let change = 0; change < 100; change++) plane.publish([testResource(CLUSTER_TYPE, 'a', `${change}`)]);

  await othersAreServed();
  expect(received).toBe(1);
  expect(plane.events.filter((event) => event.nodeId === 'mute' && event.kind === 'sent').length).toBe(1);
});

test('a client that rejects everything gets each version once', async () => {
  const angry = sidecar(plane.target, 'sotw', {
    node: testNode({ id: 'angry' }),
    onUpdate: (update) => angry.client.settle(update, [{ name: '', message: 'no' }]),
  });
  angry.client.subscribe(CLUSTER_TYPE, ['*']);
  const count = (kind: string): number => plane.events.filter((event) => event.nodeId === 'angry' && event.kind === kind).length;
  await until(() => count('nacked') === 1, 'the first version was rejected');

  for (let change = 1; change <= 20; change++) {
    plane.publish([testResource(CLUSTER_TYPE, 'a', `v${change}`)]);
    await until(() => count('nacked') === change + 1, `version ${change} was rejected`);
  }

  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(count('sent')).toBe(21);
  await othersAreServed();
});

test('garbage ends the stream that it came on', async () => {
  const random = seededRandom(4);
  for (let round = 0; round < 10; round++) {
    const { call, ended } = rawStream();
    call.resume();
    // Field 1 with a length beyond the end cannot be read by any decoder; the rest is noise.
    call.write(
      Buffer.concat([Buffer.from([10, 255, 255, 3]), Buffer.from(Array.from({ length: round * 7 }, () => Math.floor(random() * 256)))]),
    );
    expect((await ended).code).toBe(status.INTERNAL);
  }
  await othersAreServed();
});

test('a node that changes ends the stream, with both names in the message', async () => {
  const { call, ended } = rawStream();
  call.resume();
  call.write(request({ node: testNode({ id: 'mallory' }) }));
  call.write(request({ node: testNode({ id: 'good' }) }));

  const error = await ended;
  expect(error.code).toBe(status.INVALID_ARGUMENT);
  expect(error.details).toBe('a stream keeps its node: it began as "mallory" and now claims "good"');
  await othersAreServed();
});

test('rule 50: a node that the handler refuses gets its status and nothing else', async () => {
  const { call, ended } = rawStream();
  let received = 0;
  call.on('data', () => (received += 1));
  call.write(request({ node: testNode({ id: 'banned' }) }));

  const error = await ended;
  expect(error.code).toBe(status.PERMISSION_DENIED);
  expect(error.details).toBe('this node is not its own');
  expect(received).toBe(0);
  await othersAreServed();
});

test('too many names end the stream', async () => {
  const { call, ended } = rawStream();
  call.resume();
  call.write(request({ node: testNode(), typeUrl: ENDPOINT_TYPE, subscribe: Array.from({ length: 1_001 }, (_, index) => `n${index}`) }));

  expect((await ended).code).toBe(status.RESOURCE_EXHAUSTED);
  await othersAreServed();
});

test('too many types end the stream', async () => {
  const { call, ended } = rawStream();
  call.resume();
  call.write(request({ node: testNode() }));
  for (let type = 0; type < 100; type++) call.write(request({ typeUrl: `type.googleapis.com/t${type}`, subscribe: ['x'] }));

  expect((await ended).code).toBe(status.RESOURCE_EXHAUSTED);
  await othersAreServed();
});

test('rule 48: a request beyond 64 MiB is refused before it is read whole', async () => {
  const { call, ended } = rawStream();
  call.resume();
  call.write(Buffer.alloc(65 * 1024 * 1024));

  expect((await ended).code).toBe(status.RESOURCE_EXHAUSTED);
  await othersAreServed();
});

test('rule 48: a response of 60 MiB passes', async () => {
  plane.publish([testResource(CLUSTER_TYPE, 'a', 'x'.repeat(60 * 1024 * 1024))]);
  const { call } = rawStream();
  let received = 0;
  call.on('data', (bytes: Uint8Array) => (received = bytes.length));

  call.write(request({ node: testNode({ id: 'big' }) }));

  await until(() => received > 60 * 1024 * 1024, 'the answer came whole');
  await othersAreServed();
});

test.each([
  ['a node', { node: testNode({ metadata: { padding: 'y'.repeat(20_000_000) } }) }],
  ['a name', { node: testNode(), subscribe: ['y'.repeat(20_000_000)] }],
  ['a version that is kept', { node: testNode(), initialVersions: new Map([['a', 'y'.repeat(20_000_000)]]) }],
])('%s of 20 MB is read and not kept: its stream ends', async (_what, extra) => {
  const { call, ended } = rawStream();
  call.resume();
  call.write(request(extra));

  expect((await ended).code).toBe(status.RESOURCE_EXHAUSTED);
  await othersAreServed();
});

test('a flood of requests is answered like one', async () => {
  const { call } = rawStream();
  let received = 0;
  call.on('data', () => (received += 1));
  call.write(request({ node: testNode({ id: 'flood' }), typeUrl: ENDPOINT_TYPE, subscribe: ['x'] }));
  for (let round = 0; round < 2_000; round++) call.write(request({ typeUrl: ENDPOINT_TYPE, subscribe: ['x'] }));

  await othersAreServed();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(received).toBe(1);
});

function ignore(): void {
  // The reset that the test waits for is also an error event.
}
