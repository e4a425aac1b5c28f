/** A simulated mesh for xDS: a world that changes, a server, a network that breaks and reorders, and clients that are slow and choosy. */
import { ManualClock } from '../../lib/clock.ts';
import { below } from '../../lib/random.ts';
import type { Random } from '../../lib/random.ts';
import { ClientSession } from '../../xds/session/client.ts';
import type { ClientUpdate } from '../../xds/session/client.ts';
import type { DiscoveryRequest, DiscoveryResponse, EncodedResource, Mode } from '../../xds/session/messages.ts';
import { ServerSession } from '../../xds/session/server.ts';
import type { ResourceSet } from '../../xds/session/server.ts';
import { testNode, testResource, testSet } from '../../xds/session/testing.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, PUSH_ORDER, ROUTE_TYPE, shortName } from '../../xds/session/type-urls.ts';
import { EMPTY_SNAPSHOT } from '../../xds/snapshot.ts';
import type { Snapshot } from '../../xds/snapshot.ts';
import { clustersOfRoute, routesOfListener, warm } from '../../proxy/warming.ts';
import { asResource, asSnapshot, inForceOf } from './in-force.ts';
import type { Content } from './in-force.ts';

export type { Content } from './in-force.ts';

/** So long that no simulated client is given up for slow: then nothing may be torn at all. */
export const SERVER_HOLD_MS = 1_000_000;

