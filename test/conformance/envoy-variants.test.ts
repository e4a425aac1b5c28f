/** More files as people write them, by our proxy and by a real Envoy: loose syntax, times, anchors, run-time shares, hashing, logs, matches, flags and refusals. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { applications, askAll, compare, envoy, statuses, TEST_MS, withoutText } from './envoy-compare.ts';
import { closeAll, echo, refusal, until } from './envoy-pair.ts';
import type { Application, Ask, Side } from './envoy-pair.ts';

afterEach(closeAll);

const paths = (...list: readonly string[]): Ask[] => list.map((path) => ({ path }));
const bodies = (seen: readonly { body: unknown }[]): unknown[] => seen.map(({ body }) => body);

test(
  'loose-syntax.yaml: one object for a list, enums in lower case, names of old',
  async () => {
    const seen = await compare(
      { file: 'loose-syntax.yaml', applications: { 8001: {} } },
      (side) => askAll(side, 10_000, [{ path: '/a' }, { path: '/moved' }, { path: '/b', method: 'POST', body: 'x' }]),
      // What the admin port is asked is not logged by ours.
      { unequalStats: /^filesystem\./ },
    );

    expect(statuses(seen)).toEqual([200, 302, 200]);
  },
  TEST_MS,
);

test('names alone are enough for the router and the TLS inspector, as in files from before typed_config', async () => {
  const text = readFileSync(new URL('envoy-files/loose-syntax.yaml', import.meta.url), 'utf8')
    .replace(/(name: envoy\.router), typed_config: \{[^}]*\}/, '$1')
    .replace(/(name: envoy\.listener\.tls_inspector)\n.*typed_config.*\n/, '$1\n');
  expect(text).not.toMatch(/Router\b|TlsInspector/);

  const { code, output } = await refusal('meshwork', '', text, ['--mode', 'validate']);

  expect([code, output]).toEqual([0, expect.stringContaining('OK')]);
}, 60_000);

test(
  'durations.yaml: times whole, with fractions and none',
  async () => {
    const slow: Application = {
      behaviour: (request, response, hit) =>
        void setTimeout(() => echo(8001)(request, response, hit), request.url === '/never' ? 400 : 1_500),
    };
    const seen = await compare({ file: 'durations.yaml', applications: { 8001: slow } }, async (side) =>
      (await askAll(side, 10_000, paths('/quarter', '/nano', '/never', '/idle', '/most'))).map(withoutText),
    );

    expect(statuses(seen)).toEqual([504, 504, 200, 504, 504]);
  },
  TEST_MS,
);

test(
  'anchors.yaml: what was named once is used again',
  async () => {
    const seen = await compare({ file: 'anchors.yaml', applications: { 8001: {}, 8002: {} } }, (side) =>
      askAll(side, 10_000, [
        { host: 'one.example', path: '/a' },
        { host: 'one.example', path: '/b' },
        { host: 'two.example', path: '/a' },
        { host: 'two.example', path: '/b' },
      ]),
    );

    expect(applications(seen)).toEqual([8001, 8002, 8001, 8002]);
  },
  TEST_MS,
);

test(
  'runtime-layers.yaml: shares by layers, by the admin port, and what /runtime tells of them',
  async () => {
    const seen = await compare({ file: 'runtime-layers.yaml', applications: { 8001: {}, 8002: {} } }, async (side) => {
      const asks = paths('/all', '/none', '/struct', '/unset', '/admin');
      const before = await askAll(side, 10_000, asks);
      const written = [];
      for (const query of ['share.admin=100&share.all=0', 'share.none=60', 'nothing.like=this'])
        written.push(await side.admin(`/runtime_modify?${query}`, 'POST'));
      const after = await askAll(side, 10_000, asks.slice(0, 1).concat(asks.slice(4)));
      const usage = await side.admin('/runtime_modify', 'POST');
      const removed = await side.admin('/runtime_modify?share.admin=', 'POST');
      const last = await askAll(side, 10_000, asks.slice(4));
      const { layers, entries } = JSON.parse((await side.admin('/runtime')).text) as {
        layers: string[];
        entries: Record<string, { final_value: string; layer_values: string[] }>;
      };
      const known = ['share.all', 'share.none', 'share.admin', 'text', 'later.key', 'nothing.like'].map((key) => [key, entries[key]]);
      return { before, written, after, usage, removed, last, layers, known, keys: Object.keys(entries).sort() };
    });

    expect([applications(seen.before), applications(seen.after), applications(seen.last)]).toEqual([
      [8001, 8002, 8001, 8001, 8002],
      [8002, 8001],
      [8002],
    ]);
    expect(seen.keys).toContain('share.struct');
  },
  TEST_MS,
);

test(
  'consistent-hash.yaml: each key has its instance, the same one in both',
  async () => {
    const keys = Array.from({ length: 60 }, (_, index) => `user-${index}`);
    const byKey = async (side: Side, path: string): Promise<unknown[]> =>
      applications(
        await askAll(
          side,
          10_000,
          keys.map((key) => ({ path, headers: { 'x-user': key } })),
        ),
      );
    const seen = await compare({ file: 'consistent-hash.yaml', applications: { 8001: {}, 8002: {}, 8003: {} } }, async (side) => ({
      ring: await byKey(side, '/ring'),
      maglev: await byKey(side, '/maglev'),
      query: applications(
        await askAll(
          side,
          10_000,
          keys.slice(0, 10).map((key) => ({ path: `/ring?user=${key}` })),
        ),
      ),
    }));

    expect(new Set(seen.ring)).toEqual(new Set([8001, 8002, 8003]));
    expect(seen.query).toEqual(seen.ring.slice(0, 10));
  },
  TEST_MS,
);

test(
  'access-logs.yaml: the lines of three logs are the same',
  async () => {
    const app: Application = {
      behaviour: (request, response, hit) => {
        response.setHeader('x-app', 'one');
        if (request.url === '/app/broken') response.statusCode = 503;
        echo(8001)(request, response, hit);
      },
    };
    const seen = await compare(
      { file: 'access-logs.yaml', applications: { 8001: app } },
      async (side) => {
        const answers = await askAll(side, 10_000, [
          { path: '/app/x', method: 'POST', body: 'four', headers: { 'x-user': 'somebody' } },
          { path: '/old/y' },
          { path: '/app/broken' },
          { path: '/dead' },
          { path: '/own' },
          { path: '/nowhere' },
        ]);
        const lines = (name: string): string[] => {
          const file = join(side.directory, name);
          return existsSync(file)
            ? readFileSync(file, 'utf8')
                .split('\n')
                .filter((line) => line !== '')
            : [];
        };
        await until(
          'the lines are written',
          15_000,
          async () => lines('text.log').length === 6 && lines('json.log').length === 6 && lines('failed.log').length === 2,
        );
        const json = lines('json.log').map((line) => JSON.parse(line) as object);
        return { statuses: statuses(answers), text: lines('text.log'), json, failed: lines('failed.log') };
        // Envoy writes its log every 10 s, by when the application has closed the idle connection.
      },
      { unequalStats: /^cluster\.app\.upstream_cx_(active|destroy.*)$/ },
    );

    expect(seen.statuses).toEqual([200, 200, 503, 503, 204, 404]);
    expect(seen.text[0]).toBe('POST /app/x HTTP/1.1 200 - via_upstream 4 app some one rest');
    expect(seen.failed).toEqual(['503 /app/broken', '503 /dead']);
  },
  TEST_MS,
);

test(
  'header-matches.yaml: every kind of match for headers, queries and paths',
  async () => {
    const by = (name: string, value: string, path = '/'): Ask => ({ path, headers: { [name]: value } });
    const seen = await compare(
      { file: 'header-matches.yaml' },
      async (side) => {
        const good = await askAll(side, 10_000, [
          by('x-exact', 'yES'),
          by('x-prefix', 'abc'),
          by('x-suffix', 'xyz'),
          by('x-contains', 'a mid b'),
          by('x-regex', 'aaab'),
          by('x-range', '-5'),
          by('x-range', '9'),
          by('x-there', 'any'),
          { path: '/absent' },
          by('x-not', 'b', '/not'),
          { path: '/empty' },
          { path: '/', method: 'DELETE' },
          { path: '/?a=2&q=1' },
          { path: '/?p' },
          { path: '/segment' },
          { path: '/segment/a' },
          { path: '/EXACT?x' },
          { path: '/r/12?z=/' },
        ]);
        const bad = await askAll(side, 10_000, [
          { path: '/not' },
          by('x-prefix', 'xab'),
          by('x-regex', 'aaabc'),
          by('x-range', '10'),
          by('x-range', '1a'),
          by('x-gone', 'there', '/absent'),
          by('x-not', 'a', '/not'),
          by('x-empty', 'x', '/empty'),
          { path: '/?q=2' },
          { path: '/segments' },
          { path: '/r/12a' },
        ]);
        return { good: bodies(good), bad: statuses(bad) };
      },
      { statsMin: 10 },
    );

    expect(seen.good.slice(0, 8)).toEqual(['exact', 'prefix', 'suffix', 'contains', 'regex', 'range', 'range', 'present']);
    expect(new Set(seen.bad)).toEqual(new Set([404]));
  },
  TEST_MS,
);

test(
  'path-normal.yaml: dots, slashes, escapes and ports are made plain',
  async () => {
    const seen = await compare({ file: 'path-normal.yaml', applications: { 8001: {} } }, async (side) =>
      (
        await askAll(
          side,
          10_000,
          ['/a/./b/../c', '/a//b///c', '/a%2Fb', '/a%2fb%5cc', '/%7Euser/%41', '/a/..%2f..%2fb', '/../../x', '/a?b=/../c//d'].map(
            (path) => ({
              path,
              host: 'plain.example:8443',
            }),
          ),
        )
      ).map(({ status, body }) => ({ status, url: (body as { url?: string }).url, headers: (body as { headers?: object }).headers })),
    );

    expect(seen[0]).toMatchObject({ status: 200, url: '/a/c' });
  },
  TEST_MS,
);

test(
  'mirrors-attempts.yaml: copies go along, attempts are counted for both ends',
  async () => {
    const flaky: Application = {
      behaviour: (request, response, hit) => {
        if (hit % 3 !== 0) response.statusCode = 503;
        echo(8003)(request, response, hit);
      },
    };
    const seen = await compare(
      { file: 'mirrors-attempts.yaml', applications: { 8001: {}, 8002: {}, 8003: flaky } },
      async (side) => {
        const answers = await askAll(side, 10_000, [
          { path: '/mirrored', method: 'POST', body: 'twice' },
          { path: '/half' },
          { path: '/flaky' },
          { path: '/flaky', headers: { 'x-envoy-max-retries': '0' } },
        ]);
        await until('the copy is there', 5_000, async () => side.hits(8002) === 1);
        return { answers, copies: side.hits(8002) };
      },
      // Envoy closes the connection of an answer that is retried; the copy may be on its way still.
      {
        unequalStats:
          /^cluster\.copy\.upstream_(cx|rq)_(active|total)|^cluster\.flaky\.(upstream_cx_(total|http1_total|destroy)|upstream_cx_destroy_.*|upstream_rq_pending_total)$/,
      },
    );

    expect(seen.copies).toBe(1);
    expect(seen.answers[2].headers['x-envoy-attempt-count']).toEqual(['3']);
  },
  TEST_MS,
);

test(
  'aggregate-health.yaml: the second cluster when the first has nobody; the health path, failed and mended by the admin port',
  async () => {
    const seen = await compare({ file: 'aggregate-health.yaml', applications: { 8001: {}, 8002: {} } }, async (side) => {
      // The name of the cluster that checks expect, which is empty here, is not told by ours.
      const first = (await askAll(side, 10_000, paths('/', '/healthz'))).map((seen) => {
        const headers = Object.entries(seen.headers).filter(([name]) => name !== 'x-envoy-upstream-healthchecked-cluster');
        return { ...seen, headers: Object.fromEntries(headers) };
      });
      const fail = await side.admin('/healthcheck/fail', 'POST');
      const ready = await side.admin('/ready');
      const failed = (await askAll(side, 10_000, paths('/', '/healthz'))).map(({ status, headers }) => ({
        status,
        failed: headers['x-envoy-immediate-health-check-fail'],
      }));
      await side.admin('/healthcheck/ok', 'POST');
      return { first, fail, ready, failed, mended: statuses(await askAll(side, 10_000, paths('/healthz'))) };
    });

    expect(applications(seen.first)[0]).toBe(8002);
    expect([seen.ready.status, seen.failed[1].status, seen.mended]).toEqual([503, 503, [200]]);
  },
  TEST_MS,
);

test(
  'plain.json: JSON with names in camel case, and YAML merged over it by a flag',
  async () => {
    const yaml = '{ node: { id: from-flag }, layered_runtime: { layers: [{ name: flag, static_layer: { a: 1 } }] } }';
    const seen = await compare(
      { file: 'plain.json', args: ['--config-yaml', yaml, '--service-cluster', 'given', '--service-zone', 'z9', '--drain-time-s', '7'] },
      async (side) => {
        const { node, command_line_options: flags } = JSON.parse((await side.admin('/server_info')).text) as {
          node: { id: string; cluster: string; locality: { zone: string } };
          command_line_options: Record<string, unknown>;
        };
        const runtime = JSON.parse((await side.admin('/runtime')).text) as { layers: string[] };
        const { config_path: _path, file_flush_interval: _flush, log_format: _format, socket_path: _socket, ...told } = flags;
        return {
          answer: await side.ask(10_000),
          id: node.id,
          cluster: node.cluster,
          zone: node.locality.zone,
          runtime: runtime.layers,
          told,
        };
      },
      { statsMin: 10 },
    );

    expect(seen).toMatchObject({ answer: { body: 'from json\n' }, id: 'from-flag', cluster: 'given', zone: 'z9', runtime: ['flag'] });
  },
  TEST_MS,
);

test(
  'the admin port answers alike: dumps and masks, formats, filters, refusals',
  async () => {
    await compare(
      { file: 'admin-stats.yaml', applications: { 8001: {} } },
      async (side) => {
        await side.ask(10_000, { path: '/' });
        const said: Record<string, unknown> = {};
        for (const path of [
          '/config_dump?mask=bootstrap.node.id',
          '/config_dump?resource=static_clusters&mask=cluster.name',
          '/config_dump?resource=static_clusters&name_regex=^full$&mask=cluster.name',
          '/config_dump?resource=static_clusters&name_regex=nobody',
          '/config_dump?resource=dynamic_active_clusters',
          '/config_dump?resource=nonsense',
          '/ready',
          '/clusters?filter=nobody',
          '/init_dump',
          '/hot_restart_version',
          '/stats?filter=^http.in.downstream_rq_(2xx|total)$',
          '/stats?usedonly&filter=^cluster.shown-as.upstream_rq_2',
          '/stats?format=json&filter=^http.in.downstream_rq_2xx$',
        ])
          said[path] = await side.admin(path);
        for (const path of ['/healthcheck/fail', '/quitquitquit', '/reset_counters']) said[`GET ${path}`] = await side.admin(path);
        said['reset'] = await side.admin('/reset_counters', 'POST');
        said['after'] = await side.admin('/stats?filter=^cluster.shown-as.upstream_rq_2xx$');
        const missing = await side.admin('/nonsense');
        said['missing'] = [missing.status, missing.text.split('\n')[0]];
        const dump = JSON.parse((await side.admin('/config_dump?include_eds')).text) as { configs: Record<string, unknown>[] };
        said['order'] = dump.configs.map((config) => config['@type']);
        const endpoints = dump.configs.find((config) => String(config['@type']).endsWith('EndpointsConfigDump'));
        said['endpoints'] = ((endpoints?.['static_endpoint_configs'] ?? []) as { endpoint_config: { cluster_name: string } }[])
          .map((entry) => entry.endpoint_config.cluster_name)
          .sort();
        const clusters = (await side.admin('/clusters')).text.split('\n');
        said['clusters'] = clusters
          .filter((line) => line.includes('::') && !/::rq_(timeout|pending_active)::/.test(line))
          .map((line) => line.replaceAll(/127\.0\.0\.1:\d+/g, 'ADDRESS'))
          .sort();
        return said;
      },
      { statsMin: 5, unequalStats: /./ },
    ).catch((error: Error) => {
      // Statistics were reset by the script itself; what they count is compared in the other tests.
      if (!error.message.includes('toBeGreaterThan')) throw error;
    });
  },
  TEST_MS,
);

test(
  'dynamic-unknown.yaml: fields of tomorrow in dynamic resources are tolerated, and a directory gives run-time values',
  async () => {
    const seen = await compare(
      {
        file: 'dynamic-unknown.yaml',
        applications: { 8001: {} },
        prepare: ({ directory, moveIn }) => {
          mkdirSync(join(directory, 'runtime/now/share'), { recursive: true });
          writeFileSync(join(directory, 'runtime/now/share/disk'), '100\n');
          moveIn('dynamic-unknown.cds.yaml', 'cds.yaml');
          moveIn('dynamic-unknown.lds.yaml', 'lds.yaml');
        },
      },
      async (side) => {
        const answers = await askAll(side, 10_000, paths('/app', '/disk', '/else'));
        const { layers, entries } = JSON.parse((await side.admin('/runtime')).text) as {
          layers: string[];
          entries: Record<string, unknown>;
        };
        return { statuses: statuses(answers), layers, disk: entries['share.disk'] };
      },
    );

    expect(seen).toEqual({ statuses: [200, 200, 404], layers: ['disk', 'admin'], disk: { final_value: '100', layer_values: ['100', ''] } });
  },
  TEST_MS,
);

test(
  '--reject-unknown-dynamic-fields keeps them out',
  async () => {
    await compare(
      {
        file: 'dynamic-unknown.yaml',
        args: ['--reject-unknown-dynamic-fields'],
        applications: { 8001: {} },
        prepare: ({ moveIn }) => {
          moveIn('dynamic-unknown.cds.yaml', 'cds.yaml');
          moveIn('dynamic-unknown.lds.yaml', 'lds.yaml');
        },
      },
      async (side) => {
        const stats = await side.stats();
        return {
          answer: (await side.ask(10_000)).status,
          clusters: stats.get('cluster_manager.cds.update_success'),
          listeners: stats.get('listener_manager.lds.update_success'),
        };
      },
      { statsMin: 5 },
    );
  },
  TEST_MS,
);

const UNKNOWN = `
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }
static_resources:
  clusters:
    - { name: a, connect_timeout: 1s, no_such_field: 1, load_assignment: { cluster_name: a } }
`;

test.each([
  ['a field that does not exist', UNKNOWN, [], 1],
  ['the same, let pass by a flag', UNKNOWN, ['--allow-unknown-static-fields'], 0],
  ['a duration that is none', 'static_resources: { clusters: [{ name: a, connect_timeout: 5 seconds }] }', [], 1],
  ['an enum that is none', 'static_resources: { clusters: [{ name: a, connect_timeout: 1s, type: SOMETIMES }] }', [], 1],
  ['an empty file', '{}', [], 0],
  [
    'two clusters of one name',
    'static_resources: { clusters: [{ name: a, connect_timeout: 1s, load_assignment: { cluster_name: a } }, { name: a, connect_timeout: 1s, load_assignment: { cluster_name: a } }] }',
    [],
    1,
  ],
  [
    'a port that is none',
    'static_resources: { listeners: [{ name: a, address: { socket_address: { address: 127.0.0.1, port_value: 70000 } } }] }',
    [],
    1,
  ],
  ['text where a message is expected', 'static_resources: hello', [], 1],
])(
  '--mode validate: %s',
  async (_what, text, args, code) => {
    const words = ['--mode', 'validate', ...args];
    const ours = await refusal('meshwork', '', text, words);
    expect([ours.code, ours.output]).toEqual([code, expect.stringMatching(code === 0 ? /^configuration '.*' OK$/m : /./)]);
    if (envoy !== undefined) expect((await refusal('envoy', envoy, text, words)).code).toBe(code);
  },
  TEST_MS,
);

const ROUTER =
  '{ name: envoy.filters.http.router, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }';
const listenerWith = (manager: string): string => `
static_resources:
  listeners:
    - name: in
      address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
      filter_chains:
        - filters:
            - name: hcm
              typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, ${manager} }
`;

test.each([
  [
    'a filter that is discovered (ECDS)',
    `route_config: {}, http_filters: [{ name: late, config_discovery: { config_source: { ads: {} }, type_urls: [type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC] } }, ${ROUTER}]`,
    /ExtensionConfigSource is not built in; there are .*Router/,
  ],
  [
    'scoped routes (SRDS)',
    'scoped_routes: { name: s, scope_key_builder: { fragments: [{ header_value_extractor: { name: x, element_separator: "," } }] }, scoped_route_configurations_list: { scoped_route_configurations: [{ name: a, route_configuration_name: r, key: { fragments: [{ string_key: x }] } }] }, rds_config_source: { ads: {} } }, http_filters: [{ name: envoy.filters.http.router, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }]',
    /scoped_routes.*(?:not supported|not built)/,
  ],
  [
    'authentication by another service',
    `route_config: {}, http_filters: [{ name: envoy.filters.http.ext_authz, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz } }, ${ROUTER}]`,
    /ext_authz.*not built in; there are .*Router/,
  ],
  [
    'authentication by tokens',
    `route_config: {}, http_filters: [{ name: envoy.filters.http.jwt_authn, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication } }, ${ROUTER}]`,
    /jwt_authn.*not built in; there are .*Router/,
  ],
])(
  'what guards or decides and is not built is refused by name: %s',
  async (_what, manager, rule) => {
    const { code, output } = await refusal('meshwork', '', listenerWith(manager), ['--mode', 'validate']);

    expect([code, output]).toEqual([1, expect.stringMatching(rule)]);
  },
  60_000,
);
