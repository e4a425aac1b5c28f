import 'reflect-metadata';
import { Buffer } from 'node:buffer';
import { X509Certificate } from 'node:crypto';
import type { webcrypto } from 'node:crypto';
import { expect, test } from '@jest/globals';
import * as peculiar from '@peculiar/x509';
import fc from 'fast-check';
import { createAuthority } from './authority.ts';
import { nameText, parseCertificate } from './certificate.ts';
import { DerError } from './der.ts';
import { decodeCertificates } from './pem.ts';
import { testCa, testLeaf } from './testing.ts';
import { ManualClock } from '../lib/clock.ts';

const clock = new ManualClock();
const nowMs = clock.wallMs();
const ID = 'spiffe://mesh.test/ns/default/sa/web';

function issued(): { root: Buffer; leaf: Buffer } {
  const authority = createAuthority({ trustDomain: 'mesh.test', clock });
  const { chainPem } = authority.issue(ID, { ttlMs: 3_600_000, dnsNames: ['control.test'], ipAddresses: ['127.0.0.1', 'fd00::7:1'] });
  return { root: authority.bundle.current.roots[0]!, leaf: decodeCertificates(chainPem)[0]! };
}

test('a leaf says the same to another X.509 library as to ours, extension by extension', async () => {
  const { root, leaf } = issued();
  const theirs = new peculiar.X509Certificate(leaf);
  const ours = parseCertificate(leaf);

  expect(theirs.serialNumber).toBe(ours.serialHex);
  expect(theirs.notBefore.getTime()).toBe(ours.notBeforeMs);
  expect(theirs.notAfter.getTime()).toBe(ours.notAfterMs);
  expect(theirs.subject).toBe('O=meshwork');
  expect(theirs.getExtension(peculiar.SubjectAlternativeNameExtension)!.names.items.map((name) => [name.type, name.value])).toEqual([
    ['url', ID],
    ['dns', 'control.test'],
    ['ip', '127.0.0.1'],
    ['ip', 'fd00::7:1'],
  ]);
  const constraints = theirs.getExtension(peculiar.BasicConstraintsExtension)!;
  expect([constraints.ca, constraints.critical, constraints.pathLength]).toEqual([false, true, undefined]);
  const usages = theirs.getExtension(peculiar.KeyUsagesExtension)!;
  expect([usages.usages, usages.critical]).toEqual([peculiar.KeyUsageFlags.digitalSignature, true]);
  expect(theirs.getExtension(peculiar.ExtendedKeyUsageExtension)!.usages).toEqual([
    peculiar.ExtendedKeyUsage.serverAuth,
    peculiar.ExtendedKeyUsage.clientAuth,
  ]);
  expect(theirs.getExtension(peculiar.SubjectKeyIdentifierExtension)!.keyId).toBe(ours.subjectKeyIdHex);
  expect(theirs.getExtension(peculiar.AuthorityKeyIdentifierExtension)!.keyId).toBe(parseCertificate(root).subjectKeyIdHex);
  expect(await theirs.verify({ publicKey: new peculiar.X509Certificate(root).publicKey, date: new Date(nowMs) })).toBe(true);
});

test('a root says the same to another X.509 library as to ours', async () => {
  const { root } = issued();
  const theirs = new peculiar.X509Certificate(root);

  expect(await theirs.isSelfSigned()).toBe(true);
  const constraints = theirs.getExtension(peculiar.BasicConstraintsExtension)!;
  expect([constraints.ca, constraints.critical, constraints.pathLength]).toEqual([true, true, 0]);
  const usages = theirs.getExtension(peculiar.KeyUsagesExtension)!;
  expect(usages.usages).toBe(peculiar.KeyUsageFlags.keyCertSign | peculiar.KeyUsageFlags.cRLSign);
  expect(theirs.getExtension(peculiar.SubjectAlternativeNameExtension)!.names.items.map((name) => name.value)).toEqual([
    'spiffe://mesh.test',
  ]);
  expect(parseCertificate(root).basicConstraints).toEqual({ ca: true, pathLength: 0 });
});

