/** Our sidecar driven by go-control-plane: that project's own integration driver, built here where Go is at hand, with our sidecar in Envoy's place. */
import { expect, test } from '@jest/globals';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../../cli/ports.ts';

const MODULE = fileURLToPath(new URL('./go-control-plane', import.meta.url));
const PROGRAM = fileURLToPath(new URL('../../build/go-control-plane-driver', import.meta.url));
const MESHWORK = fileURLToPath(new URL('../../cli/meshwork.ts', import.meta.url));
const BUILD_MS_MAX = 600_000;
const LISTENERS = 4;
const MESSAGE = 'Hi, there!\n';

/** Why there is no driver; undefined when there is one. The first build compiles it, later ones take a second. */
function build(): string | undefined {
  const words = ['build', '-o', PROGRAM, 'github.com/envoyproxy/go-control-plane/pkg/test/main'];
  const made = spawnSync('go', words, { cwd: MODULE, encoding: 'utf8', timeout: BUILD_MS_MAX });
  if (made.error !== undefined) return `go: ${made.error.message}`;
  return made.status === 0 ? undefined : `go build: ${made.stderr.trim().split('\n').at(-1) ?? 'failed'}`;
}

function bootstrap(xdsPort: number, adminPort: number, apiType: string): object {
  const address = (port: number): object => ({ socket_address: { address: '127.0.0.1', port_value: port } });
  const ads = { ads: {}, resource_api_version: 'V3' };
  const endpoints = [{ lb_endpoints: [{ endpoint: { address: address(xdsPort) } }] }];
  const control = { name: 'xds_cluster', connect_timeout: '1s', http2_protocol_options: {} };
  return {
    node: { id: 'test-id', cluster: 'test-cluster' },
    admin: { address: address(adminPort) },
    dynamic_resources: {
      ads_config: { api_type: apiType, transport_api_version: 'V3', grpc_services: [{ envoy_grpc: { cluster_name: 'xds_cluster' } }] },
      cds_config: ads,
      lds_config: ads,
    },
    static_resources: { clusters: [{ ...control, load_assignment: { cluster_name: 'xds_cluster', endpoints } }] },
  };
}

/** Ports in a row for the listeners. */
async function rowOfPorts(): Promise<number> {
  for (;;) {
    const [base] = (await freePorts(1)) as [number];
    const servers = Array.from({ length: LISTENERS }, () => createServer());
    const taken = await Promise.all(
      servers.map(
        (server, index) =>
          new Promise<boolean>((resolve) => {
            server.once('error', () => resolve(true));
            server.listen(base + index, '127.0.0.1', () => resolve(false));
          }),
      ),
    );
    await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
    if (!taken.includes(true)) return base;
  }
}

/** The driver's verdict: its exit code and its last words. */
async function drive(mode: 'ads' | 'delta-ads', more: readonly string[]): Promise<{ code: number | null; text: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-gcp-'));
  const [xds, gateway, als, admin] = (await freePorts(4)) as [number, number, number, number];
  const base = await rowOfPorts();
  const upstream = createServer((_request, response) => response.end(MESSAGE));
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  const { port } = upstream.address() as { port: number };
  const config = join(directory, 'bootstrap.json');
  writeFileSync(config, JSON.stringify(bootstrap(xds, admin, mode === 'ads' ? 'GRPC' : 'DELTA_GRPC')));
  const sidecar = spawn(process.execPath, [MESHWORK, 'proxy', '-c', config, '--drain-time-s', '1', '-l', 'error'], { stdio: 'ignore' });
  const ports = Object.entries({ port: xds, gateway, als, upstream: port, base }).flatMap(([name, value]) => [`-${name}`, String(value)]);
  // Scoped routes, virtual hosts on demand, runtime and extension discovery are not built in yet.
  const without = ['-scopedhttp', '0', '-vhdshttp', '0', '-runtimes', '0', '-extension', '0'];
  const driver = spawn(PROGRAM, [`--xds=${mode}`, ...ports, ...without, '-message', MESSAGE, '-u', '3', ...more]);
  const killAll = (): void => {
    sidecar.kill('SIGKILL');
    driver.kill('SIGKILL');
  };
  process.on('exit', killAll);
  let text = '';
  for (const stream of [driver.stdout, driver.stderr])
    stream.on('data', (chunk: Buffer) => (text = (text + chunk.toString()).slice(-4_000)));
  try {
    const code = await new Promise<number | null>((resolve) => driver.once('close', resolve));
    return { code, text };
  } finally {
    killAll();
    process.off('exit', killAll);
    upstream.closeAllConnections();
    upstream.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

const missing = build();
const withDriver = missing === undefined ? test.each : test.skip.each;

withDriver([
  ['ads', []],
  ['delta-ads', []],
  ['ads', ['-tls']],
  ['delta-ads', ['-tls']],
] as const)(
  `go-control-plane drives our sidecar: %s %j${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  async (mode, more) => {
    const { code, text } = await drive(mode, more);
    expect([code, text]).toEqual([0, expect.stringContaining(`Test for ${mode} passed!`)]);
  },
  120_000,
);
