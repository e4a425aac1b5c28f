import { createServer } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { testCa, testLeaf } from '../../certs/testing.ts';
import {
  address,
  call,
  closeAll,
  cluster,
  httpListener,
  manager,
  onEnd,
  rawClient,
  routes,
  routeTo,
  startApp,
  startTestProxy,
  until,
} from './proxy-harness.ts';
import type { Json } from './proxy-harness.ts';
import type { AddressInfo, Socket } from 'node:net';

afterEach(closeAll);

const CLIENT = 'spiffe://mesh.test/ns/default/sa/web';
const SERVER = 'spiffe://mesh.test/ns/default/sa/reviews';
const ca = testCa(Date.now(), 'root');
const serverLeaf = testLeaf(ca, Date.now(), [SERVER]);
const clientLeaf = testLeaf(ca, Date.now(), [CLIENT]);

const inline = (text: string): Json => ({ inline_string: text });
const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';

const common = (leaf: { pem: string; keyPem: string }): Json => ({
  tls_certificates: [{ certificate_chain: inline(leaf.pem), private_key: inline(leaf.keyPem) }],
  validation_context: { trusted_ca: inline(ca.pem) },
});

const downstreamTls: Json = {
  name: 'tls',
  typed_config: { '@type': `${TLS}.DownstreamTlsContext`, require_client_certificate: true, common_tls_context: common(serverLeaf) },
};

const INSPECTOR: Json = {
  name: 'envoy.filters.listener.tls_inspector',
  typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector' },
};

function inboundChain(match: Json, more: Json = {}): Json {
  const settings = {
    forward_client_cert_details: 'SANITIZE_SET',
    set_current_client_cert_details: { uri: true },
    route_config: routes([routeTo('app')]),
  };
  return { filter_chain_match: match, filters: [manager(settings)], ...more };
}

test('PERMISSIVE: one port takes mTLS and plaintext, and only the first has a peer identity', async () => {
  const app = await startApp('app');
  const listener = {
    name: 'in',
    address: address(0),
    traffic_direction: 'INBOUND',
    listener_filters: [INSPECTOR],
    filter_chains: [
      inboundChain({ transport_protocol: 'tls' }, { name: 'tls', transport_socket: downstreamTls }),
      inboundChain({ transport_protocol: 'raw_buffer' }, { name: 'plain' }),
    ],
  };
  const proxy = await startTestProxy({
    node: { id: 'a', cluster: 'reviews' },
    static_resources: { listeners: [listener], clusters: [cluster('app', [app.port])] },
  });

  const plain = await call(proxy.port(), '/plain', { headers: { 'x-forwarded-client-cert': 'URI=spiffe://mesh.test/forged' } });
  const secured = await overTls(proxy.port(), clientLeaf);
  const unsigned = await overTls(proxy.port(), undefined);

  expect(plain.status).toBe(200);
  expect(secured).toMatch(/^HTTP\/1\.1 200 OK/);
  expect(unsigned).toBe('');
  expect(app.requests.map(({ headers }) => headers['x-forwarded-client-cert'])).toEqual([
    undefined,
    expect.stringMatching(new RegExp(`^By=${SERVER};Hash=[0-9a-f]{64};URI=${CLIENT}$`)),
  ]);
  const metrics = (await proxy.admin('/stats/prometheus?filter=istio_requests_total')).text;
  expect(metrics).toMatch(
    new RegExp(`istio_requests_total\\{reporter="destination".*source_principal="${CLIENT}".*connection_security_policy="mutual_tls"\\} 1`),
  );
  expect(metrics).toMatch(
    /istio_requests_total\{reporter="destination".*source_principal="unknown".*connection_security_policy="none"\} 1/,
  );
});

test('STRICT: plaintext gets no byte of an answer', async () => {
  const app = await startApp('app');
  const listener = {
    name: 'in',
    address: address(0),
    listener_filters: [INSPECTOR],
    filter_chains: [inboundChain({ transport_protocol: 'tls' }, { transport_socket: downstreamTls })],
  };
  const proxy = await startTestProxy({ static_resources: { listeners: [listener], clusters: [cluster('app', [app.port])] } });

  await expect(call(proxy.port(), '/')).rejects.toThrow(/socket hang up|ECONNRESET/);

  expect(app.hits).toBe(0);
  expect((await proxy.admin('/stats?filter=no_filter_chain_match')).text).toMatch(/: 1\n$/);
});

