/** Authorisation by policies of permissions and principals (envoy.extensions.filters.http.rbac.v3). What cannot be understood is refused at push. */
import { ProxyError } from '../errors.ts';
import { inRange, parseIp, parseIpRange } from '../listen/ip.ts';
import { compileHeaderMatcher, compilePathMatcher, compileStringMatcher } from './matchers.ts';
import type { ConfigReader } from './config.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import type { RequestTest } from './matchers.ts';
import type { Filter, ProxyRequest } from '../service.ts';

/** The name of the policy that decided, undefined when none matched. */
type Engine = (request: ProxyRequest) => { readonly allowed: boolean; readonly policy: string | undefined };

export const rbac: FilterEntry = {
  type: 'envoy.extensions.filters.http.rbac.v3.RBAC',
  names: ['envoy.filters.http.rbac'],
  build: buildRbac,
  routeTypes: ['envoy.extensions.filters.http.rbac.v3.RBACPerRoute'],
  buildForRoute: (config, _listenerConfig, deps) => {
    const own = config.object('rbac');
    return own === undefined ? undefined : buildRbac(own, deps);
  },
};

function buildRbac(config: ConfigReader, deps: FilterDeps): Filter | undefined {
  if (config.has('matcher') || config.has('shadowMatcher')) config.fail('', 'matcher trees are not supported here; use rules');
  const prefix = config.string('rulesStatPrefix');
  const shadowPrefix = config.string('shadowRulesStatPrefix');
  const rules = config.object('rules');
  const shadowRules = config.object('shadowRules');
  const engine = rules === undefined ? undefined : compileEngine(rules);
  const shadow = shadowRules === undefined ? undefined : compileEngine(shadowRules);
  if (engine === undefined && shadow === undefined) return undefined;
  const allowed = deps.counter(`rbac.${prefix}allowed`);
  const denied = deps.counter(`rbac.${prefix}denied`);
  const shadowAllowed = deps.counter(`rbac.${shadowPrefix}shadow_allowed`);
  const shadowDenied = deps.counter(`rbac.${shadowPrefix}shadow_denied`);
  return (next) => (request) => {
    if (shadow !== undefined) {
      if (shadow(request).allowed) shadowAllowed();
      else shadowDenied();
    }
    if (engine === undefined) return next(request);
    const verdict = engine(request);
    if (verdict.allowed) {
      allowed();
      return next(request);
    }
    denied();
    (request.info.filterState ??= new Map()).set('rbacPolicy', verdict.policy ?? 'none');
    return Promise.reject(new ProxyError('rbacDenied'));
  };
}

/** Rules with action ALLOW need one policy that matches; with DENY they need none; LOG never refuses. */
function compileEngine(rules: ConfigReader): Engine {
  const action = rules.oneOf('action', ['ALLOW', 'DENY', 'LOG'] as const, 'ALLOW');
  const refuses = action === 'DENY';
  const policies = rules.entries('policies').map(([name, policy]) => {
    if (policy.has('condition') || policy.has('checkedCondition')) policy.fail('condition', 'conditions in CEL are not supported');
    const permission = anyOf(policy.objects('permissions').map((entry) => compilePermission(entry, refuses)));
    const principal = anyOf(policy.objects('principals').map((entry) => compilePrincipal(entry, refuses)));
    return { name, test: (request: ProxyRequest) => permission(request) && principal(request) };
  });
  return (request) => {
    const matched = policies.find((policy) => policy.test(request))?.name;
    return { allowed: action === 'LOG' || (matched !== undefined) === (action === 'ALLOW'), policy: matched };
  };
}

