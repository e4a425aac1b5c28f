/** Every kind of resource goes to the wire and comes back as it was. */
import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { decodeResource, encodeResource, type Kind, kindOf, KINDS, type ResourceOf, resourceJson, TYPE_URLS } from './index.ts';
import { clusters, listeners, loadAssignments, secrets } from './testing.ts';
import { routeConfigurations, virtualHosts } from './testing-routes.ts';

const ARBITRARIES: { readonly [K in Kind]: fc.Arbitrary<ResourceOf<K>> } = {
  listener: listeners,
  route: routeConfigurations,
  virtualHost: virtualHosts,
  cluster: clusters,
  endpoints: loadAssignments,
  secret: secrets,
};

test.each(Object.keys(KINDS) as Kind[])('a %s that is encoded and decoded is the same, and so are its bytes', (kind) => {
  fc.assert(
    fc.property(ARBITRARIES[kind] as fc.Arbitrary<ResourceOf<Kind>>, (resource) => {
      const { typeUrl, name, bytes } = encodeResource(kind, resource as never);
      const decoded = decodeResource(typeUrl, bytes);

      expect(decoded.resource).toEqual(resource);
      expect(decoded.name).toBe(name);
      // Some of what our types hold has no effect in our proxy, and that is told.
      expect(decoded.warnings.filter((warning) => !warning.includes('is ignored'))).toEqual([]);
      expect(Buffer.from(encodeResource(kind, decoded.resource as never).bytes).equals(bytes)).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test.each(Object.keys(KINDS) as Kind[])('bytes that are no %s are refused with a DecodeError, or decoded', (kind) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      let thrown: unknown;
      try {
        decodeResource(TYPE_URLS[kind], bytes);
      } catch (error) {
        thrown = error;
      }
      if (thrown !== undefined) expect(thrown).toHaveProperty('name', 'DecodeError');
    }),
    { numRuns: 300 },
  );
});

test('maps are written in one order, whatever order they were built in', () => {
  const assignment = (labels: Record<string, string>) => ({
    clusterName: 'a',
    localities: [
      {
        locality: { region: '', zone: '', subZone: '' },
        priority: 0,
        endpoints: [
          {
            address: { host: '10.0.0.1', port: 80 },
            hostname: '',
            weight: 1,
            health: 'HEALTHY' as const,
            metadata: { 'envoy.lb': labels },
          },
        ],
      },
    ],
    overprovisioningFactor: 140,
    dropPercent: 0,
  });

  const first = encodeResource('endpoints', assignment({ a: '1', b: '2' })).bytes;
  const second = encodeResource('endpoints', assignment({ b: '2', a: '1' })).bytes;

  expect(Buffer.from(first).equals(second)).toBe(true);
});

test('a type that is no resource is refused by name', () => {
  expect(kindOf('type.googleapis.com/envoy.config.core.v3.Node')).toBeUndefined();
  expect(() => decodeResource('type.googleapis.com/envoy.config.core.v3.Node', new Uint8Array())).toThrow(
    /the type must be one of listener, route, virtualHost, cluster, endpoints, secret, received type\.googleapis\.com\/envoy\.config\.core\.v3\.Node/,
  );
});

test('a dump of a secret has everything but the key', () => {
  const { typeUrl, bytes } = encodeResource('secret', {
    name: 'default',
    content: { kind: 'certificate', chainPem: 'CHAIN', keyPem: 'PRIVATE' },
  });

  const dump = resourceJson(typeUrl, bytes);

  expect(dump).toEqual({
    '@type': typeUrl,
    name: 'default',
    tls_certificate: {
      certificate_chain: { inline_bytes: Buffer.from('CHAIN').toString('base64') },
      private_key: { inline_bytes: Buffer.from('[redacted]').toString('base64') },
    },
  });
});
