import { X509Certificate } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { AuthorityError, createAuthority } from './authority.ts';
import type { Authority, AuthorityOptions, AuthorityState } from './authority.ts';
import { createBundle } from './bundle.ts';
import { parseCertificate } from './certificate.ts';
import { decodeCertificates } from './pem.ts';
import { ManualClock } from '../lib/clock.ts';

const ID = 'spiffe://mesh.test/ns/default/sa/web';
const HOUR_MS = 3_600_000;

function make(options: Partial<AuthorityOptions> = {}): { authority: Authority; clock: ManualClock } {
  const clock = new ManualClock();
  return { clock, authority: createAuthority({ trustDomain: 'mesh.test', clock, ...options }) };
}

const reasonOf = (fn: () => unknown): string => {
  try {
    fn();
  } catch (error) {
    expect(error).toBeInstanceOf(AuthorityError);
    return (error as AuthorityError).reason;
  }
  return 'done';
};
const proof = (authority: Authority, pending: string[] = []) => ({ bundleVersion: authority.bundle.current.version, pending });
const rootOf = (authority: Authority, chainPem: string): string | undefined => {
  const leaf = new X509Certificate(decodeCertificates(chainPem)[0]!);
  const root = authority.bundle.current.roots.find((der) => leaf.verify(new X509Certificate(der).publicKey));
  return root === undefined ? undefined : parseCertificate(root).subjectKeyIdHex!.slice(0, 16);
};

test('a leaf starts 10 s ago, lives as long as asked and never longer than allowed', () => {
  const { authority, clock } = make();
  const nowMs = clock.wallMs();

  expect(authority.issue(ID, { ttlMs: 60_000 })).toMatchObject({ spiffeId: ID, notBeforeMs: nowMs - 10_000, notAfterMs: nowMs + 60_000 });
  expect(authority.issue(ID).notAfterMs).toBe(nowMs + 24 * HOUR_MS);
  expect(authority.issue(ID, { ttlMs: 365 * 24 * HOUR_MS }).notAfterMs).toBe(nowMs + 90 * 24 * HOUR_MS);
  expect(reasonOf(() => authority.issue(ID, { ttlMs: 0 }))).toBe('badRequest');
});

test('S5 a leaf never outlives its issuer, and an issuer that ended is named in the refusal', () => {
  const { authority, clock } = make({ rootTtlMs: HOUR_MS });

  clock.advance(HOUR_MS - 60_000);
  expect(authority.issue(ID, { ttlMs: HOUR_MS }).notAfterMs).toBe(authority.roots[0]!.notAfterMs);
  clock.advance(60_000);
  expect(reasonOf(() => authority.issue(ID))).toBe('issuerExpired');
  expect(() => authority.issue(ID)).toThrow(`root ${authority.roots[0]!.id} of mesh.test ends at 2026-01-01T01:00:00.000Z`);
});

test('two leaves of one identity share neither key nor serial number', () => {
  const { authority } = make();
  const [one, other] = [authority.issue(ID), authority.issue(ID)];

  expect(one.serial).not.toBe(other.serial);
  expect(one.keyPem).not.toBe(other.keyPem);
  expect(new X509Certificate(one.chainPem).serialNumber.toLowerCase()).toBe(one.serial);
});

test.each([
  ['another trust domain', 'spiffe://other.test/web', 'wrongTrustDomain'],
  ['the trust domain itself', 'spiffe://mesh.test', 'wrongTrustDomain'],
])('an id of %s is refused', (_name, id, reason) => {
  expect(reasonOf(() => make().authority.issue(id))).toBe(reason);
});

test('names of a server are checked before they are signed', () => {
  const { authority } = make();

  for (const name of ['Up.test', 'a..b', '-a', 'a b', 'a\0b', '', 'a'.repeat(254)])
    expect(reasonOf(() => authority.issue(ID, { dnsNames: [name] }))).toBe('badRequest');
  expect(reasonOf(() => authority.issue(ID, { ipAddresses: ['1.2.3'] }))).toBe('badRequest');
});

test('S4 a root is replaced with an overlap: every leaf is good in every bundle of the way', () => {
  const { authority } = make();
  const versions: string[] = [];
  authority.bundle.subscribe((bundle) => versions.push(bundle.version));
  const first = authority.roots[0]!.id;
  const before = authority.issue(ID);

  const second = authority.prepare().id;
  expect(authority.prepare().id).toBe(second);
  expect(rootOf(authority, authority.issue(ID).chainPem)).toBe(first);
  expect(authority.bundle.current.roots).toHaveLength(2);

  authority.activate(proof(authority));
  const after = authority.issue(ID);
  expect([rootOf(authority, before.chainPem), rootOf(authority, after.chainPem)]).toEqual([first, second]);
  expect(authority.isTainted(before.issuerId)).toBe(false);

  authority.taint(first);
  expect([authority.isTainted(before.issuerId), authority.isTainted(after.issuerId)]).toEqual([true, false]);
  expect(rootOf(authority, before.chainPem)).toBe(first);

  authority.revoke(first, proof(authority));
  expect([rootOf(authority, before.chainPem), rootOf(authority, after.chainPem)]).toEqual([undefined, second]);
  expect(authority.isTainted(before.issuerId)).toBe(true);
  expect(versions).toHaveLength(2);
  expect(versions.at(-1)).toBe(authority.bundle.current.version);
});

