/** Endpoints that the request itself names: host and port of its authority, found or made, bounded (Envoy's dynamic forward proxy). */
import type { Address } from '../../xds/snapshot.ts';
import type { ProxyRequest } from '../service.ts';
import type { Member } from './member.ts';

/** Hosts kept at once (Envoy's max_hosts default); the one unused for longest makes room. */
const HOSTS_MAX = 1024;
const DEFAULT_PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 };

export class DynamicMembers {
  /** In order of last use. */
  readonly #members = new Map<string, Member>();
  readonly #make: (key: string, address: Address) => Member;
  /** Told of one that had to go. */
  readonly #removed: (member: Member) => void;

  constructor(make: (key: string, address: Address) => Member, removed: (member: Member) => void) {
    this.#make = make;
    this.#removed = removed;
  }

  /** Undefined when the authority is no host, or when all places are taken by hosts with requests under way. */
  pick(request: ProxyRequest): Member | undefined {
    const { authority } = request;
    const known = this.#members.get(authority);
    if (known !== undefined) {
      this.#members.delete(authority);
      this.#members.set(authority, known);
      return known;
    }
    const address = parseAuthority(authority, DEFAULT_PORTS[request.scheme] ?? 80);
    if (address === undefined || !this.#makeRoom()) return undefined;
    const key = `${address.host}:${address.port}`;
    // The same host may be named with and without its port.
    const member = [...this.#members.values()].find((other) => other.key === key) ?? this.#make(key, address);
    member.hostname = address.host;
    this.#members.set(authority, member);
    return member;
  }

  #makeRoom(): boolean {
    if (this.#members.size < HOSTS_MAX) return true;
    for (const [authority, member] of this.#members) {
      if (member.active > 0) continue;
      this.#members.delete(authority);
      this.#removed(member);
      return true;
    }
    return false;
  }
}

/** Host (an IPv6 one without its brackets) and port of an authority; undefined when it is none. */
export function parseAuthority(authority: string, defaultPort: number): Address | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::(\d{1,5}))?$/.exec(authority);
  if (match === null) return undefined;
  const port = match[3] === undefined ? defaultPort : Number(match[3]);
  if (port < 1 || port > 65_535) return undefined;
  return { host: match[1] ?? match[2]!, port };
}
