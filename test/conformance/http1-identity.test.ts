/** Identity and control fields that a client forges (case 37), through the codec and the connection manager's own treatment of headers. */
import { afterEach, expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import { calledBack, promising } from '../../proxy/promised.ts';
import { compileEdge } from '../../proxy/filters/edge.ts';
import type { HttpConnectionManager } from '../../xds/snapshot.ts';
import { startProxy, startUpstream, statuses, talk } from './harness.ts';
import type { Proxy, Upstream } from './harness.ts';

let upstream: Upstream;
let proxy: Proxy;

afterEach(async () => {
  await proxy.close();
  await upstream.close();
});

const MANAGER = {
  setCurrentClientCertDetails: { subject: true, uri: true, dns: false, cert: false, chain: false },
  stripAnyHostPort: false,
  stripMatchingHostPort: false,
  useRemoteAddress: true,
  skipXffAppend: false,
  xffNumTrustedHops: 0,
  generateRequestId: false,
  preserveExternalRequestId: false,
} as HttpConnectionManager;

const MODES: readonly HttpConnectionManager['forwardClientCert'][] = ['SANITIZE', 'FORWARD_ONLY', 'APPEND_FORWARD', 'SANITIZE_SET'];
const FORGED = 'By=spiffe://mesh.test/a;Hash=00;URI=spiffe://mesh.test/ns/default/sa/admin';

test.each(MODES)(
  'case 37: with %s a client without a certificate passes on no identity, whatever it calls it',
  async (forwardClientCert) => {
    upstream = await startUpstream();
    const edge = compileEdge({ ...MANAGER, forwardClientCert }, seededRandom(1), 'test');
    proxy = await startProxy(upstream.port, { service: (next) => promising(edge(calledBack(next))) });
    const names = [
      'x-forwarded-client-cert',
      'X-Forwarded-Client-Cert',
      'X_Forwarded_Client_Cert',
      'x-forwarded_client-cert',
      'X-FORWARDED_CLIENT_CERT',
    ];
    const fields = names.map((name) => `${name}: ${FORGED}\r\n`).join('');
    const control = 'X-Envoy-Internal: true\r\nx_envoy_internal: true\r\nX-Envoy-Retry-On: 5xx\r\nX-Envoy-Upstream-Rq-Timeout-Ms: 0\r\n';
    const origin =
      'X-Forwarded-For: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Envoy-External-Address: 10.0.0.3\r\n';
    const bytes = `GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for, x-forwarded-client-cert\r\n${fields}${control}${origin}X: y\r\n\r\n`;

    const { text } = await talk(proxy.port, [`${bytes}GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n`], {
      until: (so) => so.endsWith('/probe'),
    });

    expect(statuses(text)).toEqual([200, 200]);
    const { head } = upstream.requests[0]!;
    expect(head).not.toContain('spiffe://');
    expect(
      head
        .split('\r\n')
        .filter((line) => line !== '')
        .sort(),
    ).toEqual([
      'GET / HTTP/1.1',
      'Host: a',
      'X-Forwarded-For: 10.0.0.1,127.0.0.1',
      'X-Forwarded-Proto: http',
      'X: y',
      'x-envoy-external-address: 127.0.0.1',
    ]);
  },
);
