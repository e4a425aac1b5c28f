/** Opens one raw connection to an endpoint of a cluster, for TCP and for tunnels: picked, counted and limited as requests are. */
import { ProxyError } from '../errors.ts';
import { connectionEvents } from '../pools.ts';
import type { DialEndpoint } from '../pools.ts';
import type { ProxyRequest } from '../service.ts';
import type { UpstreamCluster } from '../upstream/cluster.ts';
import type { Endpoint } from '../upstream/endpoint.ts';
import type { PoolEvents } from '../upstream/pool.ts';
import type { Socket } from 'node:net';

export interface OpenConnection {
  readonly socket: Socket;
  readonly endpoint: Endpoint;
  /** Gives the counts back. Call once, when the socket is closed. */
  released(): void;
}

const EVENTS = new WeakMap<UpstreamCluster, PoolEvents>();

/**
 * Tries up to `attemptsMax` endpoints one after the other. `request` stands for the connection: balancers read its hash and addresses.
 * `abort` of the request gives the attempt up. Rejects with `ProxyError`.
 */
export async function openConnection(
  cluster: UpstreamCluster,
  request: ProxyRequest,
  dial: DialEndpoint,
  attemptsMax: number,
): Promise<OpenConnection> {
  request.info.clusterName = cluster.name;
  for (let attempt = 1; ; attempt++) {
    request.info.attemptCount = attempt;
    try {
      return await openOnce(cluster, request, dial);
    } catch (thrown) {
      const error = ProxyError.from(thrown);
      if (attempt >= attemptsMax || error.row.retry !== 'always') throw error;
    }
  }
}

function openOnce(cluster: UpstreamCluster, request: ProxyRequest, dial: DialEndpoint): Promise<OpenConnection> {
  const limits = cluster.limits.DEFAULT;
  const endpoint = cluster.picker(request);
  if (endpoint === undefined) {
    cluster.stats.noneHealthy.inc();
    return Promise.reject(new ProxyError('noHealthyEndpoint'));
  }
  if (!limits.tryConnection())
    return Promise.reject(new ProxyError('overflow', `Cluster ${cluster.name} has all the connections that it may have.`));
  let events = EVENTS.get(cluster);
  if (events === undefined) EVENTS.set(cluster, (events = connectionEvents(cluster.stats.scope)));
  request.info.endpoint = endpoint;
  endpoint.active++;
  return new Promise((resolve, reject) => {
    const release = (): void => {
      endpoint.active--;
      limits.releaseConnection();
    };
    const cancel = dial(
      endpoint,
      cluster.config,
    )((error, socket) => {
      request.abort = undefined;
      if (socket === undefined) {
        release();
        events.connectFailed?.(error!);
        reject(error!);
        return;
      }
      events.connectionOpened?.();
      cluster.stats.rqTotal.inc();
      let over = false;
      resolve({
        socket,
        endpoint,
        released: () => {
          if (over) return;
          over = true;
          release();
          events.connectionClosed?.();
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
