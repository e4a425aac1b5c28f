/** The bootstrap file of a sidecar that our control plane drives: Envoy's format, written as JSON. */

export interface SidecarIdentity {
  /** `<workload>.<namespace>`, the node id. */
  readonly nodeId: string;
  readonly service: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface SidecarPorts {
  readonly bindAddress: string;
  readonly outbound: number;
  readonly inbound: number;
  readonly admin: number;
}

export interface XdsTarget {
  /** `host:port` of the control plane's mTLS port. */
  readonly address: string;
  /** Roots that the control plane's certificate must chain to. */
  readonly bundlePem: string;
  readonly serverIdentity: string;
  /** Shown on the first connection; afterwards the certificate speaks. */
  readonly joinToken: string;
  /** For when the token was used and no certificate came of it, or the certificate ran out while the control plane was away. */
  readonly leaseCredential: string;
}

/** Bootstrap text for `meshwork proxy -c`. It holds the join token: write it with mode 0600. */
export function sidecarBootstrap(identity: SidecarIdentity, ports: SidecarPorts, xds: XdsTarget): string {
  const ads = { ads: {}, resource_api_version: 'V3', initial_fetch_timeout: '0s' };
  return JSON.stringify(
    {
      node: { id: identity.nodeId, cluster: identity.service, metadata: nodeMetadata(identity, ports) },
      admin: { address: socketAddress('127.0.0.1', ports.admin) },
      dynamic_resources: {
        lds_config: ads,
        cds_config: ads,
        ads_config: {
          api_type: 'DELTA_GRPC',
          transport_api_version: 'V3',
          set_node_on_first_message_only: true,
          grpc_services: [
            {
              envoy_grpc: { cluster_name: 'xds' },
              initial_metadata: [
                { key: 'authorization', value: `Bearer ${xds.joinToken}` },
                { key: 'x-meshwork-lease', value: xds.leaseCredential },
              ],
            },
          ],
        },
      },
      static_resources: { clusters: [xdsCluster(xds)] },
    },
    null,
    2,
  );
}

function nodeMetadata(identity: SidecarIdentity, ports: SidecarPorts): Record<string, unknown> {
  return {
    NAMESPACE: identity.namespace,
    NAME: identity.nodeId.split('.')[0],
    WORKLOAD_NAME: identity.labels['app'] ?? identity.service,
    SERVICE_ACCOUNT: identity.serviceAccount,
    LABELS: identity.labels,
    BIND_ADDRESS: ports.bindAddress,
    OUTBOUND_PORT: ports.outbound,
    INBOUND_PORT: ports.inbound,
    ADMIN_PORT: ports.admin,
  };
}

function xdsCluster(xds: XdsTarget): Record<string, unknown> {
  const colon = xds.address.lastIndexOf(':');
  const host = xds.address.slice(0, colon).replace(/^\[|\]$/g, '');
  return {
    name: 'xds',
    type: /^[\d.]+$|:/.test(host) ? 'STATIC' : 'STRICT_DNS',
    connect_timeout: '5s',
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
    load_assignment: {
      cluster_name: 'xds',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: socketAddress(host, Number(xds.address.slice(colon + 1))) } }] }],
    },
    transport_socket: {
      name: 'envoy.transport_sockets.tls',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext',
        common_tls_context: {
          tls_params: { tls_minimum_protocol_version: 'TLSv1_3' },
          tls_certificate_sds_secret_configs: [{ name: 'default', sds_config: { ads: {}, resource_api_version: 'V3' } }],
          validation_context: {
            trusted_ca: { inline_string: xds.bundlePem },
            match_typed_subject_alt_names: [{ san_type: 'URI', matcher: { exact: xds.serverIdentity } }],
          },
        },
      },
    },
  };
}

function socketAddress(address: string, port: number): Record<string, unknown> {
  return { socket_address: { address, port_value: port } };
}
