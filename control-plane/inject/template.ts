/** What the injector adds: the sidecar container, its volumes, and the settings that point applications at it. */

export const PROXY_NAME = 'meshwork-proxy';
export const PROXY_UID = 1337;
export const INJECT_LABEL = 'meshwork.dev/inject';

export interface InjectOptions {
  /** Default: `meshwork:<version>`. */
  readonly image: string;
  /** Where the sidecar finds the control plane, `host:port` of its mTLS xDS port in a cluster, URL of its API in compose. */
  readonly controlPlane: string;
}

/** A native sidecar: an init container that keeps running, so it is there before the application and stays until it is gone. */
export function sidecarContainer(options: InjectOptions, ports: readonly number[]): Record<string, unknown> {
  const fromField = (name: string, fieldPath: string): Record<string, unknown> => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  return {
    name: PROXY_NAME,
    image: options.image,
    restartPolicy: 'Always',
    args: ['proxy'],
    env: [
      fromField('POD_NAME', 'metadata.name'),
      fromField('POD_NAMESPACE', 'metadata.namespace'),
      fromField('POD_IP', 'status.podIP'),
      fromField('SERVICE_ACCOUNT', 'spec.serviceAccountName'),
      { name: 'MESHWORK_CONTROL_PLANE', value: options.controlPlane },
      { name: 'MESHWORK_APP_PORTS', value: ports.join(',') },
      { name: 'MESHWORK_TOKEN_FILE', value: '/var/run/secrets/meshwork/token' },
    ],
    ports: [
      { name: 'mesh-inbound', containerPort: 15006 },
      { name: 'mesh-metrics', containerPort: 15020 },
      { name: 'mesh-health', containerPort: 15021 },
    ],
    startupProbe: { httpGet: { path: '/healthz/ready', port: 15021 }, periodSeconds: 1, failureThreshold: 120 },
    readinessProbe: { httpGet: { path: '/healthz/ready', port: 15021 }, periodSeconds: 5, failureThreshold: 3 },
    resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '256Mi' } },
    securityContext: {
      runAsUser: PROXY_UID,
      runAsGroup: PROXY_UID,
      runAsNonRoot: true,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: [
      { name: 'meshwork-state', mountPath: '/var/lib/meshwork' },
      { name: 'meshwork-token', mountPath: '/var/run/secrets/meshwork', readOnly: true },
    ],
  };
}

/** Volumes of the sidecar: a scratch one in memory (its root file system is read-only) and a token that only our control plane accepts. */
export const SIDECAR_VOLUMES: readonly Record<string, unknown>[] = [
  { name: 'meshwork-state', emptyDir: { medium: 'Memory', sizeLimit: '64Mi' } },
  {
    name: 'meshwork-token',
    projected: { sources: [{ serviceAccountToken: { path: 'token', audience: 'meshwork', expirationSeconds: 3600 } }] },
  },
];

/** Environment that sends an application's HTTP calls through the sidecar's outbound port. Node reads it since 24; most other HTTP clients do too. */
export const APPLICATION_ENV: Readonly<Record<string, string>> = {
  HTTP_PROXY: 'http://127.0.0.1:15001',
  http_proxy: 'http://127.0.0.1:15001',
  NO_PROXY: 'localhost,127.0.0.1,::1',
  no_proxy: 'localhost,127.0.0.1,::1',
  NODE_USE_ENV_PROXY: '1',
};
