/**
 * Configuration files in the manner of Envoy's examples, run by our proxy and by a real Envoy: the same requests must give the same status,
 * headers, body and statistics. Without an Envoy (ENVOY, or `envoy` on PATH) our side runs alone against what is expected.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { freePorts } from '../../cli/ports.ts';
import { encodeResource } from '../../xds/resources/index.ts';
import type { Kind } from '../../xds/resources/index.ts';
import { parseResourceFile } from '../../xds/resources/resource-file.ts';
import type { EncodedResource } from '../../xds/session/messages.ts';
import { closeAll as closePlanes, controlPlane } from '../../xds/stream-testing.ts';
import type { TestControlPlane } from '../../xds/stream-testing.ts';
import { applications, askAll, compare, statuses, TEST_MS, withoutText } from './envoy-compare.ts';
import { closeAll, echo, refusal, until } from './envoy-pair.ts';
import type { Ask, Seen, Setup, Side } from './envoy-pair.ts';

afterEach(async () => {
  await closeAll();
  await closePlanes();
});

test(
  'front-proxy.yaml: host, path, header and query choose the service',
  async () => {
    const services = { 8001: {}, 8002: {}, 8003: {} };
    const shop = (path: string, headers: Record<string, string> = {}): Ask => ({ host: 'shop.example', path, headers });

    const seen = await compare({ file: 'front-proxy.yaml', applications: services }, async (side) => {
      const answers = await askAll(side, 10_000, [
        shop('/cart'),
        shop('/cart/7?x=1'),
        shop('/cartoon', { 'x-preview': 'on' }),
        shop('/x?preview'),
        shop('/items/12'),
        shop('/CATALOG/a'),
        { ...shop('/cart'), host: 'shop.example:8080', method: 'POST', body: 'one' },
        { host: 'SHOP.example', path: '/cart' },
        { host: 'a.shop.example', path: '/any' },
        { host: 'else.example', path: '/static/a.css' },
      ]);
      const missing = await askAll(side, 10_000, [shop('/cartoon'), shop('/items/a'), { host: 'else.example', path: '/other' }]);
      return { answers, missing: missing.map(withoutText) };
    });

    expect(applications(seen.answers)).toEqual([8001, 8001, 8003, 8003, 8002, 8002, 8001, 8001, 8003, 8002]);
    expect(statuses(seen.missing)).toEqual([404, 404, 404]);
  },
  TEST_MS,
);

test(
  'tls-downstream.yaml: HTTPS ends here, plain HTTP is sent there, and a client must prove itself where it is asked to',
  async () => {
    const seen = await compare(
      { file: 'tls-downstream.yaml', applications: { 8001: {} } },
      async (side) => ({
        redirects: await askAll(side, 10_000, [{ path: '/a?b=1' }, { method: 'POST', path: '/', host: 'shop.example:80' }]),
        secure: await side.ask(10_001, { sni: 'server.example', path: '/s' }),
        plainOnTls: (await side.ask(10_001)).status,
        mutual: await side.ask(10_002, {
          sni: 'server.example',
          clientCertificate: 'client',
          headers: { 'x-forwarded-client-cert': 'By=me' },
        }),
        nobody: (await side.ask(10_002, { sni: 'server.example' })).status,
        stranger: (await side.ask(10_002, { sni: 'server.example', clientCertificate: 'stranger' })).status,
      }),
      // Envoy counts a connection for its HTTP settings before the handshake, we after it.
      { unequalStats: /^http\..*downstream_cx_(total|http1_total|ssl_total|destroy)$/ },
    );

    expect(statuses(seen.redirects)).toEqual([301, 301]);
    expect(seen.secure).toMatchObject({ status: 200, peer: 'server' });
    expect(seen.mutual.body.headers['x-forwarded-client-cert'][0]).toContain('URI=spiffe://mesh.example/ns/default/sa/client');
    expect([seen.plainOnTls, seen.nobody, seen.stranger]).toEqual(['closed', 'closed', 'closed']);
  },
  TEST_MS,
);

test(
  'tls-upstream.yaml: the service must prove its name and its roots, and gets our certificate',
  async () => {
    const peerOf = (request: unknown): string | undefined =>
      (request as { socket: { getPeerCertificate(): { subject?: { CN?: string } } } }).socket.getPeerCertificate().subject?.CN;
    const secure = {
      tls: true,
      behaviour: (request: unknown, response: { end(text: string): void }) => response.end(`hello ${peerOf(request)}`),
    };

    const seen = await compare({ file: 'tls-upstream.yaml', applications: { 8443: secure } }, async (side) => ({
      right: await side.ask(10_000, { path: '/right' }),
      wrong: (await askAll(side, 10_000, [{ path: '/wrong-name' }, { path: '/wrong-roots' }])).map(withoutText),
      hits: side.hits(8443),
    }));

    expect(seen.right).toMatchObject({ status: 200, body: 'hello client' });
    expect(statuses(seen.wrong)).toEqual([503, 503]);
    expect(seen.hits).toBe(1);
  },
  TEST_MS,
);

test(
  'sni-chains.yaml: the name in the hello chooses certificate and service, or passes through, or is closed',
  async () => {
    const through = { tls: true, behaviour: (_request: unknown, response: { end(text: string): void }) => response.end('through') };

    const seen = await compare(
      { file: 'sni-chains.yaml', applications: { 8001: {}, 8002: {}, 8443: through } },
      async (side) => ({
        one: await side.ask(10_000, { sni: 'server.example' }),
        two: await side.ask(10_000, { sni: 'a.wild.example' }),
        deep: await side.ask(10_000, { sni: 'a.b.wild.example' }),
        through: (await side.ask(10_000, { sni: 'through.example' })).body,
        none: (await side.ask(10_000, { sni: 'else.example' })).status,
        plain: (await side.ask(10_000)).status,
      }),
      { unequalStats: /^cluster\.through\.upstream_cx_destroy_/ },
    );

    expect(applications([seen.one, seen.two, seen.deep])).toEqual([8001, 8002, 8002]);
    expect([seen.one.peer, seen.two.peer]).toEqual(['server', 'client']);
    expect([seen.through, seen.none, seen.plain]).toEqual(['through', 'closed', 'closed']);
  },
  TEST_MS,
);

test(
  'weights.yaml: shares of the traffic, headers of the share that was drawn, and a weight of zero',
  async () => {
    const seen = await compare(
      { file: 'weights.yaml', applications: { 8001: {}, 8002: {} } },
      async (side) => {
        const forced = await askAll(
          side,
          10_000,
          Array.from({ length: 20 }, () => ({ headers: { 'x-canary': 'always' } })),
        );
        const drawn = await askAll(
          side,
          10_000,
          Array.from({ length: 400 }, () => ({})),
        );
        const canaries = drawn.filter(({ headers }) => headers['x-canary'] !== undefined);
        const stable = drawn.filter(({ body }) => (body as { headers: Record<string, unknown> }).headers['x-picked'] !== undefined);
        return {
          forced: applications(forced),
          whole: canaries.length + stable.length,
          canary: { ...canaries[0]!, body: '' },
          // Five standard deviations of 400 draws at a quarter are 43.
          share: Math.abs(canaries.length - 100) <= 43,
          right: applications(canaries).every((one) => one === 8002) && applications(stable).every((one) => one === 8001),
        };
      },
      { unequalStats: /^cluster\.(app|other)\./ },
    );

    expect(seen).toMatchObject({ forced: Array.from({ length: 20 }, () => 8002), whole: 400, share: true, right: true });
  },
  TEST_MS,
);

test(
  'redirects-rewrites.yaml: where a client is sent, and what the service is asked for',
  async () => {
    const paths = ['/moved/a?q=1', '/movedaway', '/gone-to/x?y=2', '/secure/z?q', '/bare/a?b', '/user/ann/cards?deck=1'];

    const seen = await compare({ file: 'redirects-rewrites.yaml', applications: { 8001: {} } }, async (side) => ({
      old: await side.ask(10_000, { host: 'old.example', path: '/a/b?c' }),
      redirects: await askAll(
        side,
        10_000,
        paths.map((path) => ({ path, host: 'shop.example:8080' })),
      ),
      rewrites: await askAll(side, 10_000, [
        { path: '/api/v1?x=/api/' },
        { path: '/api/' },
        { path: '/host/a' },
        { path: '/from-header', headers: { 'x-to': 'header.example' } },
        { path: '/from-header' },
        { path: '/told/a?b' },
        { path: '/regex/a?b=c' },
        { path: '/exact?z' },
      ]),
    }));

    expect(statuses([seen.old, ...seen.redirects])).toEqual([302, 301, 301, 303, 308, 307, 301]);
    expect(seen.rewrites.map(({ body }: Seen) => (body as { url: string }).url)).toEqual([
      ...['/v1?x=/api/', '/', '/host/a', '/from-header', '/from-header', '/told/a?b', '/was/a?b=c', '/replaced?z'],
    ]);
  },
  TEST_MS,
);

test(
  'retries-timeouts.yaml: what is tried again, and how long anybody waits',
  async () => {
    const seen = await compare(
      {
        file: 'retries-timeouts.yaml',
        applications: {
          8001: {
            behaviour: (request, response, hit) => {
              const { pathname, searchParams } = new URL(request.url!, 'http://any');
              if (pathname === '/flaky/twice' && searchParams.has('fail')) response.statusCode = hit <= 2 ? 503 : 200;
              else if (searchParams.has('status')) response.statusCode = Number(searchParams.get('status'));
              if (pathname === '/slow') return;
              if (pathname === '/reset/always') {
                request.socket.destroy();
                return;
              }
              if (pathname === '/try-again' && searchParams.has('hang')) return;
              echo(8001)(request, response, hit);
            },
          },
        },
      },
      async (side) => {
        const step = async (ask: Ask): Promise<unknown> => {
          const before = side.hits(8001);
          const seenHere = await side.ask(10_000, ask);
          const tries = side.hits(8001) - before;
          // A second try is told what is left of the time, to the millisecond.
          const told = (seenHere.body as { headers: Record<string, string[]> }).headers;
          const left = Number(told['x-envoy-expected-rq-timeout-ms']?.[0]);
          delete told['x-envoy-expected-rq-timeout-ms'];
          const { 'content-length': _length, ...headers } = seenHere.headers;
          return {
            path: ask.path,
            seen: { ...seenHere, headers },
            tries,
            told: tries === 1 ? left === 15_000 : left <= 15_000 && left > 10_000,
          };
        };
        const own = async (ask: Ask): Promise<unknown> => {
          const before = side.hits(8001);
          const { status } = await side.ask(10_000, ask);
          return { path: ask.path, status, tries: side.hits(8001) - before };
        };
        return [
          await step({ path: '/flaky/twice?fail' }),
          await step({ path: '/flaky?status=500' }),
          await step({ path: '/flaky?status=404' }),
          await step({ path: '/codes?status=418' }),
          await step({ path: '/codes?status=503' }),
          await step({ path: '/gateway?status=504', method: 'PUT', body: 'kept for the second try' }),
          await step({ path: '/gateway?status=500' }),
          await step({ path: '/else?status=503', headers: { 'x-envoy-retry-on': '5xx', 'x-envoy-max-retries': '1' } }),
          await own({ path: '/slow' }),
          await own({ path: '/try-again?hang' }),
          await own({ path: '/reset/always' }),
          await own({ path: '/away' }),
        ];
      },
      // Envoy closes the connection of a try that it gives up, ours takes the answer's rest and goes on with it.
      { unequalStats: /^cluster\.app\.(upstream_cx_(total|http1_total|destroy)|upstream_cx_destroy_.*|upstream_rq_pending_total)$/ },
    );

    expect(seen.map(({ tries }: { tries: number }) => tries).slice(0, 6)).toEqual([3, 4, 1, 2, 1, 2]);
    expect(seen.slice(8).map(({ status }: { status: number }) => status)).toEqual([504, 504, 503, 503]);
  },
  TEST_MS,
);

test(
  'direct-response.yaml: answers without a service, with headers on top',
  async () => {
    const seen = await compare(
      {
        file: 'direct-response.yaml',
        applications: { 8001: {} },
        prepare: ({ directory }) => writeFileSync(join(directory, 'page.html'), '<h1>page</h1>\n'),
      },
      (side) =>
        askAll(side, 10_000, [
          { path: '/robots.txt' },
          { path: '/robots.txt', method: 'HEAD' },
          { path: '/closed', method: 'POST', body: 'x' },
          { path: '/empty' },
          { path: '/file' },
          { path: '/typed' },
          { path: '/app' },
        ]),
      // Envoy answers before it has looked at the body, which is there with the head.
      { unequalStats: /downstream_rq_(rx_reset|response_before_rq_complete)$/ },
    );

    expect(statuses(seen)).toEqual([200, 200, 503, 204, 200, 200, 200]);
    expect(seen[4].body).toBe('<h1>page</h1>\n');
  },
  TEST_MS,
);

test(
  'local-reply.yaml: what the proxy says itself is rewritten by status, what a service says is not',
  async () => {
    const failing: NonNullable<Setup['applications']>[number] = {
      behaviour: (_request, response) => {
        response.statusCode = 404;
        response.end('the service says so');
      },
    };

    const seen = await compare({ file: 'local-reply.yaml', applications: { 8001: failing } }, (side) =>
      askAll(side, 10_000, [{ path: '/none' }, { path: '/empty' }, { path: '/app' }]),
    );

    expect(statuses(seen)).toEqual([410, 503, 404]);
    expect(seen[0].body).toEqual({ status: 410, message: 'nothing here any more' });
    expect(seen[2].body).toBe('the service says so');
  },
  TEST_MS,
);

test(
  'priorities-localities.yaml: priorities, localities and endpoints get their share',
  async () => {
    const seen = await compare(
      { file: 'priorities-localities.yaml', applications: { 8001: {}, 8002: {} } },
      async (side) => {
        const share = async (path: string, count: number): Promise<number> =>
          applications(
            await askAll(
              side,
              10_000,
              Array.from({ length: count }, () => ({ path })),
            ),
          ).filter((one) => one === 8001).length / count;
        return {
          first: await share('/first', 20),
          failedOver: await share('/failed-over', 20),
          zones: Math.abs((await share('/zones', 200)) - 0.75) < 0.16,
          weights: Math.abs((await share('/weights', 200)) - 0.75) < 0.03,
          nobody: await side.ask(10_000, { path: '/nobody' }),
        };
      },
      // Ours closes connections to peers that say nothing about time-outs after 3 s without use.
      { unequalStats: /^cluster\.zones\.|upstream_cx_(active|destroy|destroy_local|idle_timeout)$/ },
    );

    expect(seen).toMatchObject({
      first: 1,
      failedOver: 0,
      zones: true,
      weights: true,
      nobody: { status: 503, body: 'no healthy upstream' },
    });
  },
  TEST_MS,
);

test(
  'dynamic-files.yaml: what is moved into place is in force, and a broken file changes nothing',
  async () => {
    const seen = await compare(
      {
        file: 'dynamic-files.yaml',
        applications: { 8001: {}, 8002: {} },
        prepare: ({ moveIn }) => {
          moveIn('dynamic-files.lds.yaml', 'lds.yaml');
          moveIn('dynamic-files.cds.yaml', 'cds.yaml');
        },
      },
      async (side) => {
        const counted = async (stat: string, atLeast: number): Promise<void> =>
          until(`${side.name} has ${stat} ${atLeast}`, 15_000, async () => ((await side.stats()).get(stat) ?? 0) >= atLeast);
        const before = await side.ask(10_000);
        side.moveIn('dynamic-files.cds-next.yaml', 'cds.yaml');
        await counted('cluster_manager.cds.update_success', 2);
        const after = await side.ask(10_000);
        side.moveIn('broken.yaml', 'cds.yaml');
        await until('the broken file was read', 15_000, async () => {
          const stats = await side.stats();
          return (stats.get('cluster_manager.cds.update_rejected') ?? 0) + (stats.get('cluster_manager.cds.update_failure') ?? 0) >= 1;
        });
        return { before, after, still: await side.ask(10_000), active: (await side.stats()).get('cluster_manager.active_clusters') };
      },
      // Envoy forgets answers by code when a cluster is replaced; how often a file is looked at is its own affair.
      { unequalStats: /^cluster\.app\.upstream_rq_(200|2xx)$|update_(attempt|failure)$/ },
    );

    expect(applications([seen.before, seen.after, seen.still])).toEqual([8001, 8002, 8002]);
    expect(seen.active).toBe(2);
  },
  TEST_MS,
);

const TYPES: Readonly<Record<Kind, string>> = {
  listener: 'envoy.config.listener.v3.Listener',
  route: 'envoy.config.route.v3.RouteConfiguration',
  virtualHost: 'envoy.config.route.v3.VirtualHost',
  cluster: 'envoy.config.cluster.v3.Cluster',
  endpoints: 'envoy.config.endpoint.v3.ClusterLoadAssignment',
  secret: 'envoy.extensions.transport_sockets.tls.v3.Secret',
};

/** Resources as a control plane sends them, from YAML of one resource each. */
function wire(version: string, resources: readonly (readonly [Kind, string])[]): EncodedResource[] {
  return resources.map(([kind, yaml]) => {
    const text = `resources:\n- { "@type": type.googleapis.com/${TYPES[kind]}, ${yaml} }\n`;
    const parsed = parseResourceFile(text, { format: 'yaml', file: 'test', kind });
    if (parsed.errors[0] !== undefined) throw parsed.errors[0];
    const { typeUrl, name, bytes } = encodeResource(kind, parsed.resources[0]!.resource as never);
    return { typeUrl, name, bytes, version };
  });
}

