/** The short version of the HTTP/1.1 fuzz run, with its oracles. */
import { expect, test } from '@jest/globals';
import { fuzzHttp1 } from './http1.ts';

test('40,000 mutated messages neither crash the codec, nor mean two things, nor take long', () => {
  const report = fuzzHttp1({ executions: 40_000, seed: 3, inputMsMax: 50 });

  expect(report.findings).toEqual([]);
  expect(report.executions).toBe(40_000);
  // The corpus must reach both ends.
  expect(report.accepted).toBeGreaterThan(4_000);
  expect(report.refused).toBeGreaterThan(4_000);
  expect(report.reasons).toBeGreaterThan(30);
});
