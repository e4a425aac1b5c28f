/** Statistics and answers of the admin port beside a real Envoy's: those that must be there, their Prometheus form, sizes, and what changes them. */
import { afterEach, expect, test } from '@jest/globals';
import { askAll, compare, TEST_MS } from './envoy-compare.ts';
import { closeAll, until } from './envoy-pair.ts';
import type { Side } from './envoy-pair.ts';

afterEach(closeAll);

/** The differential tests compare what both have; these must not go from one of the two. */
const NEEDED = [
  ...['total', 'http1_total', 'active', 'destroy', 'destroy_local', 'destroy_remote', 'destroy_with_active_rq', 'connect_fail'].map(
    (name) => `cluster.app.upstream_cx_${name}`,
  ),
  ...['connect_timeout', 'idle_timeout', 'max_requests', 'protocol_error', 'rx_bytes_total', 'tx_bytes_total'].map(
    (name) => `cluster.app.upstream_cx_${name}`,
  ),
  ...['total', 'completed', 'pending_total', 'pending_failure_eject', 'timeout', 'per_try_timeout', 'retry'].map(
    (name) => `cluster.app.upstream_rq_${name}`,
  ),
  ...['update_attempt', 'update_failure', 'update_no_rebuild', 'lb_healthy_panic'].map((name) => `cluster.app.${name}`),
  ...['total', 'http1_total', 'active', 'destroy', 'destroy_active_rq', 'idle_timeout', 'drain_close', 'rx_bytes_total', 'ssl_total'].map(
    (name) => `http.in.downstream_cx_${name}`,
  ),
  ...['total', 'completed', '2xx', 'idle_timeout', 'max_duration_reached', 'header_timeout', 'too_large', 'timeout'].map(
    (name) => `http.in.downstream_rq_${name}`,
  ),
  ...['rq_total', 'rq_direct_response', 'no_route', 'no_cluster', 'rq_reset_after_downstream_response_started'].map(
    (name) => `http.in.${name}`,
  ),
  ...['downstream_cx_total', 'downstream_pre_cx_active', 'downstream_listener_filter_error', 'http.in.downstream_rq_2xx'].map(
    (name) => `listener.entry.${name}`,
  ),
  ...['added', 'modified', 'removed', 'stopped', 'create_success', 'create_failure', 'in_place_updated'].map(
    (name) => `listener_manager.listener_${name}`,
  ),
  ...['listener_manager.total_listeners_draining', 'listener_manager.workers_started', 'server.concurrency', 'server.live', 'server.state'],
  ...['server.total_connections', 'server.days_until_first_cert_expiring', 'server.static_unknown_fields', 'server.hot_restart_epoch'],
  ...['runtime.num_keys', 'runtime.num_layers', 'runtime.load_success', 'runtime.admin_overrides_active', 'filesystem.write_buffered'],
];

test(
  'what tools look for is there from the start, with the same values after the same requests, sizes included',
  async () => {
    const seen = await compare({ file: 'admin-stats.yaml', applications: { 8001: {} } }, async (side) => {
      const before = await side.stats();
      const missing = NEEDED.map((name) => name.replace('cluster.app.', 'cluster.shown-as.')).filter((name) => !before.has(name));
      const dull = { 'x-request-id': '0' };
      await askAll(side, 10_000, [
        { path: '/', headers: dull },
        { path: '/a', method: 'POST', body: 'four', headers: dull },
        { path: '/missing', headers: dull },
      ]);
      await until('the connections are over', 5_000, async () => (await side.stats()).get('http.in.downstream_cx_destroy') === 3);
      const after = await side.stats();
      const of = (...names: string[]): (number | undefined)[] => names.map((name) => after.get(name));
      return {
        missing,
        in: of(
          'http.in.rq_total',
          'http.in.rq_direct_response',
          'listener.entry.http.in.downstream_rq_2xx',
          'listener.entry.http.in.downstream_rq_4xx',
        ),
        // Their lengths differ by a digit of the port now and then.
        received: Math.round(after.get('http.in.downstream_cx_rx_bytes_total')! / 20),
      };
    });

    expect(seen).toMatchObject({ missing: [], in: [3, 1, 2, 1] });
  },
  TEST_MS,
);

