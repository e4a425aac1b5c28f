/** The mesh's settings with their defaults filled in. */
import { parseDurationMs } from '../../lib/duration.ts';
import type { MeshSpec } from '../kinds/mesh.ts';
import type { MeshSettings, Resource } from '../world.ts';

export const DEFAULT_MESH: MeshSettings = {
  trustDomain: 'cluster.local',
  clusterDomain: 'cluster.local',
  mtls: 'PERMISSIVE',
  certificateTtlMs: 24 * 3_600_000,
  accessLog: 'off',
  tracingSamplingPercent: 1,
  otlpEndpoint: '',
  requestTimeoutMs: 0,
  outboundPassthrough: true,
  spec: {},
};

/** Settings out of the Mesh resource, or the defaults where there is none. */
export function meshSettings(resource: Resource | undefined): MeshSettings {
  if (resource === undefined) return DEFAULT_MESH;
  const spec = resource.spec as MeshSpec;
  const fallback = DEFAULT_MESH;
  return {
    trustDomain: spec.trustDomain ?? fallback.trustDomain,
    clusterDomain: spec.clusterDomain ?? fallback.clusterDomain,
    mtls: spec.mtls ?? fallback.mtls,
    certificateTtlMs: spec.certificateTtl === undefined ? fallback.certificateTtlMs : parseDurationMs(spec.certificateTtl),
    accessLog: spec.accessLog ?? fallback.accessLog,
    tracingSamplingPercent: spec.tracing?.samplingPercent ?? fallback.tracingSamplingPercent,
    otlpEndpoint: spec.tracing?.otlpEndpoint ?? fallback.otlpEndpoint,
    requestTimeoutMs: spec.requestTimeout === undefined ? fallback.requestTimeoutMs : parseDurationMs(spec.requestTimeout),
    outboundPassthrough: spec.outboundPassthrough ?? fallback.outboundPassthrough,
    spec: resource.spec,
  };
}
