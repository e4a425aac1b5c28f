/** All listening sockets: binds what is new before anything is switched, keeps what stays, and drains what goes. */
import { bindListener } from './bound-listener.ts';
import type { BoundListener, ListenDeps } from './bound-listener.ts';
import type { CompiledListener } from './chain.ts';
import type { Address } from '../../xds/snapshot.ts';

export interface ListenerSetDeps extends ListenDeps {
  /** After it the connections of a removed listener are cut. */
  readonly drainTimeMs: number;
}

/** Sockets that are open for the next configuration and not yet in use. */
export interface PreparedListeners {
  /** Listeners whose address could not be bound, with the reason. They keep what they had. */
  readonly problems: ReadonlyMap<string, string>;
  /** Puts the new configuration in force; synchronous. */
  commit(): void;
  /** Closes what was opened. */
  abort(): Promise<void>;
}

export class ListenerSet {
  readonly #deps: ListenerSetDeps;
  /** By listener name, then by address as configured. */
  readonly #bound = new Map<string, Map<string, BoundListener>>();
  readonly #draining = new Set<BoundListener>();
  readonly #cancelTimers = new Set<() => void>();
  #drainingAll = false;
  #failing = false;

  constructor(deps: ListenerSetDeps) {
    this.#deps = deps;
  }

