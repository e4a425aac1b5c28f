import { expect, test } from '@jest/globals';
import { seededRandom } from '../../lib/random.ts';
import type { OutlierDetection } from '../../xds/snapshot.ts';
import { newOutlierState, OutlierDetector, successRateFloor } from './outlier.ts';
import type { OutlierState } from './outlier.ts';

const CONFIG: OutlierDetection = {
  consecutive5xx: 5,
  enforcingConsecutive5xxPercent: 100,
  consecutiveGatewayFailure: 3,
  enforcingConsecutiveGatewayFailurePercent: 0,
  consecutiveLocalOriginFailure: 2,
  enforcingConsecutiveLocalOriginFailurePercent: 100,
  splitExternalLocalOriginErrors: false,
  intervalMs: 10_000,
  baseEjectionTimeMs: 30_000,
  maxEjectionTimeMs: 300_000,
  maxEjectionTimeJitterMs: 0,
  maxEjectionPercent: 100,
  alwaysEjectOneEndpoint: false,
  enforcingSuccessRatePercent: 100,
  successRateMinimumHosts: 5,
  successRateRequestVolume: 100,
  successRateStdevFactor: 1900,
  failurePercentageThreshold: 85,
  enforcingFailurePercentagePercent: 0,
  failurePercentageMinimumHosts: 5,
  failurePercentageRequestVolume: 50,
};

function world(count: number, config: Partial<OutlierDetection> = {}) {
  const events: string[] = [];
  const members = Array.from({ length: count }, newOutlierState);
  const nameOf = (state: OutlierState): number => members.indexOf(state);
  const detector = new OutlierDetector({ ...CONFIG, ...config }, seededRandom(6), {
    detected: (cause) => events.push(`detected ${cause}`),
    ejected: (state, cause) => events.push(`ejected ${nameOf(state)} ${cause}`),
    overflow: () => events.push('overflow'),
    returned: (state) => events.push(`returned ${nameOf(state)}`),
  });
  detector.setMembers(members);
  const fail = (i: number, times: number, status = 500, nowMs = 0): void => {
    for (let n = 0; n < times; n++) detector.onStatus(members[i]!, status, nowMs);
  };
  return { events, members, detector, fail };
}

test('B4 ejections last base × n up to the maximum, and n falls by one per quiet interval', () => {
  const { members, detector, fail } = world(2);
  const [state] = members as [OutlierState];
  let nowMs = 0;
  const lengths: number[] = [];
  for (let n = 0; n < 12; n++) {
    fail(0, 5, 500, nowMs);
    lengths.push(state.ejectedUntilMs - nowMs);
    nowMs = state.ejectedUntilMs;
    detector.unejectDue(nowMs);
    state.probe = 'none';
  }
  expect(lengths).toEqual([30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300].map((seconds) => seconds * 1000));

  for (let n = 0; n < 11; n++) detector.sweep((nowMs += 10_000));
  expect(state.ejections).toBe(1);
});

test('B4 jitter lengthens an ejection by up to its maximum', () => {
  const { members, fail } = world(200, { maxEjectionTimeJitterMs: 10_000 });
  for (let i = 0; i < 200; i++) fail(i, 5);
  const lengths = members.map((state) => state.ejectedUntilMs);
  expect(Math.min(...lengths)).toBeGreaterThanOrEqual(30_000);
  expect(Math.max(...lengths)).toBeLessThan(40_000);
  expect(new Set(lengths).size).toBeGreaterThan(190);
});

test('B5 the only endpoint stays, even where one may always go', () => {
  const { detector, members } = world(1, { alwaysEjectOneEndpoint: true, maxEjectionPercent: 50 });

  for (let i = 0; i < 20; i++) detector.onStatus(members[0]!, 503, 0);

  expect(members[0]!.ejectedUntilMs).toBe(0);
});

test('B5 10 % of 10 endpoints is one, of 3 it is none unless one may always go', () => {
  const ten = world(10, { maxEjectionPercent: 10 });
  for (let i = 0; i < 10; i++) ten.fail(i, 5);
  expect(ten.detector.ejectedCount).toBe(1);
  expect(ten.events.filter((event) => event === 'overflow')).toHaveLength(9);

  const three = world(3, { maxEjectionPercent: 10 });
  three.fail(0, 5);
  expect(three.events).toEqual(['detected consecutive_5xx', 'overflow']);

  const always = world(3, { maxEjectionPercent: 10, alwaysEjectOneEndpoint: true });
  for (let i = 0; i < 3; i++) always.fail(i, 5);
  expect(always.detector.ejectedCount).toBe(1);
});