const ADS = '{ resource_api_version: V3, ads: {} }';
const MANAGER =
  '"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in';
const ROUTER = '{ name: router, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }';

const published = (side: Pick<Side, 'port'>, version: string, application: number): EncodedResource[] =>
  wire(version, [
    [
      'listener',
      `name: in, address: { socket_address: { address: 127.0.0.1, port_value: ${side.port(10_000)} } }, filter_chains: [{ filters: [{ name: http, typed_config: { ${MANAGER}, http_filters: [${ROUTER}], rds: { route_config_name: routes, config_source: ${ADS} } } }] }]`,
    ],
    [
      'route',
      `name: routes, virtual_hosts: [{ name: all, domains: ["*"], response_headers_to_add: [{ header: { key: x-version, value: "${version}" } }], routes: [{ match: { prefix: / }, route: { cluster: app } }] }]`,
    ],
    ['cluster', `name: app, type: EDS, connect_timeout: 1s, eds_cluster_config: { eds_config: ${ADS} }`],
    [
      'endpoints',
      `cluster_name: app, endpoints: [{ locality: { region: r }, load_balancing_weight: 1, lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: ${side.port(application)} } } } }] }]`,
    ],
  ]);

test(
  'control-plane.yaml: configuration from a control plane stays when it goes away, and is followed again when it comes back',
  async () => {
    const [port] = (await freePorts(1)) as [number];
    let plane: TestControlPlane | undefined;

    const seen = await compare(
      {
        file: 'control-plane.yaml',
        applications: { 8001: {}, 8002: {} },
        served: { 8500: port },
        prepare: async (side) => {
          plane?.close();
          plane = await controlPlane(published(side, 'one', 8001), { port });
        },
      },
      async (side) => {
        const first = await side.ask(10_000);
        plane!.close();
        await until(`${side.name} knows that the control plane is away`, 20_000, async () => {
          return (await side.stats()).get('control_plane.connected_state') === 0;
        });
        const away = await side.ask(10_000);
        plane = await controlPlane(published(side, 'two', 8002), { port });
        await until(`${side.name} follows again`, 60_000, async () => (await side.ask(10_000)).headers['x-version']?.[0] === 'two');
        return { first, away, back: await side.ask(10_000), connected: (await side.stats()).get('control_plane.connected_state') };
      },
      // How often it was asked until it was back differs.
      { unequalStats: /^(http\.in|cluster\.(app|xds)|listener\.)|update_/, statsMin: 5 },
    );

    expect(applications([seen.first, seen.away, seen.back])).toEqual([8001, 8001, 8002]);
    expect(seen.connected).toBe(1);
  },
  TEST_MS,
);

