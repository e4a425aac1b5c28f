/** A set of resources in which something is named and missing says what and by whom. */
import { expect, test } from '@jest/globals';
import { parseBootstrap } from './resources/bootstrap.ts';
import { consistent } from './consistent.ts';
import type { RouteConfiguration, Snapshot } from './snapshot.ts';

const { bootstrap } = parseBootstrap(
  `
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 0.0.0.0, port_value: 1}}
    filter_chains:
    - filter_chain_match: {destination_port: 1}
      filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, weighted_clusters: {clusters: [{name: tcp, weight: 1}]}}}]
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
            validation_context_sds_secret_config: {name: elsewhere, sds_config: {path_config_source: {path: /x}}}
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          rds: {route_config_name: r, config_source: {ads: {}}}
          http_filters: [{name: envoy.filters.http.router}]
  clusters:
  - name: eds
    type: EDS
    eds_cluster_config: {eds_config: {ads: {}}, service_name: svc}
  - name: all
    cluster_type: {name: envoy.clusters.aggregate, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [eds, inner]}}
`,
  { format: 'yaml' },
);

const byName = <T extends { name: string }>(list: readonly { resource: T }[]) =>
  new Map(list.map(({ resource }) => [resource.name, resource]));

const ROUTE = {
  name: 'r',
  virtualHosts: [
    {
      routes: [
        { action: { kind: 'forward', target: { kind: 'cluster', cluster: 'eds' }, mirrors: [{ cluster: 'mirror' }] } },
        { action: { kind: 'forward', target: { kind: 'weighted', clusters: [{ cluster: 'split' }] }, mirrors: [] } },
        { action: { kind: 'direct', status: 404 } },
      ],
    },
  ],
} as unknown as RouteConfiguration;

const snapshot: Snapshot = {
  listeners: byName(bootstrap.static.listeners),
  clusters: byName(bootstrap.static.clusters),
  routes: new Map([['r', ROUTE]]),
  virtualHosts: new Map(),
  endpoints: new Map(),
  secrets: new Map(),
};

test('each missing resource is told with who names it', () => {
  expect(consistent(snapshot)).toEqual([
    'secret "default" is missing, named by listener "l"',
    'cluster "tcp" is missing, named by listener "l"',
    'cluster "mirror" is missing, named by route "r"',
    'cluster "split" is missing, named by route "r"',
    'endpoints "svc" is missing, named by cluster "eds"',
    'cluster "inner" is missing, named by cluster "all"',
  ]);
});

test('without the routes, the listener that names them is told', () => {
  expect(consistent({ ...snapshot, routes: new Map() })).toContain('route "r" is missing, named by listener "l"');
});

test('secrets that are not part of the set are not asked for', () => {
  const { secrets: _secrets, ...rest } = snapshot;

  expect(consistent(rest).filter((problem) => problem.startsWith('secret'))).toEqual([]);
});
