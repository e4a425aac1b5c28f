/** Routes for clients that ask for each host when they first use it (VHDS): a virtual host is looked up by a Host value and made then. */
import type { RouteConfiguration, VirtualHost } from '../../xds/snapshot.ts';
import type { Node, ServiceModel, World } from '../world.ts';
import { OUTBOUND_ROUTES } from './names.ts';

type Port = ServiceModel['ports'][number];

export interface RoutesOnDemandInput {
  /** The newest one that the same routes hold for. */
  readonly world: () => World;
  readonly clientNamespace: string;
  /** The route configuration without a virtual host. */
  readonly parent: RouteConfiguration;
  readonly make: (service: ServiceModel, port: Port) => VirtualHost;
  /** What serves hosts that are no service of the mesh. */
  readonly catchAll: VirtualHost;
  /** Such hosts are answered one by one; else the parent has the catch-all, and they are unknown. */
  readonly namesEveryHost: boolean;
}

/** Hosts outside the mesh that are remembered as asked for; beyond, the memory starts anew. */
const OUTSIDE_MAX = 10_000;
const PREFIX = `${OUTBOUND_ROUTES}/`;

export class RoutesOnDemand {
  /** What goes out as the route configuration. */
  readonly configuration: RouteConfiguration;
  readonly #input: RoutesOnDemandInput;
  readonly #made = new Map<Port, VirtualHost>();
  #outside = new Map<string, VirtualHost>();

  constructor(input: RoutesOnDemandInput) {
    this.#input = input;
    this.configuration = input.namesEveryHost ? input.parent : { ...input.parent, virtualHosts: [input.catchAll] };
  }

  /**
   * The virtual host of a resource name, `outbound/<host>`, by any name that the service goes by, with or without a port. It is called as the
   * resource is, since Envoy removes it by that name. Undefined = there is none. The same object for the same service and port.
   */
  find(name: string): VirtualHost | undefined {
    if (!name.startsWith(PREFIX)) return undefined;
    const host = name.slice(PREFIX.length);
    const [, plain = host, number] = /^(.*?)(?::(\d{1,5}))?$/.exec(host) ?? [];
    const service = serviceOf(this.#input.world(), this.#input.clientNamespace, plain);
    const port = number === undefined ? service && plainPort(service) : service?.ports.find((entry) => entry.port === Number(number));
    if (service === undefined || port === undefined) return this.#input.namesEveryHost ? this.#outsideHost(host) : undefined;
    let made = this.#made.get(port);
    if (made === undefined) {
      const { name: own, ...rest } = this.#input.make(service, port);
      made = { name: PREFIX + own, ...rest };
      this.#made.set(port, made);
    }
    return made;
  }

  #outsideHost(host: string): VirtualHost {
    let made = this.#outside.get(host);
    if (made === undefined) {
      made = { ...this.#input.catchAll, name: PREFIX + host, domains: [host] };
      if (this.#outside.size >= OUTSIDE_MAX) this.#outside = new Map();
      this.#outside.set(host, made);
    }
    return made;
  }
}

/** Without a port a name means port 80, and where the service has none, its only or first HTTP port. */
export function plainPort({ ports }: ServiceModel): Port | undefined {
  return ports.find((entry) => entry.port === 80) ?? ports.find((entry) => entry.protocol !== 'tcp') ?? ports[0];
}

/** Further names that a virtual host can be asked for by. */
export function aliasesOf({ name, domains }: VirtualHost): readonly string[] {
  return domains.map((domain) => PREFIX + domain).filter((alias) => alias !== name);
}

/** A client that asks for routes, clusters and endpoints when it first uses them says so in its metadata. */
export function isLazy(node: Pick<Node, 'metadata' | 'flavour'>): boolean {
  const said = node.metadata['MESHWORK_LAZY'];
  return (said === true || said === 'true') && node.flavour !== 'grpc';
}

/** `reviews` in the client's own namespace, `reviews.default`, `reviews.default.svc`, and the whole name. */
function serviceOf({ services, mesh }: World, clientNamespace: string, host: string): ServiceModel | undefined {
  const [name = '', namespace = clientNamespace, ...rest] = host.split('.');
  const tail = rest.join('.');
  if (tail !== '' && tail !== 'svc' && tail !== `svc.${mesh.clusterDomain}`) return undefined;
  return services.get(`${namespace}/${name}`);
}