test(
  'sds-files.yaml: certificate and roots from secret files, and a renewed one when its file is moved into place',
  async () => {
    const seen = await compare(
      {
        file: 'sds-files.yaml',
        prepare: ({ moveIn }) => {
          moveIn('sds-files.certificate.yaml', 'sds-certificate.yaml');
          moveIn('sds-files.roots.yaml', 'sds-roots.yaml');
        },
      },
      async (side) => {
        const ask = { sni: 'server.example', clientCertificate: 'client' } as const;
        const before = await side.ask(10_000, ask);
        side.moveIn('sds-files.certificate-next.yaml', 'sds-certificate.yaml');
        await until(`${side.name} shows the renewed certificate`, 15_000, async () => (await side.ask(10_000, ask)).peer === 'renewed');
        const stranger = await side.ask(10_000, { ...ask, clientCertificate: 'stranger' });
        return { before, after: await side.ask(10_000, ask), stranger: stranger.status };
      },
      { unequalStats: /^(http\.secure|listener\.)/, statsMin: 5 },
    );

    expect(seen).toMatchObject({ before: { peer: 'server', body: 'secure' }, after: { peer: 'renewed', status: 200 }, stranger: 'closed' });
  },
  TEST_MS,
);

test(
  'fault.yaml: aborts and delays where they are asked for',
  async () => {
    const seen = await compare({ file: 'fault.yaml', applications: { 8001: {} } }, async (side) => {
      const answers = await askAll(side, 10_000, [
        { path: '/' },
        { path: '/', headers: { 'x-break': 'please' } },
        { path: '/teapot' },
        { path: '/asked' },
        { path: '/asked', headers: { 'x-envoy-fault-abort-request': '429' } },
        { path: '/asked', headers: { 'x-envoy-fault-abort-request': 'often' } },
      ]);
      const start = performance.now();
      answers.push(await side.ask(10_000, { path: '/late' }));
      return { answers, waited: performance.now() - start >= 95 };
    });

    expect(statuses(seen.answers)).toEqual([200, 503, 418, 200, 429, 200, 200]);
    expect(seen.waited).toBe(true);
  },
  TEST_MS,
);

