/** The services beside discovery over real sockets: load reports, client status, health, reflection. */
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { fromBinary } from '@bufbuild/protobuf';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Client, credentials, Server, ServerCredentials, status } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { systemRandom } from '../lib/random.ts';
import { WatchValue } from '../lib/watch.ts';
import { clientView, serveClientStatus, serverView } from './client-status.ts';
import type { ClientState } from './client-status.ts';
import { HEALTH_CODEC, serveHealth } from './health.ts';
import type { HealthStatus, ServiceHealth } from './health.ts';
import { reportLoad, serveLoadReports } from './load-report.ts';
import type { ClusterLoad } from './load-report.ts';
import { serveReflection } from './reflection.ts';
import { FETCH_STATUS_METHOD } from './resources/client-status.ts';
import { serveDiscovery } from './stream.ts';
import type { ServerStream } from './stream.ts';
import { testNode, testResource, testSet } from './session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE } from './session/type-urls.ts';
import { clock, closeAll, onClose, sidecar, until } from './stream-testing.ts';

let server: Server;
let target: string;
let client: Client;

beforeEach(async () => {
  server = new Server();
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  target = `127.0.0.1:${port}`;
  client = new Client(target, credentials.createInsecure());
  onClose(() => {
    client.close();
    server.forceShutdown();
  });
});

jest.setTimeout(30_000);
afterEach(closeAll);

test('rule 46: a client reports all clusters once per interval, counters as they were collected', async () => {
  const reports: { id: string; clusters: readonly ClusterLoad[] }[] = [];
  serveLoadReports(server, (node, clusters) => reports.push({ id: node.id, clusters }), {
    intervalMs: 100,
    transport: 'plaintext',
    admit: () => undefined,
  });
  const asked: unknown[] = [];
  let issued = 0;
  const load = (intervalMs: number): ClusterLoad => ({
    cluster: 'api',
    service: 'outbound|80||api',
    intervalMs,
    dropped: 3,
    droppedByCategory: { lb: 3 },
    localities: [
      { locality: { region: 'r', zone: 'z', subZone: '' }, priority: 1, issued: (issued += 1), succeeded: 5, failed: 2, inProgress: 4 },
    ],
  });
  const stop = reportLoad({
    target,
    credentials: () => credentials.createInsecure(),
    node: testNode(),
    clock,
    random: systemRandom,
    collect: (clusters, intervalMs) => {
      asked.push(clusters);
      return [load(intervalMs)];
    },
  });
  onClose(stop);

  await until(() => reports.length === 2, 'two reports came');

  expect(asked).toEqual(['all', 'all']);
  expect(reports.map((report) => report.id)).toEqual(['web-1.default', 'web-1.default']);
  expect(reports.map((report) => report.clusters[0]!.localities[0]!.issued)).toEqual([1, 2]);
  const { intervalMs, ...rest } = reports[1]!.clusters[0]!;
  const { intervalMs: _intervalMs, ...expected } = load(0);
  expect(rest).toEqual({ ...expected, localities: [{ ...expected.localities[0], issued: 2 }] });
  expect(intervalMs).toBeGreaterThan(0);
});

test('rule 46: a client goes on reporting after its stream broke', async () => {
  const reports: string[] = [];
  serveLoadReports(server, (node) => reports.push(node.id), { intervalMs: 100, transport: 'plaintext', admit: () => undefined });
  const stop = reportLoad({
    target,
    credentials: () => credentials.createInsecure(),
    node: testNode(),
    clock,
    random: () => 0.01,
    collect: () => [{ cluster: 'a', service: '', intervalMs: 1, dropped: 0, droppedByCategory: {}, localities: [] }],
  });
  onClose(stop);
  await until(() => reports.length === 1, 'a report came');
  const { port } = new URL(`http://${target}`);

  server.forceShutdown();
  server = new Server();
  serveLoadReports(server, (node) => reports.push(node.id), { intervalMs: 100, transport: 'plaintext', admit: () => undefined });
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error) => (error === null ? resolve() : reject(error)));
  });
  reports.length = 0;

  await until(() => reports.length === 1, 'a report came on the new stream');
});

