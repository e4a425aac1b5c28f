/** The end of a CONNECT whose route says so: a raw connection to the cluster, handed over as the answer's tunnel. */
import { ProxyError } from '../errors.ts';
import { Headers } from '../headers.ts';
import { openConnection } from './open.ts';
import type { OpenConnection, OpenDeps } from './open.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import type { UpstreamCluster } from '../upstream/cluster.ts';

/** Answers 200 once the endpoint is connected. One attempt: retries are the route's. Rejects with `ProxyError`. */
export async function openTunnel(request: ProxyRequest, cluster: UpstreamCluster, deps: OpenDeps): Promise<ProxyResponse> {
  let opened: OpenConnection;
  try {
    opened = await openConnection(cluster, request, deps, 1);
  } catch (thrown) {
    const error = ProxyError.from(thrown);
    if (error.code !== 'downstreamReset') cluster.stats.answered(error.row.status);
    throw error;
  }
  cluster.stats.answered(200);
  request.info.responseDetails = 'connect_tunnel';
  return {
    status: 200,
    reason: 'OK',
    headers: new Headers(),
    body: undefined,
    contentLength: undefined,
    tunnel: { socket: opened.socket, head: Buffer.alloc(0), closed: () => opened.released() },
  };
}