test(
  'rbac.yaml: rules by method, path, header and address, and routes with rules of their own',
  async () => {
    const seen = await compare({ file: 'rbac.yaml', applications: { 8001: {} } }, (side) =>
      askAll(side, 10_000, [
        { path: '/' },
        { path: '/admin/users' },
        { path: '/', method: 'POST' },
        { path: '/', method: 'POST', headers: { 'x-role': 'writer' }, body: 'x' },
        { path: '/', method: 'DELETE', headers: { 'x-role': 'writer' } },
        { path: '/local' },
        { path: '/open', method: 'DELETE' },
      ]),
    );

    expect(statuses(seen)).toEqual([200, 403, 403, 200, 403, 403, 200]);
  },
  TEST_MS,
);

test(
  'local-rate-limit.yaml: buckets of the listener and of a route',
  async () => {
    const seen = await compare({ file: 'local-rate-limit.yaml', applications: { 8001: {} } }, (side) =>
      askAll(
        side,
        10_000,
        ['/', '/', '/dear', '/dear', '/', '/', '/'].map((path) => ({ path })),
      ),
    );

    expect(statuses(seen)).toEqual([200, 200, 200, 503, 200, 429, 429]);
  },
  TEST_MS,
);

test(
  'cors.yaml: preflights are answered, and origins that may call are told so',
  async () => {
    const preflight = (origin: string, path = '/'): Ask => ({
      method: 'OPTIONS',
      path,
      headers: { origin, 'access-control-request-method': 'PUT' },
    });

    const seen = await compare({ file: 'cors.yaml', applications: { 8001: {} } }, (side) =>
      askAll(side, 10_000, [
        preflight('https://site.example'),
        preflight('https://a.partner.example'),
        preflight('https://evil.example'),
        preflight('https://site.example', '/closed'),
        { headers: { origin: 'https://site.example' } },
        { headers: { origin: 'https://evil.example' } },
        {},
        { method: 'OPTIONS', headers: { origin: 'https://site.example' } },
      ]),
    );

    expect(seen[0].headers['access-control-allow-origin']).toEqual(['https://site.example']);
    expect(seen[2].headers['access-control-allow-origin']).toBeUndefined();
  },
  TEST_MS,
);

