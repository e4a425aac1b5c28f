import { expect, test } from '@jest/globals';
import { createAuthority } from './authority.ts';
import { parseBundle, parseSpiffeBundleJson, spiffeBundleJson } from './bundle.ts';
import { ManualClock } from '../lib/clock.ts';

function bundle() {
  const authority = createAuthority({ trustDomain: 'mesh.test', clock: new ManualClock() });
  authority.prepare();
  return authority.bundle.current;
}

test('a bundle survives PEM and SPIFFE JSON, and the same roots have the same version', () => {
  const original = bundle();
  const json = spiffeBundleJson(original, { sequence: 3, refreshHintSeconds: 60 });

  expect(parseBundle('mesh.test', original.pem)).toEqual(original);
  expect(parseSpiffeBundleJson('mesh.test', json)).toEqual(original);
  expect(JSON.parse(json)).toMatchObject({
    spiffe_sequence: 3,
    spiffe_refresh_hint: 60,
    keys: [{ kty: 'EC', crv: 'P-256', use: 'x509-svid' }, {}],
  });
  expect(json).not.toContain('"d"');
});

test('keys for other uses are passed over, and a broken one for X.509 is not', () => {
  const original = bundle();
  const keys = (extra: object) =>
    JSON.stringify({
      keys: [...(JSON.parse(spiffeBundleJson(original, { sequence: 1, refreshHintSeconds: 1 })) as { keys: object[] }).keys, extra],
    });

  expect(parseSpiffeBundleJson('mesh.test', keys({ use: 'jwt-svid', kid: 'a' })).version).toBe(original.version);
  expect(() => parseSpiffeBundleJson('mesh.test', keys({ use: 'x509-svid' }))).toThrow(/exactly one certificate/);
  expect(() => parseSpiffeBundleJson('mesh.test', '{}')).toThrow(/a list "keys"/);
  expect(() => parseSpiffeBundleJson('mesh.test', '{"keys":[]}')).toThrow(/has no root/);
});
