/** CONNECT on an outbound listener: says yes, looks at what comes, and serves it as HTTP by the same routes or passes it on as bytes. */
import { ProxyError } from '../errors.ts';
import { Headers } from '../headers.ts';
import { serveHttp1 } from '../http1/server.ts';
import { newRequestInfo } from '../http1/request.ts';
import { sweepOf } from '../http1/sweep.ts';
import { Splice } from '../http1/tunnel.ts';
import { detect } from '../listen/detect.ts';
import { openConnection } from './open.ts';
import { socketPair } from './pair.ts';
import type { Http1Settings } from '../http1/settings.ts';
import type { DialEndpoint } from '../pools.ts';
import type { Router } from '../router/router.ts';
import type { ProxyRequest, ProxyResponse, Send } from '../service.ts';
import type { ClusterPool } from '../upstream/cluster-pool.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Socket } from 'node:net';

export interface ConnectInput {
  readonly router: Router;
  readonly settings: Http1Settings;
  readonly outbound: boolean;
}

export interface ConnectDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly clusters: ClusterPool;
  readonly dial: DialEndpoint;
}

const CONNECT_ATTEMPTS_MAX = 3;

/**
 * A route with a connect matcher decides first. Else, on an outbound listener, the client gets a tunnel whose HTTP/1 requests take the same
 * way as those sent to the listener itself (`HTTP_PROXY` of many clients sends CONNECT for http too), and whose other bytes go to the
 * cluster that the authority's route names.
 */
export function compileConnect(input: ConnectInput, deps: ConnectDeps): Send {
  const { router, outbound } = input;
  return (request, reply) => {
    if (request.upgrade !== 'connect' || !outbound || router.match(request) !== undefined) router.send(request, reply);
    else reply.answered(tunnel(request, input, deps));
  };
}

function tunnel(request: ProxyRequest, input: ConnectInput, deps: ConnectDeps): ProxyResponse {
  const [near, far] = socketPair();
  request.info.responseDetails = 'connect_tunnel';
  serveTunnel(far, request, input, deps).catch((error: unknown) => {
    deps.log.debug('A tunnel could not be opened.', { authority: request.authority, error });
    far.destroy();
  });
  return {
    status: 200,
    reason: 'OK',
    headers: new Headers(),
    body: undefined,
    contentLength: undefined,
    tunnel: { socket: near, head: Buffer.alloc(0), closed: () => far.destroy() },
  };
}

async function serveTunnel(socket: Socket, outer: ProxyRequest, input: ConnectInput, deps: ConnectDeps): Promise<void> {
  socket.on('error', () => undefined);
  // A server that speaks first is not HTTP: when the client says nothing, the tunnel is opened all the same.
  const seen = await detect(socket, { tls: true, http: true, timeoutMs: 0, clock: deps.clock });
  if (seen.outcome === 'closed' || seen.outcome === 'malformed') {
    socket.destroy();
    return;
  }
  const [protocol] = seen.applicationProtocols;
  if (seen.transportProtocol !== 'tls' && (protocol === 'http/1.1' || protocol === 'http/1.0')) {
    serveInside(socket, outer, input, deps);
    return;
  }
  await passOn(socket, outer, input, deps);
}

/** HTTP inside a tunnel is served as if it had come to the listener itself. Tunnels do not nest: a CONNECT inside one is refused. */
function serveInside(socket: Socket, outer: ProxyRequest, { router, settings }: ConnectInput, { clock }: ConnectDeps): void {
  const { hooks } = outer.connection;
  const whole = hooks ?? router;
  const served = serveHttp1(socket, undefined, {
    connection: outer.connection,
    send: (request, reply) => whole.send(request, reply),
    settings: {
      ...settings,
      upgradeTypes: settings.upgradeTypes.filter((type) => type !== 'connect'),
      defaultHostForHttp10: outer.authority,
    },
    clock,
    onClose: () => hooks?.insideOver(served),
  });
  hooks?.servedInside(served);
}

async function passOn(socket: Socket, outer: ProxyRequest, { router, settings }: ConnectInput, deps: ConnectDeps): Promise<void> {
  const standIn: ProxyRequest = {
    ...outer,
    method: 'GET',
    path: '/',
    upgrade: undefined,
    headers: new Headers(),
    info: newRequestInfo(),
    onDone: undefined,
  };
  const route = router.match(standIn);
  const cluster = route === undefined || route.cluster === '' ? undefined : deps.clusters.get(route.cluster);
  if (cluster === undefined) throw new ProxyError('routeNotFound', `Host ${JSON.stringify(outer.authority)}.`);
  outer.info.clusterName = cluster.name;
  const gone = (): void => standIn.abort?.(new ProxyError('downstreamReset'));
  socket.once('close', gone);
  const opened = await openConnection(cluster, standIn, deps, CONNECT_ATTEMPTS_MAX);
  socket.off('close', gone);
  outer.info.endpoint = opened.endpoint;
  if (socket.destroyed) {
    opened.socket.destroy();
    opened.released();
    return;
  }
  new Splice(socket, opened.socket, sweepOf(deps.clock), settings.streamIdleTimeoutMs).start(false, () => opened.released());
}
