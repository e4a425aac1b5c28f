import { Buffer } from 'node:buffer';
import { generateKeyPairSync } from 'node:crypto';
import { rootCertificates } from 'node:tls';
import { expect, test } from '@jest/globals';
import { createAuthority } from '../../certs/authority.ts';
import { testCa, testLeaf } from '../../certs/testing.ts';
import { ManualClock } from '../../lib/clock.ts';
import type { DownstreamTls, Secret } from '../../xds/snapshot.ts';
import { ConfigError } from '../errors.ts';
import { createTlsContexts, missingSecrets } from './context.ts';
import { downstreamTls, pairSecret, rootsSecret, upstreamTls, uriIs } from './testing.ts';

const ID = 'spiffe://mesh.test/ns/default/sa/web';
const clock = new ManualClock();
const nowMs = clock.wallMs();
const mesh = createAuthority({ trustDomain: 'mesh.test', clock });
const roots = rootsSecret(mesh.bundle.current.pem);
const issued = (): Secret => {
  const leaf = mesh.issue(ID, { ttlMs: 60_000 });
  return pairSecret('default', leaf.chainPem, leaf.keyPem!);
};
const bySds: DownstreamTls = {
  ...downstreamTls(issued(), roots),
  certificates: [{ kind: 'sds', name: 'default' }],
  validation: { kind: 'sds', name: 'ROOTCA' },
};
const secretsOf = (...secrets: Secret[]): ReadonlyMap<string, Secret> => new Map(secrets.map((secret) => [secret.name, secret]));

test('equal material is the same context, and a rotated certificate is another one', () => {
  const contexts = createTlsContexts({ clock });
  const [first, second] = [issued(), issued()];

  const before = contexts.downstream(bySds, secretsOf(first, roots), 'a');
  expect(contexts.downstream({ ...bySds }, secretsOf({ ...first }, roots), 'b')).toBe(before);
  const after = contexts.downstream(bySds, secretsOf(second, roots), 'a');
  expect(after).not.toBe(before);
  expect(after.key).not.toBe(before.key);
  expect(contexts.downstream(bySds, secretsOf(first, roots), 'a')).toBe(before);
});

test('whatever a handshake depends on makes another context', () => {
  const contexts = createTlsContexts({ clock });
  const pair = issued();
  const base = upstreamTls(pair, roots);
  const variants = [
    base,
    { ...base, sni: 'other' },
    { ...base, alpn: ['h2'] },
    { ...base, minVersion: 'TLSv1_2' as const },
    { ...base, autoHostSni: true },
    { ...base, matchSubjectAltNames: [uriIs(ID)] },
    upstreamTls(pair, rootsSecret(mesh.bundle.current.pem, [uriIs(ID)])),
    upstreamTls(pair, rootsSecret(mesh.bundle.current.pem.repeat(2))),
    upstreamTls(undefined, roots),
  ];

  const keys = variants.map((tls) => contexts.upstream(tls, new Map(), 'c').key);
  expect(new Set([...keys.slice(0, 5), ...keys.slice(6)]).size).toBe(variants.length - 1);
});

test('a context knows its own name and end', () => {
  const context = createTlsContexts({ clock }).upstream(upstreamTls(issued(), roots), new Map(), 'c');

  expect(context).toMatchObject({ localUri: ID, localNotAfterMs: nowMs + 60_000, alpn: ['http/1.1'], sni: 'reviews.default.svc' });
  expect(createTlsContexts({ clock }).upstream(upstreamTls(undefined, roots), new Map(), 'c').localNotAfterMs).toBe(
    Number.POSITIVE_INFINITY,
  );
});

test('secrets that are not there yet are named, for those who wait for them', () => {
  expect(missingSecrets(bySds, secretsOf(roots))).toEqual(['default']);
  expect(missingSecrets(bySds, secretsOf(issued(), roots))).toEqual([]);
  expect(missingSecrets(downstreamTls(issued(), roots), new Map())).toEqual([]);
  expect(() => createTlsContexts({ clock }).downstream(bySds, secretsOf(roots), 'listener in')).toThrow(
    'listener in.certificates[0]: secret "default" is not there yet',
  );
});

const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const root = testCa(nowMs, 'root');
const below = testCa(nowMs, 'below', { parent: root });
const leafBelow = testLeaf(below, nowMs, [ID]);
const good = mesh.issue(ID);

