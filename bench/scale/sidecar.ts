/** What a sidecar holds in memory when the mesh is large: our control plane, our proxy, every cluster. `node bench/scale/sidecar.ts --clusters 5000`. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { request } from 'undici';
import { freePorts } from '../../cli/ports.ts';
import { nodeId, writeMesh } from './mesh.ts';
import { cpuMsOf, memoryOf, scriptFlags, startControlPlane } from './processes.ts';

const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.js', import.meta.url));
/** As the npm script starts it. */
const FLAGS = scriptFlags();
const PATIENCE_MS = 90_000;
const SETTLE_MS = 5_000;

const { values } = parseArgs({ options: { clusters: { type: 'string', default: '5000' }, endpoints: { type: 'string', default: '2' } } });
const services = Number(values.clusters);
/** The first instance of each service is the API's in the other bench; here it is left out. */
const size = { services, endpoints: services * (Number(values.endpoints) + 1) };

const directory = mkdtempSync(join(tmpdir(), 'meshwork-scale-sidecar-'));
const ending: (() => Promise<void>)[] = [];
try {
  await main();
} finally {
  for (const end of ending.reverse()) await end();
  rmSync(directory, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const [xds, xdsTls, api, metrics, admin] = (await freePorts(5)) as [number, number, number, number, number];
  const files = join(directory, 'mesh');
  mkdirSync(files);
  writeMesh(files, size);
  // A plaintext caller gets no certificate, and clusters with TLS would wait for one.
  const mesh = { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'mesh' }, spec: { mtls: 'DISABLE' } };
  writeFileSync(join(files, 'mesh.yaml'), JSON.stringify(mesh));
  const controlPlane = await startControlPlane({
    files,
    dataDir: join(directory, 'data'),
    ports: { xds, xdsTls, api, metrics },
    nodeFlags: [],
  });
  ending.push(() => controlPlane.stop());
  const bootstrap = join(directory, 'bootstrap.json');
  writeFileSync(bootstrap, bootstrapFor(nodeId(services + 1, size), xds, admin));
  const args = [...FLAGS, MESHWORK, 'proxy', '-c', bootstrap, '-l', 'error'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const exit = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  ending.push(async () => {
    child.kill('SIGTERM');
    const killing = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await exit;
    clearTimeout(killing);
  });
  const startMs = performance.now();
  while (!(await isReady(admin))) {
    if (child.exitCode !== null) throw new Error(`the sidecar ended with ${child.exitCode}`);
    if (performance.now() - startMs > PATIENCE_MS) throw new Error(`the sidecar is not ready after ${PATIENCE_MS} ms`);
    await delay(100);
  }
  const loadedMs = Math.round(performance.now() - startMs);
  await delay(SETTLE_MS);
  const { rssMiB, peakMiB } = memoryOf(child.pid!);
  // Asked for last: a filter makes the sidecar load its regular expressions.
  const active = await activeClusters(admin);
  if (active < services) throw new Error(`the sidecar is ready with ${active} of ${services} clusters`);
  const measured = { clusters: services, loadedMs, cpuMs: cpuMsOf(child.pid!), rssMiB: Math.round(rssMiB), peakMiB: Math.round(peakMiB) };
  process.stdout.write(`sidecar: ${JSON.stringify(measured)}\n`);
}

/** False while the admin port is not open. */
async function isReady(admin: number): Promise<boolean> {
  try {
    const { statusCode, body } = await request(`http://127.0.0.1:${admin}/ready`);
    await body.dump();
    return statusCode === 200;
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ECONNREFUSED') return false;
    throw error;
  }
}

/** Envoy's own gauge. */
async function activeClusters(admin: number): Promise<number> {
  const { body } = await request(`http://127.0.0.1:${admin}/stats?filter=cluster_manager.active_clusters`);
  return Number(/: (\d+)/.exec(await body.text())?.[1] ?? 0);
}

function bootstrapFor(id: string, xds: number, admin: number): string {
  const address = (port: number): object => ({ socket_address: { address: '127.0.0.1', port_value: port } });
  const ads = { ads: {}, resource_api_version: 'V3' };
  const grpc = { envoy_grpc: { cluster_name: 'xds' } };
  const assignment = { cluster_name: 'xds', endpoints: [{ lb_endpoints: [{ endpoint: { address: address(xds) } }] }] };
  return JSON.stringify({
    node: { id, cluster: 'scale', metadata: { BIND_ADDRESS: '127.0.0.1' } },
    admin: { address: address(admin) },
    dynamic_resources: {
      lds_config: ads,
      cds_config: ads,
      ads_config: { api_type: 'DELTA_GRPC', transport_api_version: 'V3', grpc_services: [grpc] },
    },
    static_resources: { clusters: [{ name: 'xds', type: 'STATIC', connect_timeout: '5s', load_assignment: assignment }] },
  });
}
