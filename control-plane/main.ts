/** The control plane's composition root: options in, sources, catalog, publisher, xDS and API wired up, and taken down in order. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import type { FastifyInstance } from 'fastify';
import type { Clock } from '../lib/clock.ts';
import { systemClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { createLog } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import { systemRandom } from '../lib/random.ts';
import type { Watch } from '../lib/watch.ts';
import type { ApiContext } from './api/context.ts';
import { createApi } from './api/server.ts';
import { affectedBy } from './affected.ts';
import { build } from './build/index.ts';
import { createCatalog } from './catalog.ts';
import type { Catalog } from './catalog.ts';
import { createChanges } from './changes.ts';
import type { Changes } from './changes.ts';
import { createEncoder } from './encode.ts';
import type { Encoder } from './encode.ts';
import { createIdentities } from './identity.ts';
import type { Identities } from './identity.ts';
import { createMetrics, serveMetrics } from './metrics.ts';
import type { ControlPlaneMetrics } from './metrics.ts';
import { CONTROL_PLANE_HELP, DEFAULT_OPTIONS, UsageError, formatAddress, isLoopback, parseControlPlaneArgs } from './options.ts';
import type { ControlPlaneOptions, ListenAddress } from './options.ts';
import { createProxies } from './proxies.ts';
import type { Proxies } from './proxies.ts';
import { createPublisher } from './publish.ts';
import type { Publisher } from './publish.ts';
import { restoreAuthority, restoreTokens, tendRoots } from './roots.ts';
import { serveXds } from './serve.ts';
import { createApiSource } from './sources/api.ts';
import type { ApiSource } from './sources/api.ts';
import { createFilesSource } from './sources/files.ts';
import { observeSource } from './sources/observed.ts';
import type { ObservedSource } from './sources/observed.ts';
import { createRegistrations } from './sources/registrations.ts';
import type { Registrations } from './sources/registrations.ts';
import { createMemoryStore } from './store/memory.ts';
import { openSqliteStore } from './store/sqlite.ts';
import type { Store } from './store/store.ts';
import { startTracing } from './tracing.ts';
import type { Spans } from './tracing.ts';
import type { Node, Problem, World } from './world.ts';

export interface ControlPlaneDeps {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** How long a change waits for others; for tests. */
  readonly quietMs?: number;
}

export interface ControlPlane {
  /** Real addresses, with the ports that were taken for 0. */
  readonly addresses: {
    readonly xds: ListenAddress;
    readonly xdsTls: ListenAddress;
    readonly api: ListenAddress;
    readonly metrics: ListenAddress;
  };
  readonly world: Watch<World>;
  readonly proxies: Proxies;
  readonly changes: Changes;
  readonly publisher: Publisher;
  /** Ends streams and ports in order, then the store. Closing twice is fine. */
  close(): Promise<void>;
}

/** Things to take down, last in first out. */
class Closers {
  readonly #closers: (() => void | Promise<void>)[] = [];
  #closing: Promise<void> | undefined;

  add(close: () => void | Promise<void>): void {
    this.#closers.unshift(close);
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      for (const close of this.#closers) await close();
    })();
    return this.#closing;
  }
}

/** Starts everything; what was started is taken down again when a part fails. Rejects with a message for the user. */
export async function startControlPlane(given: Partial<ControlPlaneOptions>, deps: ControlPlaneDeps = {}): Promise<ControlPlane> {
  const closers = new Closers();
  try {
    return await start({ ...DEFAULT_OPTIONS, ...given }, deps, closers);
  } catch (error) {
    await closers.close();
    throw error;
  }
}

async function start(options: ControlPlaneOptions, deps: ControlPlaneDeps, closers: Closers): Promise<ControlPlane> {
  const clock = deps.clock ?? systemClock();
  const log = deps.log ?? createLog({ clock, level: options.logLevel, format: options.logFormat });
  const spans = await startTracing(deps.environment ?? process.env, log);
  closers.add(() => spans.close());
  const store = options.dataDir === undefined ? createMemoryStore() : openSqliteStore(options.dataDir);
  closers.add(() => store.close());
  const base: Base = {
    clock,
    log,
    spans,
    store,
    random: deps.random ?? systemRandom,
    metrics: createMetrics(),
    startedAtMs: clock.wallMs(),
  };
  const known = await gather(options, base, closers);
  const pushing = preparePushing(known, base, deps, closers);
  return serve(options, known, pushing, base, closers);
}