test('rule 47: client status tells what was acknowledged, rejected, and asked for in vain, from both sides', async () => {
  const streams = new Set<ServerStream>();
  const set = testSet([
    testResource(CLUSTER_TYPE, 'good', '', { version: 'v1' }),
    testResource(ENDPOINT_TYPE, 'bad', '', { version: 'v1' }),
  ]);
  serveDiscovery(
    server,
    {
      identified: (stream) => {
        streams.add(stream);
        stream.publish(set);
      },
    },
    { clock, transport: 'plaintext' },
  );
  serveClientStatus(server, () => [...streams].flatMap((stream) => serverView(stream) ?? []));
  const node = testNode();
  const side = sidecar(target, 'delta', {
    onUpdate: (update) => side.client.settle(update, update.typeUrl === ENDPOINT_TYPE ? [{ name: 'bad', message: 'not so' }] : []),
  });
  side.client.subscribe(CLUSTER_TYPE, ['*']);
  side.client.subscribe(ENDPOINT_TYPE, ['bad', 'ghost']);
  await until(
    () => [...streams].some((stream) => stream.status().filter((type) => type.state !== 'STALE').length === 2),
    'both types were answered',
  );

  const fetched = await new Promise<ClientState[]>((resolve, reject) => {
    const { path, requestSerialize, responseDeserialize } = FETCH_STATUS_METHOD;
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { withContents: true }, (error, value) =>
      error === null ? resolve(value!) : reject(error),
    );
  });

  expect(fetched.map((state) => state.node.id)).toEqual(['web-1.default']);
  expect(fetched[0]!.resources).toEqual([
    { typeUrl: CLUSTER_TYPE, name: 'good', version: 'v1', config: 'SYNCED', client: 'UNKNOWN' },
    {
      typeUrl: ENDPOINT_TYPE,
      name: 'bad',
      version: 'v1',
      config: 'ERROR',
      client: 'UNKNOWN',
      error: { message: 'bad: not so', version: set.version(ENDPOINT_TYPE) },
    },
    { typeUrl: ENDPOINT_TYPE, name: 'ghost', version: '', config: 'NOT_SENT', client: 'REQUESTED' },
  ]);
  expect(clientView(node, side.client.session).resources.map(({ name, client: state }) => [name, state])).toEqual([
    ['good', 'ACKED'],
    ['bad', 'NACKED'],
    ['ghost', 'DOES_NOT_EXIST'],
  ]);
});

test('health is told at once, on change, and as unknown for what is not here', async () => {
  const health = new WatchValue<ServiceHealth>(new Map([['', true]]));
  serveHealth(server, health);
  const check = (service: string): Promise<HealthStatus | ServiceError> =>
    new Promise((resolve) => {
      const { requestSerialize, responseDeserialize } = HEALTH_CODEC;
      client.makeUnaryRequest('/grpc.health.v1.Health/Check', requestSerialize, responseDeserialize, service, (error, value) =>
        resolve(error ?? value!),
      );
    });
  const seen: HealthStatus[] = [];
  const watch = client.makeServerStreamRequest(
    '/grpc.health.v1.Health/Watch',
    HEALTH_CODEC.requestSerialize,
    HEALTH_CODEC.responseDeserialize,
    'xds',
  );
  watch.on('data', (state: HealthStatus) => seen.push(state));
  watch.on('error', () => undefined);
  onClose(() => watch.cancel());

  expect(await check('')).toBe('SERVING');
  expect(await check('nothing')).toMatchObject({ code: status.NOT_FOUND });
  await until(() => seen.length === 1, 'the first state came');
  health.set(new Map([['xds', true]]));
  await until(() => seen.length === 2, 'the second state came');
  health.set(new Map([['xds', true]]));
  health.set(new Map([['xds', false]]));
  await until(() => seen.length === 3, 'the third state came');

  expect(seen).toEqual(['SERVICE_UNKNOWN', 'SERVING', 'NOT_SERVING']);
});

/** Sends one request of reflection and answers the fields of the response: number to bytes. */
async function reflect(field: number, text: string): Promise<Map<number, Uint8Array>> {
  const call = client.makeBidiStreamRequest(
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    (bytes: Uint8Array) => Buffer.from(bytes),
    (bytes) => new Uint8Array(bytes),
  );
  call.on('error', () => undefined);
  const answer = new Promise<Uint8Array>((resolve) => call.once('data', resolve));
  call.write(new BinaryWriter().tag(field, WireType.LengthDelimited).string(text).finish());
  const reader = new BinaryReader(await answer);
  const fields = new Map<number, Uint8Array>();
  while (reader.pos < reader.len) fields.set(reader.tag()[0], reader.bytes());
  call.cancel();
  return fields;
}

test('reflection lists the services and gives the files that describe one, imports included', async () => {
  serveReflection(server);

  const listed = Buffer.from((await reflect(7, '')).get(6)!).toString();
  expect(listed).toContain('envoy.service.discovery.v3.AggregatedDiscoveryService');
  expect(listed).toContain('envoy.service.status.v3.ClientStatusDiscoveryService');

  const reader = new BinaryReader((await reflect(4, 'envoy.service.discovery.v3.AggregatedDiscoveryService')).get(4)!);
  const names: string[] = [];
  while (reader.pos < reader.len) {
    reader.tag();
    names.push(fromBinary(FileDescriptorProtoSchema, reader.bytes()).name);
  }
  expect(names[0]).toBe('envoy/service/discovery/v3/ads.proto');
  expect(names).toContain('envoy/service/discovery/v3/discovery.proto');
  expect(names).toContain('google/protobuf/any.proto');
  expect((await reflect(4, 'envoy.config.core.v3.Node')).has(4)).toBe(true);
  expect((await reflect(4, 'no.such.Thing')).has(7)).toBe(true);
  expect((await reflect(6, 'envoy.config.core.v3.Node')).has(7)).toBe(true);
});