test('gateway failures are counted apart and an enforcing share of 0 only detects', () => {
  const { events, fail } = world(2);
  fail(0, 2, 503);
  fail(0, 1, 500);
  fail(0, 1, 503);
  expect(events).toEqual([]);

  const enforced = world(2, { enforcingConsecutiveGatewayFailurePercent: 100 });
  enforced.fail(0, 3, 502);
  expect(enforced.events).toEqual(['detected consecutive_gateway_failure', 'ejected 0 consecutive_gateway_failure']);
});

test('B6 failures without an answer count as gateway failures, or by themselves when split', () => {
  const joint = world(2);
  for (let i = 0; i < 5; i++) joint.detector.onLocalFailure(joint.members[0]!, 0);
  expect(joint.events).toContain('ejected 0 consecutive_5xx');

  const apart = world(2, { splitExternalLocalOriginErrors: true });
  apart.fail(0, 4);
  apart.detector.onLocalFailure(apart.members[0]!, 0);
  expect(apart.events).toEqual([]);
  apart.detector.onLocalFailure(apart.members[0]!, 0);
  expect(apart.events).toEqual(['detected consecutive_local_origin_failure', 'ejected 0 consecutive_local_origin_failure']);
});

test('B7 success-rate ejection cuts at the mean minus 1.9 standard deviations', () => {
  // Mean 90.6 and deviation 18.53 of these five, reckoned by hand: the floor is 55.4.
  expect(successRateFloor([100, 100, 100, 99.5, 53.5], 1900)).toBeCloseTo(
    90.6 - 1.9 * Math.sqrt((3 * 9.4 ** 2 + 8.9 ** 2 + 37.1 ** 2) / 5),
    9,
  );

  const rates = [100, 99, 100, 100, 98, 99, 40];
  const { members, detector, events } = world(rates.length, { consecutive5xx: 0 });
  rates.forEach((rate, i) => {
    for (let n = 0; n < 200; n++) detector.onStatus(members[i]!, n < rate * 2 ? 200 : 500, 0);
  });
  detector.sweep(10_000);
  expect(events).toEqual(['detected success_rate', 'ejected 6 success_rate']);
});

test('B7 too few requests or too few endpoints say nothing', () => {
  for (const [count, volume] of [
    [4, 200],
    [7, 99],
  ] as const) {
    const { members, detector, events } = world(count, { consecutive5xx: 0 });
    members.forEach((state, i) => {
      for (let n = 0; n < volume; n++) detector.onStatus(state, i === 0 ? 500 : 200, 0);
    });
    detector.sweep(10_000);
    expect(events).toEqual([]);
  }
});

test('the failure percentage ejects at its threshold over one interval only', () => {
  const { members, detector, events } = world(5, {
    consecutive5xx: 0,
    enforcingSuccessRatePercent: 0,
    enforcingFailurePercentagePercent: 100,
  });
  const load = (failed: number): void =>
    members.forEach((state, i) => {
      for (let n = 0; n < 100; n++) detector.onStatus(state, i === 2 && n < failed ? 500 : 200, 0);
    });
  load(84);
  detector.sweep(10_000);
  expect(events).toEqual([]);
  load(85);
  detector.sweep(20_000);
  expect(events).toEqual(['detected failure_percentage', 'ejected 2 failure_percentage']);
});

test('B8 the first answer after an ejection decides: a failure ejects at once and for longer, a success lets all back', () => {
  const { members, detector, fail, events } = world(2);
  const [state] = members as [OutlierState];
  fail(0, 5);
  detector.unejectDue(30_000);
  expect(state.probe).toBe('wanted');
  state.probe = 'under way';
  fail(0, 1, 503, 30_000);
  expect(state.ejectedUntilMs).toBe(90_000);

  detector.unejectDue(90_000);
  state.probe = 'under way';
  detector.onStatus(state, 200, 90_000);
  expect([state.probe, state.ejectedUntilMs]).toEqual(['none', 0]);
  expect(events).toContain('ejected 0 failed_probe');
});
