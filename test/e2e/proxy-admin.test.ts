import { request as httpRequest } from 'node:http';
import { afterEach, expect, test } from '@jest/globals';
import { call, closeAll, cluster, httpListener, rawClient, routes, routeTo, startApp, startTestProxy, until } from './proxy-harness.ts';
import type { TestProxy } from './proxy-harness.ts';

afterEach(closeAll);

async function proxyWithApp(): Promise<TestProxy> {
  const app = await startApp('app');
  return startTestProxy({
    node: { id: 'web-1', cluster: 'web', metadata: { LABELS: { app: 'web' } } },
    layered_runtime: {
      layers: [
        { name: 'static', static_layer: { a: { b: 1 } } },
        { name: 'admin', admin_layer: {} },
      ],
    },
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })],
      clusters: [cluster('app', [app.port])],
    },
  });
}

/** Status of a request with these headers. */
function ask(port: number, path: string, method: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode!));
    });
    request.on('error', reject);
    request.end();
  });
}

test('a page that reaches the port by a name of its own is refused, and so is a form of another origin', async () => {
  const proxy = await proxyWithApp();
  const { port } = proxy.running.adminAddress!;

  expect(await ask(port, '/ready', 'GET', { host: `evil.test:${port}` })).toBe(403);
  expect(await ask(port, '/ready', 'GET', { host: `localhost:${port}` })).toBe(200);
  expect(await ask(port, '/reset_counters', 'POST', { origin: 'https://evil.test' })).toBe(403);
  expect(await ask(port, '/reset_counters', 'POST', { origin: `http://127.0.0.1:${port}`, host: `127.0.0.1:${port}` })).toBe(200);
});

test('what changes something takes POST alone, what reads takes GET alone', async () => {
  const proxy = await proxyWithApp();

  for (const path of ['/quitquitquit', '/drain_listeners', '/healthcheck/fail', '/logging', '/reset_counters', '/runtime_modify?a.b=2'])
    expect((await proxy.admin(path)).status).toBe(405);
  expect((await proxy.admin('/stats', 'POST')).status).toBe(405);
  expect((await proxy.admin('/nowhere')).status).toBe(404);
  expect((await proxy.admin('/help')).text).toContain('/drain_listeners (POST): drain listeners');
});

test('health checks can be failed and passed again', async () => {
  const proxy = await proxyWithApp();

  await proxy.admin('/healthcheck/fail', 'POST');
  expect(await proxy.admin('/ready')).toEqual({ status: 503, text: 'DRAINING\n' });
  expect((await call(proxy.port(), '/')).status).toBe(200);
  await proxy.admin('/healthcheck/ok', 'POST');

  expect(await proxy.admin('/ready')).toEqual({ status: 200, text: 'LIVE\n' });
});

test('runtime values are shown by layer and can be overridden', async () => {
  const proxy = await proxyWithApp();

  await proxy.admin('/runtime_modify?a.b=7', 'POST');
  const runtime = JSON.parse((await proxy.admin('/runtime')).text) as unknown;

  expect(runtime).toEqual({ layers: ['static', 'admin'], entries: { 'a.b': { final_value: '7', layer_values: ['1', '7'] } } });
});

test('the log level changes, and a word that is none is refused', async () => {
  const proxy = await proxyWithApp();

  expect((await proxy.admin('/logging?level=debug', 'POST')).text).toContain('main: debug');
  expect((await proxy.admin('/logging?level=loud', 'POST')).status).toBe(400);
});

test('statistics come as text, JSON and Prometheus, filtered, and go back to zero', async () => {
  const proxy = await proxyWithApp();
  await call(proxy.port(), '/');

  expect((await proxy.admin('/stats?usedonly&filter=upstream_rq_200')).text).toBe('cluster.app.upstream_rq_200: 1\n');
  expect(JSON.parse((await proxy.admin('/stats?format=json&filter=upstream_rq_200')).text)).toEqual({
    stats: [{ name: 'cluster.app.upstream_rq_200', value: 1 }],
  });
  expect((await proxy.admin('/stats/prometheus')).text).toContain(
    'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="app"} 1\n',
  );
  expect((await proxy.admin('/stats?filter=(')).status).toBe(400);
  await proxy.admin('/reset_counters', 'POST');
  expect((await proxy.admin('/stats?filter=upstream_rq_200')).text).toBe('cluster.app.upstream_rq_200: 0\n');
});