test(
  'headers.yaml: what is added, replaced, appended and removed on each level',
  async () => {
    const seen = await compare(
      {
        file: 'headers.yaml',
        applications: {
          8001: {
            behaviour: (request, response, hit) => {
              response.setHeader('x-powered-by', 'test');
              response.setHeader('x-inner', 'inner');
              response.setHeader('x-seen', 'service');
              echo(8001)(request, response, hit);
            },
          },
        },
      },
      async (side) => {
        const answers = await askAll(side, 10_000, [
          { path: '/', headers: { 'x-secret': '1', 'x-level': 'client', 'x-filter': 'client' } },
          { path: '/over?a=1', headers: { 'x-drop': '1', 'x-once': 'client', 'x-level': 'client' } },
          {
            path: '/over',
            method: 'PUT',
            body: 'x',
            headers: { 'x-forwarded-for': '10.0.0.1', 'x-forwarded-proto': 'https', 'x-envoy-internal': 'true' },
          },
          { path: '/', headers: { 'x-envoy-retry-on': '5xx', upgrade: 'other', 'proxy-connection': 'close' } },
        ]);
        // Envoy writes the machine's own address where the client is on loopback.
        for (const { body, headers } of answers) {
          const told = (body as { headers: Record<string, string[]> }).headers;
          told['x-forwarded-for'] = [String(told['x-forwarded-for']).replace(/[0-9.]+$/, 'ADDRESS')];
          delete (headers as Record<string, unknown>)['content-length'];
        }
        return answers;
      },
    );

    expect(statuses(seen)).toEqual([200, 200, 200, 200]);
    expect(seen[1].body.headers['x-level']).toEqual(['route', 'host', 'routes']);
  },
  TEST_MS,
);

