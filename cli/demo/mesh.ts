/** The demo's mesh: which instances there are, and the resources that the demo writes. */

export interface Instance {
  readonly name: string;
  readonly service: string;
  readonly version: string;
  /** Service that it calls; empty for the last one and for the load. */
  readonly next: string;
}

/** One line an instance. `load` has a sidecar and no application: the demo itself sends through it. */
export const INSTANCES: readonly Instance[] = [
  { name: 'load-1', service: 'load', version: 'v1', next: 'web' },
  { name: 'web-1', service: 'web', version: 'v1', next: 'reviews' },
  { name: 'reviews-1', service: 'reviews', version: 'v1', next: 'ratings' },
  { name: 'reviews-2', service: 'reviews', version: 'v1', next: 'ratings' },
  { name: 'reviews-3', service: 'reviews', version: 'v2', next: 'ratings' },
  { name: 'ratings-1', service: 'ratings', version: 'v1', next: '' },
  { name: 'ratings-2', service: 'ratings', version: 'v1', next: '' },
];

interface Weights {
  readonly v1: number;
  readonly v2: number;
}

function service(name: string, selector: Readonly<Record<string, string>>): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: { selector, ports: [{ name: 'http', port: 80, targetPort: 'http' }] },
  };
}

/** The route that a canary moves. */
export function reviewsRoute(weights: Weights): object {
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'HTTPRoute',
    metadata: { name: 'reviews', namespace: 'default' },
    spec: {
      parentRefs: [{ group: '', kind: 'Service', name: 'reviews', port: 80 }],
      rules: [
        {
          backendRefs: [
            { name: 'reviews-v1', port: 80, weight: weights.v1 },
            { name: 'reviews-v2', port: 80, weight: weights.v2 },
          ],
        },
      ],
    },
  };
}

/** Everything that is written before the first instance starts. */
export function demoResources(weights: Weights): object[] {
  return [
    service('web', { app: 'web' }),
    service('reviews', { app: 'reviews' }),
    service('reviews-v1', { app: 'reviews', version: 'v1' }),
    service('reviews-v2', { app: 'reviews', version: 'v2' }),
    service('ratings', { app: 'ratings' }),
    reviewsRoute(weights),
    {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'HTTPRoute',
      metadata: { name: 'ratings', namespace: 'default' },
      spec: {
        parentRefs: [{ group: '', kind: 'Service', name: 'ratings', port: 80 }],
        rules: [{ backendRefs: [{ name: 'ratings', port: 80 }], retry: { attempts: 2, codes: [500, 502, 503, 504] } }],
      },
    },
    {
      apiVersion: 'meshwork.dev/v1alpha1',
      kind: 'BackendPolicy',
      metadata: { name: 'ratings', namespace: 'default' },
      spec: {
        targetRefs: [{ kind: 'Service', name: 'ratings' }],
        outlierDetection: { consecutive5xx: 3, interval: '1s', baseEjectionTime: '30s', maxEjectionPercent: 50 },
      },
    },
  ];
}
