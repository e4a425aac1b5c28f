import { expect, test } from '@jest/globals';
import { envoyScope } from '../../lib/metrics-scope.ts';
import { createRegistry } from '../../lib/metrics.ts';
import type { CircuitBreakers } from '../../xds/snapshot.ts';
import { Limits } from './limits.ts';

function world(config: Partial<CircuitBreakers>) {
  const registry = createRegistry();
  const base: CircuitBreakers = { maxConnections: 2, maxPendingRequests: 2, maxRequests: 2, maxRetries: 2, trackRemaining: false };
  const limits = new Limits({ ...base, ...config }, envoyScope(registry, 'cluster', 'cluster.c', {}), 'default');
  return {
    limits,
    base,
    gauge: (name: string): number => registry.gauge(`envoy_cluster_${name}`).value,
    count: (name: string): number => registry.counter(`envoy_cluster_${name}`).value,
  };
}

test('B2 B3 waiting requests and connections are bounded, refusals are counted, and the gauges flip both ways', () => {
  const { limits, gauge, count } = world({});
  expect([limits.tryPending(), limits.tryPending(), limits.tryPending()]).toEqual([true, true, false]);
  expect([limits.tryConnection(), limits.tryConnection(), limits.tryConnection()]).toEqual([true, true, false]);
  expect([gauge('circuit_breakers_default_rq_pending_open'), gauge('circuit_breakers_default_cx_open')]).toEqual([1, 1]);
  expect([count('upstream_rq_pending_overflow'), count('upstream_cx_overflow'), gauge('upstream_rq_pending_active')]).toEqual([1, 1, 2]);

  limits.releasePending();
  limits.releaseConnection();
  expect([
    gauge('circuit_breakers_default_rq_pending_open'),
    gauge('circuit_breakers_default_cx_open'),
    gauge('upstream_rq_pending_active'),
  ]).toEqual([0, 0, 1]);
});

test('a push that lowers a maximum keeps what is under way and refuses until enough is done', () => {
  const { limits, base, gauge } = world({});
  limits.requests.tryTake();
  limits.requests.tryTake();
  limits.apply({ ...base, maxRequests: 1 });
  limits.requests.give();
  expect([limits.requests.tryTake(), gauge('circuit_breakers_default_rq_open')]).toEqual([false, 1]);
  limits.requests.give();
  expect([limits.requests.active, gauge('circuit_breakers_default_rq_open'), limits.requests.tryTake()]).toEqual([0, 0, true]);
});

test('T8 retries are bounded by a fixed number, or by a share of what is under way with a floor', () => {
  const fixed = world({ maxRetries: 1 });
  expect([fixed.limits.tryRetry(), fixed.limits.tryRetry(), fixed.count('upstream_rq_retry_overflow')]).toEqual([true, false, 1]);
  fixed.limits.giveRetry();
  expect(fixed.limits.tryRetry()).toBe(true);

  const { limits } = world({ maxRequests: 1000, retryBudget: { budgetPercent: 20, minRetryConcurrency: 3 } });
  expect(limits.retriesMax).toBe(3);
  for (let i = 0; i < 100; i++) limits.requests.tryTake();
  expect(limits.retriesMax).toBe(20);
});