/** The truth: always whole, so that a torn picture anywhere else is somebody's mistake. */
export class SimWorld {
  epoch = 0;
  readonly clusters = new Map<string, Content>();
  readonly endpoints = new Map<string, Content>();
  readonly routes = new Map<string, Content>();
  readonly listeners = new Map<string, Content>();
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
    for (let step = 0; step < 20; step++) this.change();
  }

  /** One to four small changes, then what lost its target is pointed elsewhere. */
  change(): void {
    this.epoch += 1;
    for (let left = 1 + below(this.#random, 4); left > 0; left--) this.#changeOne();
    for (const name of this.endpoints.keys()) if (!this.clusters.has(name)) this.endpoints.delete(name);
    if (this.clusters.size === 0) this.#addCluster('c0');
    for (const [name, route] of this.routes) {
      if (route.refs.some((ref) => !this.clusters.has(ref))) this.routes.set(name, { epoch: this.epoch, refs: [this.#one(this.clusters)] });
    }
    for (const [name, listener] of this.listeners) if (listener.refs.some((ref) => !this.routes.has(ref))) this.listeners.delete(name);
  }

  #changeOne(): void {
    const name = String(below(this.#random, 12));
    switch (below(this.#random, 8)) {
      case 0:
        return this.#addCluster(`c${name}`);
      case 1:
        return void this.clusters.delete(`c${name}`);
      case 2:
      case 3:
        if (this.clusters.has(`c${name}`)) this.endpoints.set(`c${name}`, { epoch: this.epoch, refs: [] });
        return;
      case 4:
      case 5:
        if (this.clusters.size > 0) this.routes.set(`r${name}`, { epoch: this.epoch, refs: [this.#one(this.clusters)] });
        return;
      case 6:
        if (this.routes.size > 0) this.listeners.set(`l${name}`, { epoch: this.epoch, refs: [this.#one(this.routes)] });
        return;
      case 7:
        if (below(this.#random, 2) === 0) this.routes.delete(`r${name}`);
        else this.listeners.delete(`l${name}`);
    }
  }

  #addCluster(name: string): void {
    this.clusters.set(name, { epoch: this.epoch, refs: [] });
    this.endpoints.set(name, { epoch: this.epoch, refs: [] });
  }

  #one(from: ReadonlyMap<string, Content>): string {
    return [...from.keys()][below(this.#random, from.size)]!;
  }

  of(typeUrl: string): ReadonlyMap<string, Content> {
    return { [CLUSTER_TYPE]: this.clusters, [ENDPOINT_TYPE]: this.endpoints, [ROUTE_TYPE]: this.routes, [LISTENER_TYPE]: this.listeners }[
      typeUrl
    ]!;
  }

  resources(previous: ResourceSet | undefined): ResourceSet {
    const encoded: EncodedResource[] = [];
    for (const typeUrl of [CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE]) {
      for (const [name, { epoch, refs }] of this.of(typeUrl)) encoded.push(testResource(typeUrl, name, `${epoch} ${refs.join(',')}`));
    }
    return testSet(encoded, previous);
  }
}

export interface SimOptions {
  readonly mode: Mode;
  /** Messages of different types may overtake each other, as on streams of their own. */
  readonly reorder: boolean;
  readonly random: Random;
  readonly clock: ManualClock;
  /** Resources that changed are now and then rejected. */
  readonly rejects: boolean;
}

/** One proxy and its link to the server. Every invariant is checked where a client applies something; a breach throws. */
export class SimClient {
  readonly accepted = new Map<string, Map<string, Content>>();
  /** What the sidecar's own warming lets come into force. */
  inForce: Snapshot = EMPTY_SNAPSHOT;
  readonly #options: SimOptions;
  readonly #session: ClientSession;
  readonly #newest = new Map<string, number>();
  readonly #rejected = new Map<string, number>();
  /** The last things that happened, told when an invariant is broken. */
  readonly #history: string[] = [];
  #server: ServerSession | undefined;
  #toServer: DiscoveryRequest[] = [];
  #toClient: DiscoveryResponse[] = [];
  #waiting: ClientUpdate | undefined;
  #broken = false;
  /** Takes nothing from the network for the time being. */
  slow = false;
  rejections = 0;

  constructor(options: SimOptions) {
    this.#options = options;
    this.#session = new ClientSession({
      mode: options.mode,
      clock: options.clock,
      node: testNode(),
      onUpdate: (update) => {
        this.#waiting = update;
      },
    });
    for (const typeUrl of PUSH_ORDER) this.accepted.set(typeUrl, new Map());
    this.#session.subscribe(CLUSTER_TYPE, ['*']);
    this.#session.subscribe(LISTENER_TYPE, ['*']);
  }

  get connected(): boolean {
    return this.#server !== undefined;
  }

  connect(resources: ResourceSet): void {
    this.#server = new ServerSession({ mode: this.#options.mode, clock: this.#options.clock, holdMsMax: SERVER_HOLD_MS });
    this.#server.publish(resources);
    this.#session.connected();
    this.#note('connect');
  }

  /** The stream breaks: what was under way is lost. */
  disconnect(): void {
    this.#server?.close();
    this.#server = undefined;
    this.#broken = true;
    this.#toServer = [];
    this.#toClient = [];
    this.#session.disconnected();
    this.#note('disconnect');
  }

  publish(resources: ResourceSet): void {
    this.#server?.publish(resources);
    this.#note('publish');
  }

  clientSends(): boolean {
    const request = this.#session.next();
    if (request !== undefined) this.#toServer.push(request);
    return request !== undefined;
  }

  serverSends(): boolean {
    const response = this.#server?.next();
    if (response === undefined) return false;
    if (this.#toClient.some((other) => other.typeUrl === response.typeUrl)) {
      throw new Error(`two responses of ${shortName(response.typeUrl)} are under way at once`);
    }
    this.#toClient.push(response);
    this.#note(`server sends ${describe(response)}`);
    return true;
  }

  serverTakes(): boolean {
    const request = this.#take(this.#toServer);
    if (request !== undefined) this.#server?.receive(request);
    if (request !== undefined) this.#note(`server takes ${describe(request)}`);
    return request !== undefined;
  }

  clientTakes(): boolean {
    if (this.#session.busy || this.slow) return false;
    const response = this.#take(this.#toClient);
    if (response !== undefined) this.#session.receive(response);
    if (response !== undefined) this.#note(`client takes ${shortName(response.typeUrl)} ${response.nonce}`);
    return response !== undefined;
  }

  settles(): boolean {
    const update = this.#waiting;
    if (update === undefined) return false;
    this.#waiting = undefined;
    const accepted = this.accepted.get(update.typeUrl)!;
    const problems: { name: string; message: string }[] = [];
    const good: [string, Content][] = [];
    for (const { name, bytes } of update.upserts) {
      const content = parse(name, bytes);
      // Only what was there before and points at nothing is rejected: the last good one stays, and the truth it fits to is still told.
      const rejectable =
        this.#options.rejects && accepted.has(name) && (update.typeUrl === CLUSTER_TYPE || update.typeUrl === ENDPOINT_TYPE);
      if (rejectable && below(this.#options.random, 40) === 0) {
        problems.push({ name, message: 'not to my taste' });
        this.#rejected.set(`${update.typeUrl} ${name}`, content.epoch);
      } else good.push([name, content]);
    }
    for (const [name, content] of good) {
      this.#checkEpoch(update.typeUrl, name, content);
      accepted.set(name, content);
    }
    for (const name of update.removals) accepted.delete(name);
    this.rejections += problems.length;
    this.#checkAccepted();
    this.#follow();
    this.#warm();
    this.#session.settle(update, problems);
    return true;
  }

  /** Compares what the client has with the truth; answers the first difference. */
  difference(world: SimWorld): string | undefined {
    for (const typeUrl of [CLUSTER_TYPE, LISTENER_TYPE, ENDPOINT_TYPE, ROUTE_TYPE]) {
      const wanted = this.#wanted(typeUrl, world);
      const have = this.accepted.get(typeUrl)!;
      for (const [name, content] of wanted) {
        if (have.has(name) && this.#rejected.get(`${typeUrl} ${name}`) === content.epoch) continue;
        if (have.get(name)?.epoch !== content.epoch)
          return `${shortName(typeUrl)} ${name}: has ${have.get(name)?.epoch}, should have ${content.epoch}`;
        if (inForceOf(this.inForce, typeUrl).get(name) !== asResource(typeUrl, name, have.get(name)!))
          return `${shortName(typeUrl)} ${name}: accepted and not in force`;
      }
      for (const name of have.keys()) if (!wanted.has(name)) return `${shortName(typeUrl)} ${name}: should be gone`;
      for (const name of inForceOf(this.inForce, typeUrl).keys())
        if (!wanted.has(name)) return `${shortName(typeUrl)} ${name}: should not be in force`;
    }
    return undefined;
  }

  #wanted(typeUrl: string, world: SimWorld): Map<string, Content> {
    const all = world.of(typeUrl);
    if (typeUrl !== ROUTE_TYPE) return new Map(all);
    const names = new Set([...world.listeners.values()].flatMap((listener) => listener.refs));
    return new Map([...all].filter(([name]) => names.has(name)));
  }

  /** Routes are asked for by listeners, endpoints by clusters, as a proxy does. */
  #follow(): void {
    const routes = new Set([...this.accepted.get(LISTENER_TYPE)!.values()].flatMap((listener) => listener.refs));
    this.#ask(ROUTE_TYPE, routes);
    this.#ask(ENDPOINT_TYPE, new Set(this.accepted.get(CLUSTER_TYPE)!.keys()));
  }

  #ask(typeUrl: string, names: ReadonlySet<string>): void {
    const have =
      this.#session
        .status()
        .find((type) => type.typeUrl === typeUrl)
        ?.resources.map((resource) => resource.name) ?? [];
    const gone = have.filter((name) => !names.has(name));
    const fresh = [...names].filter((name) => !have.includes(name));
    if (fresh.length > 0) this.#session.subscribe(typeUrl, fresh);
    if (gone.length === 0) return;
    this.#session.unsubscribe(typeUrl, gone);
    for (const name of gone) {
      this.accepted.get(typeUrl)!.delete(name);
      this.#newest.delete(`${typeUrl} ${name}`);
    }
  }

  /** Nothing is given up here: what waits, waits for as long as it takes. */
  #warm(): void {
    const target = asSnapshot((typeUrl) => this.accepted.get(typeUrl)!);
    this.inForce = warm(target, this.inForce, new Set()).snapshot;
    this.#checkInForce();
  }

  #take<M extends DiscoveryRequest | DiscoveryResponse>(queue: M[]): M | undefined {
    if (queue.length === 0) return undefined;
    const first = queue[0]!;
    // The message with the node opens the stream; nothing can overtake that.
    if (!this.#options.reorder || 'node' in first) return queue.shift();
    const types = [...new Set(queue.map((message) => message.typeUrl))];
    const typeUrl = types[below(this.#options.random, types.length)]!;
    return queue.splice(
      queue.findIndex((message) => message.typeUrl === typeUrl),
      1,
    )[0];
  }

  #checkEpoch(typeUrl: string, name: string, content: Content): void {
    const key = `${typeUrl} ${name}`;
    const newest = this.#newest.get(key) ?? 0;
    if (content.epoch < newest) this.#breach(`${shortName(typeUrl)} ${name} went back from ${newest} to ${content.epoch}`);
    this.#newest.set(key, content.epoch);
  }

  #note(line: string): void {
    this.#history.push(line);
    if (this.#history.length > 60) this.#history.shift();
  }

  #breach(message: string): never {
    throw new Error(`${this.#options.mode} client: ${message}\n${this.#history.join('\n')}\n`);
  }

  /** On an ordered stream the server alone keeps routes whole, without any help from warming. */
  #checkAccepted(): void {
    if (this.#options.reorder) return;
    // In state-of-the-world mode no server knows what a client that comes back still has: there only warming helps.
    if (this.#options.mode === 'sotw' && this.#broken) return;
    const clusters = this.accepted.get(CLUSTER_TYPE)!;
    for (const [name, route] of this.accepted.get(ROUTE_TYPE)!) {
      for (const ref of route.refs)
        if (!clusters.has(ref)) this.#breach(`route ${name} of ${route.epoch} points at ${ref}, which is not there`);
    }
  }

  #checkInForce(): void {
    const { listeners, routes, clusters, endpoints } = this.inForce;
    const check = (from: string, to: string, there: boolean): void => {
      if (!there) this.#breach(`in force: ${from} points at ${to}, which is not`);
    };
    for (const [name, listener] of listeners)
      for (const route of routesOfListener(listener)) check(`listener ${name}`, `route ${route}`, routes.has(route));
    for (const [name, route] of routes)
      for (const cluster of clustersOfRoute(route)) check(`route ${name}`, `cluster ${cluster}`, clusters.has(cluster));
    for (const name of clusters.keys()) check(`cluster ${name}`, 'its endpoints', endpoints.has(name));
  }
}

/** Undoes `testResource`: field 1 is the name, field 15 the content. */
function parse(name: string, bytes: Uint8Array): Content {
  const [epoch, refs] = Buffer.from(bytes.subarray(4 + name.length))
    .toString()
    .split(' ');
  return { epoch: Number(epoch), refs: refs === '' || refs === undefined ? [] : refs.split(',') };
}

function describe(message: DiscoveryRequest | DiscoveryResponse): string {
  const words = [shortName(message.typeUrl)];
  if ('nonce' in message) {
    words.push(
      `nonce ${message.nonce}`,
      ...message.resources.map(
        (resource) => `${resource.name}=${resource.bytes === undefined ? '' : parse(resource.name, resource.bytes).epoch}`,
      ),
    );
    if (message.mode === 'delta') words.push(...message.removed.map((name) => `-${name}`));
  } else {
    if (message.mode === 'sotw') words.push(`[${message.resourceNames.join(' ')}]`);
    else words.push(...message.subscribe.map((name) => `+${name}`), ...message.unsubscribe.map((name) => `-${name}`));
    if (message.responseNonce !== '') words.push(`answers ${message.responseNonce}${message.error === undefined ? '' : ' NACK'}`);
  }
  return words.join(' ');
}
