import { expect, test } from '@jest/globals';
import { ManualClock } from '../lib/clock.ts';
import type { ClusterLoad } from '../xds/load-report.ts';
import { testNode } from '../xds/session/testing.ts';
import { createLoadTable } from './load.ts';

const load = (cluster: string, issued: number, inProgress = 0): ClusterLoad => ({
  cluster,
  service: '',
  intervalMs: 1_000,
  dropped: 1,
  droppedByCategory: { lb: 1 },
  localities: [
    { locality: { region: 'a', zone: '', subZone: '' }, priority: 0, issued, succeeded: issued - 1, failed: 1, inProgress },
    { locality: { region: 'b', zone: '', subZone: '' }, priority: 0, issued, succeeded: issued, failed: 0, inProgress },
  ],
});

test('counters add up over reports and localities, and what is under way is what the last report said', () => {
  const table = createLoadTable({ clock: new ManualClock() });

  table.report(testNode(), [load('b', 5, 3), load('a', 1)]);
  table.report(testNode(), [load('b', 2, 1)]);

  expect(table.list()).toMatchObject([
    { cluster: 'a', issued: 2, succeeded: 1, failed: 1, dropped: 1, inProgress: 0, reports: 1 },
    { cluster: 'b', issued: 14, succeeded: 12, failed: 2, dropped: 2, inProgress: 2, reports: 2 },
  ]);
});

test('the table is bounded: who was silent for longest goes, and names that are too long are not kept', () => {
  const table = createLoadTable({ clock: new ManualClock(), entriesMax: 2 });

  table.report(testNode(), [load('a', 1), load('b', 1)]);
  table.report(testNode(), [load('a', 1), load('c', 1), load('x'.repeat(513), 1)]);

  expect(table.list().map((entry) => entry.cluster)).toEqual(['a', 'c']);
});
