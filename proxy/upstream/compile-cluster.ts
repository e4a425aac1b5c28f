/** A cluster's configuration, read and checked before anything is changed: policy, health checks, and what is not supported. */
import type { Address, Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import { balancerKind } from '../balancers/index.ts';
import type { BalancerKind } from '../balancers/kind.ts';
import { ConfigError } from '../errors.ts';
import type { Balancer } from '../service.ts';

/** What was read from a cluster's configuration before anything was changed. */
export interface CompiledCluster {
  readonly config: Cluster;
  readonly balancer: Balancer;
  readonly kind: BalancerKind;
}

const LB_PATH = 'lb_policy';

/** Reads what can be wrong with a cluster. Throws `ConfigError` whose path starts with `cluster "name"`. */
export function compileCluster(config: Cluster): CompiledCluster {
  const path = `cluster ${JSON.stringify(config.name)}`;
  if (config.type === 'ORIGINAL_DST') throw new ConfigError(`${path}.type`, 'ORIGINAL_DST is not supported');
  if (config.lbSubset !== undefined) throw new ConfigError(`${path}.lb_subset_config`, 'subsets are not supported');
  const provided = config.lbPolicy.name === 'CLUSTER_PROVIDED' || config.type === 'AGGREGATE';
  const kind = balancerKind(provided ? { name: 'ROUND_ROBIN', type: '', config: {} } : config.lbPolicy, `${path}.${LB_PATH}`);
  for (const [i, check] of config.healthChecks.entries()) {
    if (check.check.kind === 'grpc')
      throw new ConfigError(`${path}.health_checks[${i}]`, 'gRPC health checks are not supported; http and tcp are');
  }
  if (config.loadAssignment !== undefined) checkAssignment(config.loadAssignment, path);
  return {
    config,
    kind,
    balancer: kind.compile(provided ? {} : config.lbPolicy.config, `${path}.${LB_PATH}`),
  };
}

/** W4: endpoints of which not one has a weight can only be a mistake. Throws `ConfigError`. */
export function checkAssignment(assignment: LoadAssignment, path: string): void {
  const endpoints = assignment.localities.flatMap((locality) => locality.endpoints);
  if (endpoints.length > 0 && endpoints.every((endpoint) => endpoint.weight === 0)) {
    throw new ConfigError(`${path}.endpoints`, `at least one of ${endpoints.length} endpoints must have a weight above 0`);
  }
}

export function endpointKey(address: Address): string {
  return address.pipe === true ? address.host : `${address.host}:${address.port}`;
}

/** The settings that connections are made with: when they change, new connections are needed. */
export function poolSettings(config: Cluster): string {
  const {
    tls,
    tlsMatches,
    protocol,
    connectTimeoutMs,
    maxRequestsPerConnection,
    idleTimeoutMs,
    perConnectionBufferBytesMax,
    autoSni,
    autoSanValidation,
  } = config;
  return JSON.stringify([
    tls,
    tlsMatches,
    protocol,
    connectTimeoutMs,
    maxRequestsPerConnection,
    idleTimeoutMs,
    perConnectionBufferBytesMax,
    autoSni,
    autoSanValidation,
  ]);
}
