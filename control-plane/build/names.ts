/** Names that both planes and other tools go by: Istio's, so that dashboards and operators read them as they are. */
import type { MeshSettings, ServiceModel } from '../world.ts';

type Named = Pick<ServiceModel, 'name' | 'namespace'>;

/** `reviews.default.svc.cluster.local`. */
export function hostOf(service: Named, mesh: MeshSettings): string {
  return `${service.name}.${service.namespace}.svc.${mesh.clusterDomain}`;
}

/** `outbound|80||reviews.default.svc.cluster.local`. */
export function outboundCluster(service: Named, port: number, mesh: MeshSettings): string {
  return `outbound|${port}||${hostOf(service, mesh)}`;
}

/** `inbound|3000||`, by the application's own port. */
export function inboundCluster(targetPort: number): string {
  return `inbound|${targetPort}||`;
}

/** What callers ask for by SNI, and receivers choose the application's port by: `outbound_.80_._.reviews.default.svc.cluster.local`. */
export function sniOf(service: Named, port: number, mesh: MeshSettings): string {
  return `outbound_.${port}_._.${hostOf(service, mesh)}`;
}

/** The names that a service goes by without a port; the bare name only in its own namespace. */
export function aliases(service: Named, mesh: MeshSettings, clientNamespace: string): readonly string[] {
  const { name, namespace } = service;
  const long = [`${name}.${namespace}`, `${name}.${namespace}.svc`, hostOf(service, mesh)];
  return namespace === clientNamespace ? [name, ...long] : long;
}

export const OUTBOUND_ROUTES = 'outbound';
export const OUTBOUND_LISTENER = 'outbound';
export const INBOUND_LISTENER = 'inbound';
export const PASSTHROUGH_CLUSTER = 'PassthroughCluster';
export const TRACING_CLUSTER = 'otlp';
export const CERTIFICATE_SECRET = 'default';
export const ROOTS_SECRET = 'ROOTCA';
