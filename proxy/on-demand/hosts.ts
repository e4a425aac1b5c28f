/** The hosts of a proxy that asks for routes on demand: what is asked for, what is in use, what does not exist, who waits, and what is forgotten. */
import { ProxyError } from '../errors.ts';
import { TokenBucket } from '../filters/local-ratelimit.ts';
import { askedNameOf, HostTable, leastUsed } from './table.ts';
import type { Entry, Settle, Waiting } from './table.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Counter, Gauge, Registry } from '../../lib/metrics.ts';
import type { Snapshot, VirtualHost } from '../../xds/snapshot.ts';

export interface OnDemandOptions {
  readonly clock: Clock;
  readonly registry: Registry;
  /** A host without a request for this long is forgotten; default 300,000. */
  readonly idleMs?: number;
  /** Virtual hosts in use at the same time; beyond, the one that was unused for longest goes. Default 1,000. */
  readonly hostsMax?: number;
  /** How long a request waits for its host; default 5,000, Envoy's. */
  readonly timeoutMs?: number;
  readonly limits?: Partial<OnDemandLimits>;
}

export interface OnDemandLimits {
  /** Hosts that are asked for and not answered yet; default 256. */
  readonly asked: number;
  /** Requests that wait; default 1,000. */
  readonly waiting: number;
  /** Hosts that are known not to exist; beyond, the one that was unused for longest goes. Default 1,000. */
  readonly unknown: number;
  /** Hosts that may be asked for at once, and per second in the long run: who invents names must not keep the control plane busy. Default 500 and 50. */
  readonly burst: number;
  readonly perSecond: number;
}

const IDLE_MS = 300_000;
const HOSTS_MAX = 1_000;
const TIMEOUT_MS = 5_000;
const LIMITS: OnDemandLimits = { asked: 256, waiting: 1_000, unknown: 1_000, burst: 500, perSecond: 50 };
const SWEEP_MS_MAX = 30_000;
const SWEEP_MS_MIN = 20;
/** What the proxy around it does with the names. */
export interface OnDemandOwner {
  /** Brings subscriptions and configuration in line with `names()`; `dropped` are virtual hosts that are no longer used. */
  changed(dropped: readonly string[]): void;
  /** Why a virtual host that came is not in force: what a request reads that waited in vain. Undefined = it is. */
  reasonOf(virtualHost: string): ProxyError | undefined;
  /** Whether the control plane is there to answer. */
  isConnected(): boolean;
}

export class OnDemand {
  readonly timeoutMs: number;
  readonly idleMs: number;
  readonly #clock: Clock;
  readonly #hostsMax: number;
  readonly #limits: OnDemandLimits;
  readonly #budget: TokenBucket;
  readonly #stats: { readonly [K in 'asked' | 'unknown' | 'timeout' | 'overflow' | 'forgotten']: Counter } & { readonly hosts: Gauge };
  readonly #tables = new Map<string, HostTable>();
  /** By resource name: what is in use. */
  readonly #used = new Map<string, Entry>();
  readonly #asked = new Set<Entry>();
  readonly #unknown = new Set<Entry>();
  #owner: OnDemandOwner | undefined;
  #waiting = 0;
  #cancelSweep: (() => void) | undefined;
  #cancelOutdated: (() => void) | undefined;