/** `refuses`: does a match refuse the request? Then one of several fields of a name is enough for a match, else all of them together are looked at. */
function compilePermission(reader: ConfigReader, refuses: boolean): RequestTest {
  const [kind] = Object.keys(reader.json);
  switch (kind) {
    case 'any':
      return always;
    case 'andRules':
      return allOf(nested(reader, 'andRules', 'rules').map((entry) => compilePermission(entry, refuses)));
    case 'orRules':
      return anyOf(nested(reader, 'orRules', 'rules').map((entry) => compilePermission(entry, refuses)));
    case 'notRule':
      return not(compilePermission(reader.object('notRule')!, !refuses));
    case 'header':
      return compileHeaderMatcher(reader.object('header')!, refuses);
    case 'urlPath':
      return compilePathMatcher(reader.object('urlPath')!);
    case 'destinationIp':
      return compileIpRange(reader.object('destinationIp')!, (request) => request.connection.localAddress);
    case 'destinationPort': {
      const port = reader.number('destinationPort', 0);
      return (request) => request.connection.localPort === port;
    }
    case 'destinationPortRange': {
      const range = reader.object('destinationPortRange')!;
      const start = range.number('start', 0);
      const end = range.number('end', 0);
      return (request) => request.connection.localPort >= start && request.connection.localPort < end;
    }
    case 'requestedServerName': {
      const test = compileStringMatcher(reader.object('requestedServerName')!);
      return (request) => test(request.connection.tls?.sni ?? '');
    }
    default:
      return reader.fail(
        '',
        'a permission is any, and_rules, or_rules, not_rule, header, url_path, destination_ip, destination_port, destination_port_range or requested_server_name',
      );
  }
}

function compilePrincipal(reader: ConfigReader, refuses: boolean): RequestTest {
  const [kind] = Object.keys(reader.json);
  switch (kind) {
    case 'any':
      return always;
    case 'andIds':
      return allOf(nested(reader, 'andIds', 'ids').map((entry) => compilePrincipal(entry, refuses)));
    case 'orIds':
      return anyOf(nested(reader, 'orIds', 'ids').map((entry) => compilePrincipal(entry, refuses)));
    case 'notId':
      return not(compilePrincipal(reader.object('notId')!, !refuses));
    case 'header':
      return compileHeaderMatcher(reader.object('header')!, refuses);
    case 'urlPath':
      return compilePathMatcher(reader.object('urlPath')!);
    case 'sourceIp':
    case 'directRemoteIp':
      return compileIpRange(reader.object(kind)!, (request) => request.connection.remoteAddress);
    case 'remoteIp':
      return compileIpRange(reader.object('remoteIp')!, remoteAddress);
    case 'authenticated': {
      const name = reader.object('authenticated')!.object('principalName');
      if (name === undefined) return (request) => request.connection.tls?.peerHash !== undefined;
      const test = compileStringMatcher(name);
      return ({ connection: { tls } }) => tls?.peerHash !== undefined && test(tls.peerUri ?? tls.peerSubject ?? '');
    }
    default:
      return reader.fail(
        '',
        'a principal is any, and_ids, or_ids, not_id, authenticated, source_ip, direct_remote_ip, remote_ip, header or url_path',
      );
  }
}

function compileIpRange(reader: ConfigReader, addressOf: (request: ProxyRequest) => string): RequestTest {
  const range = parseIpRange(reader.string('addressPrefix'), reader.number('prefixLen', 0));
  if (range === undefined) return reader.fail('', 'must have an address_prefix that is an IP address and a prefix_len that fits it');
  return (request) => {
    const ip = parseIp(addressOf(request));
    return ip !== undefined && inRange(ip, range);
  };
}

/** The last entry of x-forwarded-for is the one that the nearest proxy wrote, and ours where it uses the remote address. */
function remoteAddress(request: ProxyRequest): string {
  const forwardedFor = request.headers.joined('x-forwarded-for');
  return forwardedFor === undefined ? request.connection.remoteAddress : forwardedFor.slice(forwardedFor.lastIndexOf(',') + 1).trim();
}

function nested(reader: ConfigReader, name: string, list: string): ConfigReader[] {
  const readers = reader.object(name)!.objects(list);
  return readers.length > 0 ? readers : reader.fail(name, `must have at least one of ${list}`);
}

function always(): boolean {
  return true;
}

function not(test: RequestTest): RequestTest {
  return (request) => !test(request);
}

function allOf(tests: readonly RequestTest[]): RequestTest {
  return tests.length === 1 ? tests[0]! : (request) => tests.every((test) => test(request));
}

function anyOf(tests: readonly RequestTest[]): RequestTest {
  return tests.length === 1 ? tests[0]! : (request) => tests.some((test) => test(request));
}
