/** What a client of xDS says of its resources, and what its files may say of its sources, by the numbers of the project's reference. */
import { expect, test } from '@jest/globals';
import { nodeOf } from '../../proxy/boot.ts';
import { parseProxyOptions } from '../../proxy/options.ts';
import { parseBootstrap } from '../../xds/resources/bootstrap.ts';
import { playClient } from './xds-client-script.ts';
import { declareRules } from './xds-script.ts';
import type { ClientRow } from './xds-client-script.ts';

const ROWS: readonly ClientRow[] = [
  {
    rule: 30,
    behaviour: 'a resource that the server deletes is gone',
    mode: 'delta',
    steps: [
      ['opened', 'CDS', '*'],
      ['receive', 'CDS', '1', 'a=1', 'b=1'],
      ['accept'],
      ['updates', 'CDS a=1 b=1'],
      ['receive', 'CDS', '2', '-a'],
      ['updates', 'CDS -a'],
    ],
  },
  {
    rule: 45,
    behaviour: 'a secret that comes again under its name takes the place of the old one',
    mode: 'sotw',
    steps: [
      ['opened', 'SDS', 'default'],
      ['receive', 'SDS', '1', 'default=1'],
      ['accept'],
      ['receive', 'SDS', '2', 'default=2'],
      ['accept'],
      ['updates', 'SDS default=1', 'SDS default=2'],
    ],
  },
  ...(['sotw', 'delta'] as const).map((mode): ClientRow => ({
    rule: 47,
    behaviour: 'a resource is REQUESTED, then ACKED or NACKED, and DOES_NOT_EXIST when it never came',
    mode,
    steps: [
      ['subscribe', 'EDS', 'a', 'b', 'c'],
      ['connect'],
      ['sends', mode === 'sotw' ? 'EDS [a b c] node' : 'EDS +a +b +c node'],
      ['status', 'EDS', { a: 'REQUESTED', b: 'REQUESTED', c: 'REQUESTED' }],
      ['receive', 'EDS', '1', 'a=1', 'b=1'],
      ['reject', 'b: no'],
      ['status', 'EDS', { a: 'ACKED', b: 'NACKED', c: 'REQUESTED' }],
      ['wait', 15_000],
      ['accept'],
      ['status', 'EDS', { a: 'ACKED', b: 'NACKED', c: 'DOES_NOT_EXIST' }],
    ],
  })),
  {
    rule: 51,
    behaviour: 'a name of a federation is a name like any other on the stream',
    mode: 'delta',
    steps: [
      ['opened', 'EDS', 'xdstp://a/e/b?x'],
      ['receive', 'EDS', '1', 'xdstp://a/e/b?x=7'],
      ['accept'],
      ['status', 'EDS', { 'xdstp://a/e/b?x': 'ACKED' }],
    ],
  },
];

declareRules('an xDS client', ROWS, playClient);

function bootstrapOf(yaml: string): ReturnType<typeof parseBootstrap>['bootstrap'] {
  return parseBootstrap(yaml, { format: 'yaml', file: 'b.yaml' }).bootstrap;
}

const cluster = (name: string, eds: string): string =>
  `static_resources: { clusters: [{ name: "${name}", type: EDS, eds_cluster_config: ${eds} }] }`;

test.each([
  ['ads', '{ ads: {} }'],
  ['self', '{ self: {} }'],
])('rule 43: endpoints may come from %s', (_what, source) => {
  expect(bootstrapOf(cluster('a', `{ eds_config: ${source} }`)).static.clusters[0]!.resource).toMatchObject({
    type: 'EDS',
    edsServiceName: 'a',
  });
});

test('rule 51: a cluster with an xdstp name must say what its endpoints are called', () => {
  const name = 'xdstp://authority/envoy.config.cluster.v3.Cluster/a';
  expect(() => bootstrapOf(cluster(name, '{ eds_config: { ads: {} } }'))).toThrow(
    /eds_cluster_config\.service_name: is required, since the cluster has an xdstp name/,
  );
  expect(bootstrapOf(cluster(name, '{ service_name: a, eds_config: { ads: {} } }')).static.clusters[0]!.resource).toMatchObject({
    name,
    edsServiceName: 'a',
  });
});

test.each([
  ['', 15_000],
  [', initial_fetch_timeout: 0s', 0],
  [', initial_fetch_timeout: 2.5s', 2_500],
])('rule 36: the first answer of a source with "%s" is waited for %d ms, 0 = for ever', (field, ms) => {
  const { dynamic } = bootstrapOf(`
node: { id: a }
dynamic_resources:
  ads_config: { api_type: GRPC, grpc_services: [{ envoy_grpc: { cluster_name: xds } }] }
  lds_config: { ads: {}${field} }
static_resources: { clusters: [{ name: xds, load_assignment: { cluster_name: xds, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 1 } } } }] }] } }] }
`);

  expect(dynamic.lds).toMatchObject({ kind: 'ads', initialFetchTimeoutMs: ms });
});

test('rule 41: the sidecar says that it takes wrapped resources, and not that it lacks overprovisioning, which it has', () => {
  const parsed = parseProxyOptions(['-c', 'b.yaml']);
  expect(nodeOf(bootstrapOf('node: { id: a }'), parsed, '1').clientFeatures).toEqual(['xds.config.resource-in-sotw']);
});
