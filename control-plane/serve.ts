/** xDS to the outside: a plaintext port for this machine and a TLS port for all, each stream authenticated, claimed, and handed to the publisher. */
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { memo } from '../lib/memo.ts';
import type { Clock } from '../lib/clock.ts';
import type { DescriptorRoom } from '../lib/descriptors.ts';
import { sleep } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Random } from '../lib/random.ts';
import type { Watch } from '../lib/watch.ts';
import { SECRET_TYPE, shortName } from '../xds/session/type-urls.ts';
import { CODES } from '../xds/session/messages.ts';
import type { EncodedResource, NodeInfo } from '../xds/session/messages.ts';
import type { ResourceSet } from '../xds/session/served-type.ts';
import type { ServerEvent, TypeStatus } from '../xds/session/server.ts';
import { createIntake, discoveryServerOptions, serveDiscovery } from '../xds/stream.ts';
import type { DiscoveryHandler, Intake, Peer, ServerStream } from '../xds/stream.ts';
import { BUNDLE_SECRET, claimedWorkload } from './identity.ts';
import type { Caller, Identities } from './identity.ts';
import type { LoadTable } from './load.ts';
import type { ControlPlaneMetrics } from './metrics.ts';
import { nodeOf } from './node.ts';
import { formatAddress, isLoopback } from './options.ts';
import type { ListenAddress } from './options.ts';
import type { ConnectedProxy, Proxies, ProxyStream, StreamType } from './proxies.ts';
import type { Publisher } from './publish.ts';
import { OWN_SECRET } from './secrets.ts';
import { createServerCertificate } from './server-certificate.ts';
import { bearerOf, serveSideServices } from './side-services.ts';
import type { Registrations } from './sources/registrations.ts';
import type { World } from './world.ts';

export interface XdsServers {
  readonly xds: ListenAddress;
  readonly xdsTls: ListenAddress;
  /** Ends all streams, then the ports. */
  close(): Promise<void>;
}

export interface ServeDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: ControlPlaneMetrics;
  readonly identities: Identities;
  readonly proxies: Proxies;
  readonly publisher: Publisher;
  readonly world: Watch<World>;
  readonly leases: Pick<Registrations, 'ended'>;
  readonly load: LoadTable;
  readonly descriptors?: DescriptorRoom | undefined;
}

const CLOSE_MS_MAX = 500;
const NOTHING_TO_RELEASE = (): void => undefined;

