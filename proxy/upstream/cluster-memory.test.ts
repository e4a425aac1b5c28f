/** What a cluster holds before anyone has sent a request to it: a large mesh has thousands of them in every sidecar. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { renderStats } from '../../lib/metrics-text.ts';
import { fakeRequest } from './fakes.ts';
import { assignment, cluster, world } from './testing-clusters.ts';

const CLUSTERS = 1_000;
/** Without its configuration. Measured: 3.0 KiB, and 16.1 KiB when counters, breakers and detector were made at once. */
const BYTES_PER_CLUSTER_MAX = 6 * 1024;

test('a cluster with two endpoints that nobody uses holds little', () => {
  const script = fileURLToPath(new URL('testing-clusters.ts', import.meta.url));

  const printed = execFileSync(process.execPath, [script, String(CLUSTERS)], { encoding: 'utf8' });

  const { bytes, warm } = JSON.parse(printed) as { bytes: number; warm: number };
  expect(warm).toBe(CLUSTERS);
  expect(bytes).toBeGreaterThan(500);
  expect(bytes).toBeLessThan(BYTES_PER_CLUSTER_MAX);
});

test('its statistics and its breakers are read before the first request as they are after it', async () => {
  const { pool, metrics } = world();
  pool.apply(new Map([['c', cluster('c')]]), new Map([['c', assignment('c', 1)]]));
  const namesOf = (): string[] =>
    renderStats(metrics)
      .split('\n')
      .map((line) => line.split(': ')[0]!);
  const before = namesOf();
  expect(renderStats(metrics, { usedOnly: true })).toBe(
    'cluster.c.membership_change: 1\ncluster.c.membership_healthy: 2\ncluster.c.membership_total: 2\ncluster.c.update_success: 1\n',
  );

  await pool.get('c')!.send(fakeRequest());

  const after = namesOf();
  expect(before.filter((name) => !after.includes(name))).toEqual([]);
  expect(before).toEqual(
    expect.arrayContaining([
      'cluster.c.circuit_breakers.high.rq_retry_open',
      'cluster.c.upstream_rq_active',
      'cluster.c.upstream_rq_time',
      'cluster.c.outlier_detection.ejections_active',
    ]),
  );
  expect(after.filter((name) => !before.includes(name)).sort()).toEqual(['cluster.c.upstream_rq_200', 'cluster.c.upstream_rq_2xx']);
});

test('breakers that allow nothing are told by their gauges though no request came', () => {
  const { pool, metrics } = world();
  pool.apply(new Map([['c', cluster('c')]]), new Map());
  const open = cluster('c').circuitBreakers;
  const closed = { ...cluster('c'), circuitBreakers: { ...open, default: { ...open.default, maxRequests: 0 } } };
  pool.apply(new Map([['c', closed]]), new Map());
  expect(renderStats(metrics, { usedOnly: true, matches: (name) => name.includes('circuit_breakers') })).toBe(
    'cluster.c.circuit_breakers.default.rq_open: 1\n',
  );
});