/** What every part is given. */
interface Base {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: Random;
  readonly spans: Spans;
  readonly store: Store;
  readonly metrics: ControlPlaneMetrics;
  readonly startedAtMs: number;
}

/** Sources and the world that is merged out of them; who is connected, and how far each change has come. */
interface Known {
  readonly files: ObservedSource;
  readonly api: ApiSource;
  readonly registrations: Registrations;
  readonly catalog: Catalog;
  readonly proxies: Proxies;
  readonly changes: Changes;
  /** Set once there is a publisher: changes are counted by its rounds. */
  readonly late: { publisher?: Publisher };
}

/** Resolves when every source has spoken once: what is published before that would be a half-known mesh. */
async function gather(options: ControlPlaneOptions, base: Base, closers: Closers): Promise<Known> {
  const { clock, log, metrics, store } = base;
  const late: Known['late'] = {};
  const proxies: Proxies = createProxies({ clock, progressed: () => changes.progressed(), converged: (ms) => metrics.converged(ms) });
  const changes: Changes = createChanges({ clock, progressOf: (id) => proxies.progressOf(id) });
  const noting = (source: string) => (names: readonly string[]) => {
    const id = changes.begin(source, names);
    return { id, taken: () => changes.included(id, late.publisher?.current ?? 1) };
  };
  const files = observeSource(createFilesSource(options.files, { clock, log }), noting('files'));
  const api = createApiSource({ store, change: noting('api') });
  const registrations = createRegistrations({ ...base, change: noting('registrations') });
  closers.add(() => registrations.close());
  const catalog = createCatalog([files, api.source, registrations.source], { log });
  const running = new AbortController();
  const followed = catalog.run(running.signal);
  closers.add(async () => {
    running.abort();
    await followed;
  });
  closers.add(catalog.world.subscribe((world) => registrations.world(world)));
  await catalog.ready;
  closers.add(watchProblems(catalog.world, log));
  const measure = (world: World): void => {
    metrics.problems(world.problems.length);
    metrics.services(world.services.size);
    metrics.leases(registrations.list().length);
  };
  measure(catalog.world.current);
  closers.add(catalog.world.subscribe(measure));
  return { files, api, registrations, catalog, proxies, changes, late };
}

interface Pushing {
  readonly identities: Identities;
  readonly encoder: Encoder;
  readonly publisher: Publisher;
}

function preparePushing(known: Known, base: Base, deps: ControlPlaneDeps, closers: Closers): Pushing {
  const { clock, store } = base;
  const { world } = known.catalog;
  const encoder = createEncoder(build);
  const authority = restoreAuthority(store, world.current.mesh.trustDomain, clock);
  const identities = createIdentities({
    ...base,
    authority,
    tokens: restoreTokens(store, authority.trustDomain, clock),
    certificateTtlMs: () => world.current.mesh.certificateTtlMs,
    encodeSecret: (secret) => encoder.encodeSecret(secret),
    renewed: (proxyId) => known.late.publisher?.refresh(proxyId),
  });
  closers.add(() => identities.close());
  const quiet = deps.quietMs === undefined ? {} : { quietMs: deps.quietMs };
  const publisher = createPublisher({ ...base, ...known, ...quiet, world, encode: (now, node) => encoder.encode(now, node) });
  known.late.publisher = publisher;
  warmUp(encoder, world.current, base.log);
  closers.add(() => publisher.close());
  closers.add(tendRoots(authority, { ...base, proxies: known.proxies, publisher }));
  return { identities, encoder, publisher };
}

async function serve(options: ControlPlaneOptions, known: Known, pushing: Pushing, base: Base, closers: Closers): Promise<ControlPlane> {
  const { catalog, proxies, changes, files, registrations } = known;
  const { world } = catalog;
  const xds = await serveXds(options, { ...base, ...pushing, proxies, world });
  closers.add(() => xds.close());
  const context: ApiContext = {
    ...base,
    ...known,
    ...pushing,
    world,
    resources: () => catalog.resources(),
    affectedBy: (resources) =>
      affectedBy(resources, { files: files.state, registrations: registrations.state(), proxies, encoder: pushing.encoder }),
    addresses: () => ({ xds: formatAddress(xds.xds), xdsTls: formatAddress(xds.xdsTls) }),
  };
  const server = await createApi(context, [options.api.host, ...options.apiHosts]);
  closers.add(() => server.close());
  const api = await listen(server, options.api);
  if (!isLoopback(options.api.host))
    base.log.warning(
      'The API is reachable from other machines and asks nobody who they are: whoever reaches it can change the mesh and join it.',
      {
        address: formatAddress(api),
      },
    );
  const metricsServer = await serveMetrics(base.metrics, options.metrics);
  closers.add(() => closeServer(metricsServer));
  const metrics = { ...options.metrics, port: (metricsServer.address() as AddressInfo).port };
  const addresses = { xds: xds.xds, xdsTls: xds.xdsTls, api, metrics };
  return { addresses, world, proxies, changes, publisher: pushing.publisher, close: () => closers.close() };
}

