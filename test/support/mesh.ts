/** A mesh of real processes for tests: a control plane and instances with their sidecars, on free ports, gone at the end. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createApiClient } from '../../cli/client.ts';
import type { ApiClient } from '../../cli/client.ts';
import { createFleet } from '../../cli/demo/fleet.ts';
import type { Fleet, Member } from '../../cli/demo/fleet.ts';
import { freePorts } from '../../cli/ports.ts';
import { sleep, systemClock } from '../../lib/clock.ts';

export const DEMO_APP = fileURLToPath(new URL('../../cli/demo/app.ts', import.meta.url));
export const clock = systemClock();

export interface InstanceSpec {
  readonly name: string;
  readonly service: string;
  readonly version?: string;
  readonly next?: string;
  /** Program beside the sidecar: the demo's service by default; `none` = the instance only calls others. */
  readonly application?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Further words for `meshwork run`. */
  readonly args?: readonly string[];
}

export interface RunningInstance {
  readonly name: string;
  readonly member: Member;
  readonly applicationPort: number;
  readonly outboundPort: number;
  readonly inboundPort: number;
  readonly adminPort: number;
}

export interface TestMesh {
  readonly api: ApiClient;
  readonly fleet: Fleet;
  /** Directory that the control plane watches. */
  readonly files: string;
  readonly instances: ReadonlyMap<string, RunningInstance>;
  readonly xdsTlsPort: number;
  startInstance(spec: InstanceSpec, ports?: RunningInstance): Promise<RunningInstance>;
  /** Waits until every proxy acknowledged all and `endpoints` endpoints are ready. */
  settled(endpoints: number): Promise<void>;
  killControlPlane(): Promise<void>;
  startControlPlane(): Promise<void>;
  stop(): Promise<void>;
}

export interface MeshSpec {
  /** File name -> YAML, in the watched directory from the start. */
  readonly files?: Readonly<Record<string, string>>;
  readonly resources?: readonly object[];
  readonly instances?: readonly InstanceSpec[];
  readonly controlPlaneArgs?: readonly string[];
}

const SETTLE_TIMEOUT_MS = 60_000;

export async function startMesh(spec: MeshSpec): Promise<TestMesh> {
  const fleet = createFleet(clock);
  const files = join(fleet.directory, 'mesh');
  mkdirSync(files);
  for (const [name, text] of Object.entries(spec.files ?? {})) writeFileSync(join(files, name), text);
  const [xds, xdsTls, apiPort, metrics] = (await freePorts(4)) as [number, number, number, number];
  const api = createApiClient(`127.0.0.1:${apiPort}`);
  const instances = new Map<string, RunningInstance>();
  let controlPlane: Member | undefined;
  let generation = 0;
  const startControlPlane = async (): Promise<void> => {
    controlPlane = fleet.start(`control-plane-${generation++}`, [
      ...['control-plane', '-f', files, '--data-dir', join(fleet.directory, 'data'), '-o', 'json'],
      ...[
        '--xds',
        `127.0.0.1:${xds}`,
        '--xds-tls',
        `127.0.0.1:${xdsTls}`,
        '--api',
        `127.0.0.1:${apiPort}`,
        '--metrics',
        `127.0.0.1:${metrics}`,
      ],
      ...(spec.controlPlaneArgs ?? []),
    ]);
    await controlPlane.firstLine;
  };
  const startInstance = async (instance: InstanceSpec, ports?: RunningInstance): Promise<RunningInstance> => {
    const running = await launch(fleet, api, instance, ports);
    instances.set(instance.name, running);
    return running;
  };
  // Members that a test kills are its own doing; others that end are why it fails.
  let killing = false;
  const died = new Promise<never>((_resolve, reject) => void fleet.failed.then((sentence) => !killing && reject(new Error(sentence))));
  died.catch(() => undefined);
  const mesh: TestMesh = {
    api,
    fleet,
    files,
    instances,
    xdsTlsPort: xdsTls,
    startInstance,
    settled: (endpoints) => Promise.race([settled(api, fleet, instances.size, endpoints), died]),
    killControlPlane: () => {
      killing = true;
      return kill(controlPlane!);
    },
    startControlPlane,
    stop: async () => {
      await api.close();
      await fleet.stop();
    },
  };
  try {
    await startControlPlane();
    for (const resource of spec.resources ?? []) await api.call('/api/v1/resources', { method: 'POST', body: resource });
    for (const instance of spec.instances ?? []) await startInstance(instance);
    return mesh;
  } catch (error) {
    await mesh.stop();
    throw error;
  }
}

