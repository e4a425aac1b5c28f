import { expect, test } from '@jest/globals';
import { createAuthority } from '../certs/authority.ts';
import { ManualClock } from '../lib/clock.ts';
import type { Cluster, Secret } from '../xds/snapshot.ts';
import { controlPlaneTarget } from './control-plane-target.ts';
import type { ResourceStore } from './resource-store.ts';
import { createTlsContexts } from './tls/context.ts';
import type { ApiSource } from '../xds/bootstrap.ts';

function setUp(metadata: Readonly<Record<string, string>>) {
  const clock = new ManualClock({ wallMs: 1_800_000_000_000 });
  const secrets = new Map<string, Secret>();
  const tls = {
    certificates: [{ kind: 'sds', name: 'default' }],
    matchSubjectAltNames: [],
    alpn: [],
    minVersion: 'TLSv1_3',
    maxVersion: 'TLSv1_3',
    sni: '',
    autoHostSni: false,
  };
  const cluster = {
    name: 'xds',
    type: 'STATIC',
    tls,
    loadAssignment: { localities: [{ priority: 0, endpoints: [{ address: { host: '127.0.0.1', port: 15012 } }] }] },
  } as unknown as Cluster;
  const store = { clusters: new Map([['xds', { value: cluster }]]), snapshot: () => ({ secrets }) } as unknown as ResourceStore;
  const source = {
    services: [
      { target: { kind: 'cluster', cluster: 'xds' }, initialMetadata: Object.entries(metadata).map(([key, value]) => ({ key, value })) },
    ],
  } as unknown as ApiSource;
  const target = controlPlaneTarget(source, store, createTlsContexts({ clock }), clock, 'ads_config');
  const authority = createAuthority({ trustDomain: 'test', clock });
  const certify = (ttlMs: number): void => {
    const leaf = authority.issue('spiffe://test/ns/default/sa/shop', { ttlMs });
    secrets.set('default', { name: 'default', content: { kind: 'certificate', chainPem: leaf.chainPem, keyPem: leaf.keyPem! } });
  };
  return { target, clock, certify };
}

test('the join token is shown once, the lease until a certificate is there and again when it is over, and neither beside a certificate', () => {
  const { target, clock, certify } = setUp({ authorization: 'Bearer mwj_once', 'x-meshwork-lease': 'mwl_lease', 'x-other': 'kept' });

  const first = target.metadata();
  const second = target.metadata();
  certify(60_000);
  const certified = target.metadata();
  clock.advance(61_000);
  const over = target.metadata();

  expect(first).toEqual({ authorization: 'Bearer mwj_once', 'x-other': 'kept' });
  expect(second).toEqual({ authorization: 'Bearer mwl_lease', 'x-other': 'kept' });
  expect(certified).toEqual({ 'x-other': 'kept' });
  expect(over).toEqual({ authorization: 'Bearer mwl_lease', 'x-other': 'kept' });
});

test('a bootstrap with a token alone shows it as often as it is asked', () => {
  const { target } = setUp({ authorization: 'Bearer mine' });

  expect([target.metadata(), target.metadata()]).toEqual([{ authorization: 'Bearer mine' }, { authorization: 'Bearer mine' }]);
});
