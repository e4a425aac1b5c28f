/** Data planes that are not ours take what the control plane builds: a proxyless gRPC client, and a real Envoy where there is one. */
import { afterEach, expect, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../../cli/ports.ts';
import { CONNECTIONS_MAX, launchEnvoy, withEnvoy } from '../support/envoy.ts';
import { eventually } from '../support/mesh.ts';
import { cleanUp, startForTest, temporaryDirectory } from './control-plane-harness.ts';
import type { Running } from './control-plane-harness.ts';

const GRPC_CLIENT = fileURLToPath(new URL('../support/grpc-xds-client.ts', import.meta.url));
const cleanups: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const undo of cleanups.splice(0).reverse()) await undo();
  await cleanUp();
});

/** A control plane that reads these documents. */
async function controlPlaneOf(...documents: string[]): Promise<Running> {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'mesh.yaml'), documents.join('\n---\n'));
  const controlPlane = await startForTest({ files: [directory] });
  expect(controlPlane.world.current.problems.filter((problem) => problem.severity !== 'warning')).toEqual([]);
  return controlPlane;
}

interface ProxyView {
  readonly state: string;
  readonly message: string;
  readonly flavour: string;
  readonly types: Readonly<Record<string, { readonly state: string }>>;
}

async function proxyView(controlPlane: Running): Promise<ProxyView | undefined> {
  return (await controlPlane.call('GET', '/api/v1/proxies')).json.proxies[0] as ProxyView | undefined;
}

test('a proxyless gRPC client follows a GRPCRoute: the split by weight, and a method that goes elsewhere', async () => {
  const [first, second] = (await freePorts(2)) as [number, number];
  const service = (name: string, selector: string): string =>
    `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { selector: { ${selector} }, ports: [{ name: grpc, port: 9000, targetPort: grpc }] } }`;
  const instance = (version: string, port: number): string =>
    `{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: echo-${version}, labels: { app: echo, version: ${version} } }, spec: { address: 127.0.0.1, ports: { grpc: ${port} } } }`;
  const controlPlane = await controlPlaneOf(
    service('echo', 'app: echo'),
    service('echo-v1', 'app: echo, version: v1'),
    service('echo-v2', 'app: echo, version: v2'),
    instance('v1', first),
    instance('v2', second),
    `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: echo }
spec:
  parentRefs: [{ group: "", kind: Service, name: echo }]
  rules:
    - { matches: [{ method: { service: test.Echo, method: Only2 } }], backendRefs: [{ name: echo-v2 }] }
    - { backendRefs: [{ name: echo-v1, weight: 3 }, { name: echo-v2, weight: 1 }] }`,
  );
  const { port } = controlPlane.addresses.xds;
  const bootstrap = {
    xds_servers: [{ server_uri: `127.0.0.1:${port}`, channel_creds: [{ type: 'insecure' }] }],
    node: { id: 'client.default', locality: {} },
  };

  const output = await new Promise<string>((resolve, reject) => {
    const env = { ...process.env, GRPC_XDS_BOOTSTRAP_CONFIG: JSON.stringify(bootstrap) };
    execFile(
      process.execPath,
      [GRPC_CLIENT, 'xds:///echo:9000', String(first), String(second)],
      { env, timeout: 60_000 },
      (error, stdout, stderr) => (error === null ? resolve(stdout) : reject(new Error(`${error.message}\n${stderr}`))),
    );
  });

  const answers = JSON.parse(output) as { Ping: Record<string, number>; Only2: Record<string, number> };
  expect(answers.Only2).toEqual({ v2: 200 });
  // 200 draws at 3:1; five standard deviations are 31.
  expect(answers.Ping['v1']! + answers.Ping['v2']!).toBe(200);
  expect(Math.abs(answers.Ping['v1']! - 150)).toBeLessThanOrEqual(31);
  expect(await proxyView(controlPlane)).toMatchObject({ flavour: 'grpc', state: 'acked', message: '' });
}, 90_000);

