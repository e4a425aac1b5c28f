import { expect, test } from '@jest/globals';
import { createRegistry } from '../../lib/metrics.ts';
import { renderStats } from '../../lib/metrics-text.ts';
import { ClusterStats } from './cluster-stats.ts';

const used = (registry: ReturnType<typeof createRegistry>): string[] =>
  renderStats(registry, { usedOnly: true })
    .split('\n')
    .filter((line) => line !== '' && !line.includes(': P0'))
    .map((line) => line.replace('cluster.c.', ''));

test('an answer that a retry replaces moves under retry., an error that is tried again is as if it had not been', () => {
  const registry = createRegistry();
  const stats = new ClusterStats(registry, 'c');
  for (const status of [503, 503, 200]) stats.answered(status);

  stats.retried(503, true);
  stats.retried(503, false);

  expect(used(registry)).toEqual([
    ...['retry.upstream_rq_503: 1', 'retry.upstream_rq_5xx: 1', 'retry.upstream_rq_completed: 1'],
    ...['upstream_rq_200: 1', 'upstream_rq_2xx: 1', 'upstream_rq_completed: 1'],
  ]);
});

test('connections are counted by how they end, and one that was never made as one that came and went', () => {
  const registry = createRegistry();
  const { connections } = new ClusterStats(registry, 'c');

  for (const [by, busy] of [
    ['local', true],
    ['remote', false],
    ['protocol', true],
  ] as const) {
    connections.connectionOpened(1);
    connections.connectionClosed({ by, busy, ageMs: 10 });
  }
  connections.connectFailed({ code: 'connectTimeout' } as never);
  connections.connectFailed({ code: 'connectFailed' } as never);
  connections.bytesMoved(3, 4);

  expect(used(registry)).toEqual([
    'upstream_cx_connect_fail: 1',
    'upstream_cx_connect_timeout: 1',
    'upstream_cx_destroy: 5',
    'upstream_cx_destroy_local: 3',
    'upstream_cx_destroy_local_with_active_rq: 2',
    'upstream_cx_destroy_remote: 2',
    'upstream_cx_destroy_with_active_rq: 2',
    'upstream_cx_http1_total: 5',
    'upstream_cx_protocol_error: 1',
    'upstream_cx_rx_bytes_total: 3',
    'upstream_cx_total: 5',
    'upstream_cx_tx_bytes_total: 4',
  ]);
});
