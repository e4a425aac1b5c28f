/** A control plane on free ports and plain xDS clients against it, for the tests of the serving half. */
import { ChannelCredentials, logVerbosity, setLogVerbosity } from '@grpc/grpc-js';
import { jest } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startControlPlane } from '../../control-plane/main.ts';
import type { ControlPlane } from '../../control-plane/main.ts';
import type { ControlPlaneOptions } from '../../control-plane/options.ts';
import { formatAddress } from '../../control-plane/options.ts';
import { systemClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import { seededRandom } from '../../lib/random.ts';
import type { ClientUpdate, Problem } from '../../xds/session/client.ts';
import type { NodeInfo } from '../../xds/session/messages.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE } from '../../xds/session/type-urls.ts';
import { connectDiscovery } from '../../xds/stream.ts';
import type { DiscoveryClient, DiscoveryConnection } from '../../xds/stream.ts';

// Whole processes and real sockets: on a busy machine that takes longer than a unit test may.
jest.setTimeout(60_000);
setLogVerbosity(logVerbosity.NONE);

const ANY = { host: '127.0.0.1', port: 0 };

export interface Running extends ControlPlane {
  readonly logLines: string[];
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // Tests read what they expect out of it.
  readonly json: any;
}

const cleanups: (() => void | Promise<void>)[] = [];

/** Undoes everything that the helpers below made, last in first out. For `afterEach`. */
export async function cleanUp(): Promise<void> {
  for (const undo of cleanups.splice(0).reverse()) await undo();
}

export function temporaryDirectory(): string {
  const made = mkdtempSync(join(tmpdir(), 'meshwork-e2e-'));
  cleanups.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

export async function startForTest(options: Partial<ControlPlaneOptions> = {}): Promise<Running> {
  const logLines: string[] = [];
  const log = createLog({ clock: systemClock(), level: 'debug', format: 'json', write: (line) => logLines.push(line) });
  const controlPlane = await startControlPlane(
    { xds: ANY, xdsTls: ANY, api: ANY, metrics: ANY, ...options },
    { log, environment: {}, quietMs: 20 },
  );
  cleanups.push(() => controlPlane.close());
  return { ...controlPlane, logLines, call: (method, path, body, headers) => call(controlPlane, method, path, body, headers) };
}

async function call(
  controlPlane: ControlPlane,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const yaml = typeof body === 'string';
  const response = await fetch(`http://${formatAddress(controlPlane.addresses.api)}${path}`, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': yaml ? 'application/yaml' : 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: yaml ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const json = (response.headers.get('content-type') ?? '').includes('json') ? JSON.parse(text) : undefined;
  return { status: response.status, headers: response.headers, text, json };
}

export interface TestClient {
  readonly client: DiscoveryClient;
  readonly updates: ClientUpdate[];
  readonly resources: Map<string, Map<string, Uint8Array>>;
  readonly states: DiscoveryConnection[];
  /** What the next updates of a type are answered with. */
  rejecting: Map<string, readonly Problem[]>;
  close(): void;
}

export interface ClientOptions {
  readonly id: string;
  readonly tls?: { readonly rootsPem: string; readonly certificate?: { readonly chainPem: string; readonly keyPem: string } };
  readonly token?: string;
  readonly mode?: 'delta' | 'sotw';
  readonly metadata?: NodeInfo['metadata'];
  /** Subscribes to the clusters' endpoints and the listeners' routes by these names. */
  readonly endpoints?: readonly string[];
  readonly routes?: readonly string[];
  readonly secrets?: readonly string[];
}

/** A client that keeps what it gets and acknowledges it. The credentials may be changed for its next connection by `tls`. */
export function connectClient(
  controlPlane: { readonly addresses: Pick<ControlPlane['addresses'], 'xds' | 'xdsTls'> },
  options: ClientOptions & { tlsNow?: () => ClientOptions['tls'] },
): TestClient {
  const updates: ClientUpdate[] = [];
  const states: DiscoveryConnection[] = [];
  const resources = new Map<string, Map<string, Uint8Array>>();
  const rejecting = new Map<string, readonly Problem[]>();
  const address = options.tls === undefined ? controlPlane.addresses.xds : controlPlane.addresses.xdsTls;
  const client = connectDiscovery({
    targets: [formatAddress(address)],
    credentials: () => credentialsOf((options.tlsNow ?? (() => options.tls))()),
    serverName: 'localhost',
    metadata: () => (options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
    mode: options.mode ?? 'delta',
    node: {
      id: options.id,
      cluster: '',
      metadata: options.metadata ?? {},
      locality: { region: '', zone: '', subZone: '' },
      userAgentName: 'meshwork',
      userAgentVersion: '0',
      clientFeatures: [],
    },
    clock: systemClock(),
    random: seededRandom(1),
    backoff: { baseMs: 50, capMs: 200 },
    onUpdate: (update) => {
      updates.push(update);
      const problems = rejecting.get(update.typeUrl) ?? [];
      const known = resources.get(update.typeUrl) ?? new Map<string, Uint8Array>();
      resources.set(update.typeUrl, known);
      for (const resource of update.upserts)
        if (!problems.some((problem) => problem.name === resource.name)) known.set(resource.name, resource.bytes);
      for (const name of update.removals) known.delete(name);
      client.settle(update, problems);
    },
    onConnection: (state) => states.push(state),
  });
  for (const typeUrl of [CLUSTER_TYPE, LISTENER_TYPE]) client.subscribe(typeUrl, ['*']);
  if (options.endpoints !== undefined) client.subscribe(ENDPOINT_TYPE, options.endpoints);
  if (options.routes !== undefined) client.subscribe(ROUTE_TYPE, options.routes);
  if (options.secrets !== undefined) client.subscribe(SECRET_TYPE, options.secrets);
  const close = (): void => client.close();
  cleanups.push(close);
  return { client, updates, states, resources, rejecting, close };
}

function credentialsOf(tls: ClientOptions['tls']): ChannelCredentials {
  if (tls === undefined) return ChannelCredentials.createInsecure();
  const { rootsPem, certificate } = tls;
  if (certificate === undefined) return ChannelCredentials.createSsl(Buffer.from(rootsPem));
  return ChannelCredentials.createSsl(Buffer.from(rootsPem), Buffer.from(certificate.keyPem), Buffer.from(certificate.chainPem));
}

/** Looks again until `check` gives something; fails with the last answer after a while. */
export async function eventually<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  msMax = 30_000,
): Promise<T> {
  const clock = systemClock();
  const startMs = clock.now();
  for (;;) {
    const found = await check();
    if (found !== undefined && found !== false) return found;
    if (clock.now() - startMs > msMax) throw new Error(`did not happen within ${msMax} ms: ${what}`);
    await new Promise<void>((resolve) => clock.after(10, resolve));
  }
}

export const SERVICE = (name: string, port = 80): Record<string, unknown> => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'default' },
  spec: { selector: { app: name }, ports: [{ name: 'http', port, targetPort: 'http', appProtocol: 'http' }] },
});

export const ROUTE = (v1: number, v2: number): Record<string, unknown> => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'HTTPRoute',
  metadata: { name: 'reviews', namespace: 'default' },
  spec: {
    parentRefs: [{ group: '', kind: 'Service', name: 'reviews' }],
    rules: [
      {
        backendRefs: [
          { name: 'reviews-v1', port: 80, weight: v1 },
          { name: 'reviews-v2', port: 80, weight: v2 },
        ],
      },
    ],
  },
});
