/** An application beside its sidecar: registers, starts the one and then the other, keeps the lease, passes signals, drains, leaves. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { sleep } from '../lib/clock.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { startProxy } from '../proxy/main.ts';
import { tendProcess } from '../proxy/process.ts';
import type { RunningProxy } from '../proxy/main.ts';
import { sidecarBootstrap } from './bootstrap.ts';
import type { SidecarPorts } from './bootstrap.ts';
import { ApiError } from './client.ts';
import type { ApiClient } from './client.ts';
import { CommandError, EXIT } from './exit.ts';

export interface WorkloadOptions {
  readonly service: string;
  readonly namespace: string;
  /** Undefined = the control plane makes one up. */
  readonly name?: string;
  /** The application's port; undefined = it takes no calls. */
  readonly port?: number;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly weight: number;
  readonly locality?: { readonly region: string; readonly zone?: string; readonly subZone?: string };
  readonly address: string;
  readonly ports: SidecarPorts;
  /** Further flags of `meshwork proxy`. */
  readonly proxyFlags: readonly string[];
  /** Empty = only the sidecar. */
  readonly command: readonly string[];
}

export interface WorkloadDeps {
  readonly api: ApiClient;
  readonly clock: Clock;
  readonly log: Log;
}

/** The control plane's answer to a registration. */
interface Registered {
  readonly id: string;
  readonly name: string;
  readonly nodeId: string;
  readonly lease: { readonly id: string; readonly secret: string; readonly credential: string; readonly ttlMs: number };
  readonly joinToken: string;
  readonly bundlePem: string;
  readonly xdsTls: string;
  readonly xdsServerId: string;
}

const READY_POLL_MS = 50;
const STOP_SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
/** Calls to the control plane while it is away are tried again after this long. */
const RETRY_MS = 1_000;