/** Series of families that both have, without values, ports, and which of its ciphers TLS 1.3 took. */
async function series(side: Side, filter: string): Promise<string[]> {
  const { text } = await side.admin(`/stats/prometheus?filter=${filter}`);
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#') && !line.includes('_bucket{') && !line.includes('admin'))
    .map((line) => {
      const [, name = '', labels = ''] = /^([^{ ]+)(?:\{(.*)\})? /.exec(line) ?? [];
      return `${name}{${labels
        .replaceAll(/_\d{5}/g, '_PORT')
        .replace(/TLS_AES_\w+/, 'CIPHER')
        .split(',')
        .sort()
        .join(',')}}`;
    })
    .sort();
}

test(
  'in Prometheus form they have the same names and labels, and histograms may be asked for in other forms',
  async () => {
    await compare(
      { file: 'tls-downstream.yaml', applications: { 8001: {} } },
      async (side) => {
        await side.ask(10_001, { sni: 'server.example', path: '/s' });
        await side.ask(10_002, { sni: 'server.example', clientCertificate: 'client' });
        await side.ask(10_002, { sni: 'server.example' });
        const found: Record<string, unknown> = {};
        for (const filter of [
          '^cluster.app.upstream_(cx_total|cx_active|rq_200|rq_2xx|rq_pending_total|cx_destroy_local_with_active_rq)$',
          '^http.(secure|plain|mutual).(downstream_rq_2xx|downstream_cx_length_ms|rq_total|downstream_cx_ssl_active)$',
          '^listener.*ssl.(handshake|versions.*|ciphers.*|fail_verify_no_cert|no_certificate|session_reused)$',
          '^listener.127.*http.secure.downstream_rq_(2xx|completed)$',
          '^listener_manager.listener_(added|modified|stopped|create_failure)$',
          '^(server.live|server.concurrency|runtime.num_keys)$',
        ])
          found[filter] = await series(side, filter);
        for (const query of [
          'type=Counters',
          'type=Gauges',
          'type=Histograms',
          'type=TextReadouts',
          'type=Nope',
          'histogram_buckets=nope',
          'format=nope',
        ])
          found[query] = await side
            .admin(`/stats?${query}&filter=^http.plain.downstream_(rq_active|rq_total|rq_time)$`)
            .then(({ status, text }) =>
              status === 200 ? text.split('\n').map((line) => line.split(':')[0]) : [status, text.startsWith('usage') ? 'usage' : text],
            );
        const inverted = await side.admin('/stats?filter=^(cluster|http|listener|server|runtime|filesystem)&invert_filter&type=Gauges');
        const listeners = 'listener_manager.total_listeners_active: 3';
        return { found, inverted: [inverted.text.includes(listeners), /^(http|server)/m.test(inverted.text)] };
      },
      { unequalStats: /^http\..*downstream_cx_(total|http1_total|ssl_total|destroy)$/ },
    );
  },
  TEST_MS,
);

test(
  '/certs tells of files, /config_dump of masks that fit nothing',
  async () => {
    await compare({ file: 'tls-downstream.yaml', applications: { 8001: {} } }, async (side) => {
      const { certificates } = JSON.parse((await side.admin('/certs')).text) as { certificates: object[] };
      const said: Record<string, unknown> = {
        certificates: certificates.map((one) => JSON.stringify(one).replaceAll(side.directory, 'DIR')).sort(),
        days: (await side.stats()).get('server.days_until_first_cert_expiring'),
      };
      for (const path of [
        'mask=nope',
        'mask=bootstrap.nope',
        'mask=nope,bootstrap.node.id',
        'mask=static_clusters.nope',
        'mask=dynamic_listeners',
        'mask=static_listeners.listener',
        'resource=bootstrap',
        'resource=nope',
      ]) {
        const { status, text } = await side.admin(`/config_dump?${path}`);
        said[path] = [status, text];
      }
      said['name_regex'] = await side.admin('/config_dump?name_regex=(').then(({ status }) => status);
      return said;
    });
  },
  TEST_MS,
);

test(
  'a listener that is changed, stopped listeners and failed health checks are counted, and connections told to end',
  async () => {
    const seen = await compare(
      {
        file: 'dynamic-files.yaml',
        applications: { 8001: {}, 8002: {} },
        prepare: ({ moveIn }) => {
          moveIn('dynamic-files.cds.yaml', 'cds.yaml');
          moveIn('dynamic-files.lds.yaml', 'lds.yaml');
        },
      },
      async (side) => {
        const count = async (...names: string[]): Promise<(number | undefined)[]> => {
          const stats = await side.stats();
          return names.map((name) => stats.get(`listener_manager.listener_${name}`));
        };
        await side.ask(10_000);
        await side.admin('/healthcheck/fail', 'POST');
        const failing = await side.ask(10_000, { headers: { connection: 'keep-alive' } });
        await side.admin('/healthcheck/ok', 'POST');
        side.moveIn('dynamic-files.lds-next.yaml', 'lds.yaml');
        await until(`${side.name} took the listener`, 15_000, async () => (await count('modified'))[0] === 1);
        const changed = await side.ask(10_000);
        const modified = await count('added', 'modified', 'in_place_updated', 'removed', 'create_failure');
        await side.admin('/drain_listeners', 'POST');
        await until(`${side.name} stopped the listener`, 15_000, async () => (await count('stopped'))[0] === 1);
        return { failing: failing.headers['connection'], changed: changed.headers['x-listener'], modified };
      },
      { unequalStats: /^(cluster|http)\.|update_(attempt|failure|success)$|total_listeners|create_success|^listener\./, statsMin: 5 },
    );

    expect(seen).toMatchObject({ failing: ['close'], changed: ['next'] });
  },
  TEST_MS,
);
