/** A real Envoy as an instance of a test mesh: registered, kept alive by its lease, driven with its lease credential, its application in this process. */
import { test } from '@jest/globals';
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import type { IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { ApiClient } from '../../cli/client.ts';
import { freePorts } from '../../cli/ports.ts';
import { systemClock } from '../../lib/clock.ts';

/** `ENVOY` names the program; else it is looked for on PATH. */
export function findEnvoy(): string | undefined {
  const named = process.env['ENVOY'];
  const candidates =
    named === undefined ? (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, 'envoy')) : [named];
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const envoy = findEnvoy();

/** `test`, or a skip whose name says why. */
export const withEnvoy = (name: string, work: () => Promise<void>, timeoutMs: number): void =>
  envoy === undefined ? test.skip(`${name} (skipped: there is no ENVOY and no envoy on PATH)`, work) : test(name, work, timeoutMs);

export const hasEnvoy = envoy !== undefined;

export interface EnvoyProgram {
  /** Lines that it logged at `warning` or above, without those about a control plane that is away. */
  warnings(): readonly string[];
  kill(): Promise<void>;
}

const ABOUT_THE_CONNECTION = /gRPC config stream|StreamLoadStats|load stats|(?:StreamAggregated|DeltaAggregated)Resources/;

/** Starts the program with a bootstrap file; it ends with this process at the latest. */
export function launchEnvoy(config: string): EnvoyProgram {
  const words = ['-c', config, '--disable-hot-restart', '--concurrency', '1', '-l', 'warning', '--log-format', '%l %n %v'];
  const program = spawn(envoy!, words, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise<void>((resolve) => program.once('close', () => resolve()));
  const kill = (): void => void program.kill('SIGKILL');
  let text = '';
  process.on('exit', kill);
  program.on('error', (error) => (text += `critical ${error.message}\n`));
  program.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return {
    warnings: () => text.split('\n').filter((line) => line !== '' && !ABOUT_THE_CONNECTION.test(line)),
    kill: () => {
      process.off('exit', kill);
      kill();
      return ended;
    },
  };
}

export interface EnvoySpec {
  readonly name: string;
  readonly service: string;
  readonly version?: string;
  readonly serviceAccount?: string;
  /** The port of the control plane that it speaks to. Default `tls`. */
  readonly transport?: 'tls' | 'plaintext';
  /** Asks for routes and clusters when they are first used. */
  readonly lazy?: boolean;
  /** Default `DELTA_GRPC`. */
  readonly api?: 'DELTA_GRPC' | 'GRPC';
  readonly locality?: { readonly region: string; readonly zone: string };
  /** Fixed ports; free ones otherwise. */
  readonly outboundPort?: number;
}

export interface RunningEnvoy {
  readonly name: string;
  readonly outboundPort: number;
  readonly inboundPort: number;
  readonly adminPort: number;
  readonly lease: { readonly id: string; readonly secret: string; readonly credential: string };
  /** What its application does with a request; answers the demo's JSON and the headers until told otherwise. */
  broken: boolean;
  /** Lines that it logged at `warning` or above. */
  warnings(): readonly string[];
  admin(path: string): Promise<string>;
  /** Value of one counter or gauge, 0 when it has not been touched. */
  stat(name: string): Promise<number>;
  stop(): Promise<void>;
}

interface Registered {
  readonly nodeId: string;
  readonly lease: RunningEnvoy['lease'] & { readonly ttlMs: number };
  readonly bundlePem: string;
  readonly xds: string;
  readonly xdsTls: string;
  readonly xdsServerName: string;
  readonly xdsServerId: string;
}

const clock = systemClock();

export async function startEnvoy(api: ApiClient, spec: EnvoySpec): Promise<RunningEnvoy> {
  const ports = (await freePorts(3)) as [number, number, number];
  const [inboundPort, adminPort] = ports;
  const outboundPort = spec.outboundPort ?? ports[2];
  const state = { broken: false };
  const application = await startApplication(spec, state);
  const { body: registered } = await api.call<Registered>('/api/v1/registrations', {
    method: 'POST',
    body: {
      service: spec.service,
      name: spec.name,
      address: '127.0.0.1',
      ports: { http: application.port },
      labels: { version: spec.version ?? 'v1' },
      serviceAccount: spec.serviceAccount ?? spec.name,
      ...(spec.locality === undefined ? {} : { locality: spec.locality }),
      sidecar: { inboundPort, outboundPort, adminPort },
      ttlSeconds: 30,
    },
  });
  const stopLease = keepLease(api, registered);
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-envoy-'));
  const config = join(directory, 'envoy.json');
  writeFileSync(config, JSON.stringify(bootstrap(registered, spec, adminPort)), { mode: 0o600 });
  const program = launchEnvoy(config);
  const admin = async (path: string): Promise<string> => (await fetch(`http://127.0.0.1:${adminPort}${path}`)).text();
  return {
    name: spec.name,
    outboundPort,
    inboundPort,
    adminPort,
    lease: registered.lease,
    get broken() {
      return state.broken;
    },
    set broken(value) {
      state.broken = value;
    },
    warnings: () => program.warnings(),
    admin,
    async stat(name) {
      const found = (await admin('/stats')).split('\n').find((line) => line.startsWith(`${name}: `));
      return found === undefined ? 0 : Number(found.slice(name.length + 2));
    },
    async stop() {
      stopLease();
      await program.kill();
      await application.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The lease is what lets this Envoy come back. A control plane that is away for a moment is asked again. */
function keepLease(api: ApiClient, { lease }: Registered): () => void {
  let cancel = (): void => undefined;
  let stopped = false;
  const beat = async (): Promise<void> => {
    await api
      .call(`/api/v1/registrations/${lease.id}/heartbeat`, {
        method: 'PUT',
        body: {},
        headers: { authorization: `Bearer ${lease.secret}` },
      })
      .catch(() => undefined);
    if (!stopped) cancel = clock.after(5_000, () => void beat());
  };
  cancel = clock.after(5_000, () => void beat());
  return () => {
    stopped = true;
    cancel();
  };
}

async function startApplication(spec: EnvoySpec, state: { broken: boolean }): Promise<{ port: number; close(): Promise<void> }> {
  const server = createServer((incoming, outgoing) => {
    incoming.resume();
    outgoing.statusCode = state.broken ? 503 : 200;
    outgoing.setHeader('content-type', 'application/json');
    const { service, version = 'v1', name: instance } = spec;
    outgoing.end(JSON.stringify({ service, version, instance, url: incoming.url, headers: incoming.headers }));
  });
  server.keepAliveTimeout = 75_000;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    close: () => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Part of a bootstrap: Envoy warns of one that has no such limit. */
export const CONNECTIONS_MAX = {
  name: 'envoy.resource_monitors.global_downstream_max_connections',
  typed_config: {
    '@type': 'type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig',
    max_active_downstream_connections: 10_000,
  },
};

/** As a person would write it for this mesh: ADS with the lease credential, the control plane's certificate checked by its SPIFFE id. */
function bootstrap(registered: Registered, spec: EnvoySpec, adminPort: number): object {
  const { transport = 'tls', api = 'DELTA_GRPC' } = spec;
  const ads = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '0s' };
  const authorization = { key: 'authorization', value: `Bearer ${registered.lease.credential}` };
  const services = [{ envoy_grpc: { cluster_name: 'xds' }, initial_metadata: [authorization] }];
  const [host = '', port = ''] = (transport === 'tls' ? registered.xdsTls : registered.xds).split(':');
  const tls = {
    '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
    sni: registered.xdsServerName,
    common_tls_context: {
      alpn_protocols: ['h2'],
      tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
      validation_context: {
        trusted_ca: { inline_string: registered.bundlePem },
        match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: registered.xdsServerId } }],
      },
    },
  };
  const http2 = {
    '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    explicit_http_config: { http2_protocol_options: { connection_keepalive: { interval: '30s', timeout: '5s' } } },
  };
  return {
    node: {
      id: registered.nodeId,
      cluster: spec.service,
      metadata: { NAMESPACE: 'default', ...(spec.lazy === true ? { MESHWORK_LAZY: true } : {}) },
    },
    admin: { address: { socket_address: { address: '127.0.0.1', port_value: adminPort } } },
    overload_manager: { resource_monitors: [CONNECTIONS_MAX] },
    cluster_manager: { load_stats_config: { api_type: 'GRPC', transport_api_version: 'V3', grpc_services: services } },
    dynamic_resources: {
      ads_config: {
        api_type: api,
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: services,
      },
      // A lazy one asks for no clusters but by name, through its on_demand filter.
      ...(spec.lazy === true ? {} : { cds_config: ads }),
      lds_config: ads,
    },
    static_resources: {
      clusters: [
        {
          name: 'xds',
          type: 'STATIC',
          connect_timeout: '5s',
          typed_extension_protocol_options: { 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': http2 },
          load_assignment: {
            cluster_name: 'xds',
            endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: host, port_value: Number(port) } } } }] }],
          },
          ...(transport === 'tls' ? { transport_socket: { name: 'envoy.transport_sockets.tls', typed_config: tls } } : {}),
        },
      ],
    },
  };
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** One request on a connection of its own. */
export function call(port: number, path: string, headers: Readonly<Record<string, string>>, method = 'GET'): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => (body += chunk.toString()));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

/** Waits until these proxies are connected and have acknowledged everything; a refusal ends the waiting with its reason. */
export async function acknowledged(api: ApiClient, ids: readonly string[], msMax = 60_000): Promise<void> {
  interface View {
    readonly id: string;
    readonly connected: boolean;
    readonly state: string;
    readonly message: string;
  }
  const untilMs = clock.now() + msMax;
  let seen: readonly View[] = [];
  while (clock.now() < untilMs) {
    seen = (await api.call<{ proxies: readonly View[] }>('/api/v1/proxies')).body.proxies.filter((proxy) => ids.includes(proxy.id));
    if (seen.length === ids.length && seen.every((proxy) => proxy.connected && proxy.state === 'acked')) return;
    await new Promise<void>((resolve) => clock.after(50, resolve));
  }
  throw new Error(`not every proxy acknowledged within ${msMax} ms: ${JSON.stringify(seen)}`);
}
