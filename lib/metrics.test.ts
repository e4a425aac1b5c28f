import { expect, test } from '@jest/globals';
import { blockScope, envoyScope, scopeType } from './metrics-scope.ts';
import { inTurns, renderPrometheus, renderStats, renderStatsJson, renderStatsSlices } from './metrics-text.ts';
import { createRegistry } from './metrics.ts';

const text = (registry: ReturnType<typeof createRegistry>): string => [...renderPrometheus(registry)].join('');

test('the same name and labels give the same handle, and both sides show its value', () => {
  const registry = createRegistry();
  const scope = envoyScope(registry, 'cluster', 'cluster.outbound|80||x', { envoy_cluster_name: 'outbound|80||x' });

  scope.counter('upstream_rq_total').inc();
  scope.counter('upstream_rq_total').add(2);
  scope.counter('upstream_rq_xx', { envoy_response_code_class: '2' }, 'upstream_rq_2xx').inc();
  scope.gauge('circuit_breakers.default.rq_open').set(1);

  expect(text(registry)).toBe(
    '# TYPE envoy_cluster_upstream_rq_total counter\nenvoy_cluster_upstream_rq_total{envoy_cluster_name="outbound|80||x"} 3\n' +
      '# TYPE envoy_cluster_upstream_rq_xx counter\nenvoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="outbound|80||x"} 1\n' +
      '# TYPE envoy_cluster_circuit_breakers_default_rq_open gauge\nenvoy_cluster_circuit_breakers_default_rq_open{envoy_cluster_name="outbound|80||x"} 1\n',
  );
  expect(renderStats(registry)).toBe(
    'cluster.outbound|80||x.circuit_breakers.default.rq_open: 1\ncluster.outbound|80||x.upstream_rq_2xx: 1\ncluster.outbound|80||x.upstream_rq_total: 3\n',
  );
});

test('a histogram counts cumulatively and answers quantiles inside the right bucket', () => {
  const registry = createRegistry();
  const histogram = registry.histogram('rtt', {}, { bounds: [1, 10, 100] });

  for (let i = 0; i < 90; i++) histogram.record(5);
  for (let i = 0; i < 9; i++) histogram.record(50);
  histogram.record(5000);

  expect(text(registry)).toBe(
    '# TYPE rtt histogram\nrtt_bucket{le="1"} 0\nrtt_bucket{le="10"} 90\nrtt_bucket{le="100"} 99\nrtt_bucket{le="+Inf"} 100\nrtt_sum 5900\nrtt_count 100\n',
  );
  expect(histogram.quantile(0.5)).toBeGreaterThan(1);
  expect(histogram.quantile(0.5)).toBeLessThanOrEqual(10);
  expect(histogram.quantile(0.95)).toBeGreaterThan(10);
  expect(histogram.quantile(1)).toBe(100);
});

test('label values are escaped and bad names are refused with the name', () => {
  const registry = createRegistry();
  registry.counter('a_total', { path: 'a"b\\c\nd' }).inc();

  expect(text(registry)).toContain('a_total{path="a\\"b\\\\c\\nd"} 1\n');
  expect(() => registry.counter('a b')).toThrow(/received "a b"/);
  expect(() => registry.counter('ok', { 'a-b': '' })).toThrow(/received "a-b"/);
  expect(() => registry.gauge('a_total')).toThrow('metric "a_total" is a counter, asked for as a gauge');
});

test('beyond the cap of label sets, all others share one series marked overflow', () => {
  const registry = createRegistry({ seriesMax: 2 });
  for (let i = 0; i < 10; i++) registry.counter('hits_total', { peer: String(i) }).inc();

  expect(text(registry)).toBe('# TYPE hits_total counter\nhits_total{peer="0"} 1\nhits_total{peer="1"} 1\nhits_total{overflow="true"} 8\n');
});

