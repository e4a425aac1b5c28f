/** Istio's metrics of TCP connections: opened and closed, bytes either way, with the labels that requests have. */
import { endLabels, findEnds } from './istio-metrics.ts';
import type { IstioMetricsOptions } from './istio-metrics.ts';
import type { Observer } from './observe.ts';
import type { ProxyRequest } from '../service.ts';
import type { Counter, Labels } from '../../lib/metrics.ts';

interface Handles {
  readonly opened: Counter;
  readonly closed: Counter;
  readonly sent: Counter;
  readonly received: Counter;
}

/** Label sets are looked up once or twice per connection, which is seldom enough to ask the registry each time. */
export function istioTcpMetrics(options: IstioMetricsOptions): Observer {
  const bind = (request: ProxyRequest): Handles => {
    const { info } = request;
    const ends = findEnds(info.clusterName, info.endpoint, request.connection, options);
    const labels: Labels = {
      ...endLabels(options.reporter, ends),
      request_protocol: 'tcp',
      response_flags: info.responseFlags || '-',
      connection_security_policy: ends.security,
    };
    const counter = (name: string, help: string): Counter =>
      options.registry.counter(`istio_tcp_${name}_total`, labels, { pinned: false, help });
    return {
      opened: counter('connections_opened', 'TCP connections that were opened.'),
      closed: counter('connections_closed', 'TCP connections that were closed.'),
      sent: counter('sent_bytes', 'Bytes that were sent to clients.'),
      received: counter('received_bytes', 'Bytes that were received from clients.'),
    };
  };
  return {
    connected: (request) => bind(request).opened.inc(),
    done: ({ request }) => {
      const handles = bind(request);
      handles.closed.inc();
      handles.sent.add(request.info.responseBytes);
      handles.received.add(request.info.requestBytes);
    },
  };
}
