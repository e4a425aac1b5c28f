/** The outbound route table: a virtual host per port of every service, with the routes that are attached to it, and the way out of the mesh. */
import { memo } from '../../lib/memo.ts';
import type { GrpcRouteSpec } from '../kinds/grpc-route.ts';
import type { HttpRouteSpec, HttpRule } from '../kinds/http-route.ts';
import {
  type ExtensionConfig,
  NO_HEADER_MUTATIONS,
  type Route,
  type RouteConfiguration,
  type RouteMatch,
  type VirtualHost,
} from '../../xds/snapshot.ts';
import type { Node, Resource, ServiceModel, World } from '../world.ts';
import { defaultRetry } from './defaults.ts';
import { faultConfig } from './filters.ts';
import { byPrecedence, grpcMatch, httpMatch, MATCH_ALL } from './gateway-match.ts';
import { FAILING_ACTION, type FindBackend, forwardTo, hashPoliciesOf, planRule, type RouteDefaults, weighted } from './gateway-action.ts';
import { aliases, hostOf, OUTBOUND_ROUTES, outboundCluster, PASSTHROUGH_CLUSTER } from './names.ts';
import { plainPort, RoutesOnDemand } from './on-demand.ts';
import { backendPolicyOf, policyIndex } from './policies.ts';

const NO_CONFIG: ReadonlyMap<string, ExtensionConfig> = new Map();
type Port = ServiceModel['ports'][number];

/** The same object for as long as routes, policies, settings and the services' ports stay: endpoints come and go without it. */
export function outboundRoutes(world: World, clientNamespace: string, flavour: Node['flavour']): RouteConfiguration {
  const table = tableOf(world);
  const key = `${flavour} ${clientNamespace}`;
  let configuration = table.byClient.get(key);
  if (configuration === undefined) {
    configuration = makeRoutes(makingOf(world, clientNamespace, flavour));
    table.byClient.set(key, configuration);
  }
  return configuration;
}

/** The same for a client that asks for each host by name: nothing is made before somebody asks. Kept as long as the whole table would be. */
export function outboundRoutesOnDemand(world: World, clientNamespace: string, flavour: Node['flavour']): RoutesOnDemand {
  const table = tableOf(world);
  const key = `${flavour} ${clientNamespace}`;
  let routes = table.onDemand.get(key);
  if (routes === undefined) {
    // The world of the moment when a host is asked for: an older one would be kept alive with all its endpoints.
    const making: Making = {
      ...makingOf(world, clientNamespace, flavour),
      get world() {
        return table.world;
      },
    };
    routes = new RoutesOnDemand({
      world: () => table.world,
      clientNamespace,
      parent: { ...configurationOf([]), vhds: true },
      make: (service, port) => virtualHost(making, service, port),
      catchAll: catchAllHost(making),
      // Envoy asks for no host that anything matches, so the way out of the mesh is told host by host.
      namesEveryHost: flavour === 'envoy',
    });
    table.onDemand.set(key, routes);
  }
  return routes;
}

function makingOf(world: World, clientNamespace: string, flavour: Node['flavour']): Making {
  return {
    world,
    flavour,
    clientNamespace,
    attached: attachments(world),
    defaults: { timeoutMs: world.mesh.requestTimeoutMs, retry: defaultRetry(flavour, 'outbound') },
  };
}

interface Table {
  /** The newest world that it is known to hold for. */
  world: World;
  /** By flavour and namespace. */
  readonly byClient: Map<string, RouteConfiguration>;
  readonly onDemand: Map<string, RoutesOnDemand>;
}
const tables = memo<readonly Resource[], Table>();

function tableOf(world: World): Table {
  const known = tables.get(world.httpRoutes);
  if (known !== undefined && (known.world === world || sameRouting(known.world, world))) {
    known.world = world;
    return known;
  }
  const table: Table = { world, byClient: new Map(), onDemand: new Map() };
  tables.set(world.httpRoutes, table);
  return table;
}

function sameRouting(left: World, right: World): boolean {
  if (left.otherRoutes !== right.otherRoutes || left.policies !== right.policies || left.mesh !== right.mesh) return false;
  if (left.services === right.services) return true;
  if (left.services.size !== right.services.size) return false;
  for (const [key, service] of right.services) if (left.services.get(key)?.ports !== service.ports) return false;
  return true;
}

/** What making one table needs all the way down. */
interface Making {
  readonly world: World;
  readonly flavour: Node['flavour'];
  readonly clientNamespace: string;
  readonly attached: Attachments;
  readonly defaults: RouteDefaults;
}

function makeRoutes(making: Making): RouteConfiguration {
  const { world } = making;
  const virtualHosts: VirtualHost[] = [];
  for (const service of world.services.values()) {
    for (const port of service.ports) virtualHosts.push(keptVirtualHost(making, service, port));
  }
  return configurationOf([...virtualHosts, catchAllHost(making)]);
}

