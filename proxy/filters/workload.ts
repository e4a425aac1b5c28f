/** Who is on each end of a request, as Istio's metrics name them: from the node's metadata, an endpoint's metadata, a peer's certificate. */
import { parseSpiffeId, workloadOf } from '../../lib/spiffe.ts';
import type { Json, JsonObject } from '../../xds/snapshot.ts';

/** The labels of one end. `unknown` where nothing is known, as Istio writes it. */
export interface WorkloadLabels {
  readonly workload: string;
  readonly namespace: string;
  readonly canonicalService: string;
  readonly canonicalRevision: string;
  readonly app: string;
  readonly version: string;
  readonly cluster: string;
  readonly principal: string;
}

/** The service behind a cluster. */
export interface ServiceLabels {
  /** `reviews.default.svc.cluster.local`. */
  readonly host: string;
  readonly name: string;
  readonly namespace: string;
}

const UNKNOWN = 'unknown';

export const UNKNOWN_WORKLOAD: WorkloadLabels = {
  workload: UNKNOWN,
  namespace: UNKNOWN,
  canonicalService: UNKNOWN,
  canonicalRevision: UNKNOWN,
  app: UNKNOWN,
  version: UNKNOWN,
  cluster: UNKNOWN,
  principal: UNKNOWN,
};

/** From the metadata of our own node (Istio's keys: WORKLOAD_NAME, NAMESPACE, LABELS, CLUSTER_ID). */
export function workloadOfNode(node: { readonly id: string; readonly cluster: string; readonly metadata: JsonObject }): WorkloadLabels {
  const labels = object(node.metadata['LABELS']);
  const app = text(labels['app']) ?? text(labels['app.kubernetes.io/name']);
  const version = text(labels['version']) ?? text(labels['app.kubernetes.io/version']);
  const workload = text(node.metadata['WORKLOAD_NAME']) ?? text(node.metadata['NAME']) ?? (node.cluster || node.id || UNKNOWN);
  return {
    workload,
    namespace: text(node.metadata['NAMESPACE']) ?? UNKNOWN,
    canonicalService: text(labels['service.istio.io/canonical-name']) ?? app ?? workload,
    canonicalRevision: text(labels['service.istio.io/canonical-revision']) ?? version ?? 'latest',
    app: app ?? UNKNOWN,
    version: version ?? UNKNOWN,
    cluster: text(node.metadata['CLUSTER_ID']) ?? UNKNOWN,
    principal: UNKNOWN,
  };
}

/** From an endpoint's metadata `istio.workload`: `name;namespace;canonical service;canonical revision;cluster`. */
export function workloadOfEndpoint(metadata: JsonObject, principal: string | undefined): WorkloadLabels {
  const encoded = text(object(filterMetadata(metadata)['istio'])['workload']);
  if (encoded === undefined) return principal === undefined ? UNKNOWN_WORKLOAD : { ...UNKNOWN_WORKLOAD, principal };
  const [workload, namespace, service, revision, cluster] = encoded.split(';');
  return {
    workload: workload || UNKNOWN,
    namespace: namespace || UNKNOWN,
    canonicalService: service || UNKNOWN,
    canonicalRevision: revision || 'latest',
    app: service || UNKNOWN,
    version: revision || UNKNOWN,
    cluster: cluster || UNKNOWN,
    principal: principal ?? UNKNOWN,
  };
}

/** From the SPIFFE id of a peer's certificate: it proves namespace and service account, and the account stands for the workload. */
export function workloadOfPeer(uri: string | undefined): WorkloadLabels {
  if (uri === undefined) return UNKNOWN_WORKLOAD;
  let account: { namespace: string; serviceAccount: string } | undefined;
  try {
    account = workloadOf(parseSpiffeId(uri));
  } catch {
    // A certificate from another PKI may carry another kind of URI; its text is all there is to tell.
    account = undefined;
  }
  if (account === undefined) return { ...UNKNOWN_WORKLOAD, principal: uri };
  return {
    ...UNKNOWN_WORKLOAD,
    workload: account.serviceAccount,
    namespace: account.namespace,
    canonicalService: account.serviceAccount,
    canonicalRevision: 'latest',
    app: account.serviceAccount,
    principal: uri,
  };
}

/** From a cluster's metadata `istio.services[0]`, else from names such as `outbound|80||reviews.default.svc.cluster.local`. */
export function serviceOfCluster(clusterName: string, metadata: JsonObject | undefined): ServiceLabels {
  const services = object(filterMetadata(metadata ?? {})['istio'])['services'];
  const first = Array.isArray(services) ? object((services as readonly Json[])[0]) : {};
  const host = text(first['host']) ?? (clusterName.split('|')[3] || undefined);
  const [name, namespace] = (host ?? '').split('.');
  return {
    host: host ?? clusterName,
    name: text(first['name']) ?? (name || clusterName),
    namespace: text(first['namespace']) ?? (namespace || UNKNOWN),
  };
}

/** Envoy's Metadata message has its content under `filterMetadata`; shorter forms have it at the top. */
export function filterMetadata(metadata: JsonObject): JsonObject {
  return 'filterMetadata' in metadata ? object(metadata['filterMetadata']) : metadata;
}

function object(value: Json | undefined): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

function text(value: Json | undefined): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
