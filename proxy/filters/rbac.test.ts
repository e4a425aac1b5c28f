import { expect, test } from '@jest/globals';
import { fakeConnection, fakeRequest } from '../upstream/fakes.ts';
import { rbac } from './rbac.ts';
import { filterHarness } from './testing.ts';
import type { JsonObject } from '../../xds/snapshot.ts';
import type { PeerTls, ProxyRequest } from '../service.ts';

const peer = (uri: string | undefined): PeerTls => ({
  peerUri: uri,
  localUri: undefined,
  sni: 'reviews',
  alpn: undefined,
  version: 'TLSv1.3',
  cipher: 'x',
  peerHash: uri === undefined ? undefined : 'ab',
  peerSubject: undefined,
});

const WEB = 'spiffe://mesh.test/ns/default/sa/web';
const from = (uri: string | undefined, change: Parameters<typeof fakeRequest>[0] = {}): ProxyRequest =>
  fakeRequest({ ...change, connection: { ...fakeConnection, tls: peer(uri) } });

const policy = (permission: JsonObject, principal: JsonObject, action = 'ALLOW'): JsonObject => ({
  rules: { action, policies: { p: { permissions: [permission], principals: [principal] } } },
});

async function allowed(config: JsonObject, request: ProxyRequest): Promise<boolean> {
  const harness = filterHarness();
  const service = harness.around(rbac, config);
  return service(request).then(
    () => true,
    (error: Error) => {
      expect(error.message).toContain('RBAC: access denied');
      return false;
    },
  );
}

test.each<[string, JsonObject, ProxyRequest, boolean]>([
  ['no rules allow everybody', {}, from(undefined), true],
  ['ALLOW without a match refuses', policy({ any: true }, { authenticated: { principalName: { exact: 'x' } } }), from(WEB), false],
  ['a principal by exact id', policy({ any: true }, { authenticated: { principalName: { exact: WEB } } }), from(WEB), true],
  [
    'a principal by prefix',
    policy({ any: true }, { authenticated: { principalName: { prefix: 'spiffe://mesh.test/ns/default/' } } }),
    from(WEB),
    true,
  ],
  ['anybody with a certificate', policy({ any: true }, { authenticated: {} }), from(WEB), true],
  ['nobody without a certificate', policy({ any: true }, { authenticated: {} }), from(undefined), false],
  ['a path without its query', policy({ urlPath: { path: { exact: '/a' } } }, { any: true }), from(WEB, { path: '/a?x=1' }), true],
  [
    'a method as a header',
    policy({ header: { name: ':method', stringMatch: { exact: 'GET' } } }, { any: true }),
    from(WEB, { method: 'POST' }),
    false,
  ],
  ['all of several rules', policy({ andRules: { rules: [{ any: true }, { destinationPort: 15_001 }] } }, { any: true }), from(WEB), true],
  [
    'one of several rules',
    policy({ orRules: { rules: [{ destinationPort: 1 }, { destinationPort: 15_001 }] } }, { any: true }),
    from(WEB),
    true,
  ],
  ['not', policy({ notRule: { destinationPort: 15_001 } }, { any: true }), from(WEB), false],
  ['an address range', policy({ any: true }, { directRemoteIp: { addressPrefix: '10.1.0.0', prefixLen: 16 } }), from(WEB), true],
  ['a server name', policy({ requestedServerName: { exact: 'reviews' } }, { any: true }), from(WEB), true],
  ['DENY with a match', policy({ any: true }, { any: true }, 'DENY'), from(WEB), false],
  ['DENY without a match', policy({ destinationPort: 1 }, { any: true }, 'DENY'), from(WEB), true],
  ['LOG never refuses', policy({ any: true }, { any: true }, 'LOG'), from(WEB), true],
  ['an ALLOW list that is empty refuses all', { rules: { policies: {} } }, from(WEB), false],
])('%s', async (_name, config, request, expected) => {
  expect(await allowed(config, request)).toBe(expected);
});

test.each<[string, JsonObject, boolean]>([
  ['DENY admin', policy({ header: { name: 'role', stringMatch: { exact: 'admin' } } }, { any: true }, 'DENY'), false],
  ['DENY admin, as part', policy({ header: { name: 'role', stringMatch: { contains: 'admin' } } }, { any: true }, 'DENY'), false],
  ['DENY admin, as principal', policy({ any: true }, { header: { name: 'role', exactMatch: 'admin' } }, 'DENY'), false],
  ['DENY what both together are', policy({ header: { name: 'role', exactMatch: 'user,admin' } }, { any: true }, 'DENY'), false],
  ['DENY another', policy({ header: { name: 'role', exactMatch: 'min' } }, { any: true }, 'DENY'), true],
  ['DENY all but user', policy({ header: { name: 'role', exactMatch: 'user', invertMatch: true } }, { any: true }, 'DENY'), false],
  ['DENY all but user, by not', policy({ notRule: { header: { name: 'role', exactMatch: 'user' } } }, { any: true }, 'DENY'), false],
  ['ALLOW user', policy({ header: { name: 'role', exactMatch: 'user' } }, { any: true }), false],
  ['ALLOW all but admin', policy({ header: { name: 'role', exactMatch: 'admin', invertMatch: true } }, { any: true }), false],
  ['ALLOW all but admin, by not', policy({ any: true }, { notId: { header: { name: 'role', exactMatch: 'admin' } } }), false],
  ['ALLOW what both together are', policy({ header: { name: 'role', exactMatch: 'user,admin' } }, { any: true }), true],
])('case 38: with role twice, user and admin, the policy sees both: %s', async (_name, config, expected) => {
  const request = from(WEB);
  request.headers.append('Role', 'user');
  request.headers.append('role', 'admin');

  expect(await allowed(config, request)).toBe(expected);
});

test('shadow rules count and let pass', async () => {
  const harness = filterHarness();
  const service = harness.around(rbac, {
    shadowRules: { action: 'DENY', policies: { p: { permissions: [{ any: true }], principals: [{ any: true }] } } },
  });

  await service(from(WEB));

  expect(harness.passed).toHaveLength(1);
  expect(harness.counts.get('rbac.shadow_denied')).toBe(1);
});

test.each<[JsonObject, RegExp]>([
  [{ matcher: {} }, /matcher trees are not supported/],
  [policy({ metadata: {} }, { any: true }), /a permission is any, and_rules/],
  [policy({ any: true }, { filterState: {} }), /a principal is any, and_ids/],
  [policy({ urlPath: { path: { safeRegex: { regex: '(?=x)' } } } }, { any: true }), /is not an RE2 pattern/],
  [policy({ any: true }, { sourceIp: { addressPrefix: 'here', prefixLen: 8 } }), /must have an address_prefix that is an IP address/],
  [{ rules: { policies: { p: { permissions: [{ any: true }], principals: [{ any: true }], condition: {} } } } }, /CEL are not supported/],
])('%j is refused at push: what cannot be decided must not pass', (config, message) => {
  expect(() => filterHarness().around(rbac, config)).toThrow(message);
});
