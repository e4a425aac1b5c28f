import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
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
  routes,
  routeTo,
  startApp,
  startTestProxy,
  until,
} from './proxy-harness.ts';
import { TYPE_URLS } from '../../xds/resources/index.ts';
import type { Kind } from '../../xds/resources/index.ts';
import type { Json } from './proxy-harness.ts';

afterEach(closeAll);

/** Files of resources that are moved into their place, as Envoy wants it. */
function directory(): {
  path: (name: string) => string;
  write: (name: string, kind: Kind, version: string, resources: Json[]) => void;
  put: (name: string, text: string) => void;
} {
  const root = mkdtempSync(join(tmpdir(), 'meshwork-files-'));
  onEnd(() => rmSync(root, { recursive: true }));
  const put = (name: string, text: string): void => {
    writeFileSync(join(root, `${name}.new`), text);
    renameSync(join(root, `${name}.new`), join(root, name));
  };
  return {
    path: (name) => join(root, name),
    put,
    write: (name, kind, version, resources) =>
      put(
        name,
        JSON.stringify({
          version_info: version,
          resources: resources.map((resource) => ({ '@type': TYPE_URLS[kind], ...resource })),
        }),
      ),
  };
}

test('listeners and clusters come from files, follow what is moved into their place, and a bad file changes nothing', async () => {
  const [one, two] = [await startApp('one'), await startApp('two')];
  const files = directory();
  files.write('lds.json', 'listener', '1', [httpListener('in', { route_config: routes([routeTo('app')]) })]);
  files.write('cds.json', 'cluster', '1', [cluster('app', [one.port])]);
  const proxy = await startTestProxy({
    node: { id: 'a', cluster: 'a' },
    dynamic_resources: {
      lds_config: { path_config_source: { path: files.path('lds.json') } },
      cds_config: { path: files.path('cds.json') },
    },
  });
  const port = proxy.port();
  expect((await call(port, '/')).body).toBe('one');

  files.write('cds.json', 'cluster', '2', [cluster('app', [two.port])]);
  await until(async () => (await call(port, '/')).body === 'two', 'the cluster changed');
  const refusals = async (): Promise<number> => {
    const text = (await proxy.admin('/stats?filter=cds.update_(failure|rejected)')).text;
    return [...text.matchAll(/: (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
  };
  files.write('cds.json', 'cluster', '3', [{ ...cluster('app', [one.port]), lb_policy: 'CLEVER' }]);
  await until(async () => (await refusals()) === 1, 'the bad file was refused');
  files.put('cds.json', '{"resources": [');
  await until(async () => (await refusals()) === 2, 'the broken file was refused');

  expect((await call(port, '/')).body).toBe('two');
  const dump = JSON.parse((await proxy.admin('/config_dump')).text) as {
    configs: { version_info?: string; dynamic_active_clusters?: { version_info: string }[] }[];
  };
  expect(dump.configs[1]!.dynamic_active_clusters!.map((entry) => entry.version_info)).toEqual(['2']);
});

test('a certificate that comes from a file is rotated by moving a new one into its place, and connections there are stay', async () => {
  const app = await startApp('app');
  const ca = testCa(Date.now(), 'root');
  const files = directory();
  const secret = (uri: string): Json => {
    const leaf = testLeaf(ca, Date.now(), [uri]);
    return {
      name: 'server',
      tls_certificate: { certificate_chain: { inline_string: leaf.pem }, private_key: { inline_string: leaf.keyPem } },
    };
  };
  files.write('sds.json', 'secret', '1', [secret('spiffe://a.test/one')]);
  const tls = {
    name: 'tls',
    typed_config: {
      '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
      common_tls_context: {
        tls_certificate_sds_secret_configs: [{ name: 'server', sds_config: { path_config_source: { path: files.path('sds.json') } } }],
      },
    },
  };
  const proxy = await startTestProxy({
    node: { id: 'a', cluster: 'a' },
    static_resources: {
      listeners: [
        {
          name: 'in',
          address: address(0),
          filter_chains: [{ filters: [manager({ route_config: routes([routeTo('app')]) })], transport_socket: tls }],
        },
      ],
      clusters: [cluster('app', [app.port])],
    },
  });
  const first = await secured(proxy.port());
  expect(first.names).toBe('URI:spiffe://a.test/one');

  files.write('sds.json', 'secret', '2', [secret('spiffe://a.test/two')]);
  await until(async () => {
    const next = await secured(proxy.port());
    return next.names === 'URI:spiffe://a.test/two';
  }, 'new connections get the new certificate');
  files.write('sds.json', 'secret', '3', [
    { name: 'server', tls_certificate: { certificate_chain: { inline_string: 'x' }, private_key: { inline_string: 'y' } } },
  ]);
  await until(
    async () => (await proxy.admin('/stats?filter=^sds.update_rejected')).text === 'sds.update_rejected: 1\n',
    'the bad certificate was refused',
  );

  expect((await secured(proxy.port())).names).toBe('URI:spiffe://a.test/two');
  expect(await first.get()).toMatch(/^HTTP\/1\.1 200 OK/);
  expect((await proxy.admin('/certs')).text).toContain('spiffe://a.test/two');
  expect((await proxy.admin('/config_dump')).text).not.toContain('PRIVATE KEY');
});

/** A TLS connection, the names of the server, and a request over it. */
function secured(port: number): Promise<{ names: string; get: () => Promise<string> }> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    socket.on('error', reject);
    onEnd(() => void socket.destroy());
    socket.on('secureConnect', () =>
      resolve({
        names: socket.getPeerCertificate().subjectaltname ?? '',
        get: () =>
          new Promise((answered) => {
            socket.once('data', (chunk: Buffer) => answered(chunk.toString('latin1')));
            socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
          }),
      }),
    );
  });
}