function configurationOf(virtualHosts: readonly VirtualHost[]): RouteConfiguration {
  return {
    name: OUTBOUND_ROUTES,
    virtualHosts,
    headerMutations: NO_HEADER_MUTATIONS,
    validateClusters: false,
    ignorePortInHostMatching: false,
    mostSpecificHeaderMutationsWins: false,
    maxDirectResponseBodyBytes: 4_096,
  };
}

interface KeptHosts {
  readonly mesh: World['mesh'];
  readonly policies: World['policies'];
  /** By flavour, port, and namespace of the client where that makes a difference. */
  readonly byClient: Map<string, VirtualHost>;
}
/** By the ports of the service. What no route is attached to is made of the service, the settings and the policies alone. */
const keptHosts = memo<ServiceModel['ports'], KeptHosts>();

/** The same object for all clients that see the service alike, and for as long as nothing that it is made of changes: it is encoded once. */
function keptVirtualHost(making: Making, service: ServiceModel, port: Port): VirtualHost {
  const { world, flavour, clientNamespace } = making;
  if (port.protocol !== 'tcp' && applicable(making, service, port).length > 0) return virtualHost(making, service, port);
  let kept = keptHosts.get(service.ports);
  if (kept === undefined || kept.mesh !== world.mesh || kept.policies !== world.policies) {
    kept = { mesh: world.mesh, policies: world.policies, byClient: new Map() };
    keptHosts.set(service.ports, kept);
  }
  // Only neighbours know a service by its bare name.
  const key = `${flavour} ${port.port} ${clientNamespace === service.namespace ? clientNamespace : ''}`;
  let host = kept.byClient.get(key);
  if (host === undefined) {
    host = virtualHost(making, service, port);
    kept.byClient.set(key, host);
  }
  return host;
}

function virtualHost(making: Making, service: ServiceModel, port: Port): VirtualHost {
  const { world, clientNamespace } = making;
  const names = aliases(service, world.mesh, clientNamespace);
  const domains = names.map((name) => `${name}:${port.port}`);
  if (plainPort(service) === port) domains.push(...names);
  const faults = policyIndex(world.policies).faults.get(`${service.namespace}/${service.name}`) ?? [];
  return {
    name: `${hostOf(service, world.mesh)}:${port.port}`,
    domains,
    routes: routesOf(making, service, port),
    headerMutations: NO_HEADER_MUTATIONS,
    includeRequestAttemptCount: true,
    includeAttemptCountInResponse: false,
    requireTls: 'NONE',
    perFilterConfig: faults[0] === undefined ? NO_CONFIG : new Map([faultConfig(faults[0].spec)]),
  };
}

/** Routes by what they are attached to: `namespace/service`, or `namespace/service:port` where the parent names one. */
type Attachments = ReadonlyMap<string, readonly Resource[]>;

function attachments(world: World): Attachments {
  const byParent = new Map<string, Resource[]>();
  for (const route of [...world.httpRoutes, ...world.otherRoutes.filter((other) => other.kind === 'GRPCRoute')]) {
    const parents = new Set<string>();
    for (const parent of (route.spec as unknown as HttpRouteSpec).parentRefs) {
      if (parent.kind !== 'Service' || (parent.group ?? '') !== '') continue;
      const key = `${parent.namespace ?? route.metadata.namespace}/${parent.name}`;
      parents.add(parent.port === undefined ? key : `${key}:${parent.port}`);
    }
    for (const key of parents) {
      const list = byParent.get(key);
      if (list === undefined) byParent.set(key, [route]);
      else list.push(route);
    }
  }
  return byParent;
}

/** A client's own namespace may say how its requests go (a consumer route); where it does, the service's own routes do not count. */
function applicable({ attached, clientNamespace }: Making, service: ServiceModel, port: Port): readonly Resource[] {
  const key = `${service.namespace}/${service.name}`;
  const all = new Set([...(attached.get(`${key}:${port.port}`) ?? []), ...(attached.get(key) ?? [])]);
  const consumer = [...all].filter((route) => route.metadata.namespace === clientNamespace && clientNamespace !== service.namespace);
  const chosen = consumer.length > 0 ? consumer : [...all].filter((route) => route.metadata.namespace === service.namespace);
  // The Gateway API lets only one of the two kinds hold a host; HTTPRoute is the older one.
  const http = chosen.filter((route) => route.kind === 'HTTPRoute');
  return http.length > 0 ? http : chosen;
}

function routesOf(making: Making, service: ServiceModel, port: Port): readonly Route[] {
  if (port.protocol === 'tcp') return [tunnel(making, service, port)];
  const resources = applicable(making, service, port);
  if (resources.length === 0) return [defaultRoute(making, service, port)];
  // Sorting is stable, so equals stay in the order of routes by key, rules and matches.
  const entries = resources.flatMap((resource) => entriesOf(making, resource, port));
  return entries.sort((left, right) => byPrecedence(left.match, right.match)).flatMap((entry) => entry.routes);
}

