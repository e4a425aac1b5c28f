import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { silentLog } from '../../lib/log.ts';
import { runProxy, startProxy } from '../../proxy/main.ts';
import {
  call,
  closeAll,
  cluster,
  httpFilter,
  httpListener,
  onEnd,
  pause,
  rawClient,
  ROUTER_FILTER,
  routes,
  routeTo,
  startApp,
  startTestProxy,
  until,
} from './proxy-harness.ts';

afterEach(closeAll);

test('a static bootstrap proxies HTTP/1.1 with body, headers in their case, and a request id', async () => {
  const app = await startApp('app', (request, response) => {
    response.setHeader('X-From-App', 'yes');
    request.pipe(response);
  });
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })],
      clusters: [cluster('app', [app.port])],
    },
  });

  const client = await rawClient(proxy.port());
  client.socket.write('POST /echo HTTP/1.1\r\nHost: a\r\nX-CamelCase: 1\r\nContent-Length: 5\r\n\r\nhello');
  await until(() => client.text().endsWith('hello'), 'the answer came');

  expect(client.text()).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  expect(client.text()).toContain('X-From-App: yes\r\n');
  expect(app.requests[0]!.url).toBe('/echo');
  expect(app.requests[0]!.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  expect(app.requests[0]!.headers['x-forwarded-proto']).toBe('http');
});

test('a weighted split holds within 1.5 points over 10,000 draws', async () => {
  const [one, two] = [await startApp('one'), await startApp('two')];
  const split = {
    match: { prefix: '/' },
    route: {
      weighted_clusters: {
        clusters: [
          { name: 'one', weight: 90 },
          { name: 'two', weight: 10 },
        ],
      },
    },
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([split]) })],
      clusters: [cluster('one', [one.port]), cluster('two', [two.port])],
    },
  });

  const client = await rawClient(proxy.port());
  const total = 10_000;
  for (let sent = 0; sent < total; sent += 10) {
    client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(10));
    await until(() => one.hits + two.hits >= sent + 10, 'ten more were answered');
  }

  expect(Math.abs(two.hits / total - 0.1)).toBeLessThan(0.015);
}, 60_000);

test('what no route matches gets 404 with a sentence that names host and path, and NR in the log', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-log-'));
  onEnd(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'access.log');
  const accessLog = [
    { name: 'file', typed_config: { '@type': 'type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog', path } },
  ];
  const proxy = await startTestProxy(
    {
      static_resources: {
        listeners: [httpListener('in', { access_log: accessLog, route_config: routes([routeTo('app', '/app')]) })],
        clusters: [cluster('app', [1])],
      },
    },
    { argv: ['--file-flush-interval-msec', '10'] },
  );

  const answer = await call(proxy.port(), '/other', { host: 'shop' });

  expect(answer.status).toBe(404);
  expect(answer.body).toBe('No route matches this host and path. Host "shop", path "/other".');
  await until(() => readFileSync(path, 'utf8').includes('\n'), 'the line was written');
  expect(readFileSync(path, 'utf8')).toMatch(
    /^\[[0-9TZ:.-]+\] "GET \/other HTTP\/1\.1" 404 NR 0 \d+ \d+ - "-" "-" "[0-9a-f-]{36}" "shop" "-"\n$/,
  );
});

test('a retry goes to the other endpoint when one refuses connections, and the caller sees no error', async () => {
  const app = await startApp('app');
  const gone = await startApp('gone');
  await new Promise((resolve) => gone.server.close(resolve));
  const retry = {
    retry_policy: {
      retry_on: 'connect-failure',
      num_retries: 2,
      retry_host_predicate: [{ name: 'envoy.retry_host_predicates.previous_hosts' }],
      host_selection_retry_max_attempts: '5',
    },
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('app', '/', retry)]) })],
      clusters: [cluster('app', [gone.port, app.port])],
    },
  });

  const statuses: number[] = [];
  for (let i = 0; i < 20; i++) statuses.push((await call(proxy.port(), '/')).status);

  expect(new Set(statuses)).toEqual(new Set([200]));
  const stats = (await proxy.admin('/stats?filter=upstream_rq_retry$')).text;
  expect(stats).toMatch(/^cluster\.app\.upstream_rq_retry: [1-9]/);
});