test('C11 a step waits until everyone has the bundle, and says who has not', () => {
  const { authority } = make();
  const old = authority.bundle.current.version;
  const first = authority.roots[0]!.id;

  expect(reasonOf(() => authority.activate(proof(authority)))).toBe('wrongPhase');
  authority.prepare();
  expect(() => authority.activate(proof(authority, ['sidecar~a', 'sidecar~b']))).toThrow(
    /cannot activate: 2 not there yet: sidecar~a, sidecar~b/,
  );
  expect(reasonOf(() => authority.activate({ bundleVersion: old, pending: [] }))).toBe('notAcknowledged');
  expect(authority.roots.find((root) => root.phase === 'active')!.id).toBe(first);

  authority.activate(proof(authority));
  expect(reasonOf(() => authority.revoke(first, proof(authority)))).toBe('wrongPhase');
  expect(reasonOf(() => authority.taint(authority.roots.find((root) => root.phase === 'active')!.id))).toBe('wrongPhase');
  authority.taint(first);
  expect(reasonOf(() => authority.revoke(first, proof(authority, ['sidecar~a'])))).toBe('notAcknowledged');
});

test('C12 a stolen key is revoked by force, without waiting for anyone', () => {
  const { authority } = make();
  const first = authority.roots[0]!.id;
  const stolen = authority.issue(ID);
  authority.prepare();
  authority.activate(proof(authority));
  authority.taint(first);

  authority.revoke(first, { ...proof(authority, ['sidecar~a']), force: true });

  expect(rootOf(authority, stolen.chainPem)).toBeUndefined();
});

test('the age of the signing root says what is due: a successor at one half, its activation at five sixths', () => {
  const { authority, clock } = make({ rootTtlMs: 6 * HOUR_MS });

  expect(authority.dueStep()).toBe('none');
  clock.advance(3 * HOUR_MS);
  expect(authority.dueStep()).toBe('prepare');
  authority.prepare();
  expect(authority.dueStep()).toBe('none');
  clock.advance(2 * HOUR_MS);
  expect(authority.dueStep()).toBe('activate');
  authority.activate(proof(authority));
  expect(authority.dueStep()).toBe('none');
});

test('an expired root leaves the bundle a day after its end', () => {
  const { authority, clock } = make({ rootTtlMs: HOUR_MS });
  authority.prepare();
  authority.activate(proof(authority));

  clock.advance(24 * HOUR_MS);
  authority.prepare();
  expect(authority.roots).toHaveLength(3);
  clock.advance(HOUR_MS + 1000);
  authority.activate(proof(authority));
  expect(authority.roots.map((root) => root.phase)).toEqual(['active']);
});

test('an authority comes back from its state as it was, through JSON', () => {
  const { authority, clock } = make();
  authority.prepare();
  const leaf = authority.issue(ID);

  const back = createAuthority({ trustDomain: 'mesh.test', clock, state: JSON.parse(JSON.stringify(authority.exportState())) });

  expect(back.roots).toEqual(authority.roots);
  expect(back.bundle.current).toEqual(authority.bundle.current);
  expect(rootOf(back, leaf.chainPem)).toBe(leaf.issuerId);
  expect(rootOf(authority, back.issue(ID).chainPem)).toBe(leaf.issuerId);
});

test('a state that was changed, cut off, or is of another mesh is refused, and nothing is made in its place', () => {
  const { authority, clock } = make();
  const good = authority.exportState();
  const other = make().authority.exportState();
  const load =
    (state: unknown, trustDomain = 'mesh.test') =>
    () =>
      createAuthority({ trustDomain, clock, state, save: () => expect(true).toBe(false) });
  const root = good.roots[0]!;

  for (const state of [
    null,
    'x',
    {},
    { ...good, format: 'meshwork-authority-9' },
    { ...good, checksum: 'x' },
    { ...good, roots: [] },
    { ...good, roots: [{ ...root, phase: 'retired' }] },
    { ...good, roots: [{ ...root, keyPem: other.roots[0]!.keyPem }] },
    { ...good, roots: [{ ...root, notAfterMs: root.notAfterMs + 1 }] },
  ]) {
    expect(reasonOf(load(state))).toBe('stateDamaged');
  }
  expect(load(good, 'other.test')).toThrow(/it is the authority of mesh.test/);
});

test('a change that cannot be saved does not happen', () => {
  let failing = false;
  let saved: AuthorityState | undefined;
  const { authority } = make({
    save: (state) => {
      if (failing) throw new Error('disk full');
      saved = state;
    },
  });
  const version = authority.bundle.current.version;
  expect(saved?.roots).toHaveLength(1);

  failing = true;
  expect(() => authority.prepare()).toThrow('disk full');

  expect(authority.bundle.current.version).toBe(version);
  expect(authority.roots).toHaveLength(1);
});

test('what is saved is not written for every certificate', () => {
  let saves = 0;
  const { authority, clock } = make({ save: () => saves++ });

  for (let i = 0; i < 200; i++) {
    authority.issue(ID, { ttlMs: 60_000 });
    clock.advance(100);
  }

  expect(saves).toBe(2);
  expect(authority.roots[0]!.lastLeafNotAfterMs).toBeGreaterThanOrEqual(clock.wallMs() + 59_000);
});

test('S6 neither a root nor a bundle shows a key', () => {
  const { authority } = make();

  expect(JSON.stringify([authority.roots, authority.bundle.current, authority])).not.toMatch(/PRIVATE/);
});

test('a bundle holds authorities only, and at least one', () => {
  const { authority } = make();

  expect(() => createBundle('mesh.test', [])).toThrow(/has no root/);
  expect(() => createBundle('mesh.test', decodeCertificates(authority.issue(ID).chainPem))).toThrow(/not a certificate authority/);
});