  /** Opens what the next configuration needs. Answers at once, without a promise, when nothing has to be opened. */
  prepare(listeners: ReadonlyMap<string, CompiledListener>): PreparedListeners | Promise<PreparedListeners> {
    const problems = new Map<string, string>();
    const wanted = wantedSockets(listeners, problems);
    const free = this.#byAddress();
    const opening: Promise<Opened>[] = [];
    const plan = new Map<string, Map<string, BoundListener>>();
    for (const socket of wanted) {
      const known =
        this.#bound.get(socket.name)?.get(socket.key) ??
        (socket.address.port === 0 && socket.address.pipe !== true ? undefined : free.get(socket.key));
      if (known === undefined) opening.push(this.#open(socket));
      else place(plan, socket.name, socket.key, known);
    }
    if (opening.length === 0) return this.#prepared(listeners, plan, problems, []);
    return Promise.all(opening).then((results) => {
      const opened: BoundListener[] = [];
      for (const { socket, bound, error } of results) {
        if (bound === undefined) problems.set(socket.name, `cannot listen on ${socket.key}: ${error}`);
        else {
          opened.push(bound);
          place(plan, socket.name, socket.key, bound);
        }
      }
      return this.#prepared(listeners, plan, problems, opened);
    });
  }

  /** Name and real addresses of each listener that accepts. */
  views(): { name: string; addresses: Address[]; inbound: boolean }[] {
    return [...this.#bound].map(([name, sockets]) => ({
      name,
      addresses: [...sockets.values()].map((bound) => bound.address),
      inbound: [...sockets.values()].some((bound) => bound.compiled.config.trafficDirection === 'INBOUND'),
    }));
  }

  /** Whether a connection to this address would come back in by an outbound listener: a loop. `host` is the peer's address of a local connection. */
  isOutbound(host: string, port: number): boolean {
    for (const sockets of this.#bound.values()) {
      for (const bound of sockets.values()) {
        if (bound.compiled.config.trafficDirection !== 'OUTBOUND') continue;
        const { address } = bound;
        if (address.port === port && (address.host === host || ANY_ADDRESS.has(address.host))) return true;
      }
    }
    return false;
  }

  /** Sockets that no listener needs any more, whose connections have still to end. */
  get draining(): number {
    return this.#draining.size;
  }

  get connections(): number {
    let count = 0;
    for (const bound of this.#all()) count += bound.connections;
    return count;
  }

  /** Has the bytes of all connections counted, before statistics are read. */
  countBytes(): void {
    for (const bound of this.#all()) bound.countBytes();
  }

  /** Connections that have something under way, or that are still being accepted. */
  get active(): number {
    let count = 0;
    for (const bound of this.#all()) count += bound.active;
    return count;
  }

  /** Asks connections to end after what is under way; with `stop` no new ones are accepted. Answers how many listeners that meant. */
  drain(options: { readonly inboundOnly: boolean; readonly stop: boolean }): number {
    if (!options.inboundOnly) this.#drainingAll = true;
    const names = new Set<string>();
    for (const bound of this.#all()) {
      const { config } = bound.compiled;
      if (options.inboundOnly && config.trafficDirection !== 'INBOUND') continue;
      names.add(config.name);
      bound.drain();
      if (options.stop) void bound.stopAccepting();
    }
    return names.size;
  }

  /** While health checks fail, connections end with their next answer, so that clients come to another instance. */
  fail(failing: boolean): void {
    this.#failing = failing;
    for (const bound of this.#all()) {
      if (failing) bound.drain();
      else if (!this.#drainingAll && !this.#draining.has(bound)) bound.undrain();
    }
  }

  /** Ends everything at once. */
  async close(): Promise<void> {
    for (const cancel of this.#cancelTimers) cancel();
    await Promise.all([...this.#all()].map((bound) => bound.close()));
    this.#bound.clear();
    this.#draining.clear();
  }

  #prepared(
    listeners: ReadonlyMap<string, CompiledListener>,
    plan: ReadonlyMap<string, ReadonlyMap<string, BoundListener>>,
    problems: ReadonlyMap<string, string>,
    opened: readonly BoundListener[],
  ): PreparedListeners {
    return {
      problems,
      commit: () => this.#commit(listeners, plan, problems, opened),
      abort: async () => {
        await Promise.all(opened.map((bound) => bound.close()));
      },
    };
  }

  #commit(
    listeners: ReadonlyMap<string, CompiledListener>,
    plan: ReadonlyMap<string, ReadonlyMap<string, BoundListener>>,
    problems: ReadonlyMap<string, string>,
    opened: readonly BoundListener[],
  ): void {
    const kept = new Set<BoundListener>();
    const next = new Map<string, Map<string, BoundListener>>();
    for (const [name, sockets] of plan) {
      if (problems.has(name)) continue;
      const compiled = listeners.get(name)!;
      for (const bound of sockets.values()) {
        bound.compiled = compiled;
        kept.add(bound);
        if (this.#drainingAll || this.#failing) bound.drain();
      }
      next.set(name, new Map(sockets));
    }
    for (const name of problems.keys()) {
      const old = this.#bound.get(name);
      if (old === undefined) continue;
      next.set(name, old);
      for (const bound of old.values()) kept.add(bound);
    }
    for (const sockets of this.#bound.values()) for (const bound of sockets.values()) if (!kept.has(bound)) this.#retire(bound);
    for (const bound of opened) if (!kept.has(bound)) void bound.close();
    this.#bound.clear();
    for (const [name, sockets] of next) this.#bound.set(name, sockets);
  }

  /** A socket that no listener needs any more: closed for new connections, the others end in peace. */
  #retire(bound: BoundListener): void {
    this.#draining.add(bound);
    bound.drain();
    const cancel = this.#deps.clock.after(this.#deps.drainTimeMs, () => void bound.close());
    this.#cancelTimers.add(cancel);
    void bound.stopAccepting().then(() => {
      cancel();
      this.#cancelTimers.delete(cancel);
      this.#draining.delete(bound);
    });
  }

  #open(socket: WantedSocket): Promise<Opened> {
    return bindListener(socket.address, socket.compiled, this.#deps).then(
      (bound): Opened => ({ socket, bound, error: '' }),
      (error: unknown): Opened => ({ socket, bound: undefined, error: error instanceof Error ? error.message : String(error) }),
    );
  }

  #byAddress(): Map<string, BoundListener> {
    const free = new Map<string, BoundListener>();
    for (const sockets of this.#bound.values()) for (const [key, bound] of sockets) free.set(key, bound);
    return free;
  }

  *#all(): IterableIterator<BoundListener> {
    for (const sockets of this.#bound.values()) yield* sockets.values();
    yield* this.#draining;
  }
}

const ANY_ADDRESS: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

interface WantedSocket {
  readonly name: string;
  readonly key: string;
  readonly address: Address;
  readonly compiled: CompiledListener;
}

interface Opened {
  readonly socket: WantedSocket;
  readonly bound: BoundListener | undefined;
  readonly error: string;
}

/** The sockets of all listeners. Two listeners on one address are a problem of the second. */
function wantedSockets(listeners: ReadonlyMap<string, CompiledListener>, problems: Map<string, string>): WantedSocket[] {
  const owners = new Map<string, string>();
  const wanted: WantedSocket[] = [];
  for (const [name, compiled] of listeners) {
    if (!compiled.config.bindToPort) continue;
    for (const address of [compiled.config.address, ...(compiled.config.additionalAddresses ?? [])]) {
      const key = address.pipe === true ? address.host : `${address.host}:${address.port}`;
      const owner = owners.get(key);
      if (owner !== undefined && !(address.port === 0 && address.pipe !== true)) {
        problems.set(name, `has the same address ${key} as listener ${JSON.stringify(owner)}`);
        continue;
      }
      owners.set(key, name);
      wanted.push({ name, key, address, compiled });
    }
  }
  return wanted.filter((socket) => !problems.has(socket.name));
}

function place(plan: Map<string, Map<string, BoundListener>>, name: string, key: string, bound: BoundListener): void {
  const sockets = plan.get(name) ?? new Map<string, BoundListener>();
  sockets.set(key, bound);
  plan.set(name, sockets);
}
