import { Buffer } from 'node:buffer';
import { expect, test } from '@jest/globals';
import { dnsSan, uriSan } from './certificate.ts';
import { IdentityError, SKEW_MS_MAX, peerIdentity } from './identity.ts';
import type { IdentityProblem } from './identity.ts';
import { testCa, testLeaf } from './testing.ts';

const nowMs = Date.UTC(2026, 0, 1);
const ca = testCa(nowMs, 'ca');
const ID = 'spiffe://mesh.test/ns/default/sa/web';

function problem(der: Buffer, atMs = nowMs): IdentityProblem | 'accepted' {
  try {
    peerIdentity(der, atMs);
    return 'accepted';
  } catch (error) {
    expect(error).toBeInstanceOf(IdentityError);
    return (error as IdentityError).reason;
  }
}

test('a good certificate gives its one identity', () => {
  const identity = peerIdentity(testLeaf(ca, nowMs, [ID], { sans: [dnsSan('web.test'), uriSan(ID)] }).der, nowMs);

  expect(identity).toMatchObject({ uri: ID, id: { trustDomain: 'mesh.test', path: '/ns/default/sa/web' }, subject: 'O=test' });
  expect(identity.hash).toMatch(/^[0-9a-f]{64}$/);
});

test('case 82: an expired leaf is refused, one that is not valid yet too, and 10 s of skew are forgiven', () => {
  const leaf = testLeaf(ca, nowMs, [ID], { notBeforeMs: nowMs, notAfterMs: nowMs + 60_000 }).der;

  expect(problem(leaf, nowMs + 60_001)).toBe('expired');
  expect(problem(leaf, nowMs + 60_000)).toBe('accepted');
  expect(problem(leaf, nowMs - SKEW_MS_MAX)).toBe('accepted');
  expect(problem(leaf, nowMs - SKEW_MS_MAX - 1)).toBe('notYetValid');
});

test('case 85: no URI name, two of them, and a SPIFFE id that is only a DNS name are refused', () => {
  expect(problem(testLeaf(ca, nowMs, []).der)).toBe('notOneUri');
  expect(problem(testLeaf(ca, nowMs, [ID, ID]).der)).toBe('notOneUri');
  expect(problem(testLeaf(ca, nowMs, [ID, 'https://example.test/']).der)).toBe('notOneUri');
  expect(problem(testLeaf(ca, nowMs, [], { sans: [dnsSan(ID)], subject: { CN: ID } }).der)).toBe('notOneUri');
});

test.each([
  ['a NUL', 'spiffe://mesh.test/ns/default/sa/web\0.evil'],
  ['a NUL at the end', 'spiffe://mesh.test/ns/default/sa/web\0'],
  ['a percent escape', 'spiffe://mesh.test/ns/default%2Fsa/web'],
  ['an upper-case host', 'spiffe://Mesh.test/ns/default/sa/web'],
  ['an upper-case scheme', 'SPIFFE://mesh.test/ns/default/sa/web'],
  ['a trailing slash', 'spiffe://mesh.test/ns/default/sa/web/'],
  ['an empty segment', 'spiffe://mesh.test/ns//sa/web'],
  ['a dot-dot segment', 'spiffe://mesh.test/ns/../sa/web'],
  ['a user', 'spiffe://user@mesh.test/web'],
  ['a port', 'spiffe://mesh.test:443/web'],
  ['a query', 'spiffe://mesh.test/web?a=b'],
  ['a fragment', 'spiffe://mesh.test/web#a'],
  ['a byte above ASCII', 'spiffe://mesh.test/w\u00e9b'],
  ['a second name after a comma', 'spiffe://mesh.test/web, URI:spiffe://mesh.test/admin'],
  ['2,049 bytes', `spiffe://mesh.test/${'a'.repeat(2049 - 19)}`],
  ['another scheme', 'https://mesh.test/web'],
  ['no path', 'spiffe://mesh.test'],
  ['no host', 'spiffe:///web'],
  ['nothing', ''],
])('case 85: an id with %s is refused', (_name, uri) => {
  expect(problem(testLeaf(ca, nowMs, [Buffer.from(uri, 'latin1')]).der)).toBe('badSpiffeId');
});

test('case 85: 2,048 bytes are still an id', () => {
  expect(problem(testLeaf(ca, nowMs, [`spiffe://mesh.test/${'a'.repeat(2048 - 19)}`]).der)).toBe('accepted');
});

test('case 86: an authority is no workload, and a leaf is for signatures and for both sides of TLS', () => {
  expect(problem(testLeaf(ca, nowMs, [ID], { ca: { pathLength: 0 } }).der)).toBe('isCa');
  expect(problem(testLeaf(ca, nowMs, [ID], { keyUsage: ['digitalSignature', 'keyCertSign'] }).der)).toBe('keyUsage');
  expect(problem(testLeaf(ca, nowMs, [ID], { keyUsage: ['digitalSignature', 'cRLSign'] }).der)).toBe('keyUsage');
  expect(problem(testLeaf(ca, nowMs, [ID], { keyUsage: ['keyAgreement'] }).der)).toBe('keyUsage');
  expect(problem(testLeaf(ca, nowMs, [ID], { extendedKeyUsage: ['serverAuth'] }).der)).toBe('extendedKeyUsage');
  expect(problem(testLeaf(ca, nowMs, [ID], { extendedKeyUsage: ['clientAuth'] }).der)).toBe('extendedKeyUsage');
});

test('bytes that are no certificate are malformed, and so is one with a critical extension that nobody knows', () => {
  expect(problem(Buffer.from('not a certificate'))).toBe('malformed');
  const constrained = testLeaf(ca, nowMs, [ID], { permittedUriHost: 'mesh.test' }).der;
  // nameConstraints (2.5.29.30) becomes an identifier that does not exist.
  const at = constrained.indexOf(Buffer.from('0603551d1e', 'hex'));
  constrained[at + 4] = 0x7b;
  expect(problem(constrained)).toBe('malformed');
});
