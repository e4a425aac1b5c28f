/** The request path alone: one process, sockets that are nothing but functions, time of the least disturbed batches. `node bench/path.ts [--seconds N]`. */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { createRegistry } from '../lib/metrics.ts';
import { systemRandom } from '../lib/random.ts';
import { Wheel } from '../lib/wheel.ts';
import { compileHttpChain } from '../proxy/http-chain.ts';
import type { ChainDeps } from '../proxy/http-chain.ts';
import type { AcceptedConnection, CompiledChain } from '../proxy/listen/chain.ts';
import { ClusterPool } from '../proxy/upstream/cluster-pool.ts';
import { createPool } from '../proxy/upstream/pool.ts';
import { workloadOfNode } from '../proxy/filters/workload.ts';
import { parseBootstrap } from '../xds/resources/bootstrap.ts';
import { envoyBootstrap } from './peers/envoy-config.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '8' }, connections: { type: 'string', default: '64' } } });
const seconds = Number(values.seconds);
const connections = Number(values.connections);
const BATCH = 2_000;

/** What the codec uses of a socket. What is written goes to `onText`. */
class PipeSocket extends EventEmitter {
  onText: (text: string) => void = () => undefined;
  destroyed = false;
  writable = true;
  connecting = false;
  writableLength = 0;
  readonly remotePort = 1;
  readonly _handle = {
    writeLatin1String: (_request: null, text: string): number => {
      this.onText(text);
      return 0;
    },
  };

  setNoDelay(): void {}
  resume(): void {}
  pause(): void {}
  cork(): void {}
  uncork(): void {}
  write(text: string): boolean {
    this.onText(text);
    return true;
  }
  end(): void {}
  destroy(): void {
    this.destroyed = true;
  }

  receive(chunk: Buffer, bytes: number): void {
    this.#data(chunk, bytes);
  }

  #data: (chunk: Buffer, bytes: number) => void = () => undefined;
  override on(event: string, listener: (...args: never[]) => void): this {
    if (event === 'data')
      this.#data = (chunk, bytes) =>
        (listener as (this: PipeSocket, chunk: Buffer) => void).call(this, bytes === chunk.length ? chunk : chunk.subarray(0, bytes));
    return this;
  }
}

const REQUEST = Buffer.from('GET /1k HTTP/1.1\r\nHost: 127.0.0.1:21001\r\n\r\n');
const ANSWER = Buffer.from(
  `HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Wed, 25 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n${'x'.repeat(1024)}`,
);

const clock = systemClock();
const registry = createRegistry();
const text = envoyBootstrap({ hop: { kind: 'plain' }, listenPort: 21_001, upstreamPort: 21_000 }, 0);
const { bootstrap } = parseBootstrap(text, { format: 'json' } as never);
const clusters = new ClusterPool({
  clock,
  random: systemRandom,
  log: silentLog,
  metrics: registry,
  makePool: (_endpoint, cluster) =>
    createPool({
      clock,
      limits: cluster.limits,
      events: { ...cluster.stats.connections, requestStarted: () => cluster.stats.rqTotal.inc() },
      dial: (done) => {
        const socket = new PipeSocket();
        socket.onText = () => answers.push(socket);
        setImmediate(() => done(undefined, socket as unknown as Socket, undefined));
        return () => undefined;
      },
    }),
});
clusters.apply(new Map(bootstrap.static.clusters.map(({ resource }) => [resource.name, resource])), new Map());
const listener = bootstrap.static.listeners[0]!.resource;
const [filter] = listener.filterChains[0]!.filters;
if (filter?.kind !== 'http') throw new Error('the first filter must be a connection manager');
const deps = {
  clock,
  random: systemRandom,
  log: silentLog,
  registry,
  wheel: new Wheel(clock),
  clusters,
  dial: () => () => () => undefined,
  self: workloadOfNode({ id: 'bench', cluster: 'bench', metadata: {} }),
  otlpEndpoint: '',
  healthy: () => true,
  writer: () => ({ write: () => undefined }),
  exporter: () => ({ send: () => undefined }),
} as unknown as ChainDeps;
const chain = compileHttpChain(
  filter.http,
  filter.http.routeConfig,
  listener,
  { path: 'bench', key: 'bench', virtualHosts: new Map() },
  deps,
);

/** Upstream sockets with a request to answer. */
const answers: PipeSocket[] = [];
let answered = 0;
const clients = Array.from({ length: connections }, (_, id) => {
  const socket = new PipeSocket();
  socket.onText = (answer) => {
    if (!answer.startsWith('HTTP/1.1 200 ')) throw new Error(`an answer that nobody wants: ${answer.slice(0, 300)}`);
    answered++;
    ready.push(socket);
  };
  chain.serve({
    id,
    socket: socket as unknown as Socket,
    tls: undefined,
    remoteAddress: '127.0.0.1',
    remotePort: 1,
    localAddress: '127.0.0.1',
    localPort: 21_001,
    listener: 'bench',
    current: () => chain as CompiledChain,
    protocol: 'HTTP/1.1',
    openedMs: 0,
    served: undefined,
    destroy: () => undefined,
    over: () => undefined,
  } satisfies AcceptedConnection);
  return socket;
});
let ready: PipeSocket[] = [...clients];

/** One turn: every client that has its answer asks again, every upstream that was asked answers. */
function turn(): void {
  const asking = ready;
  ready = [];
  for (const socket of asking) socket.receive(REQUEST, REQUEST.length);
  for (const socket of answers.splice(0)) socket.receive(ANSWER, ANSWER.length);
}

const next = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const batches: number[] = [];
const endMs = clock.now() + seconds * 1000;
while (clock.now() < endMs) {
  const from = answered;
  const startMs = clock.now();
  while (answered - from < BATCH) {
    turn();
    await next();
  }
  batches.push(((clock.now() - startMs) * 1000) / (answered - from));
}
batches.sort((a, b) => a - b);
const at = (share: number): string => batches[Math.floor(batches.length * share)]!.toFixed(2);
process.stdout.write(`${answered} requests; µs per request, batches of ${BATCH}: least ${at(0)}, 10 % ${at(0.1)}, median ${at(0.5)}\n`);
process.exitCode = 0;
process.exit();
