/** Membership by DNS: names of a cluster become addresses, and the last good answer stays when the resolver fails (STRICT_DNS, LOGICAL_DNS). */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Random } from '../../lib/random.ts';
import type { Cluster, LbEndpoint, LoadAssignment } from '../../xds/snapshot.ts';

/** Answers the addresses of a name; `ttlMs` when the resolver tells. An empty list means that the name has none. Rejects when it could not be asked. */
export type Resolve = (
  host: string,
  family: Cluster['dnsLookupFamily'],
) => Promise<{ readonly addresses: readonly string[]; readonly ttlMs?: number }>;

export interface DnsDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly resolve: Resolve;
}

/** Told of each question and its outcome. */
export interface DnsCounts {
  updateAttempted(): void;
  updated(changed: boolean): void;
  updateFailed(): void;
}

/** Shortest wait between two questions, whatever a TTL says. */
const REFRESH_MS_MIN = 1_000;
const ADDRESSES_MAX = 1024;

/** The operating system's resolver, `/etc/hosts` included. It tells no TTL. */
export const systemResolve: Resolve = async (host, family) => {
  const wanted = family === 'V4_ONLY' ? 4 : family === 'V6_ONLY' ? 6 : 0;
  const found = await lookup(host, { all: true, family: wanted });
  const v4 = found.filter((one) => one.family === 4).map((one) => one.address);
  const v6 = found.filter((one) => one.family === 6).map((one) => one.address);
  if (family === 'ALL') return { addresses: [...v4, ...v6] };
  // Envoy's AUTO prefers IPv6 where there is any.
  if (family === 'V4_PREFERRED') return { addresses: v4.length > 0 ? v4 : v6 };
  return { addresses: v6.length > 0 ? v6 : v4 };
};

/** Asks for all names of a cluster again and again, and reports each changed membership. */
export class DnsMembership {
  readonly #config: Cluster;
  readonly #deps: DnsDeps;
  readonly #report: (assignment: LoadAssignment) => void;
  readonly #stats: DnsCounts;
  /** Last good answer by name. */
  readonly #known = new Map<string, readonly string[]>();
  #last = '';
  #stop: (() => void) | undefined = undefined;
  #closed = false;

  constructor(config: Cluster, deps: DnsDeps, stats: DnsCounts, report: (assignment: LoadAssignment) => void) {
    this.#config = config;
    this.#deps = deps;
    this.#stats = stats;
    this.#report = report;
    void this.#round();
  }

  close(): void {
    this.#closed = true;
    this.#stop?.();
  }

  async #round(): Promise<void> {
    const { dnsLookupFamily, dnsRefreshMs, respectDnsTtl, name } = this.#config;
    let ttlMs = Number.POSITIVE_INFINITY;
    const hosts = new Set(
      this.#templates().flatMap(({ address }) => (address.pipe === true || isIP(address.host) !== 0 ? [] : [address.host])),
    );
    await Promise.all(
      [...hosts].map(async (host) => {
        this.#stats.updateAttempted();
        try {
          const answer = await this.#deps.resolve(host, dnsLookupFamily);
          const addresses = answer.addresses.slice(0, ADDRESSES_MAX);
          this.#stats.updated(String(addresses.toSorted()) !== String(this.#known.get(host)?.toSorted()));
          this.#known.set(host, addresses);
          if (answer.ttlMs !== undefined) ttlMs = Math.min(ttlMs, answer.ttlMs);
        } catch (error) {
          this.#stats.updateFailed();
          this.#deps.log.warning('A name could not be resolved; the last good answer stays.', { cluster: name, host, error });
        }
      }),
    );
    if (this.#closed) return;
    this.#tell();
    const refreshMs = respectDnsTtl && ttlMs !== Number.POSITIVE_INFINITY ? Math.max(REFRESH_MS_MIN, ttlMs) : dnsRefreshMs;
    // Up to a tenth later, so that a fleet that was started together does not ask together.
    this.#stop = this.#deps.clock.after(refreshMs * (1 + this.#deps.random() / 10), () => void this.#round());
  }

  #templates(): LbEndpoint[] {
    return this.#config.loadAssignment?.localities.flatMap((locality) => locality.endpoints) ?? [];
  }

  #tell(): void {
    const given = this.#config.loadAssignment;
    const logical = this.#config.type === 'LOGICAL_DNS';
    const localities = (given?.localities ?? []).map((locality) => ({
      ...locality,
      endpoints: locality.endpoints.flatMap((endpoint): LbEndpoint[] => {
        const { host } = endpoint.address;
        if (endpoint.address.pipe === true || isIP(host) !== 0) return [endpoint];
        const addresses = [...(this.#known.get(host) ?? [])];
        // A logical name stands for one endpoint however many addresses it has; the first is dialled.
        const used = logical ? addresses.slice(0, 1) : addresses.toSorted();
        const hostname = endpoint.hostname === '' ? host : endpoint.hostname;
        return used.map((address) => ({ ...endpoint, hostname, address: { host: address, port: endpoint.address.port } }));
      }),
    }));
    const assignment: LoadAssignment = {
      clusterName: this.#config.name,
      localities,
      overprovisioningFactor: given?.overprovisioningFactor ?? 140,
      dropPercent: given?.dropPercent ?? 0,
    };
    const text = JSON.stringify(assignment);
    if (text === this.#last) return;
    this.#last = text;
    this.#report(assignment);
  }
}
