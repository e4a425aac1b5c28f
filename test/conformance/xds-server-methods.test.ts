/** What the method of a stream decides, and the limits of one, by the numbers of the project's reference. */
import { describe, test } from '@jest/globals';
import { testNode } from '../../xds/session/testing.ts';
import { playServer } from './xds-script.ts';
import type { ServerRow } from './xds-script.ts';

const METHODS: readonly ServerRow[] = [
  {
    rule: 7,
    behaviour: 'a per-type method knows its type without being told',
    mode: 'sotw',
    method: 'EDS',
    steps: [
      ['publish', 'EDS/a=1'],
      ['ask', 'EDS', { names: ['a'] }],
      ['gets', 'EDS a=1'],
    ],
  },
  {
    rule: 7,
    behaviour: 'a per-type method refuses other types',
    mode: 'delta',
    method: 'EDS',
    steps: [['refused', 'CDS', { node: testNode() }, /this method serves .*ClusterLoadAssignment only/]],
  },
  {
    rule: 1,
    behaviour: 'an aggregated stream refuses a request without a type',
    mode: 'delta',
    steps: [['refused', '', { node: testNode() }, /must carry a type URL/]],
  },
  {
    rule: 48,
    behaviour: 'a stream that asks for more names than the limit is refused',
    mode: 'delta',
    steps: [['refused', 'EDS', { node: testNode(), names: Array.from({ length: 11 }, (_, index) => `n${index}`) }, /at most 10 names/]],
  },
];

describe('a server', () => {
  for (const row of METHODS) test(`rule ${row.rule}, ${row.mode}: ${row.behaviour}`, () => playServer(row));
});
