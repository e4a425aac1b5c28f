/** What must not be noticed by callers: a control plane that is killed, an instance that dies and comes back. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { sleep } from '../../lib/clock.ts';
import { startLoad } from '../../cli/demo/load.ts';
import type { Outcome } from '../../cli/demo/load.ts';
import { clock, eventually, kill, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

let mesh: TestMesh;
let outboundPort = 0;

beforeAll(async () => {
  mesh = await startMesh({
    resources: [
      service('shop', { app: 'shop' }),
      {
        apiVersion: 'gateway.networking.k8s.io/v1',
        kind: 'HTTPRoute',
        metadata: { name: 'shop' },
        spec: {
          parentRefs: [{ group: '', kind: 'Service', name: 'shop', port: 80 }],
          rules: [{ backendRefs: [{ name: 'shop', port: 80 }], retry: { attempts: 2, codes: [502, 503, 504] } }],
        },
      },
      {
        apiVersion: 'meshwork.dev/v1alpha1',
        kind: 'BackendPolicy',
        metadata: { name: 'shop' },
        spec: {
          targetRefs: [{ kind: 'Service', name: 'shop' }],
          outlierDetection: { consecutive5xx: 3, interval: '1s', baseEjectionTime: '2s', maxEjectionTime: '4s', maxEjectionPercent: 50 },
        },
      },
    ],
    instances: [
      { name: 'shop-1', service: 'shop', version: 'v1' },
      { name: 'shop-2', service: 'shop', version: 'v2' },
      { name: 'caller-1', service: 'caller', application: 'none' },
    ],
  });
  await mesh.settled(2);
  outboundPort = mesh.instances.get('caller-1')!.outboundPort;
}, 120_000);

afterAll(() => mesh?.stop(), 30_000);

const failures = (outcomes: readonly Outcome[]): string[] => outcomes.filter((outcome) => !outcome.ok).map((outcome) => outcome.error);
const servedBy = (outcomes: readonly Outcome[], version: string): number =>
  outcomes.filter((outcome) => outcome.version === version).length;

/** How often the proxy swapped in new configuration, from its own statistics. */
async function updates(adminPort: number): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${adminPort}/stats`)).text();
  return [...text.matchAll(/^(?:cluster_manager\.cds|listener_manager\.lds)\.update_success: (\d+)$/gm)].reduce(
    (sum, match) => sum + Number(match[1]),
    0,
  );
}

async function ejections(): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${mesh.instances.get('caller-1')!.adminPort}/clusters`)).text();
  return [...text.matchAll(/health_flags::[^\n]*failed_outlier_check/g)].length;
}

test('C1: the control plane is killed for 30 s under load: no request fails; it comes back, proxies reconnect, nothing is pushed that did not change', async () => {
  const { adminPort } = mesh.instances.get('caller-1')!;
  const before = await updates(adminPort);
  const load = startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 100 });

  await mesh.killControlPlane();
  await sleep(clock, 30_000);
  await mesh.startControlPlane();
  await mesh.settled(2);
  await sleep(clock, 1_000);
  await load.stop();

  expect(load.outcomes.length).toBeGreaterThan(2_500);
  expect(failures(load.outcomes)).toEqual([]);
  expect(await updates(adminPort)).toBe(before);
}, 120_000);

test('an instance dies: callers see no error, it is ejected, and it gets traffic again when it is back', async () => {
  const load = startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: 100 });
  await eventually('both serve', 10_000, () => servedBy(load.outcomes, 'v1') > 20 && servedBy(load.outcomes, 'v2') > 20);
  const instance = mesh.instances.get('shop-2')!;
  const behaviour = (body: object): Promise<Response> =>
    fetch(`http://127.0.0.1:${instance.applicationPort}/demo/behaviour`, { method: 'POST', body: JSON.stringify(body) });

  await behaviour({ broken: true });
  await eventually('the broken one is ejected', 10_000, async () => (await ejections()) === 1);
  await behaviour({ broken: false });
  await eventually('nobody is ejected', 15_000, async () => (await ejections()) === 0);
  const sofar = load.outcomes.length;
  await eventually('it serves again', 10_000, () => servedBy(load.outcomes.slice(sofar), 'v2') > 20);

  await kill(instance.member);
  await sleep(clock, 2_000);
  await mesh.startInstance({ name: 'shop-3', service: 'shop', version: 'v3' });
  await load.stop();

  expect(failures(load.outcomes)).toEqual([]);
}, 120_000);