/** Every kind of route, filter and policy at once, around one instance without a sidecar. */
const EVERYTHING = (applicationPort: number, outboundPort: number, inboundPort: number): string => `
{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: ring }, spec: { selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: mixed }, spec: { selector: { app: me }, ports: [{ name: tcp-db, port: 5432, targetPort: 5432 }, { name: grpc, port: 9000, targetPort: 9000 }] } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: web-1, labels: { app: web } }, spec: { address: 127.0.0.1, ports: { http: ${applicationPort} } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: me, labels: { app: me } }, spec: { address: 127.0.0.1, ports: { http: 3000 }, sidecar: { outboundPort: ${outboundPort}, inboundPort: ${inboundPort} } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh }, spec: { accessLog: json, tracing: { otlpEndpoint: "http://127.0.0.1:9", samplingPercent: 5 } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: BackendPolicy, metadata: { name: ring }, spec: { targetRefs: [{ kind: Service, name: ring }], loadBalancing: { policy: RingHash, hashOn: { cookie: { name: u, ttl: 10s } } }, outlierDetection: { successRate: {} }, healthCheck: { tcp: {} }, retryBudget: { percent: 10 } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: BackendPolicy, metadata: { name: web }, spec: { targetRefs: [{ kind: Service, name: web }], slowStart: { window: 10s }, circuitBreaker: { maxRequests: 100 }, connection: { maxRequestsPerConnection: 1000 } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: FaultInjection, metadata: { name: f }, spec: { targetRefs: [{ kind: Service, name: web }], headers: [{ name: x-fault, value: "yes" }], delay: { duration: 10ms, percent: 50 }, abort: { httpStatus: 418 } } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: RateLimit, metadata: { name: l }, spec: { targetRefs: [{ kind: Service, name: mixed }], requests: 100 } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: a }, spec: { rules: [{ from: [{ principals: ["*"], notPrincipals: ["spiffe://x/*"], namespaces: [default] }], to: [{ methods: [GET], paths: ["/a*", "*.html", /x], notPaths: [/y], hosts: ["web*"], ports: [3000] }], when: [{ header: X-A, values: ["1", "2*"] }] }] } }
---
{ apiVersion: meshwork.dev/v1alpha1, kind: AuthorizationPolicy, metadata: { name: d }, spec: { action: DENY, rules: [{ to: [{ paths: [/admin] }] }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web }
spec:
  parentRefs: [{ group: "", kind: Service, name: web }]
  rules:
    - { matches: [{ path: { value: /old } }], filters: [{ type: RequestRedirect, requestRedirect: { scheme: https, hostname: new.example, port: 8443, path: { type: ReplacePrefixMatch, replacePrefixMatch: /new }, statusCode: 308 } }] }
    - { matches: [{ path: { value: /api/ } }], filters: [{ type: URLRewrite, urlRewrite: { hostname: h.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: / } } }], backendRefs: [{ name: web, weight: 3, filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { add: [{ name: X-B, value: "1" }], remove: [X-C] } }] }, { name: ring, weight: 1 }], timeouts: { request: 2s, backendRequest: 1s }, retry: { attempts: 2, codes: [503], backoff: 10ms } }
    - { matches: [{ path: { type: RegularExpression, value: "/i/[0-9]+" }, queryParams: [{ name: q, type: RegularExpression, value: "a.*" }], headers: [{ name: X-V, value: v1 }], method: GET }], filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /all } } }, { type: RequestMirror, requestMirror: { backendRef: { name: ring, port: 80 }, fraction: { numerator: 1, denominator: 3 } } }, { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: X-R, value: "1" }] } }], backendRefs: [{ name: web }] }
    - { backendRefs: [{ name: web }, { name: ring }] }
`;