/** Runs until the application ends or a signal comes. Answers the application's exit code. */
export async function runWorkload(options: WorkloadOptions, deps: WorkloadDeps): Promise<number> {
  const ending = new AbortController();
  const signalled = new Promise<NodeJS.Signals>((resolve) => {
    for (const signal of STOP_SIGNALS) process.once(signal, () => resolve(signal));
  });
  void signalled.then(() => ending.abort());
  const registration = { current: await register(options, deps) };
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-run-'));
  let proxy: RunningProxy | undefined;
  try {
    void keepLease(options, registration, deps, ending.signal);
    proxy = await startSidecar(options, registration.current, directory, deps);
    const code = await runApplication(options, registration.current, signalled, proxy, deps, ending.signal);
    return code;
  } finally {
    ending.abort();
    await leave(registration.current, deps);
    await proxy?.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

function register(options: WorkloadOptions, { api }: WorkloadDeps): Promise<Registered> {
  const { ports } = options;
  const body = {
    service: options.service,
    namespace: options.namespace,
    ...(options.name === undefined ? {} : { name: options.name }),
    address: options.address,
    ports: options.port === undefined ? {} : { http: options.port },
    labels: options.labels,
    weight: options.weight,
    ...(options.locality === undefined ? {} : { locality: options.locality }),
    serviceAccount: options.serviceAccount,
    sidecar: { inboundPort: ports.inbound, outboundPort: ports.outbound, adminPort: ports.admin, bindAddress: ports.bindAddress },
    // The instance is known from now on and gets traffic once its application answers.
    ready: false,
  };
  return api.call<Registered>('/api/v1/registrations', { method: 'POST', body }).then((answer) => answer.body);
}

async function startSidecar(
  options: WorkloadOptions,
  registered: Registered,
  directory: string,
  { clock, log, api }: WorkloadDeps,
): Promise<RunningProxy> {
  const file = join(directory, 'bootstrap.json');
  const identity = {
    nodeId: registered.nodeId,
    service: options.service,
    namespace: options.namespace,
    serviceAccount: options.serviceAccount,
    labels: options.labels,
  };
  const target = {
    address: reachable(registered.xdsTls, api.baseUrl),
    bundlePem: registered.bundlePem,
    serverIdentity: registered.xdsServerId,
    joinToken: registered.joinToken,
    leaseCredential: registered.lease.credential,
  };
  writeFileSync(file, sidecarBootstrap(identity, options.ports, target), { mode: 0o600 });
  chmodSync(file, 0o600);
  try {
    const proxy = await startProxy(['-c', file, '-l', log.level, ...options.proxyFlags], { clock, log });
    tendProcess(proxy, { clock });
    return proxy;
  } catch (error) {
    throw new CommandError(`the sidecar cannot start: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** A control plane that listens on all addresses is reached where its API was. */
function reachable(address: string, apiUrl: string): string {
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? [];
  if (host !== '0.0.0.0' && host !== '[::]' && host !== '::') return address;
  return `${new URL(apiUrl).hostname}:${port}`;
}

/** Starts the application once the sidecar is ready; ends with it, or with a signal after passing it on. */
async function runApplication(
  options: WorkloadOptions,
  registered: Registered,
  signalled: Promise<NodeJS.Signals>,
  proxy: RunningProxy,
  deps: WorkloadDeps,
  ending: AbortSignal,
): Promise<number> {
  const { log } = deps;
  const early = await Promise.race([proxy.ready.then(() => undefined), signalled]);
  if (early !== undefined) return exitCodeOf(null, early);
  log.info('The sidecar is ready.', {
    service: options.service,
    instance: registered.name,
    outbound: options.ports.outbound,
    inbound: options.ports.inbound,
    admin: options.ports.admin,
  });
  const [command, ...args] = options.command;
  if (command === undefined) {
    void announceReady(options, registered, deps, ending);
    await signalled;
    await drain(registered, deps);
    return EXIT.fine;
  }
  const child = spawn(command, args, { stdio: 'inherit', env: { ...process.env, ...applicationEnvironment(options) } });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', (error) => reject(new CommandError(`cannot start ${command}: ${error.message}`, 127)));
    child.once('exit', (code, signal) => resolve(exitCodeOf(code, signal)));
  });
  void announceReady(options, registered, deps, ending);
  void signalled.then(async (signal) => {
    // Peers stop sending before the application stops taking.
    await drain(registered, deps);
    passSignal(child, signal);
    for (const again of STOP_SIGNALS) process.on(again, () => passSignal(child, again));
  });
  return ended;
}

/** Environment that sends the application's calls through the sidecar. What the user has set wins. */
function applicationEnvironment({ ports, service }: WorkloadOptions): Record<string, string> {
  const outbound = `http://127.0.0.1:${ports.outbound}`;
  const noProxy = 'localhost,127.0.0.1,::1';
  const wanted = {
    HTTP_PROXY: outbound,
    http_proxy: outbound,
    NO_PROXY: noProxy,
    no_proxy: noProxy,
    NODE_USE_ENV_PROXY: '1',
    MESHWORK_OUTBOUND: outbound,
    MESHWORK_SERVICE: service,
  };
  return Object.fromEntries(Object.entries(wanted).filter(([name]) => name.startsWith('MESHWORK_') || process.env[name] === undefined));
}

function passSignal(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal);
}

/** A shell's convention: 128 and the signal's number. */
function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + constants.signals[signal ?? 'SIGTERM'];
}

/** Waits until the application listens, then tells the control plane. */
async function announceReady(options: WorkloadOptions, registered: Registered, deps: WorkloadDeps, ending: AbortSignal): Promise<void> {
  if (options.port !== undefined)
    while (!ending.aborted && !(await isListening(options.port))) await sleep(deps.clock, READY_POLL_MS, ending);
  while (!ending.aborted) {
    try {
      await heartbeat(registered, deps, { ready: true });
      return;
    } catch (error) {
      deps.log.warning('The control plane could not be told that the application is ready; trying again.', { error });
      await sleep(deps.clock, RETRY_MS, ending);
    }
  }
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function heartbeat(
  { lease }: Registered,
  { api }: WorkloadDeps,
  state: { readonly ready?: boolean; readonly draining?: boolean } = {},
): Promise<unknown> {
  return api.call(`/api/v1/registrations/${lease.id}/heartbeat`, {
    method: 'PUT',
    body: state,
    headers: { authorization: `Bearer ${lease.secret}` },
    timeoutMs: 5_000,
  });
}

/** Renews the lease at a third of its time. A control plane that has forgotten it is told again. */
async function keepLease(
  options: WorkloadOptions,
  registration: { current: Registered },
  deps: WorkloadDeps,
  ending: AbortSignal,
): Promise<void> {
  while (!ending.aborted) {
    await sleep(deps.clock, registration.current.lease.ttlMs / 3, ending);
    if (ending.aborted) return;
    try {
      await heartbeat(registration.current, deps);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) await registerAgain(options, registration, deps, ending);
      else deps.log.warning('The lease could not be renewed; the sidecar goes on with what it has.', { error });
    }
  }
}

async function registerAgain(
  options: WorkloadOptions,
  registration: { current: Registered },
  deps: WorkloadDeps,
  ending: AbortSignal,
): Promise<void> {
  try {
    registration.current = await register({ ...options, name: registration.current.name }, deps);
    await announceReady(options, registration.current, deps, ending);
    deps.log.info('Registered again: the control plane had no lease of this instance.', { instance: registration.current.name });
  } catch (error) {
    deps.log.warning('Registering again failed; trying at the next heartbeat.', { error });
  }
}

/** Tells the mesh to send nothing new; what is under way goes on. A control plane that is away is no reason to stay. */
async function drain(registered: Registered, deps: WorkloadDeps): Promise<void> {
  try {
    await heartbeat(registered, deps, { draining: true });
    await sleep(deps.clock, DRAIN_PROPAGATION_MS);
  } catch (error) {
    deps.log.warning('The control plane could not be told that this instance is leaving.', { error });
  }
}

/** Time for the other sidecars to hear of it. */
const DRAIN_PROPAGATION_MS = 300;

async function leave({ lease }: Registered, { api, log }: WorkloadDeps): Promise<void> {
  try {
    await api.call(`/api/v1/registrations/${lease.id}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${lease.secret}` },
      timeoutMs: 3_000,
    });
  } catch (error) {
    log.warning('The registration could not be ended; its lease will end by itself.', { error });
  }
}