test('idle series go when nobody holds them, and only those', () => {
  const registry = createRegistry();
  const scope = envoyScope(registry, 'cluster', 'cluster.gone', { envoy_cluster_name: 'gone' });
  scope.counter('upstream_rq_total').inc();
  registry.counter('kept_total').inc();
  registry.counter('loose_total', { code: '200' }, { pinned: false }).inc();
  registry.expire(0, 1000);
  const generation = registry.generation;

  expect(registry.expire(999, 1000)).toBe(0);
  scope.release();
  registry.counter('loose_total', { code: '200' }, { pinned: false }).inc();
  expect(registry.expire(1000, 1000)).toBe(1);
  expect(registry.expire(2000, 1000)).toBe(1);

  expect(registry.generation).toBe(generation + 2);
  expect(text(registry)).toBe('# TYPE kept_total counter\nkept_total 1\n');
});

test('stats are filtered by name and use, in text and JSON', () => {
  const registry = createRegistry();
  registry.counter('one_total', {}, { dotted: 'a.one' }).inc();
  registry.counter('two_total', {}, { dotted: 'a.two' });
  registry.histogram('three', {}, { dotted: 'b.three' }).record(3);

  expect(renderStats(registry, { usedOnly: true, matches: (name) => name.startsWith('a.') })).toBe('a.one: 1\n');
  expect(JSON.parse(renderStatsJson(registry))).toMatchObject({
    stats: [{ name: 'a.one', value: 1 }, { name: 'a.two', value: 0 }, { histograms: { computed_quantiles: [{ name: 'b.three' }] } }],
  });
});

test('a scrape of 2,000 histograms comes in slices of about 64 KiB that add up to the whole, a turn of the loop apart', async () => {
  const registry = createRegistry();
  for (let i = 0; i < 2000; i++) registry.histogram('h', { i: String(i) }).record(i);

  let whole = '';
  let slices = 0;
  for await (const slice of inTurns(renderPrometheus(registry))) {
    slices++;
    whole += slice;
    expect(slice.length).toBeLessThan(70_000);
  }

  expect(slices).toBeGreaterThan(10);
  expect(whole).toBe(text(registry));
  expect([...renderStatsSlices(registry)].join('')).toBe(renderStats(registry));
});

const SERIES = [
  ['counter', 'rq_total'],
  ['histogram', 'rq_time'],
  ['gauge', 'breakers.open'],
] as const;
const TYPE = scopeType('cluster', SERIES);
/** All numbers from the start, or those of some or all series from the first write. */
const TYPES = [3, 2, 0].map((early) => [early, scopeType('cluster', SERIES, early)] as const);

test.each(TYPES)('the series of a block are read from the start, and written with a handle or without; %i are early', (_early, TYPE) => {
  const registry = createRegistry();
  const scope = blockScope(registry, 'cluster', 'cluster.a', { envoy_cluster_name: 'a' }, TYPE);
  blockScope(registry, 'cluster', 'cluster.b', { envoy_cluster_name: 'b' }, TYPE);
  expect(renderStats(registry)).toBe(
    [
      'a.breakers.open: 0',
      'a.rq_total: 0',
      'b.breakers.open: 0',
      'b.rq_total: 0',
      'a.rq_time: No recorded values',
      'b.rq_time: No recorded values',
    ]
      .map((line) => `cluster.${line}\n`)
      .join(''),
  );

  scope.counter('rq_total').inc();
  scope.add(0, 2);
  scope.set(2, 7);
  scope.histogram('rq_time').record(3);

  expect(scope.at(0)).toBe(scope.counter('rq_total'));
  expect(registry.counter('envoy_cluster_rq_total', { envoy_cluster_name: 'a' })).toBe(scope.counter('rq_total'));
  expect(renderStats(registry, { usedOnly: true })).toMatch(
    /^cluster\.a\.breakers\.open: 7\ncluster\.a\.rq_total: 3\ncluster\.a\.rq_time: P0\(1,1\)/,
  );
  expect(text(registry)).toContain(
    '# TYPE envoy_cluster_breakers_open gauge\nenvoy_cluster_breakers_open{envoy_cluster_name="a"} 7\nenvoy_cluster_breakers_open{envoy_cluster_name="b"} 0\n',
  );
  expect(() => scope.gauge('rq_total')).toThrow('metric "envoy_cluster_rq_total" is a counter, asked for as a gauge');

  registry.resetCounters();
  expect(renderStats(registry, { usedOnly: true })).toBe('cluster.a.breakers.open: 7\n');
});