test('two proxies speak mTLS with each other, and a server with another identity is refused', async () => {
  const app = await startApp('app');
  const inner = await startTestProxy({
    static_resources: {
      listeners: [{ name: 'in', address: address(0), filter_chains: [inboundChain({}, { transport_socket: downstreamTls })] }],
      clusters: [cluster('app', [app.port])],
    },
  });
  const upstream = (san: string): Json => ({
    transport_socket: {
      name: 'tls',
      typed_config: {
        '@type': `${TLS}.UpstreamTlsContext`,
        sni: 'reviews',
        common_tls_context: {
          tls_certificates: [{ certificate_chain: inline(clientLeaf.pem), private_key: inline(clientLeaf.keyPem) }],
          validation_context: { trusted_ca: inline(ca.pem), match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: san } }] },
        },
      },
    },
  });
  const outer = await startTestProxy({
    static_resources: {
      listeners: [
        httpListener(
          'out',
          { route_config: routes([routeTo('right', '/right'), routeTo('wrong', '/wrong')]) },
          { traffic_direction: 'OUTBOUND' },
        ),
      ],
      clusters: [
        cluster('right', [inner.port()], upstream(SERVER)),
        cluster('wrong', [inner.port()], upstream('spiffe://mesh.test/ns/default/sa/other')),
      ],
    },
  });

  const right = await call(outer.port(), '/right');
  const wrong = await call(outer.port(), '/wrong');

  expect(right.status).toBe(200);
  expect(app.requests[0]!.headers['x-forwarded-client-cert']).toContain(`URI=${CLIENT}`);
  expect(wrong.status).toBe(503);
  expect(wrong.body).toMatch(/^The TLS handshake with the endpoint failed\. .*spiffe:\/\/mesh\.test\/ns\/default\/sa\/reviews/);
  expect(app.hits).toBe(1);
});

test('CONNECT: HTTP inside takes the routes of the listener, other bytes go to the cluster of the authority', async () => {
  const app = await startApp('app');
  const echo = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => void echo.listen(0, '127.0.0.1', resolve));
  onEnd(() => new Promise<void>((resolve) => void echo.close(() => resolve())));
  const route_config = {
    name: 'out',
    virtual_hosts: [
      { name: 'app', domains: ['app.test', 'app.test:80'], routes: [routeTo('app')] },
      { name: 'echo', domains: ['echo.test:7'], routes: [routeTo('echo')] },
    ],
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [
        httpListener(
          'out',
          { upgrade_configs: [{ upgrade_type: 'CONNECT' }, { upgrade_type: 'websocket' }], route_config },
          { traffic_direction: 'OUTBOUND' },
        ),
      ],
      clusters: [cluster('app', [app.port]), cluster('echo', [(echo.address() as AddressInfo).port])],
    },
  });

  const http = await rawClient(proxy.port());
  http.socket.write('CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\n\r\n');
  await until(() => http.text().includes('\r\n\r\n'), 'the tunnel is open');
  http.socket.write('GET /a HTTP/1.1\r\nHost: app.test\r\n\r\n');
  await until(() => http.text().endsWith('app'), 'the application answered');
  http.socket.write('GET /b HTTP/1.1\r\nHost: app.test\r\n\r\n');
  await until(() => app.hits === 2, 'the second request came too');
  const raw = await rawClient(proxy.port());
  raw.socket.write('CONNECT echo.test:7 HTTP/1.1\r\nHost: echo.test:7\r\n\r\n');
  await until(() => raw.text().includes('\r\n\r\n'), 'the second tunnel is open');
  raw.socket.write(Buffer.from([0, 1, 2, 65, 66]));
  await until(() => raw.text().endsWith('\u0000\u0001\u0002AB'), 'the bytes came back');

  expect(app.requests.map(({ url }) => url)).toEqual(['/a', '/b']);
  // What is inside a tunnel passes the whole chain: it has an id, it is counted, and its errors are sentences with flags.
  expect(app.requests[1]!.headers['x-request-id']).toBeDefined();
  http.socket.write('GET /c HTTP/1.1\r\nHost: nobody.test\r\n\r\n');
  await until(() => http.text().includes('Host "nobody.test", path "/c".'), 'the sentence came');
  expect((await proxy.admin('/stats/prometheus?filter=istio_requests_total')).text).toMatch(/response_code="404".*response_flags="NR"/);
  raw.socket.end();
  await until(raw.closed, 'the end went through both ways');
});

