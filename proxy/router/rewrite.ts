/** Paths and hosts as the upstream shall see them, and where a redirect points. */
import type { ForwardAction, RedirectAction, RouteMatch } from '../../xds/snapshot.ts';
import { localResponse } from '../http1/error-response.ts';
import type { ProxyRequest, Send } from '../service.ts';
import { compilePattern } from './match.ts';

type PathKind = RouteMatch['path'];

/** Turns a path (query included) into the rewritten one. */
export type PathRewrite = (path: string) => string;

/** Where the query or fragment begins, else the end. */
export function pathEnd(path: string): number {
  const query = path.indexOf('?');
  const fragment = path.indexOf('#');
  if (query === -1) return fragment === -1 ? path.length : fragment;
  return fragment === -1 ? query : Math.min(query, fragment);
}

/** Compiles the rewrite of an action; undefined when the path stays. The query is kept. Throws `ConfigError` for a bad pattern. */
export function compilePathRewrite(
  action: Pick<ForwardAction | RedirectAction, 'prefixRewrite' | 'regexRewrite'>,
  matched: PathKind,
  path: string,
): PathRewrite | undefined {
  const { prefixRewrite, regexRewrite } = action;
  if (regexRewrite !== undefined) {
    const regex = compilePattern(regexRewrite.pattern, `${path}.regex_rewrite`);
    return (whole) => {
      const end = pathEnd(whole);
      return rooted(regex.replaceAll(whole.slice(0, end), regexRewrite.substitution)) + whole.slice(end);
    };
  }
  if (prefixRewrite === undefined || prefixRewrite === '') return undefined;
  switch (matched.kind) {
    case 'prefix':
    case 'segmentPrefix': {
      const { length } = matched.value;
      const segment = matched.kind === 'segmentPrefix';
      return (whole) => {
        const rest = whole.slice(length);
        // A rewrite to "/" of a whole segment must not leave two slashes: /old/x is /x then.
        return rooted(
          segment && prefixRewrite.endsWith('/') && rest.startsWith('/') ? prefixRewrite + rest.slice(1) : prefixRewrite + rest,
        );
      };
    }
    case 'exact':
    case 'regex':
      return (whole) => rooted(prefixRewrite) + whole.slice(pathEnd(whole));
    case 'connect':
      return undefined;
  }
}

function rooted(path: string): string {
  return path.startsWith('/') || path === '*' ? path : `/${path}`;
}

/** Changes the authority before the request leaves; undefined when it stays. `auto` is the cluster's doing, see `autoHost`. */
export function compileHostRewrite(action: ForwardAction, literal: string | undefined): ((request: ProxyRequest) => void) | undefined {
  const rewrite = literal === undefined || literal === '' ? action.hostRewrite : { kind: 'literal' as const, value: literal };
  const forwarded = (request: ProxyRequest): void => {
    if (action.appendXForwardedHost) request.headers.append('x-forwarded-host', request.authority);
    request.headers.set('x-envoy-original-host', request.authority);
  };
  if (rewrite === undefined) return undefined;
  if (rewrite.kind === 'auto') return forwarded;
  if (rewrite.kind === 'literal') {
    const { value } = rewrite;
    return (request) => {
      forwarded(request);
      request.authority = value;
    };
  }
  const name = rewrite.header.toLowerCase();
  return (request) => {
    const value = request.headers.get(name);
    if (value === undefined || value === '') return;
    forwarded(request);
    request.authority = value;
  };
}

const DEFAULT_PORTS: Readonly<Record<string, string>> = { http: '80', https: '443' };

/** Answers with a redirect (Envoy's RedirectAction; Gateway API's RequestRedirect compiles to it). */
export function compileRedirect(redirect: RedirectAction, matched: PathKind, path: string): Send {
  const rewrite = compilePathRewrite(redirect, matched, path);
  return (request, reply) => {
    const response = localResponse(request, redirect.status, '');
    response.headers.append('location', locationOf(request, redirect, rewrite));
    reply.answered(response);
  };
}

function locationOf(request: ProxyRequest, redirect: RedirectAction, rewrite: PathRewrite | undefined): string {
  const scheme = redirect.schemeRedirect ?? (redirect.httpsRedirect ? 'https' : request.scheme);
  const { host, port } = splitAuthority(request.authority);
  let newPort = redirect.portRedirect === undefined ? (redirect.hostRedirect === undefined ? port : '') : String(redirect.portRedirect);
  // A port that belonged to the old scheme does not follow to the new one, and a default port is not spelled out.
  if (redirect.portRedirect === undefined && newPort === DEFAULT_PORTS[request.scheme] && scheme !== request.scheme) newPort = '';
  if (newPort === DEFAULT_PORTS[scheme]) newPort = '';
  const newHost = redirect.hostRedirect ?? host;
  let target = request.path;
  if (redirect.pathRedirect !== undefined && redirect.pathRedirect !== '') {
    target = redirect.pathRedirect.includes('?')
      ? redirect.pathRedirect
      : redirect.pathRedirect + request.path.slice(pathEnd(request.path));
  } else if (rewrite !== undefined) target = rewrite(request.path);
  if (redirect.stripQuery) target = target.slice(0, pathEnd(target));
  return `${scheme}://${newHost}${newPort === '' ? '' : `:${newPort}`}${target}`;
}

/** Host and port of an authority; the port is empty where there is none. An IPv6 host keeps its brackets. */
export function splitAuthority(authority: string): { host: string; port: string } {
  const colon = authority.lastIndexOf(':');
  if (colon === -1 || authority.endsWith(']')) return { host: authority, port: '' };
  const port = authority.slice(colon + 1);
  return /^\d{1,5}$/.test(port) ? { host: authority.slice(0, colon), port } : { host: authority, port: '' };
}
