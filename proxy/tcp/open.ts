/** Opens one raw connection to an endpoint of a cluster, for TCP and for tunnels: picked, counted and limited as requests are. */
import { ProxyError } from '../errors.ts';
import { connectionEvents } from '../upstream/connection-events.ts';
import { tlsOf } from '../pools.ts';
import type { DialEndpoint } from '../pools.ts';
import { countedTls } from '../tls/tls-stats.ts';
import type { ProxyRequest } from '../service.ts';
import type { UpstreamCluster } from '../upstream/cluster.ts';
import type { Endpoint } from '../upstream/endpoint.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Socket } from 'node:net';

export interface OpenConnection {
  readonly socket: Socket;
  readonly endpoint: Endpoint;
  /** Gives the counts back. Call once, when the socket is closed. */
  released(): void;
}

type Events = ReturnType<typeof connectionEvents>;

const EVENTS = new WeakMap<UpstreamCluster, Events>();

export interface OpenDeps {
  readonly dial: DialEndpoint;
  readonly clock: Clock;
}

/**
 * Tries up to `attemptsMax` endpoints one after the other. `request` stands for the connection: balancers read its hash and addresses.
 * `abort` of the request gives the attempt up. Rejects with `ProxyError`.
 */
export async function openConnection(
  cluster: UpstreamCluster,
  request: ProxyRequest,
  { dial, clock }: OpenDeps,
  attemptsMax: number,
): Promise<OpenConnection> {
  request.info.clusterName = cluster.name;
  for (let attempt = 1; ; attempt++) {
    request.info.attemptCount = attempt;
    try {
      return await openOnce(cluster, request, { dial, clock });
    } catch (thrown) {
      const error = ProxyError.from(thrown);
      if (attempt < attemptsMax && error.row.retry === 'always') continue;
      if (error.row.retry === 'always') cluster.stats.connectAttemptsExceeded();
      throw error;
    }
  }
}

function openOnce(cluster: UpstreamCluster, request: ProxyRequest, { dial, clock }: OpenDeps): Promise<OpenConnection> {
  const limits = cluster.limits.DEFAULT;
  const endpoint = cluster.picker(request);
  if (endpoint === undefined) {
    cluster.stats.noneHealthy.inc();
    if (cluster.panic) cluster.stats.panic.inc();
    return Promise.reject(new ProxyError('noHealthyEndpoint'));
  }
  if (!limits.tryConnection())
    return Promise.reject(new ProxyError('overflow', `Cluster ${cluster.name} has all the connections that it may have.`));
  const startMs = clock.now();
  let events = EVENTS.get(cluster);
  if (events === undefined) EVENTS.set(cluster, (events = connectionEvents(cluster.stats.scope)));
  request.info.endpoint = endpoint;
  endpoint.active++;
  events.requestWaits();
  return new Promise((resolve, reject) => {
    const release = (): void => {
      endpoint.active--;
      limits.releaseConnection();
    };
    const dialled = dial(endpoint, cluster.config);
    const secure = tlsOf(cluster.config, endpoint) !== undefined;
    const cancel = (secure ? countedTls(dialled, cluster.stats.tls) : dialled)((error, socket) => {
      request.abort = undefined;
      if (socket === undefined) {
        release();
        events.connectFailed(error!);
        events.waitFailed();
        reject(error!);
        return;
      }
      const openedMs = clock.now();
      events.connectionOpened(openedMs - startMs);
      cluster.stats.rqTotal.inc();
      let over = false;
      resolve({
        socket,
        endpoint,
        released: () => {
          if (over) return;
          over = true;
          release();
          events.bytesMoved(socket.bytesRead, socket.bytesWritten);
          const remote = socket.readableEnded;
          events.connectionClosed({ by: remote ? 'remote' : 'local', busy: !remote, ageMs: clock.now() - openedMs });
        },
      });
    });
    request.abort = (error) => {
      request.abort = undefined;
      cancel();
      release();
      reject(error);
    };
  });
}