test('CONNECT on a route with connect_config ends at the proxy: its bytes go to the cluster, and a dead one is told by the status', async () => {
  const echo = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => void echo.listen(0, '127.0.0.1', resolve));
  onEnd(() => new Promise<void>((resolve) => void echo.close(() => resolve())));
  const ending = (name: string): object => ({
    match: { connect_matcher: {} },
    route: { cluster: name, upgrade_configs: [{ upgrade_type: 'CONNECT', connect_config: {} }] },
  });
  const route_config = {
    name: 'out',
    virtual_hosts: [
      { name: 'echo', domains: ['echo.test:7'], routes: [ending('echo')] },
      { name: 'dead', domains: ['dead.test:7'], routes: [ending('dead')] },
    ],
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [httpListener('out', { upgrade_configs: [{ upgrade_type: 'CONNECT' }], route_config })],
      clusters: [cluster('echo', [(echo.address() as AddressInfo).port]), cluster('dead', [1])],
    },
  });

  const raw = await rawClient(proxy.port());
  raw.socket.write('CONNECT echo.test:7 HTTP/1.1\r\nHost: echo.test:7\r\n\r\nahead ');
  await until(() => raw.text().endsWith('ahead '), 'what was sent ahead came back');
  raw.socket.write('GET / HTTP/1.1\r\n\r\n');
  await until(() => raw.text().endsWith('ahead GET / HTTP/1.1\r\n\r\n'), 'bytes that look like HTTP are bytes');
  const dead = await rawClient(proxy.port());
  dead.socket.write('CONNECT dead.test:7 HTTP/1.1\r\nHost: dead.test:7\r\n\r\n');
  await until(() => dead.text().includes('\r\n\r\n'), 'the dead one is answered');

  expect(raw.text()).toMatch(/^HTTP\/1\.1 200 /);
  expect(dead.text()).toMatch(/^HTTP\/1\.1 503 /);
  raw.socket.end();
  await until(raw.closed, 'the end went through both ways');
});

test('hosts outside the mesh are dialled by the name that the request gives, plain or through a tunnel', async () => {
  const app = await startApp('outside');
  const secured = createTlsServer({ cert: serverLeaf.pem, key: serverLeaf.keyPem }, (socket) => socket.end('secret'));
  await new Promise<void>((resolve) => void secured.listen(0, '127.0.0.1', resolve));
  onEnd(() => new Promise<void>((resolve) => void secured.close(() => resolve())));
  const passthrough = {
    name: 'passthrough',
    connect_timeout: '1s',
    lb_policy: 'CLUSTER_PROVIDED',
    cluster_type: {
      name: 'envoy.clusters.dynamic_forward_proxy',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig',
        dns_cache_config: { name: 'default', dns_lookup_family: 'V4_ONLY' },
      },
    },
  };
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [
        httpListener(
          'out',
          { upgrade_configs: [{ upgrade_type: 'CONNECT' }], route_config: routes([routeTo('passthrough')]) },
          { traffic_direction: 'OUTBOUND' },
        ),
      ],
      clusters: [passthrough],
    },
  });

  const absolute = await rawClient(proxy.port());
  absolute.socket.write(`GET http://localhost:${app.port}/x HTTP/1.1\r\nHost: ignored\r\n\r\n`);
  await until(() => absolute.text().endsWith('outside'), 'the server outside answered');
  const { port } = secured.address() as AddressInfo;
  const tunnel = await rawClient(proxy.port());
  tunnel.socket.write(`CONNECT localhost:${port} HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`);
  await until(() => tunnel.text().includes('\r\n\r\n'), 'the tunnel is open');
  tunnel.socket.removeAllListeners('data');
  const inner = connectTls({ socket: tunnel.socket, servername: 'reviews', rejectUnauthorized: false });
  const text = await new Promise<string>((resolve) => void inner.once('data', (chunk: Buffer) => resolve(chunk.toString())));

  expect(app.requests[0]!.headers.host).toBe(`localhost:${app.port}`);
  expect(text).toBe('secret');
  inner.destroy();
});