test(
  'tcp.yaml: bytes both ways, half closes, and an endpoint that is away',
  async () => {
    const talk = (port: number, text: string): Promise<string> =>
      new Promise((resolve) => {
        const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
        let got = '';
        socket.on('error', () => resolve(`${got} error`));
        socket.on('data', (chunk: Buffer) => (got += chunk.toString()));
        socket.on('end', () => {
          socket.end();
          resolve(got);
        });
        socket.on('connect', () => void socket.end(text));
      });

    const seen = await compare(
      { file: 'tcp.yaml', applications: { 8001: { tcp: true } } },
      async (side) => {
        const split: string[] = [];
        for (let i = 0; i < 60; i++) split.push(await talk(side.port(10_001), 'x'));
        const through = split.filter((text) => text === 'x').length;
        return {
          plain: (await talk(side.port(10_000), 'a'.repeat(300_000))).length,
          // Five standard deviations of 60 draws at a quarter are 17.
          share: Math.abs(through - 15) <= 17,
          // By a reset or by an end, whichever comes first in Envoy.
          away: (await talk(side.port(10_002), 'nobody hears')).replace(' error', ''),
        };
      },
      { unequalStats: /^(tcp\.split|cluster\.(echo|away))\./, statsMin: 10 },
    );

    expect(seen).toEqual({ plain: 300_000, share: true, away: '' });
  },
  TEST_MS,
);