/** Opens both ports. Rejects when one is taken, and when the plaintext one would be reachable from other machines. */
export async function serveXds(
  addresses: { readonly xds: ListenAddress; readonly xdsTls: ListenAddress; readonly tlsNames: readonly string[] },
  deps: ServeDeps,
): Promise<XdsServers> {
  const { clock } = deps;
  if (!isLoopback(addresses.xds.host))
    throw new Error(`plaintext xDS is served on loopback addresses only, received ${formatAddress(addresses.xds)}`);
  const { handler, endLease, streams } = createHandler(deps);
  const certificate = createServerCertificate(deps.identities, addresses.tlsNames, deps);
  const open: { server: Server; intake: Intake; discovery: { close(): void }; endSide: () => void }[] = [];
  const listen = async (address: ListenAddress, transport: 'plaintext' | 'tls'): Promise<ListenAddress> => {
    const intake = createIntake({ clock, descriptors: deps.descriptors });
    const server = new Server({ ...discoveryServerOptions(), interceptors: [intake.interceptor] });
    const discovery = serveDiscovery(server, handler, { clock, transport, intake });
    const endSide = serveSideServices(server, transport, { ...deps, streams });
    open.push({ server, intake, discovery, endSide });
    const credentials = transport === 'tls' ? certificate.credentials : ServerCredentials.createInsecure();
    try {
      return { host: address.host, port: await intake.listen(server, credentials, address) };
    } catch (error) {
      throw new Error(`cannot listen on ${formatAddress(address)}: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  const forgetLeases = deps.leases.ended(endLease);
  const close = async (): Promise<void> => {
    forgetLeases();
    certificate.close();
    for (const { intake, discovery, endSide } of open) {
      intake.close();
      endSide();
      discovery.close();
    }
    await Promise.all(open.map(({ server }) => shutdown(server, clock)));
  };
  try {
    const xds = await listen(addresses.xds, 'plaintext');
    const xdsTls = await listen(addresses.xdsTls, 'tls');
    return { xds, xdsTls, close };
  } catch (error) {
    await close();
    throw error;
  }
}

interface Served {
  readonly proxy: ConnectedProxy;
  readonly caller: Caller;
  readonly flavour: string;
  readonly release: () => void;
}

function createHandler(deps: ServeDeps): {
  readonly handler: DiscoveryHandler;
  readonly endLease: (id: string) => void;
  readonly streams: () => Iterable<ServerStream>;
} {
  const { identities, proxies, publisher, log, metrics } = deps;
  const served = new Map<ServerStream, Served>();
  const bindings = memo<ServerStream, Binding>();
  const waiting = new Map<ServerStream, Caller>();
  const flavours = new Map<string, number>();
  const count = (flavour: string, by: 1 | -1): void => {
    flavours.set(flavour, (flavours.get(flavour) ?? 0) + by);
    metrics.proxies(flavours);
  };
  /** Names of secrets that are not the caller's: they do not exist for it, and asking is written down. */
  const checkSecrets = (names: Iterable<string>, caller: Caller, id: string): void => {
    for (const name of names) {
      if (name === BUNDLE_SECRET || (name === OWN_SECRET && caller.identity !== undefined)) continue;
      metrics.refused('foreign_secret');
      log.warning('A proxy asked for a secret that is not its own; it gets none.', {
        proxy: id,
        identity: caller.identity,
        secret: name,
        peer: caller.peer,
      });
    }
  };
  const handler: DiscoveryHandler = {
    async identified(stream, info) {
      const caller = identities.authenticate(credentialsOf(stream.peer));
      identities.checkClaim(caller, info, deps.world.current);
      stream.prove();
      // After an outage all come at once; each costs a build, so they take turns.
      waiting.set(stream, caller);
      await publisher.turn((world) => nodeOf(world, info, caller));
      if (!waiting.delete(stream)) return;
      const keeper = caller.identity === undefined ? undefined : identities.keeperFor(info.id, caller);
      const release = keeper?.use(staysKnown(info, deps.world)) ?? NOTHING_TO_RELEASE;
      try {
        const binding: Binding = { given: undefined, taken: undefined };
        bindings.set(stream, binding);
        const proxy = publisher.connect(
          info.id,
          proxyStream(stream, info, caller, binding, () => secretsOf(identities, keeper?.secret())),
        );
        const flavour = proxy.node?.flavour ?? '';
        served.set(stream, { proxy, caller, flavour, release });
        count(flavour, 1);
      } catch (error) {
        release();
        throw error;
      }
      checkSecrets(namesOf(stream.status(), SECRET_TYPE), caller, info.id);
      log.info('A proxy connected.', {
        proxy: info.id,
        identity: caller.identity ?? '',
        by: caller.authentication,
        peer: caller.peer,
        mode: stream.mode,
      });
    },
    event(stream, event) {
      const known = served.get(stream);
      if (known === undefined) return;
      if (event.kind === 'sent') metrics.pushed(shortName(event.typeUrl).toLowerCase());
      if (event.kind === 'nacked') {
        metrics.rejected(shortName(event.typeUrl).toLowerCase());
        log.warning('A proxy rejected a push; it keeps its last good config.', {
          proxy: known.proxy.id,
          type: shortName(event.typeUrl),
          version: event.version,
          reason: event.message,
        });
      }
      if (event.kind === 'subscribed' && event.typeUrl === SECRET_TYPE) checkSecrets(event.change.added, known.caller, known.proxy.id);
      if (matters(event)) proxies.observe(known.proxy);
    },
    published(stream, resources) {
      const binding = bindings.get(stream);
      if (binding !== undefined) binding.taken = resources;
      const known = served.get(stream);
      if (known !== undefined) proxies.observe(known.proxy);
    },
    closed(stream, error) {
      waiting.delete(stream);
      const known = served.get(stream);
      if (known === undefined) return;
      served.delete(stream);
      known.release();
      proxies.remove(known.proxy);
      count(known.flavour, -1);
      log.info('A proxy disconnected.', { proxy: known.proxy.id, reason: error?.message ?? 'it ended the stream' });
    },
  };
  /** Streams that came in by a lease go with it. */
  const endLease = (id: string): void => {
    for (const [stream, caller] of [...waiting, ...[...served].map(([stream, { caller }]) => [stream, caller] as const)])
      if (caller.lease === id) stream.close(CODES.unauthenticated, `the lease ${id} has ended; register again`);
  };
  return { handler, endLease, streams: () => served.keys() };
}

/** Says no once the workload that the node is has been in the world and is there no more: who has left gets no new certificates. */
function staysKnown(info: NodeInfo, world: Watch<World>): () => boolean {
  const claimed = claimedWorkload(info);
  const known = (): boolean => claimed !== undefined && world.current.workloads.has(`${claimed.namespace}/${claimed.name}`);
  let wasKnown = known();
  return () => {
    const isKnown = known();
    wasKnown ||= isKnown;
    return isKnown || !wasKnown;
  };
}

/** A stream takes what it is given in its turn; until then its answers are about what it had before. */
interface Binding {
  given: ResourceSet | undefined;
  taken: ResourceSet | undefined;
}

/** Sending is told by the publish itself, so only answers and new subscriptions move a proxy's state. */
function matters(event: ServerEvent): boolean {
  return event.kind === 'acked' || event.kind === 'nacked' || event.kind === 'subscribed';
}

function proxyStream(
  stream: ServerStream,
  info: NodeInfo,
  caller: Caller,
  binding: Binding,
  secrets: () => readonly EncodedResource[],
): ProxyStream {
  let known: readonly TypeStatus[] = [];
  let types: readonly StreamType[] = [];
  return {
    mode: stream.mode,
    peer: stream.peer.address,
    userAgent: `${info.userAgentName} ${info.userAgentVersion}`.trim(),
    authentication: caller.authentication,
    node: (world) => nodeOf(world, info, caller),
    secrets,
    publish: (resources) => {
      binding.given = resources;
      stream.publish(resources);
    },
    types: () => {
      const now = stream.status();
      if (now !== known) {
        known = now;
        types = now.map((type) => new LiveType(type, binding));
      }
      return types;
    },
  };
}

/** Looked at at every answer of every proxy, so it is made once and tells what is so at the moment. */
class LiveType implements StreamType {
  readonly typeUrl: string;
  readonly #type: TypeStatus;
  readonly #binding: Binding;

  constructor(type: TypeStatus, binding: Binding) {
    this.typeUrl = type.typeUrl;
    this.#type = type;
    this.#binding = binding;
  }

  get sentVersion(): string {
    return this.#type.sentVersion;
  }

  get ackedVersion(): string {
    return this.#type.ackedVersion;
  }

  get rejection(): StreamType['rejection'] {
    const { error, sentVersion } = this.#type;
    return error === '' || !this.settled ? undefined : { version: sentVersion, message: error };
  }

  get settled(): boolean {
    return this.#binding.given === this.#binding.taken && this.#type.settled;
  }
}

/** One list for all who have no certificate of their own: it is compared once. */
const rootsAlone = memo<EncodedResource, readonly EncodedResource[]>();

function secretsOf(identities: Identities, own: EncodedResource | undefined): readonly EncodedResource[] {
  const roots = identities.roots();
  if (own !== undefined) return [roots, own];
  let alone = rootsAlone.get(roots);
  if (alone === undefined) {
    alone = [roots];
    rootsAlone.set(roots, alone);
  }
  return alone;
}

function namesOf(types: readonly TypeStatus[], typeUrl: string): Iterable<string> {
  return types.find((type) => type.typeUrl === typeUrl)?.names ?? [];
}

function credentialsOf(peer: Peer): Parameters<Identities['authenticate']>[0] {
  return { secure: peer.transport === 'tls', certificate: peer.certificate, token: bearerOf(peer), peer: peer.address };
}

/** In order where the peers let it, and by force after a while. */
async function shutdown(server: Server, clock: Clock): Promise<void> {
  const patience = new AbortController();
  const orderly = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  await Promise.race([orderly, sleep(clock, CLOSE_MS_MAX, patience.signal)]);
  patience.abort();
  server.forceShutdown();
}
