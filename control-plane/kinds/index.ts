/** The kinds that Meshwork understands: one line each. Help texts, validation and the API's paths are derived from this table. */
import { authorizationPolicy } from './authorization-policy.ts';
import { backendPolicy } from './backend-policy.ts';
import { endpointSlice } from './endpoint-slice.ts';
import { faultInjection } from './fault-injection.ts';
import { grpcRoute } from './grpc-route.ts';
import { httpRoute } from './http-route.ts';
import type { Kind } from './kind.ts';
import { mesh } from './mesh.ts';
import { rateLimit } from './rate-limit.ts';
import { service } from './service.ts';
import { tcpRoute } from './tcp-route.ts';
import { tlsRoute } from './tls-route.ts';
import { workload } from './workload.ts';

export const KINDS = {
  Service: service,
  EndpointSlice: endpointSlice,
  HTTPRoute: httpRoute,
  GRPCRoute: grpcRoute,
  TCPRoute: tcpRoute,
  TLSRoute: tlsRoute,
  Mesh: mesh,
  Workload: workload,
  BackendPolicy: backendPolicy,
  AuthorizationPolicy: authorizationPolicy,
  FaultInjection: faultInjection,
  RateLimit: rateLimit,
} satisfies Record<string, Kind>;

export type KindName = keyof typeof KINDS;

/** The kind of that name, or undefined; names of Object.prototype are not kinds. */
export function kindNamed(name: string): Kind | undefined {
  return Object.hasOwn(KINDS, name) ? KINDS[name as KindName] : undefined;
}
