import { X509Certificate } from 'node:crypto';
import { rootCertificates } from 'node:tls';
import { expect, test } from '@jest/globals';
import { testCa, testLeaf } from '../certs/testing.ts';
import { EMPTY_SNAPSHOT } from '../xds/snapshot.ts';
import type { Secret, Snapshot } from '../xds/snapshot.ts';
import { certificatesInUse, firstExpiryMs } from './certificates.ts';

const NOW_MS = Date.UTC(2026, 0, 1);

/** Two clusters with the same TLS, whose certificate comes over SDS and whose roots stand inside. */
function snapshotOf(rootsPem: string, chain: Secret | undefined): Snapshot {
  const tls = {
    certificates: [{ kind: 'sds', name: 'own' }],
    validation: { kind: 'inline', secret: { name: '/roots.pem', content: { kind: 'validation', rootsPem } } },
  };
  const clusters = new Map(['a', 'b'].map((name) => [name, { name, tls, tlsMatches: [] }]));
  return { ...EMPTY_SNAPSHOT, clusters, secrets: new Map(chain === undefined ? [] : [['own', chain]]) } as unknown as Snapshot;
}

test('the same certificates in two clusters are told once, with where they are from, and the first to end counts', () => {
  const ca = testCa(NOW_MS, 'mesh');
  const leaf = testLeaf(ca, NOW_MS, ['spiffe://mesh.test/ns/a/sa/b']);
  const own: Secret = { name: 'own', content: { kind: 'certificate', chainPem: leaf.pem, keyPem: '' } };
  const snapshot = snapshotOf(ca.pem, own);

  const found = certificatesInUse(snapshot);

  expect(found).toMatchObject([{ roots: [{ path: '/roots.pem' }], chains: [{ path: 'own', uris: ['spiffe://mesh.test/ns/a/sa/b'] }] }]);
  expect(firstExpiryMs(snapshot)).toBe(new X509Certificate(leaf.pem).validToDate.getTime());
  expect([certificatesInUse(EMPTY_SNAPSHOT), firstExpiryMs(EMPTY_SNAPSHOT)]).toEqual([[], Number.POSITIVE_INFINITY]);
});

test('a secret that has not come is left out, and every public root can be read', () => {
  const snapshot = snapshotOf(rootCertificates.join('\n'), undefined);

  const [entry] = certificatesInUse(snapshot);

  expect([entry!.roots.length, entry!.chains]).toEqual([rootCertificates.length, []]);
  expect(firstExpiryMs(snapshot)).toBe(Math.min(...rootCertificates.map((pem) => new X509Certificate(pem).validToDate.getTime())));
});
