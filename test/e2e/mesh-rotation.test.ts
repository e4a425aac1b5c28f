/** Certificates with short lives rotate under load: no request fails, and long-lived connections move to new ones. `ROTATION_SECONDS=300 ROTATION_TTL=60s` is the long form. */
import { test, expect, beforeAll, afterAll } from '@jest/globals';
import { sleep } from '../../lib/clock.ts';
import { startLoad } from '../../cli/demo/load.ts';
import { certificateSerials } from '../../cli/demo/observe.ts';
import { clock, eventually, service, startMesh } from '../support/mesh.ts';
import type { TestMesh } from '../support/mesh.ts';

const SECONDS = Number(process.env['ROTATION_SECONDS'] ?? 55);
const TTL = process.env['ROTATION_TTL'] ?? '60s';
const REQUESTS_PER_SECOND = Number(process.env['ROTATION_RATE'] ?? 200);

let mesh: TestMesh;

beforeAll(async () => {
  mesh = await startMesh({
    resources: [
      { apiVersion: 'meshwork.dev/v1alpha1', kind: 'Mesh', metadata: { name: 'default' }, spec: { mtls: 'STRICT', certificateTtl: TTL } },
      service('shop', { app: 'shop' }),
    ],
    instances: [
      { name: 'shop-1', service: 'shop', version: 'v1' },
      { name: 'shop-2', service: 'shop', version: 'v2' },
      { name: 'caller-1', service: 'caller', application: 'none' },
    ],
  });
  await mesh.settled(2);
}, 120_000);

afterAll(() => mesh?.stop(), 30_000);

/** TLS connections that the caller has made so far to the shop's sidecars; each carries many of HTTP. */
async function connectionsMade(): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${mesh.instances.get('caller-1')!.adminPort}/stats`)).text();
  return [...text.matchAll(/^cluster\.outbound\|80\|\|shop[^\n]*\.ssl\.handshake: (\d+)$/gm)].reduce(
    (sum, match) => sum + Number(match[1]),
    0,
  );
}

test(
  `S3: certificates of ${TTL} rotate for ${SECONDS} s at ${REQUESTS_PER_SECOND} requests/s: none fails, and connections drain onto new ones`,
  async () => {
    const { outboundPort } = mesh.instances.get('caller-1')!;
    const seen = new Map<string, Set<string>>();
    const note = async (): Promise<void> => {
      for (const [proxy, serial] of await certificateSerials(mesh.api)) seen.set(proxy, (seen.get(proxy) ?? new Set()).add(serial));
    };
    const load = startLoad({ clock, outboundPort, host: 'shop', requestsPerSecond: REQUESTS_PER_SECOND });
    await eventually('the first connections', 10_000, async () => (await connectionsMade()) > 0);
    const madeAtFirst = await connectionsMade();
    const endMs = clock.now() + SECONDS * 1000;
    while (clock.now() < endMs) {
      await note();
      await sleep(clock, 1_000);
    }
    await load.stop();

    const failures = load.outcomes.filter((outcome) => !outcome.ok).map((outcome) => outcome.error);
    expect(failures).toEqual([]);
    expect(load.outcomes.length).toBeGreaterThan(SECONDS * REQUESTS_PER_SECOND * 0.8);
    expect(seen.size).toBe(3);
    for (const serials of seen.values()) expect(serials.size).toBeGreaterThanOrEqual(2);
    expect(await connectionsMade()).toBeGreaterThan(madeAtFirst);
  },
  SECONDS * 1000 + 120_000,
);
