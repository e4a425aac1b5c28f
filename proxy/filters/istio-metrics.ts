/** Istio's standard metrics: label sets are bound the first time they occur, so a request costs two look-ups and four adds. */
import { filterMetadata, serviceOfCluster, UNKNOWN_WORKLOAD, workloadOfEndpoint, workloadOfPeer } from './workload.ts';
import { isGrpc } from '../http1/error-response.ts';
import type { Exchange } from './format.ts';
import type { Observer } from './observe.ts';
import type { ServiceLabels, WorkloadLabels } from './workload.ts';
import type { DownstreamConnection } from '../service.ts';
import type { Endpoint } from '../upstream/endpoint.ts';
import type { Counter, Histogram, Labels, Registry } from '../../lib/metrics.ts';
import type { Cluster } from '../../xds/snapshot.ts';

export interface IstioMetricsOptions {
  readonly registry: Registry;
  /** `source` on outbound listeners, `destination` on inbound ones. */
  readonly reporter: 'source' | 'destination';
  readonly self: WorkloadLabels;
  readonly clusterOf: (name: string) => Cluster | undefined;
}

export interface Handles {
  readonly requests: Counter;
  readonly durationMs: Histogram;
  readonly requestBytes: Histogram;
  readonly responseBytes: Histogram;
}

/**
 * What is bound for one pair of ends: by response code, and by code, flags and protocol where these are not the usual ones. It hangs on the
 * endpoint (outbound) or the connection (inbound), so that a request finds it without a look-up.
 */
export interface BoundMetrics {
  readonly registry: Registry;
  readonly generation: number;
  readonly clusterName: string;
  readonly next: BoundMetrics | undefined;
  /** The code that was seen last, which is nearly always the next one too. */
  lastStatus: number;
  last: Handles | undefined;
  readonly plain: Map<number, Handles>;
  readonly other: Map<string, Handles>;
}

/** Ends of one pair, from which the labels are made when a new code occurs. */
export interface Ends {
  readonly source: WorkloadLabels;
  readonly destination: WorkloadLabels;
  readonly service: ServiceLabels;
  readonly security: 'mutual_tls' | 'none' | 'unknown';
}

/** Records `istio_requests_total`, `istio_request_duration_milliseconds`, `istio_request_bytes` and `istio_response_bytes`. */
export function istioMetrics(options: IstioMetricsOptions): Observer {
  const outbound = options.reporter === 'source';
  // Requests that reached no endpoint.
  const nobody: Anchor = { metrics: undefined };
  return {
    done: (exchange) => {
      const { request, response } = exchange;
      const info = request.info;
      const bound = boundOf(outbound ? (info.endpoint ?? nobody) : request.connection, info.clusterName, options.registry);
      const status = response?.status ?? 0;
      const handles =
        info.responseFlags === '' && !isGrpc(request)
          ? plainOf(bound, status, exchange, options)
          : otherOf(bound, status, exchange, options);
      handles.requests.inc();
      handles.durationMs.record(exchange.durationMs);
      handles.requestBytes.record(info.requestBytes);
      handles.responseBytes.record(info.responseBytes);
    },
  };
}

/** What carries bound metrics. */
interface Anchor {
  metrics?: BoundMetrics | undefined;
}

/** What is bound to the anchor for a cluster. When series expired, all that was bound before is let go. */
function boundOf(anchor: Anchor, clusterName: string, registry: Registry): BoundMetrics {
  const first = anchor.metrics;
  const generation = registry.generation;
  for (let bound = first; bound !== undefined && bound.generation === generation; bound = bound.next)
    if (bound.clusterName === clusterName && bound.registry === registry) return bound;
  const next = first?.generation === generation ? first : undefined;
  const made = { registry, generation, clusterName, next, lastStatus: -1, last: undefined, plain: new Map(), other: new Map() };
  anchor.metrics = made;
  return made;
}

function plainOf(bound: BoundMetrics, status: number, exchange: Exchange, options: IstioMetricsOptions): Handles {
  if (status === bound.lastStatus) return bound.last!;
  let handles = bound.plain.get(status);
  if (handles === undefined) bound.plain.set(status, (handles = bind(exchange, options)));
  bound.lastStatus = status;
  bound.last = handles;
  return handles;
}

function otherOf(bound: BoundMetrics, status: number, exchange: Exchange, options: IstioMetricsOptions): Handles {
  const { request, response } = exchange;
  const key = `${status} ${request.info.responseFlags} ${isGrpc(request) ? `grpc ${response?.headers.get('grpc-status') ?? ''}` : 'http'}`;
  const known = bound.other.get(key);
  if (known !== undefined) return known;
  const handles = bind(exchange, options);
  if (bound.other.size < OTHER_MAX) bound.other.set(key, handles);
  return handles;
}