test.each<[string, string, string, RegExp]>([
  ['a key of another certificate', good.chainPem, key, /private key does not belong to the certificate/],
  ['a chain that is cut off', good.chainPem.slice(0, 200), good.keyPem!, /has no end line/],
  ['a chain that lost its first line', good.chainPem.slice(40), good.keyPem!, /no certificate/],
  ['a key that is cut off', good.chainPem, good.keyPem!.slice(0, 100), /missing or cut off/],
  ['key and chain the wrong way round', good.keyPem!, good.chainPem, /certificates only, found PRIVATE KEY/],
  ['a chain with the issuer first', below.pem + leafBelow.pem, leafBelow.keyPem, /leaf comes first/],
  ['a chain with a stranger in it', leafBelow.pem + root.pem, leafBelow.keyPem, /certificate 2 of the chain did not issue certificate 1/],
  ['a megabyte of something', 'x'.repeat(1_100_000), good.keyPem!, /at most 1048576 characters/],
  ['nothing', '', good.keyPem!, /no certificate or no key/],
])('case 92: %s is refused with its place, and the old pair stays', (_name, chainPem, keyPem, rule) => {
  const contexts = createTlsContexts({ clock });
  const pair = issued();
  const before = contexts.downstream(bySds, secretsOf(pair, roots), 'listener in');

  const bad = (): unknown => contexts.downstream(bySds, secretsOf(pairSecret('default', chainPem, keyPem), roots), 'listener in');

  expect(bad).toThrow(ConfigError);
  expect(bad).toThrow(rule);
  expect(bad).toThrow(/^listener in\.certificates\[0\]: /);
  expect(bad).not.toThrow(/PRIVATE KEY-----\n/);
  expect(contexts.downstream(bySds, secretsOf(pair, roots), 'listener in')).toBe(before);
});

test.each<[string, Partial<DownstreamTls>, RegExp]>([
  ['no certificate', { certificates: [] }, /a server needs a certificate/],
  ['a required client certificate without roots', { validation: { kind: 'inline', secret: rootsSecret('') } }, /has no roots/],
  [
    'roots that are cut off',
    { validation: { kind: 'inline', secret: rootsSecret(mesh.bundle.current.pem.slice(0, 99)) } },
    /has no end line/,
  ],
  ['a key where roots should be', { validation: { kind: 'inline', secret: issued() } }, /should be a set of roots, received certificate/],
  ['roots where a key should be', { certificates: [{ kind: 'inline', secret: roots }] }, /should be a certificate, received validation/],
  ['versions the wrong way round', { minVersion: 'TLSv1_3', maxVersion: 'TLSv1_2' }, /min version TLSv1_3 is above max version TLSv1_2/],
])('a listener with %s is refused', (_name, overrides, rule) => {
  const build = (): unknown => createTlsContexts({ clock }).downstream(downstreamTls(issued(), roots, overrides), new Map(), 'listener in');

  expect(build).toThrow(ConfigError);
  expect(build).toThrow(rule);
});

test('names without roots would be believed unchecked, so both sides refuse them, and a server refuses to ask for what it cannot check', () => {
  const contexts = createTlsContexts({ clock });
  const { validation: _none, ...unchecked } = downstreamTls(issued(), roots);
  const { validation: _neither, ...client } = upstreamTls(issued(), roots, { matchSubjectAltNames: [uriIs(ID)] });

  expect(() => contexts.downstream(unchecked, new Map(), 'l')).toThrow(/there must be roots to check it against/);
  expect(() => contexts.upstream(client, new Map(), 'c')).toThrow(/names can only be believed with roots/);
});

test('a bundle of public roots of every age can be used', () => {
  const odd = testCa(nowMs, 'serial number of 21 bytes', { fields: { serial: Buffer.alloc(21, 1) } });
  const everything = [...rootCertificates, odd.pem, mesh.bundle.current.pem].join('\n');

  expect(() => createTlsContexts({ clock }).upstream(upstreamTls(undefined, rootsSecret(everything)), new Map(), 'c')).not.toThrow();
  expect(rootCertificates.length).toBeGreaterThan(50);
});

test('contexts that nobody asks for any more are let go', () => {
  const contexts = createTlsContexts({ clock });
  const tls = upstreamTls(issued(), roots);
  const first = contexts.upstream(tls, new Map(), 'c');
  for (let i = 0; i < 520; i++) contexts.upstream({ ...tls, sni: `s${i}` }, new Map(), 'c');

  expect(contexts.upstream(tls, new Map(), 'c')).not.toBe(first);
});