test.each(TYPES)('a block goes when it was released and idle, and comes back with its counts before that; %i are early', (_early, TYPE) => {
  const registry = createRegistry();
  const make = (): ReturnType<typeof blockScope> => blockScope(registry, 'cluster', 'cluster.a', { envoy_cluster_name: 'a' }, TYPE);
  const scope = make();
  scope.counter('rq_total').inc();
  scope.counter('other').inc();
  registry.expire(0, 1000);
  scope.release();
  expect(registry.expire(999, 1000)).toBe(0);

  expect(make().counter('rq_total').value).toBe(1);
  expect(registry.expire(1000, 1000)).toBe(1);
  make().release();
  expect(registry.expire(2000, 1000)).toBe(3);
  expect(text(registry)).toBe('');
  expect(make().counter('rq_total').value).toBe(0);
});

test('blocks beyond the cap of label sets share one that is marked', () => {
  const registry = createRegistry({ seriesMax: 2 });
  for (const name of ['a', 'b', 'c', 'd'])
    blockScope(registry, 'cluster', `cluster.${name}`, { envoy_cluster_name: name }, TYPE).counter('rq_total').inc();
  expect(text(registry)).toContain(
    'envoy_cluster_rq_total{envoy_cluster_name="a"} 1\nenvoy_cluster_rq_total{envoy_cluster_name="b"} 1\nenvoy_cluster_rq_total{overflow="true"} 2\n',
  );
});

test('histograms are shown as quantiles or as buckets, in text, JSON and Prometheus form; kinds are told apart', () => {
  const registry = createRegistry();
  registry.counter('c', {}, { dotted: 'c' }).inc();
  const histogram = registry.histogram('h', {}, { dotted: 'h', bounds: [1, 10, 1_800_000] });
  for (const value of [0.5, 5, 5]) histogram.record(value);
  const json = (histograms: 'cumulative' | 'disjoint' | 'detailed'): unknown =>
    (JSON.parse(renderStatsJson(registry, { histograms, kind: 'histogram' })) as { stats: { histograms: unknown }[] }).stats[0]!.histograms;

  expect(renderStats(registry, { histograms: 'cumulative' })).toBe('c: 1\nh: B1(1,1) B10(3,3) B1.8e+06(3,3)\n');
  expect(renderStats(registry, { histograms: 'disjoint', kind: 'histogram' })).toBe('h: B1(1,1) B10(2,2) B1.8e+06(0,0)\n');
  expect(renderStats(registry, { histograms: 'detailed', kind: 'histogram' })).toMatch(
    /^h:\n {2}totals=0,1:1, 1,9:2\n {2}intervals=0,1:1, 1,9:2\n {2}summary=P0\(/,
  );
  expect(renderStats(registry, { kind: 'counter' })).toBe('c: 1\n');
  expect(json('disjoint')).toMatchObject([
    { name: 'h', buckets: [{ upper_bound: 1, cumulative: 1 }, { upper_bound: 10, cumulative: 2 }, {}] },
  ]);
  expect(json('detailed')).toMatchObject({ details: [{ name: 'h', totals: [{ count: 1 }, { lower_bound: 1, width: 9, count: 2 }] }] });
  expect([...renderPrometheus(registry, { histograms: 'summary', kind: 'histogram' })].join('')).toMatch(
    /^# TYPE h summary\nh\{quantile="0"\} .*\n(?:h\{.*\n)+h_sum 10.5\nh_count 3\n$/,
  );
});
