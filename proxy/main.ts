/** The sidecar's composition root: read the bootstrap, wire, listen, follow the control plane, drain. */
import { openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { systemClock } from '../lib/clock.ts';
import { createLog } from '../lib/log.ts';
import { systemRandom } from '../lib/random.ts';
import { adminContext } from './admin/context.ts';
import { addressText } from './admin/endpoint.ts';
import { isLocalAddress, serveAdmin } from './admin/server.ts';
import { openAgentPorts } from './admin/agent-ports.ts';
import { assemble } from './assemble.ts';
import { nodeOf, readBootstrap, runtimeLayersOf, seedStore, StartError } from './boot.ts';
import { Lifecycle } from './lifecycle.ts';
import { tendProcess } from './process.ts';
import { parseProxyOptions, PROXY_USAGE, UsageError } from './options.ts';
import { connectSources } from './sources.ts';
import { isUnknownField } from '../xds/resources/rules.ts';
import type { AdminServer } from './admin/server.ts';
import type { AgentPorts } from './admin/agent-ports.ts';
import type { Parts, World } from './assemble.ts';
import type { StopOptions } from './lifecycle.ts';
import type { ProxyOptions } from './options.ts';
import type { Sources } from './sources.ts';
import type { Bootstrap } from '../xds/bootstrap.ts';
import type { Address } from '../xds/snapshot.ts';

export type ProxyDeps = Partial<World>;

/** A proxy that runs in this process. */
export interface RunningProxy {
  /** Resolves when the start is complete: configuration in force, listeners open. */
  readonly ready: Promise<void>;
  /** Resolves with the exit code when the proxy has ended, by `stop`, by the admin port or by itself. */
  readonly done: Promise<number>;
  /** Where the admin port really listens; undefined when the bootstrap has none. */
  readonly adminAddress: Address | undefined;
  readonly healthPort: number | undefined;
  readonly metricsPort: number | undefined;
  /** Name and real addresses of each listener. */
  listeners(): readonly { readonly name: string; readonly addresses: readonly Address[] }[];
  /** Drains and ends: no new connections after `windowMs` (0), requests under way get `timeoutMs` (10 s) to finish. */
  stop(options?: StopOptions): Promise<void>;
}

const START = 'the static resources';
const EXIT = { fine: 0, failed: 1, usage: 2 } as const;

/** Starts a proxy from Envoy's flags. Rejects with UsageError or StartError; takes no signals and ends no process. */
export async function startProxy(argv: readonly string[], deps: ProxyDeps = {}): Promise<RunningProxy> {
  const options = parseProxyOptions(argv);
  return start(options, worldOf(options, deps));
}

/** The command `meshwork proxy`: runs until a signal or the admin port ends it, and answers the exit code. */
export async function runProxy(argv: readonly string[], deps: ProxyDeps = {}): Promise<number> {
  let options: ProxyOptions;
  try {
    options = parseProxyOptions(argv);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`${error.message}\n\n${PROXY_USAGE}`);
    return EXIT.usage;
  }
  const said = saying(options.mode);
  if (said !== undefined) {
    process.stdout.write(said);
    return EXIT.fine;
  }
  let world: World;
  try {
    world = worldOf(options, deps);
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return EXIT.failed;
  }
  try {
    if (options.mode === 'validate') {
      await validate(options, world);
      process.stdout.write(`configuration '${options.configPath ?? ''}' OK\n`);
      return EXIT.fine;
    }
    const proxy = await start(options, world);
    void proxy.ready.then(() => flushCompileCache());
    tendProcess(proxy, world);
    return await untilEnd(proxy, world);
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    world.log.error(error.message);
    return EXIT.failed;
  }
}

/** What a mode only prints; undefined for one that does something. */
function saying(mode: ProxyOptions['mode']): string | undefined {
  if (mode === 'help') return PROXY_USAGE;
  if (mode === 'version') return `meshwork proxy  version: ${versionText()}\n`;
  return mode === 'hot-restart-version' ? 'disabled\n' : undefined;
}

async function start(options: ProxyOptions, world: World): Promise<RunningProxy> {
  const { parts, bootstrap } = prepare(options, world);
  const lifecycle = new Lifecycle(parts);
  let admin: AdminServer | undefined;
  let agent: AgentPorts | undefined;
  let sources: Sources | undefined;
  lifecycle.onEnd(async () => {
    sources?.close();
    await agent?.close();
    await admin?.close();
  });
  // Not ready before the sources have said what they wait for.
  parts.awaited.add(START);
  try {
    await applyStatic(parts);
    admin = await startAdmin(parts, bootstrap, lifecycle);
    agent = await startAgentPorts(parts);
    sources = await connectSources(bootstrap, parts);
  } catch (error) {
    await lifecycle.stop({ timeoutMs: 0 });
    throw error instanceof StartError || !(error instanceof Error) ? error : new StartError(error.message, error);
  }
  parts.awaited.delete(START);
  parts.status.check();
  void parts.status.ready.then(() =>
    parts.log.info('The proxy is ready.', { node: parts.node.id, listeners: parts.listeners.views().length }),
  );
  return {
    ready: parts.status.ready,
    done: lifecycle.done,
    adminAddress: admin?.address,
    healthPort: agent?.healthPort,
    metricsPort: agent?.metricsPort,
    listeners: () => parts.listeners.views(),
    stop: (stopOptions) => lifecycle.stop(stopOptions),
  };
}