test('an endpoint that is away gives 503 UF with the reason, and a cluster without endpoints 503 UH', async () => {
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('away', '/away'), routeTo('empty', '/empty')]) })],
      clusters: [cluster('away', [9]), cluster('empty', [])],
    },
  });

  const away = await call(proxy.port(), '/away');
  const empty = await call(proxy.port(), '/empty');

  expect([away.status, empty.status]).toEqual([503, 503]);
  expect(away.body).toMatch(/^The endpoint could not be connected to\. 127\.0\.0\.1:9: .*ECONNREFUSED/);
  expect(empty.body).toBe('no healthy upstream');
});

test('a cluster that asks for HTTP/2 is refused per request, with a sentence that says so', async () => {
  const app = await startApp('app');
  const http2 = {
    'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
      '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
      explicit_http_config: { http2_protocol_options: {} },
    },
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })],
      clusters: [cluster('app', [app.port], { typed_extension_protocol_options: http2 })],
    },
  });

  const answer = await call(proxy.port(), '/');

  expect(answer.status).toBe(502);
  expect(answer.body).toContain('Cluster app asks for HTTP/2, which is not built in yet; HTTP/1.1 is.');
  expect(app.hits).toBe(0);
});

test('RBAC, rate limit and fault filters decide before the application is asked, with per-route settings', async () => {
  const app = await startApp('app');
  const filters = [
    httpFilter(
      'rbac.v3.RBAC',
      {
        rules: {
          action: 'DENY',
          policies: { admin: { permissions: [{ url_path: { path: { prefix: '/admin' } } }], principals: [{ any: true }] } },
        },
      },
      'rbac',
    ),
    httpFilter(
      'local_ratelimit.v3.LocalRateLimit',
      {
        stat_prefix: 'limit',
        token_bucket: { max_tokens: 1, tokens_per_fill: 1, fill_interval: '3600s' },
        filter_enabled: { default_value: { numerator: 100 } },
        filter_enforced: { default_value: { numerator: 100 } },
      },
      'limit',
    ),
    httpFilter('fault.v3.HTTPFault', {}, 'envoy.filters.http.fault'),
    ROUTER_FILTER,
  ];
  const off = { limit: { '@type': 'type.googleapis.com/envoy.config.route.v3.FilterConfig', disabled: true, config: {} } };
  const broken = {
    'envoy.filters.http.fault': {
      '@type': 'type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault',
      abort: { http_status: 418, percentage: { numerator: 100 } },
    },
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [
        httpListener('in', {
          http_filters: filters,
          route_config: routes([
            { ...routeTo('app', '/broken'), typed_per_filter_config: { ...off, ...broken } },
            { ...routeTo('app', '/free'), typed_per_filter_config: off },
            routeTo('app'),
          ]),
        }),
      ],
      clusters: [cluster('app', [app.port])],
    },
  });

  const get = async (path: string): Promise<[number, string]> => {
    const { status, body } = await call(proxy.port(), path);
    return [status, body];
  };

  expect(await get('/admin/x')).toEqual([403, 'RBAC: access denied']);
  expect(await get('/one')).toEqual([200, 'app']);
  expect(await get('/two')).toEqual([429, 'local_rate_limited']);
  expect(await get('/free')).toEqual([200, 'app']);
  expect(await get('/broken')).toEqual([418, 'fault filter abort']);
  expect(app.hits).toBe(2);
  const stats = (await proxy.admin('/stats?filter=rbac|rate_limited|fault.aborts')).text;
  expect(stats).toContain('http.test.rbac.denied: 1\n');
  expect(stats).toContain('limit.http_local_rate_limit.rate_limited: 1\n');
  expect(stats).toContain('http.test.fault.aborts_injected: 1\n');
});

