/** One Envoy bootstrap for Envoy and for us: everything that a mesh has switched on. */
import type { Hop, PeerStart } from './peer.ts';

const TYPE = 'type.googleapis.com/';
const HCM = 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager';

/** Two weighted clusters with the same endpoint, retry policy, limits, outlier detection, request ids, trace context. */
export function envoyBootstrap(options: Pick<PeerStart, 'hop' | 'listenPort' | 'upstreamPort'>, adminPort: number): string {
  const { hop, listenPort, upstreamPort } = options;
  return JSON.stringify({
    node: {
      id: 'bench',
      cluster: 'bench',
      metadata: { NAMESPACE: 'default', WORKLOAD_NAME: 'bench', LABELS: { app: 'bench', version: 'v1' } },
    },
    admin: { address: socketAddress(adminPort) },
    static_resources: {
      listeners: [
        {
          name: 'bench',
          address: socketAddress(listenPort),
          traffic_direction: 'OUTBOUND',
          filter_chains: [
            {
              filters: [
                { name: 'envoy.filters.network.http_connection_manager', typed_config: { '@type': TYPE + HCM, ...connectionManager() } },
              ],
              ...transportSocket('transport_socket', downstreamTls(hop)),
            },
          ],
        },
      ],
      clusters: ['app-a', 'app-b'].map((name) => cluster(name, upstreamPort, hop)),
    },
  });
}

function connectionManager(): object {
  return {
    stat_prefix: 'bench',
    generate_request_id: true,
    // Trace context is continued or begun; without a provider nothing is exported (Envoy begins none then, we do).
    tracing: {},
    normalize_path: true,
    merge_slashes: true,
    route_config: {
      name: 'bench',
      virtual_hosts: [
        {
          name: 'app',
          domains: ['*'],
          routes: [
            { match: { path: '/never' }, direct_response: { status: 418 } },
            {
              name: 'app',
              match: { prefix: '/' },
              route: {
                weighted_clusters: {
                  clusters: [
                    { name: 'app-a', weight: 90 },
                    { name: 'app-b', weight: 10 },
                  ],
                },
                timeout: '15s',
                retry_policy: {
                  retry_on: 'connect-failure,refused-stream,reset,retriable-status-codes',
                  retriable_status_codes: [503],
                  num_retries: 2,
                  retry_host_predicate: [
                    {
                      name: 'envoy.retry_host_predicates.previous_hosts',
                      typed_config: { '@type': `${TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate` },
                    },
                  ],
                },
              },
            },
          ],
        },
      ],
    },
    http_filters: [
      { name: 'envoy.filters.http.router', typed_config: { '@type': `${TYPE}envoy.extensions.filters.http.router.v3.Router` } },
    ],
  };
}

function cluster(name: string, upstreamPort: number, hop: Hop): object {
  const limit = { max_connections: 100_000, max_pending_requests: 100_000, max_requests: 100_000, max_retries: 100 };
  return {
    name,
    type: 'STATIC',
    lb_policy: 'LEAST_REQUEST',
    connect_timeout: '5s',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: socketAddress(upstreamPort) } }] }] },
    circuit_breakers: { thresholds: [limit] },
    outlier_detection: { consecutive_5xx: 5, interval: '10s', base_ejection_time: '30s', max_ejection_percent: 50 },
    ...transportSocket('transport_socket', upstreamTls(hop)),
  };
}

function socketAddress(port: number): object {
  return { socket_address: { address: '127.0.0.1', port_value: port } };
}

function transportSocket(key: string, tls: { type: string; config: object } | undefined): object {
  if (tls === undefined) return {};
  return {
    [key]: {
      name: 'envoy.transport_sockets.tls',
      typed_config: { '@type': `${TYPE}envoy.extensions.transport_sockets.tls.v3.${tls.type}`, ...tls.config },
    },
  };
}

function common(hop: Exclude<Hop, { kind: 'plain' }>): object {
  return {
    // What a mesh's control plane sends: TLS between sidecars. To Envoy it is a name among others.
    alpn_protocols: ['istio', 'http/1.1'],
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    tls_certificates: [{ certificate_chain: { filename: hop.tls.chain }, private_key: { filename: hop.tls.key } }],
    validation_context: { trusted_ca: { filename: hop.tls.roots } },
  };
}

function downstreamTls(hop: Hop): { type: string; config: object } | undefined {
  return hop.kind === 'terminate'
    ? { type: 'DownstreamTlsContext', config: { require_client_certificate: true, common_tls_context: common(hop) } }
    : undefined;
}

function upstreamTls(hop: Hop): { type: string; config: object } | undefined {
  return hop.kind === 'originate'
    ? { type: 'UpstreamTlsContext', config: { sni: 'mesh.test', common_tls_context: common(hop) } }
    : undefined;
}