/** The first build prepares schemas and memos, which takes a while; better before the first proxy waits for it. */
function warmUp(encoder: Encoder, world: World, log: Log): void {
  const nobody: Node = {
    id: 'warm-up',
    cluster: '',
    flavour: 'sidecar',
    namespace: 'default',
    workload: undefined,
    labels: {},
    locality: { region: '', zone: '', subZone: '' },
    identity: undefined,
    metadata: {},
    inboundPort: 15006,
    outboundPort: 15001,
    bindAddress: '127.0.0.1',
  };
  try {
    encoder.encode(world, nobody);
  } catch (error) {
    log.warning('The first build failed; proxies get nothing until the configuration is mended.', { error });
  }
}

/** Runs until SIGTERM or SIGINT. Exit codes: 0 ended in order, 1 could not start, 2 usage. */
export async function runControlPlane(argv: readonly string[], deps: ControlPlaneDeps = {}): Promise<number> {
  let controlPlane: ControlPlane;
  let options: ControlPlaneOptions;
  // What grpc-js would print by itself is told by errors and the log already.
  setLogVerbosity(logVerbosity.NONE);
  try {
    const parsed = parseControlPlaneArgs(argv);
    if (parsed === 'help') {
      process.stdout.write(`${CONTROL_PLANE_HELP}\n`);
      return 0;
    }
    options = parsed;
    controlPlane = await startControlPlane(options, deps);
  } catch (error) {
    const usage = error instanceof UsageError;
    process.stderr.write(`meshwork control-plane: ${error instanceof Error ? error.message : String(error)}\n`);
    if (usage) process.stderr.write('See: meshwork control-plane --help\n');
    return usage ? 2 : 1;
  }
  const { xds, xdsTls, api, metrics } = mapped(controlPlane.addresses);
  process.stderr.write(
    `The control plane is ready: xDS on ${xds} and (TLS) ${xdsTls}, API on http://${api}, metrics on http://${metrics}/metrics\n`,
  );
  if (options.output === 'json') process.stdout.write(`${JSON.stringify({ ready: true, xds, xdsTls, api, metrics })}\n`);
  const signal = await untilSignal();
  process.stderr.write(`The control plane ends: ${signal}.\n`);
  await controlPlane.close();
  return 0;
}

function mapped(addresses: ControlPlane['addresses']): Record<'xds' | 'xdsTls' | 'api' | 'metrics', string> {
  return {
    xds: formatAddress(addresses.xds),
    xdsTls: formatAddress(addresses.xdsTls),
    api: formatAddress(addresses.api),
    metrics: formatAddress(addresses.metrics),
  };
}

function untilSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(signal));
  });
}

/** Each problem is written to the log when it appears, not with every world that still has it. */
function watchProblems(world: Watch<World>, log: Log): () => void {
  let known = new Set<string>();
  const tell = ({ problems }: World): void => {
    const now = new Map(problems.map((problem) => [lineOf(problem), problem]));
    for (const [line, problem] of now) if (!known.has(line)) log[problem.severity === 'warning' ? 'info' : 'warning'](line);
    known = new Set(now.keys());
  };
  tell(world.current);
  return world.subscribe(tell);
}

function lineOf({ origin, resource, field, message }: Problem): string {
  const place = origin.file === undefined ? origin.source : `${origin.file}:${origin.line ?? 1}:${origin.column ?? 1}`;
  return `${place}: ${[resource, field].filter((part) => part !== '').join(' ')}: ${message}`;
}

async function listen(server: FastifyInstance, address: ListenAddress): Promise<ListenAddress> {
  await server.listen({ host: address.host, port: address.port });
  const bound = server.server.address() as AddressInfo;
  return { host: address.host, port: bound.port };
}

function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}
