/** What a sidecar holds in memory when the mesh is large: our control plane, our proxy, every cluster; or those used, `node bench/scale/sidecar.ts --clusters 5000 --lazy --used 20`. */
import { spawn } from 'node:child_process';
import { createServer, request as httpRequest } from 'node:http';
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

const { values } = parseArgs({
  options: {
    clusters: { type: 'string', default: '5000' },
    endpoints: { type: 'string', default: '2' },
    lazy: { type: 'boolean', default: false },
    used: { type: 'string', default: '0' },
  },
});
const clusters = Number(values.clusters);
/** Services that requests are sent to; their instances are an application on the loopback. */
const used = Number(values.used);
const services = clusters - used;
/** The first instance of each service is the API's in the other bench; here it is left out. */
const size = { services, endpoints: services * (Number(values.endpoints) + 1) };
const REQUESTS_EVERY_MS = 200;
/** A caller that the files do not know, so that its own metadata says which port it listens on. */
const CALLER = 'caller-1.used';

const directory = mkdtempSync(join(tmpdir(), 'meshwork-scale-sidecar-'));
const ending: (() => Promise<void>)[] = [];
try {
  await main();
} finally {
  for (const end of ending.reverse()) await end();
  rmSync(directory, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const [xds, xdsTls, api, metrics, admin, outbound] = (await freePorts(6)) as [number, number, number, number, number, number];
  const files = join(directory, 'mesh');
  mkdirSync(files);
  writeMesh(files, size);
  await writeUsed(files);
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
  writeFileSync(bootstrap, bootstrapFor(used === 0 ? nodeId(services + 1, size) : CALLER, xds, admin, outbound));
  const args = [...FLAGS, MESHWORK, 'proxy', '-c', bootstrap, '-l', 'error', ...(values.lazy ? ['--lazy'] : [])];
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
  const firstMs = await useAll(outbound);
  const untilMs = performance.now() + SETTLE_MS;
  while (performance.now() < untilMs) {
    await delay(REQUESTS_EVERY_MS);
    await useAll(outbound);
  }
  const { rssMiB, peakMiB } = memoryOf(child.pid!);
  // Asked for last: a filter makes the sidecar load its regular expressions.
  const inForce = await activeClusters(admin);
  if (!values.lazy && inForce < clusters) throw new Error(`the sidecar is ready with ${inForce} of ${clusters} clusters`);
  const measured = {
    clusters,
    lazy: values.lazy,
    used,
    inForce,
    ...(used === 0 ? {} : { firstRequestMs: firstMs }),
    loadedMs,
    cpuMs: cpuMsOf(child.pid!),
    rssMiB: Math.round(rssMiB),
    peakMiB: Math.round(peakMiB),
  };
  process.stdout.write(`sidecar: ${JSON.stringify(measured)}\n`);
}

/** Services that are used: as many instances each as the others have, all of them one application on the loopback. */
async function writeUsed(files: string): Promise<void> {
  const application = createServer((_request, response) => void response.end('used'));
  await new Promise<void>((resolve) => void application.listen(0, '127.0.0.1', resolve));
  ending.push(async () => {
    application.closeAllConnections();
    await new Promise((resolve) => application.close(resolve));
  });
  const address = application.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const documents = Array.from({ length: used }, (_, index) => {
    const metadata = { name: `used-${index}`, namespace: 'used' };
    const spec = { selector: { app: metadata.name }, ports: [{ name: 'http', port: 80, targetPort: port }] };
    const instance = {
      apiVersion: 'meshwork.dev/v1alpha1',
      kind: 'Workload',
      metadata: { name: `used-${index}-1`, namespace: 'used', labels: { app: metadata.name } },
      spec: { address: '127.0.0.1', ports: { http: port } },
    };
    return [{ apiVersion: 'v1', kind: 'Service', metadata, spec }, instance].map((document) => JSON.stringify(document));
  });
  if (used > 0) writeFileSync(join(files, 'used.yaml'), `${documents.flat().join('\n---\n')}\n`);
}

/** One request to each service that is used. Answers how long they took, in order of length: the middle one and the longest. */
async function useAll(outbound: number): Promise<{ p50: number; max: number }> {
  const times: number[] = [];
  for (let index = 0; index < used; index++) {
    const startMs = performance.now();
    await useOne(outbound, `used-${index}.used`);
    times.push(performance.now() - startMs);
  }
  times.sort((left, right) => left - right);
  const round = (ms = 0): number => Math.round(ms * 10) / 10;
  return { p50: round(times[Math.floor(times.length / 2)]), max: round(times.at(-1)) };
}

function useOne(port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: '127.0.0.1', port, headers: { host }, agent: false }, (response) => {
      response.resume();
      response.once('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(`${host} answered ${response.statusCode}`))));
    });
    sent.once('error', reject);
    sent.end();
  });
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

function bootstrapFor(id: string, xds: number, admin: number, outbound: number): string {
  const address = (port: number): object => ({ socket_address: { address: '127.0.0.1', port_value: port } });
  const ads = { ads: {}, resource_api_version: 'V3' };
  const grpc = { envoy_grpc: { cluster_name: 'xds' } };
  const assignment = { cluster_name: 'xds', endpoints: [{ lb_endpoints: [{ endpoint: { address: address(xds) } }] }] };
  return JSON.stringify({
    node: { id, cluster: 'scale', metadata: { BIND_ADDRESS: '127.0.0.1', OUTBOUND_PORT: outbound } },
    admin: { address: address(admin) },
    dynamic_resources: {
      lds_config: ads,
      cds_config: ads,
      ads_config: { api_type: 'DELTA_GRPC', transport_api_version: 'V3', grpc_services: [grpc] },
    },
    static_resources: { clusters: [{ name: 'xds', type: 'STATIC', connect_timeout: '5s', load_assignment: assignment }] },
  });
}
