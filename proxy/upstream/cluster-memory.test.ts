/** What a cluster holds before anyone has sent a request to it: a large mesh has thousands of them in every sidecar. */
import { expect, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { collectGarbage } from '../../lib/heap.ts';
import { silentLog } from '../../lib/log.ts';
import { renderStats } from '../../lib/metrics-text.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { seededRandom } from '../../lib/random.ts';
import type { Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import { ClusterPool } from './cluster-pool.ts';
import { fakePool, fakeRequest, fakeResponse } from './fakes.ts';

const CLUSTERS = 1_000;
/** Without its configuration. Measured: 3.0 KiB, and 16.1 KiB when counters, breakers and detector were made at once. */
const BYTES_PER_CLUSTER_MAX = 6 * 1024;

const LIMITS = { maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3, trackRemaining: false };

function cluster(name: string): Cluster {
  return {
    name,
    altStatName: '',
    type: 'EDS',
    connectTimeoutMs: 1000,
    lbPolicy: { name: 'LEAST_REQUEST', type: '', config: {} },
    circuitBreakers: { default: LIMITS, high: LIMITS },
    outlierDetection: {
      consecutive5xx: 5,
      enforcingConsecutive5xxPercent: 100,
      consecutiveGatewayFailure: 5,
      enforcingConsecutiveGatewayFailurePercent: 0,
      consecutiveLocalOriginFailure: 5,
      enforcingConsecutiveLocalOriginFailurePercent: 100,
      splitExternalLocalOriginErrors: false,
      intervalMs: 10_000,
      baseEjectionTimeMs: 30_000,
      maxEjectionTimeMs: 300_000,
      maxEjectionTimeJitterMs: 0,
      maxEjectionPercent: 10,
      alwaysEjectOneEndpoint: false,
      enforcingSuccessRatePercent: 100,
      successRateMinimumHosts: 5,
      successRateRequestVolume: 100,
      successRateStdevFactor: 1900,
      failurePercentageThreshold: 85,
      enforcingFailurePercentagePercent: 0,
      failurePercentageMinimumHosts: 5,
      failurePercentageRequestVolume: 50,
    },
    healthChecks: [],
    tlsMatches: [],
    protocol: 'http1',
    maxRequestsPerConnection: 0,
    idleTimeoutMs: 0,
    dnsRefreshMs: 5000,
    respectDnsTtl: false,
    dnsLookupFamily: 'AUTO',
    panicThresholdPercent: 50,
    localityWeighted: false,
    perConnectionBufferBytesMax: 32_768,
  };
}

function assignment(clusterName: string, number: number): LoadAssignment {
  const endpoints = [1, 2].map((last) => ({
    address: { host: `10.${number >> 8}.${number & 255}.${last}`, port: 80 },
    hostname: '',
    weight: 1,
    health: 'UNKNOWN' as const,
    metadata: {},
  }));
  const locality = { region: '', zone: '', subZone: '' };
  return { clusterName, localities: [{ locality, priority: 0, endpoints }], overprovisioningFactor: 140, dropPercent: 0 };
}

function world() {
  const clock = new ManualClock();
  const metrics = createRegistry();
  const pool = new ClusterPool({
    clock,
    random: seededRandom(1),
    log: silentLog,
    metrics,
    makePool: () => fakePool(async () => fakeResponse()),
  });
  return { pool, metrics, clock };
}

function usedBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

test('a cluster with two endpoints that nobody uses holds little', () => {
  const { pool } = world();
  const names = Array.from({ length: CLUSTERS }, (_, i) => `outbound|80||service-${i}.team-${i % 10}.svc.cluster.local`);
  const clusters = new Map(names.map((name) => [name, cluster(name)]));
  const assignments = new Map(names.map((name, i) => [name, assignment(name, i)]));
  // Code and shapes are made by the first few.
  pool.apply(new Map([...clusters].slice(0, 10)), assignments);

  const beforeBytes = usedBytes();
  pool.apply(clusters, assignments);
  const bytesPerCluster = (usedBytes() - beforeBytes) / CLUSTERS;

  expect([...pool.all()].filter((one) => one.warm)).toHaveLength(CLUSTERS);
  expect(bytesPerCluster).toBeGreaterThan(500);
  expect(bytesPerCluster).toBeLessThan(BYTES_PER_CLUSTER_MAX);
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
  const closed = { ...cluster('c'), circuitBreakers: { default: { ...LIMITS, maxRequests: 0 }, high: LIMITS } };
  pool.apply(new Map([['c', closed]]), new Map());
  expect(renderStats(metrics, { usedOnly: true, matches: (name) => name.includes('circuit_breakers') })).toBe(
    'cluster.c.circuit_breakers.default.rq_open: 1\n',
  );
});
