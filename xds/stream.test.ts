import { afterEach, expect, jest, test } from '@jest/globals';
import type { ClientUpdate } from './session/client.ts';
import { testResource } from './session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from './session/type-urls.ts';
import { closeAll, controlPlane, sidecar, until } from './stream-testing.ts';

jest.setTimeout(30_000);
afterEach(closeAll);

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

    const second = await controlPlane([testResource(CLUSTER_TYPE, 'a'), testResource(CLUSTER_TYPE, 'c')], {
      port: Number(first.target.split(':')[1]),
    });

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

test('long messages go past grpc-js, and short ones and the status of the end come after them', async () => {
  const plane = await controlPlane([testResource(CLUSTER_TYPE, 'a', 'x'.repeat(100_000))]);
  const { client, has } = sidecar(plane.target, 'delta');
  client.subscribe(CLUSTER_TYPE, ['*']);
  await until(() => (has(CLUSTER_TYPE, 'a')?.length ?? 0) > 100_000, 'the long one came');
  plane.publish([testResource(CLUSTER_TYPE, 'a', 'short')]);
  await until(() => has(CLUSTER_TYPE, 'a')?.endsWith('short') === true, 'the short one came');
  plane.publish([testResource(CLUSTER_TYPE, 'a', 'y'.repeat(200_000))]);
  await until(() => has(CLUSTER_TYPE, 'a')?.endsWith('y') === true, 'another long one came');
  for (const stream of plane.streams) stream.close(9, 'this is the end');
  await until(() => client.connection.error.includes('this is the end'), 'the status came');
});

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
  await until(() => plane.events.filter((event) => event.kind === 'acked').length >= 3, 'the empty state is known');
  updates.length = 0;

  plane.publish([testResource(ROUTE_TYPE, 'r'), testResource(LISTENER_TYPE, 'l'), testResource(CLUSTER_TYPE, 'c')]);

  await until(() => updates.length === 3, 'all came');
  expect(updates.map((update) => update.upserts[0]!.name)).toEqual(['c', 'l', 'r']);
});
