/** Extensions by name, for configurations that carry no typed_config: Envoy's names and those it had before 1.14. */

const HTTP_FILTERS = {
  'envoy.filters.http.router': 'envoy.extensions.filters.http.router.v3.Router',
  'envoy.filters.http.rbac': 'envoy.extensions.filters.http.rbac.v3.RBAC',
  'envoy.filters.http.cors': 'envoy.extensions.filters.http.cors.v3.Cors',
  'envoy.filters.http.fault': 'envoy.extensions.filters.http.fault.v3.HTTPFault',
  'envoy.filters.http.buffer': 'envoy.extensions.filters.http.buffer.v3.Buffer',
  'envoy.filters.http.csrf': 'envoy.extensions.filters.http.csrf.v3.CsrfPolicy',
  'envoy.filters.http.compressor': 'envoy.extensions.filters.http.compressor.v3.Compressor',
  'envoy.filters.http.ext_authz': 'envoy.extensions.filters.http.ext_authz.v3.ExtAuthz',
  'envoy.filters.http.grpc_stats': 'envoy.extensions.filters.http.grpc_stats.v3.FilterConfig',
  'envoy.filters.http.grpc_web': 'envoy.extensions.filters.http.grpc_web.v3.GrpcWeb',
  'envoy.filters.http.header_mutation': 'envoy.extensions.filters.http.header_mutation.v3.HeaderMutation',
  'envoy.filters.http.header_to_metadata': 'envoy.extensions.filters.http.header_to_metadata.v3.Config',
  'envoy.filters.http.health_check': 'envoy.extensions.filters.http.health_check.v3.HealthCheck',
  'envoy.filters.http.jwt_authn': 'envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication',
  'envoy.filters.http.local_ratelimit': 'envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit',
  'envoy.filters.http.lua': 'envoy.extensions.filters.http.lua.v3.Lua',
  'envoy.filters.http.on_demand': 'envoy.extensions.filters.http.on_demand.v3.OnDemand',
  'envoy.filters.http.ratelimit': 'envoy.extensions.filters.http.ratelimit.v3.RateLimit',
  'envoy.filters.http.stateful_session': 'envoy.extensions.filters.http.stateful_session.v3.StatefulSession',
} as const;

const NETWORK_FILTERS = {
  'envoy.filters.network.http_connection_manager': 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
  'envoy.filters.network.tcp_proxy': 'envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy',
  'envoy.filters.network.rbac': 'envoy.extensions.filters.network.rbac.v3.RBAC',
  'envoy.filters.network.ext_authz': 'envoy.extensions.filters.network.ext_authz.v3.ExtAuthz',
  'envoy.filters.network.echo': 'envoy.extensions.filters.network.echo.v3.Echo',
  'envoy.filters.network.sni_cluster': 'envoy.extensions.filters.network.sni_cluster.v3.SniCluster',
} as const;

const LISTENER_FILTERS = {
  'envoy.filters.listener.tls_inspector': 'envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector',
  'envoy.filters.listener.http_inspector': 'envoy.extensions.filters.listener.http_inspector.v3.HttpInspector',
  'envoy.filters.listener.original_dst': 'envoy.extensions.filters.listener.original_dst.v3.OriginalDst',
  'envoy.filters.listener.original_src': 'envoy.extensions.filters.listener.original_src.v3.OriginalSrc',
  'envoy.filters.listener.proxy_protocol': 'envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol',
} as const;

const OTHERS = {
  'envoy.transport_sockets.tls': 'envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
  'envoy.transport_sockets.raw_buffer': 'envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer',
  'envoy.retry_host_predicates.previous_hosts': 'envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate',
  'envoy.access_loggers.file': 'envoy.extensions.access_loggers.file.v3.FileAccessLog',
  'envoy.access_loggers.stdout': 'envoy.extensions.access_loggers.stream.v3.StdoutAccessLog',
  'envoy.access_loggers.stderr': 'envoy.extensions.access_loggers.stream.v3.StderrAccessLog',
} as const;

const OLD_NAMES: Readonly<Record<string, string>> = {
  'envoy.router': 'envoy.filters.http.router',
  'envoy.cors': 'envoy.filters.http.cors',
  'envoy.fault': 'envoy.filters.http.fault',
  'envoy.http.jwt_authn': 'envoy.filters.http.jwt_authn',
  'envoy.buffer': 'envoy.filters.http.buffer',
  'envoy.csrf': 'envoy.filters.http.csrf',
  'envoy.ext_authz': 'envoy.filters.http.ext_authz',
  'envoy.grpc_web': 'envoy.filters.http.grpc_web',
  'envoy.health_check': 'envoy.filters.http.health_check',
  'envoy.lua': 'envoy.filters.http.lua',
  'envoy.rate_limit': 'envoy.filters.http.ratelimit',
  'envoy.http_connection_manager': 'envoy.filters.network.http_connection_manager',
  'envoy.tcp_proxy': 'envoy.filters.network.tcp_proxy',
  'envoy.echo': 'envoy.filters.network.echo',
  'envoy.listener.tls_inspector': 'envoy.filters.listener.tls_inspector',
  'envoy.listener.http_inspector': 'envoy.filters.listener.http_inspector',
  'envoy.listener.original_dst': 'envoy.filters.listener.original_dst',
  'envoy.listener.original_src': 'envoy.filters.listener.original_src',
  'envoy.listener.proxy_protocol': 'envoy.filters.listener.proxy_protocol',
  'envoy.file_access_log': 'envoy.access_loggers.file',
  tls: 'envoy.transport_sockets.tls',
  raw_buffer: 'envoy.transport_sockets.raw_buffer',
};

const TYPES: Readonly<Record<string, string>> = { ...HTTP_FILTERS, ...NETWORK_FILTERS, ...LISTENER_FILTERS, ...OTHERS };

/** Today's name of an extension. */
export function currentName(name: string): string {
  return Object.hasOwn(OLD_NAMES, name) ? OLD_NAMES[name]! : name;
}

/** The message type that an extension of this name is configured by; undefined for names that are not Envoy's. */
export function typeOfName(name: string): string | undefined {
  const current = currentName(name);
  return Object.hasOwn(TYPES, current) ? TYPES[current] : undefined;
}
