import { expect, jest, test } from '@jest/globals';
import { ManualClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import type { Cluster, LoadAssignment } from '../../xds/snapshot.ts';
import { DnsMembership } from './dns.ts';

const settled = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

function world(fields: Partial<Cluster>, names: Record<string, string[] | Error>, ttlMs?: number) {
  const clock = new ManualClock();
  const reports: string[][] = [];
  const lines: string[] = [];
  const asked: string[] = [];
  const endpoint = (host: string) => ({ address: { host, port: 80 }, hostname: '', weight: 1, health: 'UNKNOWN' as const, metadata: {} });
  const loadAssignment: LoadAssignment = {
    clusterName: 'c',
    localities: [
      { locality: { region: '', zone: '', subZone: '' }, priority: 0, endpoints: [...Object.keys(names), '192.0.2.9'].map(endpoint) },
    ],
    overprovisioningFactor: 140,
    dropPercent: 0,
  };
  const config = {
    name: 'c',
    type: 'STRICT_DNS',
    dnsLookupFamily: 'AUTO',
    dnsRefreshMs: 5000,
    respectDnsTtl: false,
    loadAssignment,
    ...fields,
  } as Cluster;
  const counts = { updateAttempted: jest.fn(), updated: jest.fn(), updateFailed: jest.fn() };
  const membership = new DnsMembership(
    config,
    {
      clock,
      random: () => 0,
      log: createLog({ clock, write: (line) => lines.push(line) }),
      resolve: (host) => {
        asked.push(host);
        const answer = names[host]!;
        return answer instanceof Error
          ? Promise.reject(answer)
          : Promise.resolve({ addresses: answer, ...(ttlMs === undefined ? {} : { ttlMs }) });
      },
    },
    counts,
    (assignment) => reports.push(assignment.localities[0]!.endpoints.map((one) => `${one.address.host} ${one.hostname}`)),
  );
  return { clock, reports, lines, asked, names, membership, counts };
}

test('every address of a name is an endpoint, addresses in the configuration stay, and only changes are reported', async () => {
  const { clock, reports, names, asked } = world({}, { 'app.test': ['192.0.2.2', '192.0.2.1'] });
  await settled();
  expect(reports).toEqual([['192.0.2.1 app.test', '192.0.2.2 app.test', '192.0.2.9 ']]);

  names['app.test'] = ['192.0.2.1', '192.0.2.2'];
  clock.advance(5000);
  await settled();
  expect([asked.length, reports.length]).toEqual([2, 1]);

  names['app.test'] = ['192.0.2.3'];
  clock.advance(5000);
  await settled();
  expect(reports[1]).toEqual(['192.0.2.3 app.test', '192.0.2.9 ']);
});

test('when the resolver fails the last good answer stays and the log says so; an empty answer counts', async () => {
  const { clock, reports, names, lines, counts } = world({}, { 'app.test': ['192.0.2.1'] });
  await settled();
  names['app.test'] = new Error('SERVFAIL');
  clock.advance(5000);
  await settled();
  expect(reports).toHaveLength(1);
  expect(lines[0]).toContain('SERVFAIL');

  names['app.test'] = [];
  clock.advance(5000);
  await settled();
  expect(reports[1]).toEqual(['192.0.2.9 ']);

  clock.advance(5000);
  await settled();
  expect(counts.updateAttempted).toHaveBeenCalledTimes(4);
  expect(counts.updateFailed).toHaveBeenCalledTimes(1);
  expect(counts.updated.mock.calls).toEqual([[true], [true], [false]]);
});

test('a logical name is one endpoint, and a TTL decides when to ask again', async () => {
  const { clock, reports, asked, names } = world(
    { type: 'LOGICAL_DNS', respectDnsTtl: true },
    { 'app.test': ['192.0.2.2', '192.0.2.1'] },
    60_000,
  );
  await settled();
  expect(reports[0]).toEqual(['192.0.2.2 app.test', '192.0.2.9 ']);
  names['app.test'] = ['192.0.2.5'];
  clock.advance(59_999);
  await settled();
  expect(asked).toHaveLength(1);
  clock.advance(1);
  await settled();
  expect(reports[1]).toEqual(['192.0.2.5 app.test', '192.0.2.9 ']);
});

test('closing ends the questions', async () => {
  const { clock, membership, asked } = world({}, { 'app.test': [] });
  await settled();
  membership.close();
  clock.advance(60_000);
  expect([asked.length, clock.pending]).toEqual([1, 0]);
});