/** Reads everything and builds the parts; opens nothing. */
function prepare(options: ProxyOptions, world: World): { parts: Parts; bootstrap: Bootstrap } {
  for (const warning of options.warnings) world.log.warning(warning);
  const { bootstrap, warnings } = readBootstrap(options);
  for (const warning of warnings) world.log.warning(`The bootstrap: ${warning}.`);
  const parts = assemble(world, options, nodeOf(bootstrap, options, versionText()), runtimeLayersOf(bootstrap, options));
  parts.status.unknownFields(warnings.some(isUnknownField) ? 1 : 0);
  seedStore(parts.store, bootstrap, world.clock.wallMs());
  return { parts, bootstrap };
}

/** Puts the static resources in force. What they need and only the control plane has may come later. */
async function applyStatic(parts: Parts): Promise<void> {
  const problems = await parts.runtime.apply();
  if (problems.length > 0) throw new StartError(`the configuration cannot be used: ${problems.map(({ message }) => message).join('; ')}`);
}

async function startAdmin(parts: Parts, bootstrap: Bootstrap, lifecycle: Lifecycle): Promise<AdminServer | undefined> {
  if (bootstrap.admin === undefined) return undefined;
  const { address } = bootstrap.admin;
  const { log, options } = parts;
  if (!isLocalAddress(address))
    log.warning('The admin port can be reached from other machines: everyone there can read the configuration and stop the proxy.', {
      address: addressText(address),
    });
  const context = adminContext(parts, bootstrap, serverVersion(), {
    drainListeners: (request) => lifecycle.drainListeners(request),
    quit: () => void lifecycle.stop({ timeoutMs: 1_000 }),
  });
  const admin = await serveAdmin(address, context).catch((error: unknown) => {
    throw new StartError(
      `the admin port cannot listen on ${addressText(address)}: ${error instanceof Error ? error.message : String(error)}`,
      error,
    );
  });
  if (options.adminAddressPath !== undefined) writeFileSync(options.adminAddressPath, addressText(admin.address));
  return admin;
}

async function startAgentPorts({ options, clock, log, registry, status }: Parts): Promise<AgentPorts | undefined> {
  const { healthPort, metricsPort, applicationMetrics } = options;
  if (healthPort === undefined && metricsPort === undefined) return undefined;
  const deps = { clock, log, registry, state: () => status.state, refreshStats: () => status.refresh() };
  return openAgentPorts({ host: '0.0.0.0', healthPort, metricsPort, applicationMetrics }, deps);
}

/** Compiles what `-c` names as a start would, without opening a socket. Throws StartError. */
async function validate(options: ProxyOptions, world: World): Promise<void> {
  const { parts } = prepare(options, world);
  try {
    parts.compileAll();
  } catch (error) {
    throw new StartError(`the configuration cannot be used: ${error instanceof Error ? error.message : String(error)}`, error);
  } finally {
    await new Lifecycle(parts).stop({ timeoutMs: 0 });
  }
}

/** Signals: the first one drains, a second one ends at once. What nobody caught is logged, and ends the proxy after a drain. */
async function untilEnd(proxy: RunningProxy, { log }: World): Promise<number> {
  let failed = false;
  let signals = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    signals++;
    if (signals > 1) void proxy.stop({ timeoutMs: 0 });
    else {
      log.info('Draining before the end.', { signal });
      // A balancer in front needs a moment to hear that this one is going; at a terminal nobody is in front.
      void proxy.stop(signal === 'SIGTERM' ? { windowMs: 1_000 } : {});
    }
  };
  const onFailure = (error: unknown): void => {
    log.error('Something failed that nothing was prepared for; the proxy drains and ends.', {
      error,
      stack: error instanceof Error ? error.stack : undefined,
    });
    failed = true;
    void proxy.stop();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.on('uncaughtException', onFailure);
  process.on('unhandledRejection', onFailure);
  const code = await proxy.done;
  process.off('SIGTERM', onSignal);
  process.off('SIGINT', onSignal);
  process.off('uncaughtException', onFailure);
  process.off('unhandledRejection', onFailure);
  return failed ? EXIT.failed : code;
}

function worldOf(options: ProxyOptions, deps: ProxyDeps): World {
  const clock = deps.clock ?? systemClock();
  return {
    clock,
    random: deps.random ?? systemRandom,
    log: deps.log ?? createLog({ clock, level: options.logLevel, format: options.logFormat, ...logFile(options.logPath) }),
    environment: deps.environment ?? process.env,
  };
}

/** Lines are few, and the last ones before an end matter most: each is with the kernel when the call returns. */
function logFile(path: string | undefined): { readonly write?: (line: string) => void } {
  if (path === undefined) return {};
  try {
    const descriptor = openSync(path, 'a', 0o640);
    return { write: (line) => void writeSync(descriptor, line) };
  } catch (error) {
    throw new StartError(
      `cannot open the log file ${JSON.stringify(path)}: ${error instanceof Error ? error.message : String(error)}`,
      error,
    );
  }
}

function versionText(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return String((JSON.parse(text) as { version: string }).version);
}

/** Envoy's form: revision, version, state of the tree, build type, TLS library. */
function serverVersion(): string {
  return `meshwork/${versionText()}/Clean/RELEASE/node-${process.versions.node}`;
}
