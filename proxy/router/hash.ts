/** Hash policies of a route: which part of a request decides its endpoint, hashed as Envoy does so that both agree. */
import type { Random } from '../../lib/random.ts';
import { xxHash64BigInt } from '../../lib/xxhash64.ts';
import type { HashPolicy } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import type { ProxyRequest, ProxyResponse } from '../service.ts';
import { pathEnd } from './rewrite.ts';
import { queryValue } from './match.ts';

/** What goes into the hash; undefined = this policy has nothing to say. */
type Source = (request: ProxyRequest) => string | undefined;

export interface CompiledHash {
  /** Sets `info.hash`. Answers a cookie that the response must set, or undefined. */
  apply(request: ProxyRequest): string | undefined;
}

const MASK = (1n << 64n) - 1n;

/** Compiles the policies; undefined when there are none. */
export function compileHash(policies: readonly HashPolicy[], random: Random, path: string): CompiledHash | undefined {
  if (policies.length === 0) return undefined;
  const parts = policies.map((policy, i) => ({ policy, source: compileSource(policy, `${path}.hash_policy[${i}]`) }));
  return {
    apply: (request) => {
      let hash: bigint | undefined;
      let cookie: string | undefined;
      for (const { policy, source } of parts) {
        let value = source(request);
        if (value === undefined && policy.kind === 'cookie' && policy.ttlMs !== undefined) {
          value = newCookieValue(random);
          cookie = setCookie(policy, value);
        }
        if (value !== undefined) {
          const part = xxHash64BigInt(value);
          hash = hash === undefined ? part : (((hash << 1n) | (hash >> 63n)) & MASK) ^ part;
        }
        if (policy.terminal && hash !== undefined) break;
      }
      request.info.hash = hash;
      return cookie;
    },
  };
}

/** Adds the cookie that `apply` asked for. */
export function addCookie(response: ProxyResponse, cookie: string): void {
  response.headers.append('set-cookie', cookie);
}

function compileSource(policy: HashPolicy, path: string): Source {
  switch (policy.kind) {
    case 'header': {
      const name = policy.header.toLowerCase();
      if (name === ':path') return (request) => request.path;
      if (name === ':authority' || name === 'host') return (request) => request.authority;
      return (request) => request.headers.get(name);
    }
    case 'sourceIp':
      return (request) => request.connection.remoteAddress;
    case 'query': {
      const { name } = policy;
      return (request) => {
        const start = request.path.indexOf('?');
        return start === -1 ? undefined : queryValue(request.path.slice(start + 1), name);
      };
    }
    case 'cookie': {
      const { name } = policy;
      return (request) => cookieValue(request, name);
    }
    case 'filterState':
      throw new ConfigError(path, 'filter_state is not supported as a hash policy; header, cookie, source_ip and query_parameter are');
  }
}

function cookieValue(request: ProxyRequest, name: string): string | undefined {
  const { fields } = request.headers;
  for (let i = 1; i < fields.length; i += 3) {
    if (fields[i] !== 'cookie') continue;
    for (const pair of fields[i + 1]!.split(';')) {
      const equals = pair.indexOf('=');
      if (equals === -1 || pair.slice(0, equals).trim() !== name) continue;
      const value = pair.slice(equals + 1).trim();
      return value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
    }
  }
  return undefined;
}

/** 64 bits of chance in hex: enough to spread, and no secret. */
function newCookieValue(random: Random): string {
  const part = (): string =>
    Math.floor(random() * 0x100000000)
      .toString(16)
      .padStart(8, '0');
  return part() + part();
}

function setCookie(policy: HashPolicy & { kind: 'cookie' }, value: string): string {
  const age = policy.ttlMs === undefined || policy.ttlMs === 0 ? '' : `; Max-Age=${Math.round(policy.ttlMs / 1000)}`;
  return `${policy.name}="${value}"${age}${policy.path === '' ? '' : `; Path=${policy.path.slice(0, pathEnd(policy.path))}`}; HttpOnly`;
}