test('node reads our certificates as it should, and the chain holds', () => {
  const { root, leaf } = issued();
  const [rootX, leafX] = [new X509Certificate(root), new X509Certificate(leaf)];

  expect(leafX.verify(rootX.publicKey)).toBe(true);
  expect(leafX.checkIssued(rootX)).toBe(true);
  expect([rootX.ca, leafX.ca]).toEqual([true, false]);
  expect(leafX.subjectAltName).toBe(`URI:${ID}, DNS:control.test, IP Address:127.0.0.1, IP Address:FD00:0:0:0:0:0:7:1`);
  expect(leafX.serialNumber.toLowerCase()).toBe(parseCertificate(leaf).serialHex);
});

test('a certificate of another library is read the same way', async () => {
  const keys = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-384' }, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair;
  const theirs = await peculiar.X509CertificateGenerator.createSelfSigned({
    name: 'CN=a\\,b, O=Caf\u00e9',
    serialNumber: '0badcafe',
    notBefore: new Date('2026-01-01T00:00:00Z'),
    notAfter: new Date('2055-01-01T00:00:00Z'),
    keys,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-384' },
    extensions: [
      new peculiar.BasicConstraintsExtension(true, 3, true),
      new peculiar.SubjectAlternativeNameExtension([
        { type: 'email', value: 'a@b.test' },
        { type: 'url', value: 'spiffe://x' },
      ]),
    ],
  });
  const ours = parseCertificate(new Uint8Array(theirs.rawData));

  expect(ours.serialHex).toBe('0badcafe');
  expect(ours.notAfterMs).toBe(Date.UTC(2055, 0, 1));
  expect(ours.basicConstraints).toEqual({ ca: true, pathLength: 3 });
  expect(ours.sans.map((san) => `${san.type} ${san.bytes.toString()}`)).toEqual(['EMAIL a@b.test', 'URI spiffe://x']);
  expect(nameText(ours.subject)).toBe('CN=a\\,b,O=Caf\\c3\\a9');
});

test('names are given as bytes: a NUL stays where it is', () => {
  const leaf = testLeaf(testCa(nowMs, 'ca'), nowMs, [Buffer.from('spiffe://mesh.test/a\0.evil', 'latin1')]);

  expect(parseCertificate(leaf.der).sans[0]!.bytes.includes(0)).toBe(true);
});

test('a certificate with a byte after its end, an extension twice or a size beyond all reason is refused', () => {
  const { leaf } = issued();

  expect(() => parseCertificate(Buffer.concat([leaf, Buffer.of(0)]))).toThrow(/bytes after its end/);
  expect(() => parseCertificate(leaf.subarray(0, -1))).toThrow(DerError);
  expect(() => parseCertificate(Buffer.alloc(65_537))).toThrow(/at most 65536 bytes/);
  const twice = testLeaf(testCa(nowMs, 'ca'), nowMs, [ID]).der;
  const authorityKey = Buffer.from('0603551d23', 'hex');
  const patched = Buffer.from(twice);
  // The authority key identifier becomes a second subject key identifier.
  patched[patched.indexOf(authorityKey) + 4] = 0x0e;
  expect(() => parseCertificate(patched)).toThrow(/2\.5\.29\.14 is there twice/);
});

test('no change of bytes makes the parser do anything but answer or throw DerError', () => {
  const { leaf } = issued();
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(leaf.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(leaf.length),
      (changes, cut) => {
        const bytes = Buffer.from(leaf);
        for (const [at, value] of changes) bytes[at] = value;
        for (const input of [bytes, bytes.subarray(0, cut)]) {
          try {
            parseCertificate(input);
          } catch (error) {
            expect(error).toBeInstanceOf(DerError);
          }
        }
      },
    ),
    { numRuns: 3000 },
  );
});