async function launch(fleet: Fleet, api: ApiClient, spec: InstanceSpec, again?: RunningInstance): Promise<RunningInstance> {
  const [applicationPort, outboundPort, inboundPort, adminPort] = (
    again === undefined ? await freePorts(4) : [again.applicationPort, again.outboundPort, again.inboundPort, again.adminPort]
  ) as [number, number, number, number];
  const args = [
    'run',
    '--service',
    spec.service,
    '--name',
    spec.name,
    '--control-plane',
    api.baseUrl,
    '--outbound-port',
    String(outboundPort),
    '--inbound-port',
    String(inboundPort),
    '--admin-port',
    String(adminPort),
  ];
  if (spec.version !== undefined) args.push('--version', spec.version);
  args.push(...(spec.args ?? []));
  if (spec.application !== 'none') args.push('--port', String(applicationPort), '--', process.execPath, spec.application ?? DEMO_APP);
  const env = {
    DEMO_SERVICE: spec.service,
    DEMO_VERSION: spec.version ?? 'v1',
    DEMO_INSTANCE: spec.name,
    DEMO_NEXT: spec.next ?? '',
    DEMO_PORT: String(applicationPort),
    ...spec.env,
  };
  return { name: spec.name, member: fleet.start(spec.name, args, env), applicationPort, outboundPort, inboundPort, adminPort };
}

export function kill(member: Member): Promise<void> {
  if (member.process.exitCode !== null || member.process.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    member.process.once('exit', () => resolve());
    member.process.kill('SIGKILL');
  });
}

async function settled(api: ApiClient, fleet: Fleet, proxies: number, endpoints: number): Promise<void> {
  const untilMs = clock.now() + SETTLE_TIMEOUT_MS;
  let seen = '';
  while (clock.now() < untilMs) {
    const list = (await api.call<{ proxies: readonly { connected: boolean; state: string }[] }>('/api/v1/proxies')).body.proxies;
    const acked = list.filter((proxy) => proxy.connected && proxy.state === 'acked').length;
    const ready = (await api.call<{ endpoints: readonly { ready: boolean }[] }>('/api/v1/endpoints')).body.endpoints.filter(
      (endpoint) => endpoint.ready,
    ).length;
    seen = `${acked} of ${proxies} proxies acked, ${ready} of ${endpoints} endpoints ready`;
    if (acked >= proxies && ready >= endpoints) {
      const [newest] = (await api.call<{ changes: readonly { id: string }[] }>('/api/v1/changes')).body.changes;
      if (newest !== undefined) await api.call(`/api/v1/changes/${newest.id}?wait=10s`);
      return;
    }
    await sleep(clock, 50);
  }
  throw new Error(`the mesh did not settle: ${seen}\n${readFileSync(join(fleet.directory, 'control-plane-0.log'), 'utf8').slice(-3_000)}`);
}

/** Calls `check` until it answers true. */
export async function eventually(what: string, timeoutMs: number, check: () => Promise<boolean> | boolean): Promise<void> {
  const untilMs = clock.now() + timeoutMs;
  while (!(await check())) {
    if (clock.now() > untilMs) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await sleep(clock, 50);
  }
}

export function service(name: string, selector: Readonly<Record<string, string>>): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: { selector, ports: [{ name: 'http', port: 80, targetPort: 'http' }] },
  };
}

/** Resident memory of a process in MiB, from the operating system. */
export function rssMiB(pid: number): number {
  const match = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? 0) / 1024;
}