test('clusters and listeners as JSON have the fields of the admin API', async () => {
  const proxy = await proxyWithApp();

  const clusters = JSON.parse((await proxy.admin('/clusters?format=json')).text) as unknown;
  const listeners = JSON.parse((await proxy.admin('/listeners?format=json')).text) as unknown;

  expect(clusters).toMatchObject({
    cluster_statuses: [{ name: 'app', host_statuses: [{ health_status: { eds_health_status: 'HEALTHY' }, weight: 1 }] }],
  });
  expect(listeners).toEqual({
    listener_statuses: [{ name: 'in', local_address: { socket_address: { address: '127.0.0.1', port_value: proxy.port() } } }],
  });
});

test('a graceful drain closes connections on their next answer and goes on accepting; without it the port closes', async () => {
  const proxy = await proxyWithApp();
  const client = await rawClient(proxy.port());
  const get = (): boolean => client.socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  get();
  await until(() => client.text().endsWith('app'), 'the first answer');
  expect(client.text()).not.toMatch(/connection: close/i);

  await proxy.admin('/drain_listeners?graceful', 'POST');
  get();
  await until(client.closed, 'the connection ended after its answer');
  expect(client.text()).toMatch(/connection: close/i);
  expect((await call(proxy.port(), '/')).headers.connection).toBe('close');
  await proxy.admin('/drain_listeners', 'POST');

  await expect(call(proxy.port(), '/')).rejects.toThrow(/ECONNREFUSED/);
});

test('quitquitquit ends the proxy with code 0', async () => {
  const proxy = await proxyWithApp();

  expect(await proxy.admin('/quitquitquit', 'POST')).toEqual({ status: 200, text: 'OK\n' });

  expect(await proxy.running.done).toBe(0);
});

test('the health and metrics ports of an agent: probes, and metrics with those of the application behind them', async () => {
  const app = await startApp('app', (_request, response) => response.end('app_orders_total 7\n'));
  const proxy = await startTestProxy(
    {
      static_resources: {
        listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })],
        clusters: [cluster('app', [app.port])],
      },
    },
    { argv: ['--health-port', '0', '--metrics-port', '0', '--application-metrics', `http://127.0.0.1:${app.port}/metrics`] },
  );
  const { healthPort, metricsPort } = proxy.running;

  const probe = await call(healthPort!, '/healthz/ready');
  const metrics = await call(metricsPort!, '/stats/prometheus');
  await proxy.admin('/healthcheck/fail', 'POST');

  expect([probe.status, probe.body]).toEqual([200, 'LIVE\n']);
  expect(metrics.body).toMatch(/^# TYPE /);
  expect(metrics.body).toMatch(/\napp_orders_total 7\n$/);
  expect((await call(healthPort!, '/healthz/ready')).status).toBe(503);
  expect((await call(healthPort!, '/healthz/live')).status).toBe(200);
  expect((await call(healthPort!, '/config_dump')).status).toBe(404);
  expect(await ask(healthPort!, '/healthz/ready', 'POST', {})).toBe(405);
});

test('a cluster found by DNS is waited for before the proxy is ready', async () => {
  const app = await startApp('app');
  const byName = {
    ...cluster('app', []),
    type: 'STRICT_DNS',
    load_assignment: {
      cluster_name: 'app',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 'localhost', port_value: app.port } } } }] }],
    },
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('in', { route_config: routes([routeTo('app')]) })],
      clusters: [{ ...byName, dns_lookup_family: 'V4_ONLY' }],
    },
  });

  expect((await call(proxy.port(), '/')).body).toBe('app');
});
