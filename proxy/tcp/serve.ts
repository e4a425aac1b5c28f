/** The TCP proxy: joins an accepted connection with one to an endpoint, byte for byte (envoy.extensions.filters.network.tcp_proxy.v3). */
import { TLSSocket } from 'node:tls';
import { ConfigError, ProxyError } from '../errors.ts';
import { Headers } from '../headers.ts';
import { newRequestInfo } from '../http1/request.ts';
import { sweepOf } from '../http1/sweep.ts';
import { Splice } from '../http1/tunnel.ts';
import { envoyScope } from '../../lib/metrics-scope.ts';
import { openConnection } from './open.ts';
import type { Socket } from 'node:net';
import type { DialEndpoint } from '../pools.ts';
import type { AcceptedConnection, ServeConnection } from '../listen/chain.ts';
import type { Observer } from '../filters/observe.ts';
import type { ProxyRequest } from '../service.ts';
import type { ClusterPool, ClusterRef } from '../upstream/cluster-pool.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Registry } from '../../lib/metrics.ts';
import type { Random } from '../../lib/random.ts';
import type { TcpProxy } from '../../xds/snapshot.ts';

export interface TcpDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly registry: Registry;
  readonly pool: ClusterPool;
  readonly dial: DialEndpoint;
  /** Access logs and metrics of this filter. */
  readonly observers: readonly Observer[];
}

const ATTEMPTS_MAX = 10;

/** Compiles the filter. Throws ConfigError when it names no cluster or all weights are 0. */
export function compileTcpProxy(config: TcpProxy, path: string, deps: TcpDeps): ServeConnection {
  const choose = compileChoice(config, path, deps);
  const scope = envoyScope(deps.registry, 'tcp', `tcp.${config.statPrefix}`, { envoy_tcp_prefix: config.statPrefix });
  const total = scope.counter('downstream_cx_total');
  const noRoute = scope.counter('downstream_cx_no_route');
  const received = scope.counter('downstream_cx_rx_bytes_total');
  const sent = scope.counter('downstream_cx_tx_bytes_total');
  const attemptsMax = Math.min(ATTEMPTS_MAX, Math.max(1, config.maxConnectAttempts));
  return (connection) => {
    total.inc();
    const { socket } = connection;
    const request = standIn(connection, deps.clock.now());
    socket.pause();
    const over = (error: ProxyError | undefined): void => {
      request.info.requestBytes = socket.bytesRead;
      request.info.responseBytes = socket.bytesWritten;
      received.add(socket.bytesRead);
      sent.add(socket.bytesWritten);
      if (error !== undefined) {
        request.info.responseFlags = error.row.flag;
        request.info.responseDetails = error.row.details;
        deps.log.debug('A TCP connection could not be passed on.', {
          listener: connection.listener,
          cluster: request.info.clusterName,
          error,
        });
      }
      tell(deps, request);
      connection.over();
    };
    const ref = choose();
    if (ref.current === undefined) {
      noRoute.inc();
      request.info.clusterName = ref.name;
      socket.destroy();
      over(new ProxyError('clusterNotFound', ref.name));
      return;
    }
    const gone = (): void => request.abort?.(new ProxyError('downstreamReset'));
    const ignore = (): void => undefined;
    socket.once('close', gone);
    socket.on('error', ignore);
    connection.served = { destroy: () => void socket.destroy() };
    openConnection(ref.current, request, deps, attemptsMax).then(
      (opened) => {
        socket.off('close', gone);
        for (const observer of deps.observers) observer.connected?.(request);
        if (socket.destroyed) {
          opened.socket.destroy();
          opened.released();
          over(undefined);
          return;
        }
        const splice = new Splice(socket, opened.socket, sweepOf(deps.clock), config.idleTimeoutMs);
        splice.start(false, () => {
          opened.released();
          over(undefined);
        });
        connection.served = { destroy: () => splice.close() };
      },
      (thrown: unknown) => {
        reset(socket);
        over(ProxyError.from(thrown));
      },
    );
  };
}

/** The client must not take an error for the end of what it asked for. TLS has an alert of its own for that. */
function reset(socket: Socket): void {
  if (socket instanceof TLSSocket || socket.remoteFamily === undefined) socket.destroy();
  else socket.resetAndDestroy();
}

/** A weighted choice among clusters, drawn once per connection. */
function compileChoice(config: TcpProxy, path: string, deps: TcpDeps): () => ClusterRef {
  const choices = config.clusters.map(({ cluster, weight }) => ({ ref: deps.pool.ref(cluster), weight }));
  const totalWeight = choices.reduce((sum, choice) => sum + choice.weight, 0);
  const [first] = choices;
  if (first === undefined) throw new ConfigError(path, 'must name a cluster');
  if (choices.length === 1) return () => first.ref;
  if (totalWeight <= 0) throw new ConfigError(`${path}.weighted_clusters`, 'at least one weight must be above 0');
  return () => {
    let left = deps.random() * totalWeight;
    for (const choice of choices) {
      left -= choice.weight;
      if (left < 0) return choice.ref;
    }
    return first.ref;
  };
}

/** What balancers, logs and metrics see in place of a request. */
function standIn(connection: AcceptedConnection, nowMs: number): ProxyRequest {
  return {
    connection: {
      id: connection.id,
      remoteAddress: connection.remoteAddress,
      remotePort: connection.remotePort,
      localAddress: connection.localAddress,
      localPort: connection.localPort,
      listener: connection.listener,
      protocol: 'HTTP/1.1',
      tls: connection.tls,
    },
    method: '',
    scheme: connection.tls === undefined ? 'http' : 'https',
    authority: connection.tls?.sni ?? '',
    path: '',
    headers: new Headers(),
    body: undefined,
    upgrade: undefined,
    abort: undefined,
    onInterim: undefined,
    onDone: undefined,
    startMs: nowMs,
    info: newRequestInfo(),
  };
}

function tell(deps: TcpDeps, request: ProxyRequest): void {
  if (deps.observers.length === 0) return;
  const durationMs = deps.clock.now() - request.startMs;
  const exchange = { request, response: undefined, durationMs, startWallMs: deps.clock.wallMs() - durationMs };
  for (const observer of deps.observers) observer.done(exchange);
}