function envoyBootstrap(xdsPort: number, adminPort: number): object {
  const http2 = {
    '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    explicit_http_config: { http2_protocol_options: {} },
  };
  const endpoint = { address: { socket_address: { address: '127.0.0.1', port_value: xdsPort } } };
  const ads = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '5s' };
  return {
    node: { id: 'me.default', cluster: 'me', metadata: { NAMESPACE: 'default' } },
    admin: { address: { socket_address: { address: '127.0.0.1', port_value: adminPort } } },
    overload_manager: { resource_monitors: [CONNECTIONS_MAX] },
    dynamic_resources: {
      ads_config: {
        api_type: 'DELTA_GRPC',
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [{ envoy_grpc: { cluster_name: 'xds' } }],
      },
      cds_config: ads,
      lds_config: ads,
    },
    static_resources: {
      clusters: [
        {
          name: 'xds',
          type: 'STATIC',
          connect_timeout: '1s',
          typed_extension_protocol_options: { 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': http2 },
          load_assignment: { cluster_name: 'xds', endpoints: [{ lb_endpoints: [{ endpoint }] }] },
        },
      ],
    },
  };
}

withEnvoy(
  'a real Envoy acknowledges every kind of route, filter and policy, warns of nothing, and does what they say',
  async () => {
    const [outboundPort, inboundPort, adminPort] = (await freePorts(3)) as [number, number, number];
    const application = createServer((incoming, outgoing) =>
      outgoing.end(JSON.stringify({ url: incoming.url, headers: incoming.headers })),
    );
    await new Promise<void>((resolve) => application.listen(0, '127.0.0.1', resolve));
    cleanups.push(
      () => application.closeAllConnections(),
      () => void application.close(),
    );
    const address = application.address();
    const controlPlane = await controlPlaneOf(EVERYTHING(typeof address === 'object' ? address!.port : 0, outboundPort, inboundPort));
    const config = join(temporaryDirectory(), 'envoy.json');
    writeFileSync(config, JSON.stringify(envoyBootstrap(controlPlane.addresses.xds.port, adminPort)));
    const envoy = launchEnvoy(config);
    cleanups.push(() => envoy.kill());
    const call = (
      path: string,
      headers: Readonly<Record<string, string>> = {},
    ): Promise<{ status: number; location: string | undefined; header: string | undefined; body: string }> =>
      new Promise((resolve, reject) => {
        const outgoing = request(
          { host: '127.0.0.1', port: outboundPort, path, headers: { host: 'web', ...headers }, agent: false },
          (response) => {
            let body = '';
            response.on('data', (chunk: Buffer) => (body += chunk.toString()));
            response.on('error', reject);
            response.on('end', () =>
              resolve({
                status: response.statusCode ?? 0,
                location: response.headers.location,
                header: response.headers['x-r']?.toString(),
                body,
              }),
            );
          },
        );
        outgoing.on('error', reject);
        outgoing.end();
      });

    await eventually('Envoy has listeners, routes, clusters and endpoints', 60_000, async () => {
      const types = (await proxyView(controlPlane))?.types ?? {};
      if (Object.values(types).some((type) => type.state === 'rejected')) throw new Error(JSON.stringify(await proxyView(controlPlane)));
      return ['CDS', 'EDS', 'LDS', 'RDS'].every((type) => types[type]?.state === 'acked');
    });
    await eventually('Envoy serves', 30_000, () =>
      call('/').then(
        (answer) => answer.status === 200,
        () => false,
      ),
    );

    expect(await call('/old/x')).toMatchObject({ status: 308, location: 'https://new.example:8443/new/x' });
    expect(JSON.parse((await call('/api/y?z=1', { 'x-c': 'gone' })).body)).toMatchObject({ url: '/y?z=1', headers: { host: 'h.example' } });
    const whole = await call('/i/12?q=abc', { 'x-v': 'v1' });
    expect(whole.header).toBe('1');
    expect(JSON.parse(whole.body)).toMatchObject({ url: '/all?q=abc' });
    expect((await call('/', { 'x-fault': 'yes' })).status).toBe(418);
    expect(await proxyView(controlPlane)).toMatchObject({ flavour: 'envoy', message: '' });
    expect(envoy.warnings()).toEqual([]);
  },
  150_000,
);