  constructor(options: OnDemandOptions) {
    this.#clock = options.clock;
    this.idleMs = options.idleMs ?? IDLE_MS;
    this.timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#hostsMax = options.hostsMax ?? HOSTS_MAX;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#budget = new TokenBucket({
      max: this.#limits.burst,
      perFill: 1,
      fillMs: 1_000 / this.#limits.perSecond,
      nowMs: this.#clock.now(),
    });
    const counter = (name: string): Counter => options.registry.counter(`envoy_on_demand_${name}`, {}, { dotted: `on_demand.${name}` });
    this.#stats = {
      asked: counter('asked'),
      unknown: counter('unknown'),
      timeout: counter('timeout'),
      overflow: counter('overflow'),
      forgotten: counter('forgotten'),
      hosts: options.registry.gauge('envoy_on_demand_hosts', {}, { dotted: 'on_demand.hosts' }),
    };
  }

  /** The stream that answers. Without one nothing can be asked for. */
  attach(owner: OnDemandOwner): void {
    this.#owner = owner;
  }

  /** The table of a route configuration; the same one for as long as the proxy runs. */
  table(routes: string): HostTable {
    let table = this.#tables.get(routes);
    if (table === undefined) this.#tables.set(routes, (table = new HostTable(routes, (...asking) => this.#wait(...asking))));
    return table;
  }

  /** Every name that is to be subscribed to. */
  names(): Set<string> {
    const names = new Set<string>();
    for (const entries of [this.#used.values(), this.#asked, this.#unknown])
      for (const entry of entries) for (const name of entry.asked) names.add(name);
    return names;
  }

  /** How many virtual hosts are in use, asked for, and known not to exist. */
  get sizes(): { readonly used: number; readonly asked: number; readonly unknown: number } {
    return { used: this.#used.size, asked: this.#asked.size, unknown: this.#unknown.size };
  }

  #wait(table: HostTable, host: string, request: Waiting): Promise<void> | undefined {
    const owner = this.#owner;
    if (owner === undefined) return undefined;
    const known = table.entries.get(host);
    if (known === undefined && (this.#asked.size >= this.#limits.asked || !this.#budget.take(this.#clock.now()))) return this.#overflow();
    if (this.#waiting >= this.#limits.waiting) return this.#overflow();
    const entry = known ?? this.#ask(table, host);
    return new Promise((resolve, reject) => {
      const settle: Settle = (error) => {
        cancel();
        request.abort = undefined;
        this.#waiting--;
        if (error === undefined) resolve();
        else reject(error);
      };
      const cancel = this.#clock.after(this.timeoutMs, () => this.#timedOut(table, host, settle));
      request.abort = (error) => this.#leave(table, host, settle, error);
      this.#waiting++;
      entry.waiters.add(settle);
      if (known === undefined) owner.changed([]);
    });
  }

  /** An answer of the control plane, before it is put in force. Answers virtual hosts that nobody has a name for any more. */
  received(
    upserts: readonly { readonly name: string; readonly aliases?: readonly string[]; readonly value: VirtualHost }[],
    removals: readonly string[],
  ): readonly string[] {
    const dropped: string[] = [];
    for (const name of removals) this.#removed(name, dropped);
    for (const { name, aliases = [], value } of upserts) this.#arrived(name, aliases, value, dropped);
    this.#bound(dropped);
    return dropped.filter((name) => !this.#used.has(name));
  }

  /** A virtual host that came and cannot be used: who waits for it need wait no longer. An older one that is in force stays. */
  refused(names: readonly string[], message: string): void {
    for (const name of names) {
      const entry = this.#used.get(name) ?? this.#entryOf(name);
      if (entry === undefined) continue;
      settleAll(entry, new ProxyError('hostNotDiscovered', `Its routes were rejected: ${message}`));
      if (entry.exists === undefined) this.#drop(entry, []);
    }
  }

  /** Something was put in force: whoever waits for a part of it goes on. */
  applied({ virtualHosts }: Pick<Snapshot, 'virtualHosts'>): void {
    if (this.#waiting === 0) return;
    for (const [name, entry] of this.#used) if (entry.waiters.size > 0 && virtualHosts.has(name)) settleAll(entry);
  }

  /** Virtual hosts from disk: they are in use until they were not for long enough. */
  adopt(virtualHosts: Iterable<readonly [name: string, value: VirtualHost]>): void {
    for (const [name, value] of virtualHosts) {
      if (this.#used.has(name)) continue;
      this.#arrived(name, [], value, [], askedNameOf(name, value));
    }
    this.#bound([]);
  }

  /** A route configuration has changed: its virtual hosts are asked for anew, and what is not spoken of in time goes (rule 44). */
  parentChanged(routes: string): void {
    let any = false;
    for (const entry of this.#used.values()) {
      if (entry.table.routes !== routes) continue;
      entry.outdated = true;
      any = true;
    }
    if (any) this.#armOutdated();
  }

  close(): void {
    this.#cancelSweep?.();
    this.#cancelOutdated?.();
    for (const entries of [this.#used.values(), this.#asked]) for (const entry of entries) settleAll(entry, new ProxyError('draining'));
    this.#owner = undefined;
  }

  #ask(table: HostTable, host: string): Entry {
    const entry = this.#entry(table, '', undefined);
    entry.asked.add(`${table.routes}/${host}`);
    entry.hosts.add(host);
    table.entries.set(host, entry);
    this.#asked.add(entry);
    this.#stats.asked.inc();
    return entry;
  }

  #entry(table: HostTable, virtualHost: string, exists: boolean | undefined): Entry {
    this.#arm();
    return {
      virtualHost,
      exists,
      usedMs: this.#clock.now(),
      asked: new Set(),
      hosts: new Set(),
      waiters: new Set(),
      table,
      outdated: false,
    };
  }

  /** `asked`: a name that it is asked for by from now on. */
  #arrived(name: string, aliases: readonly string[], value: VirtualHost, dropped: string[], asked?: string): void {
    const table = this.table(name.slice(0, Math.max(0, name.lastIndexOf('/'))));
    const entry = this.#used.get(name) ?? this.#entry(table, name, true);
    this.#used.set(name, entry);
    entry.outdated = false;
    const prefix = `${table.routes}/`;
    const named = [name, ...aliases].filter((one) => one.startsWith(prefix)).map((one) => one.slice(prefix.length));
    const hosts = new Set([...value.domains.filter((domain) => !domain.includes('*')), ...named]);
    for (const host of entry.hosts) {
      // What was asked for by a name that is no longer one of its own is told by the control plane under that name.
      if (hosts.has(host) || entry.asked.has(prefix + host)) continue;
      entry.hosts.delete(host);
      if (table.entries.get(host) === entry) table.entries.delete(host);
    }
    for (const host of hosts) {
      const before = table.entries.get(host);
      if (before === entry) continue;
      entry.hosts.add(host);
      table.entries.set(host, entry);
      if (before !== undefined) this.#takeOver(entry, before, host, dropped);
    }
    if (asked !== undefined) entry.asked.add(asked);
    // It was on its way when whoever asked for it was forgotten.
    if (entry.asked.size === 0) this.#drop(entry, dropped);
  }

  /** A host goes from one entry to another, with what was asked and who waits. */
  #takeOver(entry: Entry, before: Entry, host: string, dropped: string[]): void {
    const name = `${entry.table.routes}/${host}`;
    before.hosts.delete(host);
    if (before.asked.delete(name)) entry.asked.add(name);
    entry.usedMs = Math.max(entry.usedMs, before.usedMs);
    if (before.virtualHost !== '') {
      if (before.asked.size === 0) this.#drop(before, dropped);
      return;
    }
    for (const settle of before.waiters) entry.waiters.add(settle);
    before.waiters.clear();
    this.#asked.delete(before);
    this.#unknown.delete(before);
  }

  #removed(name: string, dropped: string[]): void {
    const used = this.#used.get(name);
    if (used !== undefined) {
      const { asked, table } = used;
      this.#drop(used, dropped);
      for (const one of asked) this.#notThere(table, one.slice(table.routes.length + 1), used.usedMs);
      return;
    }
    const entry = this.#entryOf(name);
    if (entry === undefined || entry.exists === false) return;
    const host = name.slice(entry.table.routes.length + 1);
    entry.asked.delete(name);
    entry.hosts.delete(host);
    if (entry.virtualHost === '') this.#asked.delete(entry);
    else if (entry.asked.size === 0) this.#drop(entry, dropped);
    this.#notThere(entry.table, host, entry.usedMs);
    if (entry.virtualHost === '') settleAll(entry);
  }

  /** The host stays asked for: when it comes to be, the control plane says so. */
  #notThere(table: HostTable, host: string, usedMs: number): void {
    const entry = this.#entry(table, '', false);
    entry.usedMs = usedMs;
    entry.asked.add(`${table.routes}/${host}`);
    entry.hosts.add(host);
    table.entries.set(host, entry);
    this.#unknown.add(entry);
    this.#stats.unknown.inc();
  }

  #entryOf(name: string): Entry | undefined {
    const slash = name.lastIndexOf('/');
    return this.#tables.get(name.slice(0, Math.max(0, slash)))?.entries.get(name.slice(slash + 1));
  }

  #drop(entry: Entry, dropped: string[]): void {
    for (const host of entry.hosts) if (entry.table.entries.get(host) === entry) entry.table.entries.delete(host);
    settleAll(entry);
    this.#asked.delete(entry);
    this.#unknown.delete(entry);
    if (this.#used.get(entry.virtualHost) === entry) {
      this.#used.delete(entry.virtualHost);
      dropped.push(entry.virtualHost);
    }
  }

  /** Keeps both tables within their bounds; who has requests waiting stays. */
  #bound(dropped: string[]): void {
    while (this.#used.size > this.#hostsMax) this.#drop(leastUsed(this.#used.values()), dropped);
    while (this.#unknown.size > this.#limits.unknown) this.#drop(leastUsed(this.#unknown), dropped);
    this.#stats.hosts.set(this.#used.size);
  }

  #timedOut(table: HostTable, host: string, settle: Settle): void {
    this.#stats.timeout.inc();
    const entry = table.entries.get(host);
    const reason = entry === undefined || entry.virtualHost === '' ? undefined : this.#owner?.reasonOf(entry.virtualHost);
    const away = this.#owner?.isConnected() === true ? '' : ' The control plane cannot be reached.';
    const detail = `Host ${JSON.stringify(host)} was waited for ${this.timeoutMs} ms.${away}`;
    this.#leave(table, host, settle, reason ?? new ProxyError('hostNotDiscovered', detail));
  }

  /** One waits no longer. What nobody waits for, and was not answered, is not asked for any more. */
  #leave(table: HostTable, host: string, settle: Settle, error: ProxyError): void {
    const entry = table.entries.get(host);
    entry?.waiters.delete(settle);
    settle(error);
    if (entry === undefined || entry.exists !== undefined || entry.waiters.size > 0) return;
    this.#drop(entry, []);
    this.#owner?.changed([]);
  }

  #overflow(): Promise<never> {
    this.#stats.overflow.inc();
    return Promise.reject(new ProxyError('hostOverflow'));
  }

  #armOutdated(): void {
    this.#cancelOutdated?.();
    this.#cancelOutdated = this.#clock.after(this.timeoutMs, () => this.#dropOutdated());
  }

  #dropOutdated(): void {
    this.#cancelOutdated = undefined;
    const outdated = [...this.#used.values()].filter((entry) => entry.outdated);
    if (outdated.length === 0) return;
    // Nobody is there who could speak of them: they serve on (rule 39), and are asked for when the stream is back.
    if (this.#owner?.isConnected() !== true) {
      this.#armOutdated();
      return;
    }
    this.#forget(outdated);
  }

  #arm(): void {
    if (this.#cancelSweep !== undefined) return;
    this.#cancelSweep = this.#clock.after(Math.min(SWEEP_MS_MAX, Math.max(SWEEP_MS_MIN, this.idleMs / 4)), () => {
      this.#cancelSweep = undefined;
      this.#sweep();
    });
  }

  #sweep(): void {
    const dueMs = this.#clock.now() - this.idleMs;
    const idle = (entry: Entry): boolean => entry.usedMs <= dueMs && entry.waiters.size === 0;
    const found = [...this.#used.values(), ...this.#unknown].filter(idle);
    if (this.#used.size + this.#unknown.size + this.#asked.size > found.length) this.#arm();
    if (found.length > 0) this.#forget(found);
  }

  #forget(entries: readonly Entry[]): void {
    const dropped: string[] = [];
    for (const entry of entries) this.#drop(entry, dropped);
    this.#stats.forgotten.add(dropped.length);
    this.#stats.hosts.set(this.#used.size);
    this.#owner?.changed(dropped);
  }
}

function settleAll(entry: Entry, error?: ProxyError): void {
  const waiters = [...entry.waiters];
  entry.waiters.clear();
  for (const settle of waiters) settle(error);
}
