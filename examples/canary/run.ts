/** Moves a canary by editing a YAML file while requests flow, and prints what arrived where. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createApiClient } from '../../cli/client.ts';
import { createFleet } from '../../cli/demo/fleet.ts';
import { splitOf, startLoad } from '../../cli/demo/load.ts';
import { freePorts } from '../../cli/ports.ts';
import { sleep, systemClock } from '../../lib/clock.ts';

const APP = fileURLToPath(new URL('../../cli/demo/app.ts', import.meta.url));
const WRITTEN = readFileSync(new URL('./mesh.yaml', import.meta.url), 'utf8');
const clock = systemClock();
const fleet = createFleet(clock);
const [xds, xdsTls, apiPort, metrics, ...ports] = (await freePorts(4 + 3 * 4)) as [number, number, number, number, ...number[]];
const api = createApiClient(`127.0.0.1:${apiPort}`);
const file = join(fleet.directory, 'mesh.yaml');
writeFileSync(file, WRITTEN);

/** Waits until a proxy has the newest change of the file. */
async function changed(before: string): Promise<void> {
  for (;;) {
    const [newest] = (await api.call<{ changes: readonly { id: string; source: string }[] }>('/api/v1/changes')).body.changes.filter(
      (change) => change.source === 'files',
    );
    if (newest !== undefined && newest.id !== before) {
      await api.call(`/api/v1/changes/${newest.id}?wait=5s`);
      return;
    }
    await sleep(clock, 50);
  }
}

async function newestChange(): Promise<string> {
  const { changes } = (await api.call<{ changes: readonly { id: string; source: string }[] }>('/api/v1/changes')).body;
  return changes.find((change) => change.source === 'files')?.id ?? '';
}

try {
  await fleet.start('control-plane', [
    'control-plane',
    '-f',
    file,
    '--xds',
    `127.0.0.1:${xds}`,
    '--xds-tls',
    `127.0.0.1:${xdsTls}`,
    '--api',
    `127.0.0.1:${apiPort}`,
    '--metrics',
    `127.0.0.1:${metrics}`,
    '-o',
    'json',
  ]).firstLine;
  const start = (name: string, service: string, version: string, index: number): number => {
    const [application, outbound, inbound, admin] = ports.slice(index * 4, index * 4 + 4) as [number, number, number, number];
    const args = ['run', '--service', service, '--name', name, '--version', version, '--control-plane', api.baseUrl];
    args.push('--outbound-port', String(outbound), '--inbound-port', String(inbound), '--admin-port', String(admin));
    if (service === 'shop') args.push('--port', String(application), '--', process.execPath, APP);
    fleet.start(name, args, { DEMO_SERVICE: service, DEMO_VERSION: version, DEMO_INSTANCE: name, DEMO_PORT: String(application) });
    return outbound;
  };
  start('shop-1', 'shop', 'v1', 0);
  start('shop-2', 'shop', 'v2', 1);
  const outboundPort = start('caller-1', 'caller', 'v1', 2);

  const probe = async (): Promise<boolean> => {
    const load = startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 1 });
    await load.stop();
    return load.outcomes[0]?.ok === true;
  };
  let tries = 0;
  while (
    !(await probe()) ||
    (await api.call<{ endpoints: readonly { ready: boolean }[] }>('/api/v1/endpoints')).body.endpoints.filter((endpoint) => endpoint.ready)
      .length < 4
  ) {
    if (++tries > 300) throw new Error(`the mesh did not become ready:\n${fleet.logTail('caller-1')}`);
    await sleep(clock, 100);
  }
  // The control plane knows them all; the caller does once it has acknowledged the newest change.
  const [ready] = (await api.call<{ changes: readonly { id: string }[] }>('/api/v1/changes')).body.changes;
  if (ready !== undefined) await api.call(`/api/v1/changes/${ready.id}?wait=5s`);

  let failed = 0;
  for (const [v1, v2] of [
    [90, 10],
    [50, 50],
    [0, 100],
  ] as const) {
    const before = await newestChange();
    const text = WRITTEN.replace('weight: 90', `weight: ${v1}`).replace('weight: 10 ', `weight: ${v2} `);
    if (text !== readFileSync(file, 'utf8')) {
      writeFileSync(file, text);
      await changed(before);
    }
    const load = startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 100 });
    await sleep(clock, 3_000);
    await load.stop();
    const split = splitOf(load.outcomes);
    failed += load.outcomes.filter((outcome) => !outcome.ok).length;
    console.log(`weights ${v1} : ${v2}   arrived v1 ${split.v1}, v2 ${split.v2}   failed ${failed}`);
  }
  process.exitCode = failed === 0 ? 0 : 1;
} finally {
  await api.close();
  await fleet.stop();
}
