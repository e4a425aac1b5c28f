import 'reflect-metadata';
import { Buffer } from 'node:buffer';
import { createHash, generateKeyPairSync } from 'node:crypto';
import type { webcrypto } from 'node:crypto';
import { expect, test } from '@jest/globals';
import * as peculiar from '@peculiar/x509';
import fc from 'fast-check';
import { createAuthority } from './authority.ts';
import { parseCertificate } from './certificate.ts';
import { CSR_CHARS_MAX, CsrError, createCsr, verifyCsr } from './csr.ts';
import { DerError } from './der.ts';
import { PemError, decodeCertificates, decodePem, encodePem } from './pem.ts';
import { ManualClock } from '../lib/clock.ts';

const ID = 'spiffe://mesh.test/ns/default/sa/web';
const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const theirCsr = async (options: { algorithm?: object; sign?: object; extensions?: peculiar.Extension[] }): Promise<string> => {
  const keys = (await crypto.subtle.generateKey(
    (options.algorithm ?? { name: 'ECDSA', namedCurve: 'P-256' }) as webcrypto.EcKeyGenParams,
    true,
    ['sign', 'verify'],
  )) as webcrypto.CryptoKeyPair;
  const request = await peculiar.Pkcs10CertificateRequestGenerator.create({
    name: 'CN=whatever',
    keys,
    signingAlgorithm: (options.sign ?? { name: 'ECDSA', hash: 'SHA-256' }) as webcrypto.EcdsaParams,
    ...(options.extensions === undefined ? {} : { extensions: options.extensions }),
  });
  return request.toString('pem');
};

test('our request holds for another X.509 library', async () => {
  const csr = new peculiar.Pkcs10CertificateRequest(createCsr(newKey(), ID));

  expect(await csr.verify()).toBe(true);
  expect((csr.getExtension('2.5.29.17') as peculiar.SubjectAlternativeNameExtension).names.items.map((name) => name.value)).toEqual([ID]);
  expect(await new peculiar.Pkcs10CertificateRequest(createCsr(newKey())).verify()).toBe(true);
});

test.each([
  ['P-256', { name: 'ECDSA', namedCurve: 'P-256' }, { name: 'ECDSA', hash: 'SHA-256' }],
  ['P-384', { name: 'ECDSA', namedCurve: 'P-384' }, { name: 'ECDSA', hash: 'SHA-384' }],
  ['RSA 2048', rsa(2048), { name: 'RSASSA-PKCS1-v1_5' }],
])('a request of another library for a key of %s is taken', async (_name, algorithm, sign) => {
  const csr = verifyCsr(await theirCsr({ algorithm, sign }));

  expect(csr.asksForCa).toBe(false);
  expect(csr.sans).toEqual([]);
});

test('C20 a weak key is refused with the rule and the value', async () => {
  await expect(theirCsr({ algorithm: rsa(1024), sign: { name: 'RSASSA-PKCS1-v1_5' } }).then(verifyCsr)).rejects.toThrow(
    /RSA of 2048 to 8192 bits, received rsa 1024/,
  );
});

test('C20 a request that its own key did not sign is refused', () => {
  const [one, other] = [createCsr(newKey(), ID), createCsr(newKey(), ID)].map((pem) => decodePem(pem)[0]!.der);
  const spkiAt = (der: Buffer): number => der.indexOf(Buffer.from('3059301306072a8648ce3d', 'hex'));
  const mixed = Buffer.from(one!);
  other!.copy(mixed, spkiAt(mixed), spkiAt(other!), spkiAt(other!) + 91);

  expect(() => verifyCsr(encodePem('CERTIFICATE REQUEST', mixed))).toThrow(/not signed by the key that it is for/);
});

test('C20 the issuer names the caller, whatever the request asks for', async () => {
  const authority = createAuthority({ trustDomain: 'mesh.test', clock: new ManualClock() });
  const issue = (csrPem: string) => authority.issue(ID, { csrPem });
  const named = (...values: string[]) => [
    new peculiar.SubjectAlternativeNameExtension(values.map((value) => ({ type: 'url' as const, value }))),
  ];

  const key = newKey();
  const issued = issue(createCsr(key));
  expect(issued.keyPem).toBeUndefined();
  const leaf = parseCertificate(decodeCertificates(issued.chainPem)[0]!);
  expect(leaf.sans.map((san) => san.bytes.toString())).toEqual([ID]);
  expect(issue(createCsr(newKey(), ID)).spiffeId).toBe(ID);
  expect(() => issue(createCsr(newKey(), 'spiffe://mesh.test/ns/default/sa/other'))).toThrow(/names something else/);
  const foreign = [
    await theirCsr({ extensions: named(ID, ID) }),
    await theirCsr({ extensions: [new peculiar.SubjectAlternativeNameExtension([{ type: 'dns', value: 'mesh.test' }])] }),
  ];
  for (const csr of foreign) expect(() => issue(csr)).toThrow(/names something else/);
  const asksForCa = await theirCsr({ extensions: [new peculiar.BasicConstraintsExtension(true, 1, true)] });
  expect(() => issue(asksForCa)).toThrow(/asks to be a certificate authority/);
});

test('what is no single bounded request is refused', () => {
  const pem = createCsr(newKey());

  expect(() => verifyCsr(pem + pem)).toThrow(/one PEM block/);
  expect(() => verifyCsr('')).toThrow(/received none/);
  expect(() => verifyCsr('x'.repeat(CSR_CHARS_MAX + 1))).toThrow(/at most 16384 characters/);
  expect(() => verifyCsr(pem.slice(0, 100))).toThrow(/cut off/);
});

test('no change of bytes gets a request past its signature, and none throws anything unexpected', () => {
  const der = decodePem(createCsr(newKey(), ID))[0]!.der;
  const before = createHash('sha256').update(der).digest('hex');
  fc.assert(
    fc.property(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const bytes = Buffer.from(der);
      bytes[at]! ^= flip;
      let passed = false;
      try {
        verifyCsr(encodePem('CERTIFICATE REQUEST', bytes));
        passed = true;
      } catch (error) {
        expect([CsrError, DerError, PemError].some((kind) => error instanceof kind)).toBe(true);
      }
      expect(passed).toBe(false);
    }),
    { numRuns: 500 },
  );
  expect(createHash('sha256').update(der).digest('hex')).toBe(before);
});

function rsa(modulusLength: number): object {
  return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', modulusLength, publicExponent: Uint8Array.of(1, 0, 1) };
}