interface Entry {
  readonly match: RouteMatch;
  readonly routes: readonly Route[];
}

function entriesOf({ world, defaults }: Making, resource: Resource, parentPort: Port): Entry[] {
  const find = finder(world, resource.metadata.namespace, parentPort.port);
  const rules = (resource.spec as unknown as HttpRouteSpec | GrpcRouteSpec).rules ?? [{ backendRefs: [] }];
  return rules.flatMap((rule, ruleIndex) => {
    const plan = planRule(rule as HttpRule, find, defaults);
    const matches = matchesOf(resource, rule as HttpRule);
    return matches.map((match, matchIndex) => {
      const name = `${resource.metadata.namespace}/${resource.metadata.name}/${(rule as HttpRule).name ?? ruleIndex}/${matchIndex}`;
      const common = { name, headerMutations: plan.headerMutations, perFilterConfig: NO_CONFIG };
      const routes: Route[] = [];
      if (plan.action === undefined) routes.push({ ...common, match, action: FAILING_ACTION });
      else {
        // The share of what does not exist is drawn first; the others keep their weights among themselves.
        if (plan.failing > 0)
          routes.push({ ...common, name: `${name}/failing`, match: { ...match, runtimeFraction: plan.failing }, action: FAILING_ACTION });
        routes.push({ ...common, match, action: plan.action(match) });
      }
      return { match, routes };
    });
  });
}

function matchesOf(resource: Resource, rule: HttpRule): RouteMatch[] {
  const grpc = resource.kind === 'GRPCRoute';
  const matches = rule.matches ?? [];
  if (matches.length === 0) return [grpc ? { ...MATCH_ALL, grpcOnly: true } : MATCH_ALL];
  return matches.map((match) => (grpc ? grpcMatch(match as Parameters<typeof grpcMatch>[0]) : httpMatch(match)));
}

function finder(world: World, namespace: string, parentPort: number): FindBackend {
  return (ref) => {
    const service = world.services.get(`${ref.namespace ?? namespace}/${ref.name}`);
    if (service === undefined) return undefined;
    const port = ref.port ?? (service.ports.length === 1 ? service.ports[0]!.port : parentPort);
    if (!service.ports.some((entry) => entry.port === port)) return undefined;
    return { cluster: outboundCluster(service, port, world.mesh), policy: backendPolicyOf(world.policies, service)?.spec };
  };
}

function defaultRoute({ world, defaults }: Making, service: ServiceModel, port: Port): Route {
  const action = forwardTo([weighted(outboundCluster(service, port.port, world.mesh), 1)], defaults);
  const hashPolicies = hashPoliciesOf(backendPolicyOf(world.policies, service)?.spec);
  return route('default', MATCH_ALL, { kind: 'forward', ...action, hashPolicies });
}

/** Bytes to a service that is not HTTP: clients reach it by CONNECT. */
function tunnel({ world, defaults }: Making, service: ServiceModel, port: Port): Route {
  return connectRoute(outboundCluster(service, port.port, world.mesh), defaults);
}

function connectRoute(cluster: string, defaults: RouteDefaults): Route {
  const action = forwardTo([weighted(cluster, 1)], { ...defaults, timeoutMs: 0 });
  const upgradeConfigs = [{ type: 'connect', enabled: true, terminates: true as const }];
  return route('tunnel', { ...MATCH_ALL, path: { kind: 'connect' } }, { kind: 'forward', ...action, upgradeConfigs });
}

function catchAllHost(making: Making): VirtualHost {
  return making.world.mesh.outboundPassthrough ? passthrough(making) : blocked();
}

function passthrough({ defaults }: Making): VirtualHost {
  const action = forwardTo([weighted(PASSTHROUGH_CLUSTER, 1)], defaults);
  return catchAll('allow_any', [
    connectRoute(PASSTHROUGH_CLUSTER, defaults),
    route('passthrough', MATCH_ALL, { kind: 'forward', ...action }),
  ]);
}

/** Istio answers 502 for hosts outside a closed mesh, and people know it. */
function blocked(): VirtualHost {
  const body = new TextEncoder().encode(
    'The mesh knows no service of this host, and the Mesh resource does not let requests leave it (outboundPassthrough: false).\n',
  );
  return catchAll('block_all', [route('blocked', MATCH_ALL, { kind: 'direct', status: 502, body })]);
}

function catchAll(name: string, routes: readonly Route[]): VirtualHost {
  return {
    name,
    domains: ['*'],
    routes,
    headerMutations: NO_HEADER_MUTATIONS,
    includeRequestAttemptCount: false,
    includeAttemptCountInResponse: false,
    requireTls: 'NONE',
    perFilterConfig: NO_CONFIG,
  };
}

const route = (name: string, match: RouteMatch, action: Route['action']): Route => ({
  name,
  match,
  action,
  headerMutations: NO_HEADER_MUTATIONS,
  perFilterConfig: NO_CONFIG,
});
