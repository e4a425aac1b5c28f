/** What the mesh says about itself, read through the control plane's API: sync state, ejections, mTLS edges, certificates. */
import type { ApiClient } from '../client.ts';

export interface ProxyState {
  readonly id: string;
  readonly connected: boolean;
  /** `acked`, `pending` or `rejected`, over all types. */
  readonly state: string;
}

/** One row per type and proxy, counted for the report. */
export interface ProxySummary {
  readonly id: string;
  readonly acked: number;
  readonly rejected: number;
}

interface ApiProxy extends ProxyState {
  readonly types: Readonly<Record<string, { readonly state: string }>>;
}

interface ClusterDump {
  readonly cluster_statuses?: readonly {
    readonly name: string;
    readonly host_statuses?: readonly {
      readonly address?: { readonly socket_address?: { readonly address: string; readonly port_value: number } };
      readonly health_status?: { readonly failed_outlier_check?: boolean };
    }[];
  }[];
}

interface CertificateRow {
  readonly proxy: string;
  readonly serial: string;
}

export async function listProxies(api: ApiClient): Promise<readonly ApiProxy[]> {
  return (await api.call<{ proxies: readonly ApiProxy[] }>('/api/v1/proxies')).body.proxies;
}

export function summarise(proxies: readonly ApiProxy[]): ProxySummary[] {
  const count = (proxy: ApiProxy, state: string): number => Object.values(proxy.types).filter((type) => type.state === state).length;
  return proxies.map((proxy) => ({ id: proxy.id, acked: count(proxy, 'acked'), rejected: count(proxy, 'rejected') }));
}

/** `host:port` of every endpoint that one sidecar has ejected. */
export async function ejectedBy(api: ApiClient, proxyId: string): Promise<string[]> {
  const dump = (await api.call<ClusterDump>(`/api/v1/proxies/${encodeURIComponent(proxyId)}/admin/clusters?format=json`)).body;
  const ejected: string[] = [];
  for (const cluster of dump.cluster_statuses ?? []) {
    for (const host of cluster.host_statuses ?? []) {
      const address = host.address?.socket_address;
      if (host.health_status?.failed_outlier_check === true && address !== undefined)
        ejected.push(`${address.address}:${address.port_value}`);
    }
  }
  return ejected;
}

/** `source -> destination` pairs that this sidecar served over mutual TLS, from its own counters. */
export async function mtlsEdgesInto(api: ApiClient, proxyId: string): Promise<string[]> {
  const text = String((await api.call<string>(`/api/v1/proxies/${encodeURIComponent(proxyId)}/admin/stats/prometheus`)).body);
  const edges = new Set<string>();
  for (const line of text.split('\n')) {
    if (!line.startsWith('istio_requests_total{')) continue;
    const label = (name: string): string => new RegExp(`[{,]${name}="([^"]*)"`).exec(line)?.[1] ?? '';
    if (label('reporter') !== 'destination' || label('connection_security_policy') !== 'mutual_tls') continue;
    edges.add(
      `${lastSegment(label('source_principal'))} -> ${lastSegment(label('destination_principal')) || label('destination_service_name')}`,
    );
  }
  return [...edges];
}

/** Serial number of each proxy's certificate. */
export async function certificateSerials(api: ApiClient): Promise<ReadonlyMap<string, string>> {
  const rows = (await api.call<{ certificates: readonly CertificateRow[] }>('/api/v1/certificates')).body.certificates;
  return new Map(rows.map((row) => [row.proxy, row.serial]));
}

function lastSegment(principal: string): string {
  return principal.slice(principal.lastIndexOf('/') + 1);
}
