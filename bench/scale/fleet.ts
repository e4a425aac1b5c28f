/** One process of simulated proxies: each a real delta ADS stream on a connection of its own, that asks for all a sidecar asks for and accepts it. */
import { credentials } from '@grpc/grpc-js';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../lib/clock.ts';
import { systemRandom } from '../../lib/random.ts';
import { BACKOFF_MS_MAX } from '../../proxy/ads.ts';
import { decodeEndpoints } from '../../xds/resources/endpoint.ts';
import type { ClientUpdate } from '../../xds/session/client.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE } from '../../xds/session/type-urls.ts';
import { connectDiscovery } from '../../xds/stream.ts';
import type { DiscoveryClient } from '../../xds/stream.ts';
import { nodeId } from './mesh.ts';
import type { MeshSize } from './mesh.ts';

/** What the bench asks of a fleet, one at a time. */
export type FleetCommand =
  | {
      readonly do: 'connect';
      readonly port: number;
      readonly from: number;
      readonly count: number;
      readonly size: MeshSize;
      readonly counted: boolean;
    }
  | { readonly do: 'look' }
  /** When each proxy had a weight of an endpoint of this load assignment, and forgets the times. */
  | { readonly do: 'times'; readonly cluster: string }
  | { readonly do: 'weights' }
  | { readonly do: 'end' };

export interface FleetLook {
  /** Proxies that have listeners, routes, secrets, and the endpoints of every cluster. */
  readonly complete: number;
  readonly streams: number;
  /** Through the one proxy whose bytes are counted, HTTP/2 included, from the control plane and to it. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly updates: number;
  readonly rssMiB: number;
}

interface SimulatedProxy {
  readonly client: DiscoveryClient;
  readonly versions: Map<string, string>;
  complete: boolean;
}

/** Proxies of this process that do not have everything yet. */
const BEGINNERS_MAX = 20;

const clock = systemClock();
const proxies: SimulatedProxy[] = [];
/** Weight of the first endpoint by version of the load assignment: decoded once, whatever the number of proxies. */
const weights = new Map<string, number>();
/** Load assignment -> wall-clock milliseconds at which a proxy got it, one entry a proxy and push. */
let arrivals = new Map<string, number[]>();
let updates = 0;
let counter: { bytesIn: number; bytesOut: number; server: Server } | undefined;

process.on('message', (command: FleetCommand) => {
  void obey(command).then(
    (answer) => process.send?.({ answer: answer ?? null }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));

async function obey(command: FleetCommand): Promise<unknown> {
  switch (command.do) {
    case 'connect': {
      const counted = command.counted ? await countBytes(command.port) : command.port;
      for (let index = 0; index < command.count; index++) {
        proxies.push(simulate(nodeId(command.from + index, command.size), index === 0 ? counted : command.port));
        // A rollout: some come, and when they have everything the next ones do. All at once is what the restart measures.
        while (proxies.length - proxies.filter((proxy) => proxy.complete).length >= BEGINNERS_MAX) await delay(10);
      }
      return undefined;
    }
    case 'look':
      return look();
    case 'times': {
      const times = arrivals.get(command.cluster) ?? [];
      arrivals = new Map();
      return times;
    }
    case 'weights':
      return weightsOf();
    case 'end':
      for (const { client } of proxies) client.close();
      counter?.server.close();
      setImmediate(() => process.exit(0));
      return undefined;
  }
}

function look(): FleetLook {
  return {
    complete: proxies.filter((proxy) => proxy.complete).length,
    streams: proxies.filter(({ client }) => client.connection.state === 'connected' || client.connection.state === 'synced').length,
    bytesIn: counter?.bytesIn ?? 0,
    bytesOut: counter?.bytesOut ?? 0,
    updates,
    rssMiB: process.memoryUsage.rss() / 2 ** 20,
  };
}

/** Load assignment -> the weights that proxies have for its first endpoint: one number when they agree. */
function weightsOf(): Record<string, number[]> {
  const found = new Map<string, Set<number>>();
  for (const { versions } of proxies) {
    for (const [name, version] of versions) {
      const set = found.get(name) ?? new Set();
      set.add(weights.get(`${name} ${version}`) ?? -1);
      found.set(name, set);
    }
  }
  return Object.fromEntries([...found].map(([name, set]) => [name, [...set]]));
}

function simulate(id: string, port: number): SimulatedProxy {
  const versions = new Map<string, string>();
  const wanted = new Set<string>();
  const seen = new Set<string>();
  const client = connectDiscovery({
    targets: [`127.0.0.1:${port}`],
    credentials: () => credentials.createInsecure(),
    mode: 'delta',
    node: {
      id,
      cluster: '',
      metadata: {},
      locality: { region: '', zone: '', subZone: '' },
      userAgentName: 'meshwork-scale-bench',
      userAgentVersion: '0',
      clientFeatures: [],
    },
    clock,
    random: systemRandom,
    backoff: { capMs: BACKOFF_MS_MAX },
    onUpdate: (update) => {
      updates++;
      seen.add(update.typeUrl);
      take(update, versions, wanted, client);
      client.settle(update);
      if (!proxy.complete && seen.size === TYPES && [...wanted].every((name) => versions.has(name))) proxy.complete = true;
    },
  });
  const proxy: SimulatedProxy = { client, versions, complete: false };
  client.subscribe(LISTENER_TYPE, ['*']);
  client.subscribe(CLUSTER_TYPE, ['*']);
  client.subscribe(ROUTE_TYPE, ['outbound']);
  client.subscribe(SECRET_TYPE, ['ROOTCA']);
  return proxy;
}

/** Listeners, routes, clusters, endpoints, secrets. */
const TYPES = 5;

function take(update: ClientUpdate, versions: Map<string, string>, wanted: Set<string>, client: DiscoveryClient): void {
  if (update.typeUrl === CLUSTER_TYPE) {
    const names = update.upserts.map((resource) => resource.name).filter((name) => name.startsWith('outbound|') && !wanted.has(name));
    for (const name of names) wanted.add(name);
    if (names.length > 0) client.subscribe(ENDPOINT_TYPE, names);
  }
  if (update.typeUrl !== ENDPOINT_TYPE) return;
  const atMs = clock.wallMs();
  for (const { name, version, bytes } of update.upserts) {
    versions.set(name, version);
    const key = `${name} ${version}`;
    if (!weights.has(key)) weights.set(key, decodeEndpoints(bytes).localities[0]?.endpoints[0]?.weight ?? 0);
    const times = arrivals.get(name);
    if (times === undefined) arrivals.set(name, [atMs]);
    else times.push(atMs);
  }
}

/** A relay that counts what goes through it. Answers its port. */
async function countBytes(port: number): Promise<number> {
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    const made = counter!;
    near.on('data', (chunk) => {
      made.bytesOut += chunk.length;
      if (!far.write(chunk)) near.pause();
    });
    far.on('data', (chunk) => {
      made.bytesIn += chunk.length;
      if (!near.write(chunk)) far.pause();
    });
    near.on('drain', () => far.resume());
    far.on('drain', () => near.resume());
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  counter = { bytesIn: 0, bytesOut: 0, server };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}
