import { afterEach, expect, test } from '@jest/globals';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { systemClock } from '../lib/clock.ts';
import { systemRandom } from '../lib/random.ts';
import type { ClientUpdate } from './session/client.ts';
import type { EncodedResource, Mode, NodeInfo } from './session/messages.ts';
import type { ServerEvent } from './session/server.ts';
import { testNode, testResource, testSet } from './session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from './session/type-urls.ts';
import { connectDiscovery, discoveryServerOptions, serveDiscovery } from './stream.ts';
import type { ConnectDiscoveryOptions, DiscoveryClient, ServerStream } from './stream.ts';

const clock = systemClock();
const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0).reverse()) close();
});

interface ControlPlane {
  readonly target: string;
  readonly streams: Set<ServerStream>;
  readonly events: ServerEvent[];
  publish(resources: readonly EncodedResource[]): void;
  close(): void;
}

async function controlPlane(resources: readonly EncodedResource[], port = 0, identified?: (node: NodeInfo) => void): Promise<ControlPlane> {
  const server = new Server(discoveryServerOptions());
  const streams = new Set<ServerStream>();
  const events: ServerEvent[] = [];
  let set = testSet(resources);
  const discovery = serveDiscovery(
    server,
    {
      identified: (stream, node) => {
        identified?.(node);
        streams.add(stream);
        stream.publish(set);
      },
      event: (_stream, event) => events.push(event),
      closed: (stream) => streams.delete(stream),
    },
    { clock, transport: 'plaintext', stallMsMax: 1_000 },
  );
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, at) =>
      error === null ? resolve(at) : reject(error),
    );
  });
  const close = (): void => {
    discovery.close();
    server.forceShutdown();
  };
  closers.push(close);
  return {
    target: `127.0.0.1:${bound}`,
    streams,
    events,
    close,
    publish: (next) => {
      set = testSet(next, set);
      for (const stream of streams) stream.publish(set);
    },
  };
}

interface Sidecar {
  readonly client: DiscoveryClient;
  readonly updates: ClientUpdate[];
  readonly has: (typeUrl: string, name: string) => string | undefined;
}

