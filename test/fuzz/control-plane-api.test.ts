import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ROUTE, SERVICE, cleanUp, startForTest } from '../e2e/control-plane-harness.ts';
import type { Running } from '../e2e/control-plane-harness.ts';

let running: Running;
beforeAll(async () => {
  running = await startForTest();
  await running.call('POST', '/api/v1/resources', SERVICE('reviews'));
});
afterAll(cleanUp);

const RUNS = { numRuns: 150 };

/** A valid document with one value somewhere in it exchanged for anything. */
const bent = fc.tuple(fc.constantFrom(ROUTE(1, 2), SERVICE('x')), fc.nat(), fc.jsonValue({ maxDepth: 3 })).map(([document, at, value]) => {
  const copy = structuredClone(document);
  const places: [Record<string, unknown>, string][] = [];
  const walk = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const key of Object.keys(node)) {
      places.push([node as Record<string, unknown>, key]);
      walk((node as Record<string, unknown>)[key]);
    }
  };
  walk(copy);
  const [node, key] = places[at % places.length]!;
  node[key] = value;
  return copy;
});

async function never5xx(method: string, path: string, body: unknown, headers: Record<string, string> = {}): Promise<void> {
  const answer = await running.call(method, path, body, headers);
  if (answer.status >= 500) throw new Error(`${answer.status} for ${JSON.stringify(body)}: ${answer.text}`);
  if (answer.status >= 400) expect(answer.json.status).toBe(answer.status);
}

test('no resource, however bent, makes the API fail', async () => {
  await fc.assert(
    fc.asyncProperty(bent, (document) => never5xx('POST', '/api/v1/resources?dryRun=true', document)),
    RUNS,
  );
}, 60_000);

test('no text makes the API fail', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ maxLength: 300 }), (text) => never5xx('POST', '/api/v1/resources?dryRun=true', text)),
    RUNS,
  );
}, 60_000);

test('no JSON makes registrations, heartbeats and tokens fail', async () => {
  const body = fc.oneof(
    fc.jsonValue(),
    fc.record(
      {
        service: fc.oneof(fc.string(), fc.constant('s')),
        address: fc.oneof(fc.string(), fc.constant('127.0.0.1'), fc.constant('::1')),
        ports: fc.dictionary(fc.string(), fc.integer()),
        labels: fc.dictionary(fc.string(), fc.string()),
        namespace: fc.string(),
        serviceAccount: fc.string(),
        ttlSeconds: fc.double(),
        weight: fc.double(),
      },
      { requiredKeys: [] },
    ),
  );
  const paths: [string, string][] = [
    ['POST', '/api/v1/registrations'],
    ['PUT', '/api/v1/registrations/x/heartbeat'],
    ['POST', '/api/v1/tokens'],
  ];
  await fc.assert(
    fc.asyncProperty(body, fc.constantFrom(...paths), (value, [method, path]) =>
      never5xx(method, path, value, { authorization: 'Bearer x' }),
    ),
    RUNS,
  );
}, 60_000);

test('no path or query makes the API fail', async () => {
  const part = fc.string({ maxLength: 30 }).map(encodeURIComponent);
  await fc.assert(
    fc.asyncProperty(part, part, part, (a, b, c) =>
      never5xx('GET', `/api/v1/resources/${a || 'x'}/${b || 'x'}/${c || 'x'}?wait=${a}&kind=${b}`, undefined),
    ),
    RUNS,
  );
}, 60_000);