/** Combinations of code and flags that are kept per pair; more are looked up in the registry each time. */
const OTHER_MAX = 64;

function bind(exchange: Exchange, options: IstioMetricsOptions): Handles {
  const { request, response } = exchange;
  const { registry } = options;
  const grpc = isGrpc(request);
  const ends = findEnds(request.info.clusterName, request.info.endpoint, request.connection, options);
  const labels: Labels = {
    ...endLabels(options.reporter, ends),
    request_protocol: grpc ? 'grpc' : 'http',
    response_code: String(response?.status ?? 0),
    grpc_response_status: grpc ? (response?.headers.get('grpc-status') ?? '') : '',
    response_flags: request.info.responseFlags || '-',
    connection_security_policy: ends.security,
  };
  const make = { pinned: false };
  return {
    requests: registry.counter('istio_requests_total', labels, { ...make, help: 'Requests that were answered or given up.' }),
    durationMs: registry.histogram('istio_request_duration_milliseconds', labels, { ...make, help: 'Time from head to last byte.' }),
    requestBytes: registry.histogram('istio_request_bytes', labels, { ...make, help: 'Bytes of request bodies.' }),
    responseBytes: registry.histogram('istio_response_bytes', labels, { ...make, help: 'Bytes of response bodies.' }),
  };
}

/** Who talks to whom. On the inbound side the peer is who its certificate proves it to be; on the outbound side it is the endpoint that was chosen. */
export function findEnds(
  clusterName: string,
  endpoint: Endpoint | undefined,
  connection: Pick<DownstreamConnection, 'tls'>,
  options: Pick<IstioMetricsOptions, 'reporter' | 'self' | 'clusterOf'>,
): Ends {
  const cluster = options.clusterOf(clusterName);
  const service = clusterName === '' ? NO_SERVICE : serviceOfCluster(clusterName, cluster?.metadata);
  if (options.reporter === 'destination') {
    const tls = connection.tls;
    return {
      source: workloadOfPeer(tls?.peerUri),
      destination: tls?.localUri === undefined ? options.self : { ...options.self, principal: tls.localUri },
      service,
      security: tls?.peerHash === undefined ? 'none' : 'mutual_tls',
    };
  }
  if (endpoint === undefined) return { source: options.self, destination: UNKNOWN_WORKLOAD, service, security: 'unknown' };
  const secured = cluster !== undefined && isSecured(cluster, endpoint);
  return {
    source: options.self,
    destination: workloadOfEndpoint(endpoint.metadata, undefined),
    service,
    security: secured ? 'mutual_tls' : 'none',
  };
}

/** The labels that all of Istio's metrics share, in Istio's order. */
export function endLabels(reporter: 'source' | 'destination', ends: Ends): Labels {
  const { source, destination, service } = ends;
  return {
    reporter,
    source_workload: source.workload,
    source_canonical_service: source.canonicalService,
    source_canonical_revision: source.canonicalRevision,
    source_workload_namespace: source.namespace,
    source_principal: source.principal,
    source_app: source.app,
    source_version: source.version,
    source_cluster: source.cluster,
    destination_workload: destination.workload,
    destination_workload_namespace: destination.namespace,
    destination_principal: destination.principal,
    destination_app: destination.app,
    destination_version: destination.version,
    destination_service: service.host,
    destination_canonical_service: destination.canonicalService,
    destination_canonical_revision: destination.canonicalRevision,
    destination_service_name: service.name,
    destination_service_namespace: service.namespace,
    destination_cluster: destination.cluster,
  };
}

const NO_SERVICE: ServiceLabels = { host: 'unknown', name: 'unknown', namespace: 'unknown' };

/** The first transport socket match that the endpoint's metadata meets decides, else the cluster's own TLS. */
function isSecured(cluster: Cluster, endpoint: Endpoint): boolean {
  const wanted = filterMetadata(endpoint.metadata)['envoy.transport_socket_match'];
  const values = typeof wanted === 'object' && wanted !== null && !Array.isArray(wanted) ? (wanted as Record<string, unknown>) : {};
  const match = cluster.tlsMatches.find((candidate) => Object.entries(candidate.match).every(([key, value]) => values[key] === value));
  return (match === undefined ? cluster.tls : match.tls) !== undefined;
}
