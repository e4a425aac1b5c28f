/** The codec of discovery messages under chance: what is written reads back the same, and noise is refused and nothing worse. */
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  decodeDeltaRequest,
  decodeDeltaResponse,
  decodeSotwRequest,
  decodeSotwResponse,
  encodeDeltaRequest,
  encodeDeltaResponse,
  encodeSotwRequest,
  encodeSotwResponse,
  resourceName,
} from '../../xds/resources/discovery.ts';
import type { DeltaRequest, DeltaResponse, NodeInfo, SotwRequest, SotwResponse, WireResource } from '../../xds/session/messages.ts';
import { testResource } from '../../xds/session/testing.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 30 });
const word = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 });
const bytes = fc.uint8Array({ maxLength: 6_000, size: 'max' }).map((array) => Buffer.from(array));
const typeUrl = fc.constantFrom('type.googleapis.com/a.B', 'type.googleapis.com/envoy.config.cluster.v3.Cluster');
const ttlMs = fc.integer({ min: 1, max: 10_000_000 });

const resource: fc.Arbitrary<WireResource> = fc.record(
  { name: word, version: word, typeUrl, bytes, ttlMs, aliases: fc.array(word, { minLength: 1, maxLength: 3 }) },
  { requiredKeys: ['name', 'version', 'typeUrl', 'bytes'] },
);

const node: fc.Arbitrary<NodeInfo> = fc.record({
  id: text,
  cluster: text,
  metadata: fc.dictionary(
    word.filter((key) => key !== '__proto__'),
    fc.oneof(text, fc.boolean(), fc.integer(), fc.constant(null), fc.array(text)),
  ),
  locality: fc.record({ region: text, zone: text, subZone: text }),
  userAgentName: text,
  userAgentVersion: text,
  clientFeatures: fc.array(text),
});

const error = fc.record({ code: fc.integer({ min: 0, max: 16 }), message: text });

/** Compares by content, whatever kind of array holds the bytes and however records were made. */
function plain(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_key, inner: unknown) => {
      if (inner instanceof Map) return [...inner];
      if (inner instanceof Uint8Array) return Buffer.from(inner).toString('hex');
      return typeof inner === 'object' && inner !== null && 'type' in inner && inner.type === 'Buffer' && 'data' in inner
        ? Buffer.from(inner.data as number[]).toString('hex')
        : inner;
    }),
  );
}

test('requests read back as they were written', () => {
  const sotw = fc.record(
    { mode: fc.constant('sotw' as const), typeUrl, versionInfo: text, resourceNames: fc.array(text), responseNonce: text, node, error },
    { requiredKeys: ['mode', 'typeUrl', 'versionInfo', 'resourceNames', 'responseNonce'] },
  );
  const delta = fc.record(
    {
      mode: fc.constant('delta' as const),
      typeUrl,
      subscribe: fc.array(text),
      unsubscribe: fc.array(text),
      initialVersions: fc.uniqueArray(fc.tuple(word, text), { selector: ([key]) => key }).map((entries) => new Map(entries)),
      responseNonce: text,
      node,
      error,
    },
    { requiredKeys: ['mode', 'typeUrl', 'subscribe', 'unsubscribe', 'initialVersions', 'responseNonce'] },
  );
  const sorted = (request: DeltaRequest): DeltaRequest => ({
    ...request,
    initialVersions: new Map([...request.initialVersions].sort(byKey)),
  });

  fc.assert(
    fc.property(sotw, (request: SotwRequest) => expect(plain(decodeSotwRequest(encodeSotwRequest(request)))).toEqual(plain(request))),
  );
  fc.assert(
    fc.property(delta, (request: DeltaRequest) =>
      expect(plain(sorted(decodeDeltaRequest(encodeDeltaRequest(request))))).toEqual(plain(sorted(request))),
    ),
  );
});

test('responses read back as they were written, small and big resources, with and without a body', () => {
  const heartbeat = fc.record({ name: word, version: word, typeUrl: fc.constant('type.googleapis.com/a.B'), ttlMs });
  const shared = { typeUrl: fc.constant('type.googleapis.com/a.B'), versionInfo: word, nonce: text };
  const resources = fc.array(fc.oneof(resource, heartbeat), { maxLength: 6 });
  const delta = fc.record({ mode: fc.constant('delta' as const), ...shared, resources, removed: fc.array(text) });
  const wrapped = fc.record({
    mode: fc.constant('sotw' as const),
    ...shared,
    resources: fc.array(resource, { minLength: 1, maxLength: 6 }),
    wrapped: fc.constant(true),
  });
  // Unwrapped resources carry nothing but their bytes: the name is in them and the version is the response's.
  const bare = fc
    .tuple(word, fc.string({ maxLength: 6_000, size: 'max' }))
    .map(([name, body]) => testResource('type.googleapis.com/a.B', name, body));
  const sotw = fc.record({
    mode: fc.constant('sotw' as const),
    ...shared,
    resources: fc.array(bare, { maxLength: 6 }),
    wrapped: fc.constant(false),
  });

  fc.assert(
    fc.property(delta, (response: DeltaResponse) =>
      expect(plain(decodeDeltaResponse(encodeDeltaResponse(response)))).toEqual(plain(response)),
    ),
  );
  fc.assert(
    fc.property(wrapped, (response: SotwResponse) =>
      expect(plain(decodeSotwResponse(encodeSotwResponse(response)))).toEqual(plain(response)),
    ),
  );
  fc.assert(
    fc.property(sotw, (response: SotwResponse) => {
      const read = decodeSotwResponse(encodeSotwResponse(response));
      expect(plain(read.resources)).toEqual(plain(response.resources.map((one) => ({ ...one, version: response.versionInfo }))));
    }),
  );
});

test('the same resource in a second response gives the same bytes', () => {
  fc.assert(
    fc.property(fc.array(resource, { maxLength: 4 }), (resources) => {
      const response = { mode: 'delta', typeUrl: 't', versionInfo: '1', nonce: '1', resources, removed: [] } as const;
      expect(encodeDeltaResponse(response).equals(encodeDeltaResponse(response))).toBe(true);
    }),
  );
});

test('noise is an error or a message, and a name is a name or nothing', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => {
      for (const decode of [decodeSotwRequest, decodeDeltaRequest, decodeSotwResponse, decodeDeltaResponse]) {
        try {
          expect(typeof decode(noise).typeUrl).toBe('string');
        } catch (thrown) {
          // Errors of Node's own realm are no instances of the test's.
          expect(String(thrown)).toMatch(/^\w*Error: ./);
        }
      }
      expect(typeof resourceName(noise)).toBe('string');
    }),
    { numRuns: 2_000 },
  );
});

function byKey([left]: [string, string], [right]: [string, string]): number {
  return left < right ? -1 : 1;
}
