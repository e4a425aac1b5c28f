/** A control plane and sidecars over real sockets on loopback, for tests of streams. */
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import type { ServerInterceptor } from '@grpc/grpc-js';
import { sleep, systemClock } from '../lib/clock.ts';
import { systemRandom } from '../lib/random.ts';
import { connectDiscovery, discoveryServerOptions, serveDiscovery } from './stream.ts';
import type {
  ConnectDiscoveryOptions,
  DiscoveryClient,
  DiscoveryHandler,
  ServeDiscoveryOptions,
  ServerStream,
  StreamError,
} from './stream.ts';
import type { ClientUpdate } from './session/client.ts';
import type { EncodedResource, Mode } from './session/messages.ts';
import type { ServerEvent } from './session/server.ts';
import { testNode, testSet } from './session/testing.ts';

export const clock = systemClock();
const closers: (() => void | Promise<void>)[] = [];

/** For `afterEach`: closes all that was opened, newest first. */
export async function closeAll(): Promise<void> {
  for (const close of closers.splice(0).reverse()) await close();
}

export function onClose(close: () => void | Promise<void>): void {
  closers.push(close);
}

export interface TestControlPlane {
  readonly target: string;
  readonly streams: Set<ServerStream>;
  /** Events of all streams, with the id of the node they belong to. */
  readonly events: (ServerEvent & { readonly nodeId: string })[];
  readonly ended: { readonly nodeId: string; readonly error: StreamError | undefined }[];
  publish(resources: readonly EncodedResource[]): void;
  close(): void;
}

export interface TestControlPlaneOptions extends Partial<ServeDiscoveryOptions> {
  readonly port?: number;
  readonly identified?: DiscoveryHandler['identified'];
  readonly credentials?: ServerCredentials;
  readonly interceptors?: ServerInterceptor[];
}

export async function controlPlane(
  resources: readonly EncodedResource[],
  options: TestControlPlaneOptions = {},
): Promise<TestControlPlane> {
  const server = new Server({ ...discoveryServerOptions(), interceptors: options.interceptors ?? [] });
  const streams = new Set<ServerStream>();
  const events: (ServerEvent & { nodeId: string })[] = [];
  const ended: { nodeId: string; error: StreamError | undefined }[] = [];
  let set = testSet(resources);
  const handler: DiscoveryHandler = {
    identified: async (stream, node) => {
      await options.identified?.(stream, node);
      streams.add(stream);
      stream.publish(set);
    },
    event: (stream, event) => events.push({ ...event, nodeId: stream.node?.id ?? '' }),
    closed: (stream, error) => {
      streams.delete(stream);
      ended.push({ nodeId: stream.node?.id ?? '', error });
    },
  };
  const discovery = serveDiscovery(server, handler, { clock, transport: 'plaintext', ...options });
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${options.port ?? 0}`, options.credentials ?? ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
  const close = (): void => {
    discovery.close();
    server.forceShutdown();
  };
  onClose(close);
  return {
    target: `127.0.0.1:${bound}`,
    streams,
    events,
    ended,
    close,
    publish: (next) => {
      set = testSet(next, set);
      for (const stream of streams) stream.publish(set);
    },
  };
}

export interface TestSidecar {
  readonly client: DiscoveryClient;
  readonly updates: ClientUpdate[];
  /** Bytes of a resource that it has, as latin1 text. */
  readonly has: (typeUrl: string, name: string) => string | undefined;
}

/** Accepts everything at once unless `onUpdate` says otherwise. */
export function sidecar(target: string, mode: Mode, options: Partial<ConnectDiscoveryOptions> = {}): TestSidecar {
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
  onClose(() => client.close());
  return { client, updates, has: (typeUrl, name) => kept.get(`${typeUrl} ${name}`) };
}

/** Polls; throws after 15 s. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const start = clock.now();
  while (!condition()) {
    if (clock.now() - start > 15_000) throw new Error(`waited in vain until ${what}`);
    await sleep(clock, 2);
  }
}
