/** The control plane's composition root: options in, sources, catalog, publisher, xDS and API wired up, and taken down in order. */
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import type { FastifyInstance } from 'fastify';
import { lowerV8Threads } from '../lib/background-threads.ts';
import type { Clock } from '../lib/clock.ts';
import { systemClock } from '../lib/clock.ts';
import { descriptorRoom } from '../lib/descriptors.ts';
import type { DescriptorRoom } from '../lib/descriptors.ts';
import type { Log } from '../lib/log.ts';
import { createLog } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import { systemRandom } from '../lib/random.ts';
import { inSlices, turn } from '../lib/slices.ts';
import type { Watch } from '../lib/watch.ts';
import { firstUse } from '../xds/resources/first-use.ts';
import type { ApiContext } from './api/context.ts';
import { createApi } from './api/server.ts';
import { affectedBy } from './affected.ts';
import { build } from './build/index.ts';
import type { Changes } from './changes.ts';
import { createEncoder } from './encode.ts';
import type { Encoder } from './encode.ts';
import { Closers, gather } from './gather.ts';
import type { Base, Known } from './gather.ts';
import { createIdentities } from './identity.ts';
import type { Identities } from './identity.ts';
import { createLoadTable } from './load.ts';
import { createMetrics, serveMetrics } from './metrics.ts';
import { CONTROL_PLANE_HELP, DEFAULT_OPTIONS, UsageError, formatAddress, isLoopback, parseControlPlaneArgs } from './options.ts';
import type { ControlPlaneOptions, ListenAddress } from './options.ts';
import type { Proxies } from './proxies.ts';
import { createPublisher } from './publish.ts';
import type { Publisher } from './publish.ts';
import { restoreAuthority, restoreTokens, tendRoots } from './roots.ts';
import { serveXds } from './serve.ts';
import { createMemoryStore } from './store/memory.ts';
import { openSqliteStore } from './store/sqlite.ts';
import { startTracing } from './tracing.ts';
import type { Node, World } from './world.ts';

export interface ControlPlaneDeps {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** How long a change waits for others; for tests. */
  readonly quietMs?: number;
  /** Told of the proxies' connections. */
  readonly descriptors?: DescriptorRoom | undefined;
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
    descriptors: deps.descriptors,
  };
  const known = await gather(options, base, closers);
  await turn(clock);
  const pushing = await preparePushing(known, base, deps, closers);
  await turn(clock);
  return serve(options, known, pushing, base, closers);
}

interface Pushing {
  readonly identities: Identities;
  readonly encoder: Encoder;
  readonly publisher: Publisher;
}

async function preparePushing(known: Known, base: Base, deps: ControlPlaneDeps, closers: Closers): Promise<Pushing> {
  const { clock, store } = base;
  const { world } = known.catalog;
  const encoder = createEncoder(build);
  const authority = restoreAuthority(store, world.current.mesh.trustDomain, clock);
  const identities = createIdentities({
    ...base,
    authority,
    tokens: restoreTokens(store, authority.trustDomain, clock),
    leases: known.registrations,
    certificateTtlMs: () => world.current.mesh.certificateTtlMs,
    encodeSecret: (secret) => encoder.encodeSecret(secret),
    renewed: (proxyId) => known.late.publisher?.refresh(proxyId),
  });
  closers.add(() => identities.close());
  base.metrics.expiries(() => {
    const leavesMs = identities.certificates().flatMap((held) => (held.connected ? Date.parse(held.notAfter) : []));
    const root = authority.roots.find(({ phase }) => phase === 'active');
    return { leavesMs, rootMs: root?.notAfterMs ?? 0, nowMs: clock.wallMs() };
  });
  const quiet = deps.quietMs === undefined ? {} : { quietMs: deps.quietMs };
  const publisher = createPublisher({
    ...base,
    ...known,
    ...quiet,
    world,
    prepare: (now) => encoder.prepare(now),
    prepareFor: (now, node) => encoder.prepareFor(now, node),
    named: (now, node) => encoder.named(now, node),
    encode: (now, node) => {
      keepsTrustDomain(now, authority.trustDomain);
      return encoder.encode(now, node);
    },
  });
  known.late.publisher = publisher;
  closers.add(() => publisher.close());
  await warmUp(encoder, world.current, base);
  closers.add(tendRoots(authority, { ...base, proxies: known.proxies, publisher }));
  return { identities, encoder, publisher };
}

async function serve(options: ControlPlaneOptions, known: Known, pushing: Pushing, base: Base, closers: Closers): Promise<ControlPlane> {
  const { catalog, proxies, changes, files, registrations } = known;
  const { world } = catalog;
  const load = createLoadTable(base);
  const xds = await serveXds(options, { ...base, ...pushing, proxies, world, leases: registrations, load });
  closers.add(() => xds.close());
  // Proxies may be there by now.
  await turn(base.clock);
  const context: ApiContext = {
    ...base,
    ...known,
    ...pushing,
    load,
    world,
    resources: () => catalog.resources(),
    resource: (kindAndKey) => catalog.resource(kindAndKey),
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

/** Every identity has the trust domain in it, so a running mesh cannot change it: proxies keep what they have. */
function keepsTrustDomain(world: World, trustDomain: string): void {
  if (world.mesh.trustDomain !== trustDomain)
    throw new Error(
      `the trust domain cannot change from ${trustDomain} to ${world.mesh.trustDomain} while the mesh runs; nothing is pushed until it is changed back`,
    );
}

/** The first build prepares schemas and memos, which takes a while; better before the first proxy waits for it. */
async function warmUp(encoder: Encoder, world: World, { clock, log }: Base): Promise<void> {
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
    await inSlices(clock, firstUse());
    await inSlices(clock, encoder.prepare(world));
    await turn(clock);
    encoder.encode(world, nobody);
  } catch (error) {
    log.warning('The first build failed; proxies get nothing until the configuration is mended.', { error });
  }
}

/**
 * Nice steps between the event loop and V8's threads: where both want one core the event loop gets it at once, and they half as much as it. With
 * five steps or ten they mark too slowly beside others who want the core, and the event loop has to mark for them (docs/scale.md).
 */
const V8_THREADS_STEPS = 3;
/** After an outage so many proxies come back that the table of descriptors cannot be made larger meanwhile. A table of this size takes 16 KiB. */
const DESCRIPTORS_EXPECTED = 2_048;

/** Runs until SIGTERM or SIGINT. Exit codes: 0 ended in order, 1 could not start, 2 usage. */
export async function runControlPlane(argv: readonly string[], deps: ControlPlaneDeps = {}): Promise<number> {
  let controlPlane: ControlPlane;
  let options: ControlPlaneOptions;
  // What grpc-js would print by itself is told by errors and the log already.
  setLogVerbosity(logVerbosity.NONE);
  lowerV8Threads(V8_THREADS_STEPS);
  try {
    const parsed = parseControlPlaneArgs(argv);
    if (parsed === 'help') {
      process.stdout.write(`${CONTROL_PLANE_HELP}\n`);
      return 0;
    }
    options = parsed;
    const descriptors = descriptorRoom(deps.clock ?? systemClock());
    descriptors?.expect(DESCRIPTORS_EXPECTED);
    controlPlane = await startControlPlane(options, { descriptors, ...deps });
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
