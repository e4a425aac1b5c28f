/** Clusters that nobody uses, and what they hold: `node proxy/upstream/testing-clusters.ts COUNT` prints it. */
import { ManualClock } from '../../lib/clock.ts';
import { collectGarbage } from '../../lib/heap.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import type { Registry } from '../../lib/metrics.ts';
import { seededRandom } from '../../lib/random.ts';
import type { Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import { ClusterPool } from './cluster-pool.ts';
import { fakeCluster, fakePool, fakeResponse } from './fakes.ts';

export function cluster(name: string): Cluster {
  return fakeCluster({
    name,
    lbPolicy: { name: 'LEAST_REQUEST', type: '', config: {} },
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
  });
}

export function assignment(clusterName: string, number: number): LoadAssignment {
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

export function world(): { readonly pool: ClusterPool; readonly metrics: Registry; readonly clock: ManualClock } {
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

/** Heap that `count` clusters with two endpoints hold before their first request, in bytes each and without their configuration. */
function bytesPerCluster(count: number): { readonly bytes: number; readonly warm: number } {
  const { pool } = world();
  const names = Array.from({ length: count }, (_, i) => `outbound|80||service-${i}.team-${i % 10}.svc.cluster.local`);
  const clusters = new Map(names.map((name) => [name, cluster(name)]));
  const assignments = new Map(names.map((name, i) => [name, assignment(name, i)]));
  // Code and shapes are made by the first few.
  pool.apply(new Map([...clusters].slice(0, 10)), assignments);

  const beforeBytes = usedBytes();
  pool.apply(clusters, assignments);
  const bytes = (usedBytes() - beforeBytes) / count;
  return { bytes, warm: [...pool.all()].filter((one) => one.warm).length };
}

function usedBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

// As a process of its own: in one that runs tests, what others leave behind is collected meanwhile.
if (import.meta.main) process.stdout.write(`${JSON.stringify(bytesPerCluster(Number(process.argv[2])))}\n`);