test('forged identity and control headers do not pass the edge', async () => {
  const app = await startApp('app');
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { use_remote_address: true, route_config: routes([routeTo('app')]) })],
      clusters: [cluster('app', [app.port])],
    },
  });

  await call(proxy.port(), '/', {
    headers: {
      'x-forwarded-for': '8.8.8.8',
      'x-forwarded-client-cert': 'By=x;URI=spiffe://a/b',
      x_forwarded_client_cert: 'URI=y',
      'x-envoy-retry-on': '5xx',
      'x-envoy-internal': 'true',
      'x-request-id': 'mine',
    },
  });

  const { headers } = app.requests[0]!;
  expect(headers['x-forwarded-for']).toBe('8.8.8.8,127.0.0.1');
  expect(headers['x-forwarded-client-cert']).toBeUndefined();
  expect(headers['x_forwarded_client_cert']).toBeUndefined();
  expect(headers['x-envoy-retry-on']).toBeUndefined();
  expect(headers['x-envoy-internal']).toBeUndefined();
  expect(headers['x-request-id']).not.toBe('mine');
});

test('trace context is passed on untouched without an exporter, and started where there is none', async () => {
  const app = await startApp('app');
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { tracing: { random_sampling: { value: 100 } }, route_config: routes([routeTo('app')]) })],
      clusters: [cluster('app', [app.port])],
    },
  });
  const parent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

  await call(proxy.port(), '/', { headers: { traceparent: parent } });
  await call(proxy.port(), '/');

  expect(app.requests[0]!.headers['traceparent']).toBe(parent);
  expect(app.requests[1]!.headers['traceparent']).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
});

test.each([
  [
    'listeners: [{ name: in, address: { socket_address: { address: 127.0.0.1, port_value: 0 } }, filter_chains: [{ filters: [{ name: envoy.filters.network.http_connection_manager, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: x, route_config: { name: r, virtual_hosts: [] }, http_filters: [{ name: wasm, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm } }, { name: envoy.filters.http.router }] } }] }] }]',
    /listener "in".*http_filters\[0\]: the extension envoy\.extensions\.filters\.http\.wasm\.v3\.Wasm is not built in; there are .*Router/,
  ],
  ['clusters: [{ name: c, type: STATIC, connect_timeout: 1s, load_assignment: { cluster_name: c }, lb_policy: CLEVER }]', /lb_policy/],
  ['clusters: [{ name: c, typo_field: 1 }]', /typo_field/],
])('a bootstrap with a mistake does not start, and says where it is', async (resources, message) => {
  const text = `static_resources:\n  ${resources}\n`;

  await expect(startProxy(['--config-yaml', text], { log: silentLog })).rejects.toThrow(message);
});

test('validate compiles and exits 0 or 1, usage mistakes exit 2, and nothing is bound', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-validate-'));
  onEnd(() => rmSync(directory, { recursive: true }));
  const good = join(directory, 'good.json');
  const bad = join(directory, 'bad.json');
  const bootstrap = {
    static_resources: { listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })], clusters: [cluster('app', [1])] },
  };
  writeFileSync(good, JSON.stringify(bootstrap));
  writeFileSync(
    bad,
    JSON.stringify({ static_resources: { listeners: [httpListener('in', { route_config: routes([routeTo('missing')]) })] } }),
  );

  expect(await runProxy(['-c', good, '--mode', 'validate'], { log: silentLog })).toBe(0);
  expect(await runProxy(['-c', bad, '--mode', 'validate'], { log: silentLog })).toBe(1);
  expect(await runProxy(['-c', join(directory, 'none.json'), '--mode', 'validate'], { log: silentLog })).toBe(1);
  expect(await runProxy(['--mode', 'validate'], { log: silentLog })).toBe(2);
});

test('stop lets requests under way finish with Connection: close, refuses new ones, and leaves nothing behind', async () => {
  let release = (): void => undefined;
  const app = await startApp('app', (_request, response) => {
    release = () => response.end('late');
  });
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })],
      clusters: [cluster('app', [app.port])],
    },
  });
  const port = proxy.port();
  const adminPort = proxy.running.adminAddress!.port;
  const client = await rawClient(port);
  client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await until(() => app.hits === 1, 'the application has the request');

  const stopped = proxy.running.stop();
  await until(async () => (await call(adminPort, '/ready')).status === 503, 'ready says no');
  await expect(call(port, '/')).rejects.toThrow(/ECONNREFUSED/);
  release();
  await stopped;

  expect(client.text()).toMatch(/Connection: close\r\n/i);
  expect(client.text()).toMatch(/late$/);
  expect(await proxy.running.done).toBe(0);
  await pause(0);
});
