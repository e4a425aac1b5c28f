/** Authorisation policies in the words of Envoy's RBAC: permissions for what is asked, principals for who asks. */
import type { Json, JsonObject } from '../../xds/snapshot.ts';
import type { AuthorizationPolicySpec } from '../kinds/authorization-policy.ts';
import type { Policy } from './policies.ts';

type Rule = NonNullable<AuthorizationPolicySpec['rules']>[number];

/**
 * One RBAC policy per rule, named `namespace/name/rule`, which is what a denial is logged with. Ports are decided here: the proxy sees its own
 * inbound port on every request, and a rule means the application's.
 */
export function rbacRules(policies: readonly Policy<AuthorizationPolicySpec>[], trustDomain: string, targetPort: number): JsonObject {
  const rules: Record<string, Json> = {};
  for (const { key, spec } of policies) {
    for (const [index, rule] of (spec.rules ?? []).entries()) {
      const to = rule.to?.filter((entry) => entry.ports === undefined || entry.ports.includes(targetPort));
      if (to !== undefined && to.length === 0) continue;
      rules[`${key}/${index}`] = { permissions: [permission(rule, to ?? [])], principals: [principal(rule, trustDomain)] };
    }
  }
  return rules;
}

function permission(rule: Rule, entries: NonNullable<Rule['to']>): JsonObject {
  // An entry that only named a port is met by every request to it.
  const parts = entries.map((to) =>
    all('andRules', 'rules', [
      any(
        'orRules',
        'rules',
        (to.methods ?? []).map((method) => header(':method', { exact: method })),
      ),
      any(
        'orRules',
        'rules',
        (to.paths ?? []).map((path) => ({ urlPath: { path: textMatch(path) } })),
      ),
      not(
        'notRule',
        any(
          'orRules',
          'rules',
          (to.notPaths ?? []).map((path) => ({ urlPath: { path: textMatch(path) } })),
        ),
      ),
      any(
        'orRules',
        'rules',
        (to.hosts ?? []).map((host) => header(':authority', { ...textMatch(host), ignoreCase: true })),
      ),
    ]),
  );
  const conditions = (rule.when ?? []).map((when) =>
    any(
      'orRules',
      'rules',
      when.values.map((value) => header(when.header.toLowerCase(), textMatch(value))),
    ),
  );
  return all('andRules', 'rules', [any('orRules', 'rules', parts.includes(undefined) ? [] : parts), ...conditions]) ?? { any: true };
}

function principal(rule: Rule, trustDomain: string): JsonObject {
  const sources = (rule.from ?? []).map((from) =>
    all('andIds', 'ids', [
      any(
        'orIds',
        'ids',
        (from.principals ?? []).map((name) => authenticated(textMatch(name))),
      ),
      not(
        'notId',
        any(
          'orIds',
          'ids',
          (from.notPrincipals ?? []).map((name) => authenticated(textMatch(name))),
        ),
      ),
      any(
        'orIds',
        'ids',
        (from.namespaces ?? []).map((namespace) => authenticated({ prefix: `spiffe://${trustDomain}/ns/${namespace}/sa/` })),
      ),
    ]),
  );
  return any('orIds', 'ids', sources) ?? { any: true };
}

const authenticated = (match: JsonObject): JsonObject => ({ authenticated: { principalName: match } });

const header = (name: string, match: JsonObject): JsonObject => ({ header: { name, stringMatch: match } });

/** `*` alone demands that there is something at all. */
function textMatch(pattern: string): JsonObject {
  if (pattern === '*') return { safeRegex: { regex: '.+' } };
  if (pattern.endsWith('*')) return { prefix: pattern.slice(0, -1) };
  return pattern.startsWith('*') ? { suffix: pattern.slice(1) } : { exact: pattern };
}

/** Nothing to say stays nothing; one needs no wrapper. */
function join(kind: string, list: string, parts: readonly (JsonObject | undefined)[]): JsonObject | undefined {
  const said = parts.filter((part) => part !== undefined);
  return said.length < 2 ? said[0] : { [kind]: { [list]: said } };
}
const all = join;
const any = join;
const not = (kind: string, part: JsonObject | undefined): JsonObject | undefined => (part === undefined ? undefined : { [kind]: part });
