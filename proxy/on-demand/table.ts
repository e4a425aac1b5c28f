/** One table of hosts: what a request's authority leads to, and what stands behind it. */
import type { ProxyError } from '../errors.ts';
import type { ProxyRequest } from '../service.ts';
import type { VirtualHost } from '../../xds/snapshot.ts';

/** A host with its port. A slash would be another table's name, and a star a pattern. */
const HOST = /^[^\s/*]{1,262}$/;

/** How a wait ends: well, or with an error. */
export type Settle = (error: ProxyError | undefined) => void;

/** One entry of a table, found by the request's authority. Whoever sends a request for it writes `usedMs`. */
export interface HostEntry {
  /** Resource name of the virtual host; empty while it is asked for, and when it does not exist. */
  readonly virtualHost: string;
  /** False = the host is known not to exist, and what stands for all hosts serves it. Undefined while nothing is known. */
  exists: boolean | undefined;
  usedMs: number;
}

export interface Entry extends HostEntry {
  /** Names under which it is asked for: `<routes>/<host>`. */
  readonly asked: Set<string>;
  /** Keys of its table that lead here. */
  readonly hosts: Set<string>;
  readonly waiters: Set<Settle>;
  readonly table: HostTable;
  /** Its parent changed, and the control plane has not spoken of it since. */
  outdated: boolean;
}

/** Whoever waits; a client that goes away ends it. */
export type Waiting = Pick<ProxyRequest, 'abort'>;

type Ask = (table: HostTable, host: string, request: Waiting) => Promise<void> | undefined;

/** The hosts of one route configuration. */
export class HostTable {
  readonly routes: string;
  readonly entries = new Map<string, Entry>();
  readonly #ask: Ask;

  constructor(routes: string, ask: Ask) {
    this.routes = routes;
    this.#ask = ask;
  }

  /** The entry of an authority; names are lower case, as Envoy asks for them. */
  find(authority: string): HostEntry | undefined {
    return this.entries.get(authority) ?? this.entries.get(authority.toLowerCase());
  }

  /** Asks for a host and waits for what comes of it. Undefined = such a name, or any, cannot be asked for. Rejects with `ProxyError`. */
  wait(authority: string, request: Waiting): Promise<void> | undefined {
    const host = authority.toLowerCase();
    return HOST.test(host) ? this.#ask(this, host, request) : undefined;
  }
}

/** The one to let go of first; one that is waited for last of all. */
export function leastUsed(entries: Iterable<Entry>): Entry {
  let found: Entry | undefined;
  for (const entry of entries) {
    if (found === undefined || (entry.waiters.size === 0 && (found.waiters.size > 0 || entry.usedMs < found.usedMs))) found = entry;
  }
  return found!;
}

/** By which name a virtual host that came from disk is asked for: its own where that is a host, else its first domain's. */
export function askedNameOf(name: string, { domains }: VirtualHost): string {
  const slash = name.lastIndexOf('/');
  const exact = domains.filter((domain) => !domain.includes('*'));
  const host = name.slice(slash + 1);
  return exact.includes(host) || exact[0] === undefined ? name : `${name.slice(0, slash)}/${exact[0]}`;
}