function sidecar(target: string, mode: Mode, options: Partial<ConnectDiscoveryOptions> = {}): Sidecar {
  const updates: ClientUpdate[] = [];
  const kept = new Map<string, string>();
  const client = connectDiscovery({
    targets: [target],
    credentials: () => credentials.createInsecure(),
    mode,
    node: testNode(),
    clock,
    random: systemRandom,
    backoff: { baseMs: 20, capMs: 50 },
    onUpdate: (update) => {
      updates.push(update);
      for (const { typeUrl, name, bytes } of update.upserts) kept.set(`${typeUrl} ${name}`, Buffer.from(bytes).toString('latin1'));
      for (const name of update.removals) kept.delete(`${update.typeUrl} ${name}`);
      client.settle(update);
    },
    ...options,
  });
  closers.push(() => client.close());
  return { client, updates, has: (typeUrl, name) => kept.get(`${typeUrl} ${name}`) };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const start = clock.now();
  while (!condition()) {
    if (clock.now() - start > 15_000) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

for (const mode of ['delta', 'sotw'] as const) {
  test(`a ${mode} client gets what it subscribes to, each change, and removals of clusters`, async () => {
    const plane = await controlPlane([
      testResource(CLUSTER_TYPE, 'a'),
      testResource(CLUSTER_TYPE, 'b'),
      testResource(ENDPOINT_TYPE, 'a', '1'),
    ]);
    const { client, has } = sidecar(plane.target, mode);
    client.subscribe(CLUSTER_TYPE, ['*']);
    client.subscribe(ENDPOINT_TYPE, ['a']);
    await until(() => has(CLUSTER_TYPE, 'b') !== undefined && has(ENDPOINT_TYPE, 'a') !== undefined, 'clusters and endpoints came');

    plane.publish([testResource(CLUSTER_TYPE, 'a'), testResource(ENDPOINT_TYPE, 'a', '2')]);

    await until(() => has(ENDPOINT_TYPE, 'a')?.endsWith('2') === true && has(CLUSTER_TYPE, 'b') === undefined, 'the change came');
    expect(has(CLUSTER_TYPE, 'a')).toBeDefined();
    await until(() => plane.events.filter((event) => event.kind === 'acked').length >= 4, 'every response was acknowledged');
    expect(plane.events.filter((event) => event.kind === 'nacked')).toEqual([]);
  });

  test(`a ${mode} client comes back to a restarted control plane with what it had, and gets what changed`, async () => {
    const first = await controlPlane([testResource(CLUSTER_TYPE, 'a'), testResource(CLUSTER_TYPE, 'b')]);
    const { client, has, updates } = sidecar(first.target, mode);
    client.subscribe(CLUSTER_TYPE, ['*']);
    client.subscribe(LISTENER_TYPE, ['*']);
    client.subscribe(ROUTE_TYPE, ['r']);
    await until(() => has(CLUSTER_TYPE, 'b') !== undefined, 'clusters came');
    first.close();
    await until(() => client.connection.state === 'waiting', 'the loss was noticed');
    expect(has(CLUSTER_TYPE, 'a')).toBeDefined();
    const before = updates.length;

    const second = await controlPlane(
      [testResource(CLUSTER_TYPE, 'a'), testResource(CLUSTER_TYPE, 'c')],
      Number(first.target.split(':')[1]),
    );

    await until(() => has(CLUSTER_TYPE, 'c') !== undefined && has(CLUSTER_TYPE, 'b') === undefined, 'the new state came');
    expect(second.streams.size).toBe(1);
    const names = updates.slice(before).flatMap((update) => update.upserts.map((resource) => resource.name));
    expect(names).toEqual(mode === 'delta' ? ['c'] : ['a', 'c']);
  });

  test(`a ${mode} message of 10 MB arrives whole`, async () => {
    const plane = await controlPlane([testResource(CLUSTER_TYPE, 'big', 'x'.repeat(10_000_000))]);
    const { client, has } = sidecar(plane.target, mode);

    client.subscribe(CLUSTER_TYPE, ['*']);

    await until(() => has(CLUSTER_TYPE, 'big') !== undefined, 'it came');
    expect(has(CLUSTER_TYPE, 'big')!.length).toBeGreaterThan(10_000_000);
  });
}

test('a client that does not settle gets no second update until it does, and then the newest state alone', async () => {
  const plane = await controlPlane([testResource(CLUSTER_TYPE, 'a', '0')]);
  const held: ClientUpdate[] = [];
  const { client } = sidecar(plane.target, 'delta', { onUpdate: (update) => held.push(update) });
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => held.length === 1, 'the first update came');

  for (let version = 1; version <= 50; version++) plane.publish([testResource(CLUSTER_TYPE, 'a', `v${version}`)]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(held.length).toBe(1);
  client.settle(held[0]!);

  await until(() => held.length === 2, 'the second update came');
  expect(Buffer.from(held[1]!.upserts[0]!.bytes).toString('latin1').endsWith('v50')).toBe(true);
});

test('listeners and routes wait until the clusters that they may point at are acknowledged', async () => {
  const plane = await controlPlane([]);
  const { client, updates } = sidecar(plane.target, 'delta');
  client.subscribe(ROUTE_TYPE, ['r']);
  client.subscribe(LISTENER_TYPE, ['*']);
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => plane.events.filter((event) => event.kind === 'acked').length >= 2, 'the empty state is known');
  updates.length = 0;

  plane.publish([testResource(ROUTE_TYPE, 'r'), testResource(LISTENER_TYPE, 'l'), testResource(CLUSTER_TYPE, 'c')]);

  await until(() => updates.length === 3, 'all came');
  expect(updates.map((update) => update.upserts[0]!.name)).toEqual(['c', 'l', 'r']);
});