test(
  'admin-stats.yaml: circuit breakers, statistics by other names, and what the admin port says',
  async () => {
    const seen = await compare({ file: 'admin-stats.yaml', applications: { 8001: {} } }, async (side) => {
      const answers = await askAll(side, 10_000, [{ path: '/' }, { path: '/missing' }]);
      const full = withoutText(await side.ask(10_000, { path: '/none' }));
      const json = async (path: string): Promise<any> => JSON.parse((await side.admin(path)).text);
      const dump = await json('/config_dump');
      const info = await json('/server_info');
      const clusters = await json('/clusters?format=json');
      return {
        answers,
        full,
        ready: await side.admin('/ready'),
        types: dump.configs.map((one: Record<string, unknown>) => one['@type']),
        cluster: dump.configs[1].static_clusters[0].cluster.name,
        state: info.state,
        node: {
          id: info.node.id,
          cluster: info.node.cluster,
          locality: { ...info.node.locality, sub_zone: '' },
          metadata: info.node.metadata,
        },
        names: clusters.cluster_statuses.map(({ name }: { name: string }) => name).sort(),
        host: clusters.cluster_statuses.find(({ name }: { name: string }) => name === 'app').host_statuses[0].health_status,
        locality: clusters.cluster_statuses.find(({ name }: { name: string }) => name === 'app').host_statuses[0].locality,
        filtered: (await side.admin('/stats?filter=shown-as.upstream_rq_(200|total)$&usedonly')).text,
        prometheus: (await side.admin('/stats/prometheus?filter=upstream_rq_total')).text
          .match(/^envoy_cluster_upstream_rq_total\{.*$/gm)
          ?.sort(),
        listeners: (await side.admin('/listeners')).text.replaceAll(/\d{5}/g, 'PORT'),
        get: (await side.admin('/quitquitquit')).status,
        runtime: (await json('/runtime')).entries,
        missing: (await side.admin('/no-such-thing')).status,
      };
    });

    expect(seen.full.status).toBe(503);
    expect(seen.filtered).toBe('cluster.shown-as.upstream_rq_200: 1\ncluster.shown-as.upstream_rq_total: 1\n');
  },
  TEST_MS,
);

test(
  'health-outliers.yaml: what fails its checks or its requests gets nothing more',
  async () => {
    const sick: NonNullable<Setup['applications']>[number] = {
      behaviour: (request, response, hit) => {
        if (request.url === '/health' || request.url!.startsWith('/watched')) response.statusCode = 503;
        echo(8002)(request, response, hit);
      },
    };

    const seen = await compare(
      { file: 'health-outliers.yaml', applications: { 8001: {}, 8002: sick, 8003: {}, 8004: sick } },
      async (side) => {
        await until(
          'the sick endpoint is known',
          10_000,
          async () => ((await side.stats()).get('cluster.checked.membership_healthy') ?? 2) === 1,
        );
        const checked = applications(
          await askAll(
            side,
            10_000,
            Array.from({ length: 10 }, () => ({ path: '/checked' })),
          ),
        );
        const watched = statuses(
          await askAll(
            side,
            10_000,
            Array.from({ length: 20 }, () => ({ path: '/watched' })),
          ),
        );
        return { checked, errors: watched.filter((status) => status === 503).length, last: watched.slice(-5) };
      },
      { unequalStats: /health_check|^cluster\.checked\.upstream|^cluster\.(checked|watched)\.(lb|upstream_cx)/ },
    );

    expect(seen).toEqual({ checked: Array.from({ length: 10 }, () => 8001), errors: 3, last: [200, 200, 200, 200, 200] });
  },
  TEST_MS,
);

test('a file that needs what is not built is refused with the name of the extension and the list of what there is', async () => {
  const text = readFileSync(new URL('envoy-files/not-built.yaml', import.meta.url), 'utf8');

  const ours = await refusal('meshwork', '', text);

  expect(ours.code).toBe(1);
  expect(ours.output).toContain('listener "in"');
  expect(ours.output).toContain('envoy.extensions.filters.http.lua.v3.Lua is not built in; there are ');
  expect(ours.output).toContain('envoy.extensions.filters.http.router.v3.Router');
}, 60_000);
