/** Starts a control plane and a service that registers itself, and watches the list of endpoints. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createApiClient } from '../../cli/client.ts';
import { createFleet } from '../../cli/demo/fleet.ts';
import { freePorts } from '../../cli/ports.ts';
import { sleep, systemClock } from '../../lib/clock.ts';

const SERVICE = fileURLToPath(new URL('./service.ts', import.meta.url));
const clock = systemClock();
const fleet = createFleet(clock);
const [xds, xdsTls, apiPort, metrics] = (await freePorts(4)) as [number, number, number, number];
const api = createApiClient(`127.0.0.1:${apiPort}`);

const endpoints = async (): Promise<number> => {
  const answer = await api.call<{ endpoints: readonly { service: string }[] }>('/api/v1/endpoints');
  return answer.body.endpoints.filter((endpoint) => endpoint.service === 'default/greeter').length;
};
const until = async (count: number, within: number): Promise<void> => {
  const deadlineMs = clock.now() + within;
  while ((await endpoints()) !== count) {
    if (clock.now() > deadlineMs)
      throw new Error(`expected ${count} endpoints of greeter within ${within} ms, there are ${await endpoints()}`);
    await sleep(clock, 50);
  }
};

try {
  await fleet.start('control-plane', [
    'control-plane',
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
  const service = spawn(process.execPath, [SERVICE], { stdio: 'inherit', env: { ...process.env, CONTROL_PLANE: api.baseUrl } });
  const ended = new Promise((resolve) => service.once('exit', resolve));
  await until(1, 10_000);
  console.log('greeter has 1 endpoint');
  await sleep(clock, 4_000);
  console.log(`after more than its lease of 3 s it has ${await endpoints()}: heartbeats keep it`);
  service.kill('SIGKILL');
  await ended;
  console.log('the program was killed, so nobody said goodbye');
  await until(0, 10_000);
  console.log('its lease ended: greeter has 0 endpoints');
} finally {
  await api.close();
  await fleet.stop();
}