test('a request that comes back to the proxy that sent it is answered with 508 at once', async () => {
  // The port is not known before the proxy is, so that the cluster comes from a file.
  const directory = mkdtempSync(join(tmpdir(), 'meshwork-loop-'));
  onEnd(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'clusters.json');
  const write = (port: number): void => {
    writeFileSync(
      `${path}.new`,
      JSON.stringify({
        version_info: String(port),
        resources: [{ '@type': 'type.googleapis.com/envoy.config.cluster.v3.Cluster', ...cluster('self', [port]) }],
      }),
    );
    renameSync(`${path}.new`, path);
  };
  write(9);
  const proxy = await startTestProxy({
    node: { id: 'a', cluster: 'a' },
    dynamic_resources: { cds_config: { path_config_source: { path } } },
    static_resources: {
      listeners: [
        httpListener(
          'out',
          { route_config: { ...routes([routeTo('self')]), validate_clusters: false } },
          { traffic_direction: 'OUTBOUND' },
        ),
      ],
    },
  });
  expect((await call(proxy.port(), '/')).status).toBe(503);

  write(proxy.port());
  await until(async () => (await proxy.admin('/clusters')).text.includes(`::127.0.0.1:${proxy.port()}::`), 'the file was taken');
  const answer = await call(proxy.port(), '/');

  expect(answer.status).toBe(508);
  expect(answer.body).toMatch(/^The request came back to the same proxy\./);
});

test('a TCP proxy passes bytes both ways, half-close included, and refuses when nobody is there', async () => {
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    let seen = '';
    socket.on('data', (chunk) => (seen += String(chunk)));
    socket.on('end', () => socket.end(`got ${seen}`));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  onEnd(() => new Promise<void>((resolve) => void server.close(() => resolve())));
  const tcp = (name: string): Json => ({
    name: 'tcp',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
      stat_prefix: name,
      cluster: name,
    },
  });
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [
        { name: 'good', address: address(0), traffic_direction: 'OUTBOUND', filter_chains: [{ filters: [tcp('db')] }] },
        { name: 'bad', address: address(0), filter_chains: [{ filters: [tcp('away')] }] },
      ],
      clusters: [cluster('db', [(server.address() as AddressInfo).port]), cluster('away', [9])],
    },
  });

  const client = await rawClient(proxy.port('good'));
  client.socket.end('hello');
  await until(() => client.text() === 'got hello', 'the answer came after the half-close');
  const refused = await rawClient(proxy.port('bad'));
  await until(refused.closed, 'the connection was ended');

  expect(refused.text()).toBe('');
  expect((await proxy.admin('/stats?filter=^cluster.db.upstream_cx')).text).toContain('cluster.db.upstream_cx_total: 1\n');
  const metrics = (await proxy.admin('/stats/prometheus?filter=istio_tcp')).text;
  for (const [name, value] of [
    ['connections_opened', 1],
    ['connections_closed', 1],
    ['received_bytes', 5],
    ['sent_bytes', 9],
  ] as const)
    expect(metrics).toMatch(new RegExp(`istio_tcp_${name}_total\\{reporter="source".*request_protocol="tcp".*\\} ${value}\\n`));
});

test('filter chains are chosen by server name, the longest match first', async () => {
  const app = await startApp('app');
  const named = (name: string, names: string[]): Json => ({
    name,
    filter_chain_match: { server_names: names },
    transport_socket: {
      name: 'tls',
      typed_config: {
        '@type': `${TLS}.DownstreamTlsContext`,
        common_tls_context: { tls_certificates: [{ certificate_chain: inline(serverLeaf.pem), private_key: inline(serverLeaf.keyPem) }] },
      },
    },
    filters: [
      manager({ route_config: routes([{ match: { prefix: '/' }, direct_response: { status: 200, body: { inline_string: name } } }]) }),
    ],
  });
  const proxy = await startTestProxy({
    static_resources: {
      listeners: [
        {
          name: 'in',
          address: address(0),
          listener_filters: [INSPECTOR],
          filter_chains: [named('exact', ['a.shop.test']), named('wide', ['*.shop.test']), named('wider', ['*.test'])],
        },
      ],
      clusters: [cluster('app', [app.port])],
    },
  });

  const bodies = await Promise.all(
    ['a.shop.test', 'b.shop.test', 'c.test', 'other.example'].map((name) => overTls(proxy.port(), undefined, name)),
  );

  expect(bodies.map((text) => text.split('\r\n\r\n')[1])).toEqual(['exact', 'wide', 'wider', undefined]);
});

/** One GET over TLS; the whole answer as text, empty when the proxy ended the connection. */
function overTls(port: number, leaf: { pem: string; keyPem: string } | undefined, servername = 'reviews'): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connectTls({
      host: '127.0.0.1',
      port,
      servername,
      rejectUnauthorized: false,
      ...(leaf === undefined ? {} : { cert: leaf.pem, key: leaf.keyPem }),
    });
    socket.on('secureConnect', () => socket.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'));
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
  });
}
