/** What the method of a stream decides, and the limits of one, by the numbers of the project's reference. */
import { testNode } from '../../xds/session/testing.ts';
import { declareRules, playServer } from './xds-script.ts';
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
    rule: 13,
    behaviour: 'a subscription that comes with an ACK is taken all the same, since clients do that',
    mode: 'delta',
    steps: [
      ['publish', 'EDS/a=1', 'EDS/b=1'],
      ['ask', 'EDS', { names: ['a'] }],
      ['gets', 'EDS a=1'],
      ['ask', 'EDS', { names: ['b'], nonce: '1' }],
      ['event', { kind: 'subscribed' }],
      ['gets', 'EDS b=1'],
    ],
  },
  {
    rule: 30,
    behaviour: 'a deletion is sent to every client; to ignore it is the choice of one that does',
    mode: 'sotw',
    features: ['ignore_resource_deletion'],
    steps: [
      ['publish', 'CDS/a=1', 'CDS/b=1'],
      ['ask', 'CDS'],
      ['gets', 'CDS a=1 b=1'],
      ['ack', 'CDS'],
      ['publish', 'CDS/a=1'],
      ['gets', 'CDS a=1'],
    ],
  },
  ...(['sotw', 'delta'] as const).map((mode): ServerRow => ({
    rule: 47,
    behaviour: 'what a client has is NOT_SENT, STALE until it answers, then SYNCED or ERROR with the reason',
    mode,
    steps: [
      ['ask', 'CDS'],
      ['state', 'CDS', 'NOT_SENT'],
      ['publish', 'CDS/a=1'],
      ['gets', 'CDS a=1'],
      ['state', 'CDS', 'STALE'],
      ['ack', 'CDS'],
      ['state', 'CDS', 'SYNCED'],
      ['publish', 'CDS/a=2'],
      ['gets', 'CDS a=2'],
      ['nack', 'CDS', 'no'],
      ['state', 'CDS', 'ERROR no'],
      ['publish', 'CDS/a=3'],
      ['gets', 'CDS a=3'],
      ['ack', 'CDS'],
      ['state', 'CDS', 'SYNCED'],
    ],
  })),
  ...(['sotw', 'delta'] as const).map((mode): ServerRow => ({
    rule: 49,
    behaviour: 'a client that does not answer is sent one message of a type, and of what came meanwhile only the newest',
    mode,
    steps: [
      ['publish', 'CDS/a=1'],
      ['ask', 'CDS'],
      ['gets', 'CDS a=1'],
      ['publish', 'CDS/a=2'],
      ['publish', 'CDS/a=3'],
      ['gets'],
      ['ack', 'CDS'],
      ['gets', 'CDS a=3'],
    ],
  })),
  {
    rule: 48,
    behaviour: 'a stream that asks for more names than the limit is refused',
    mode: 'delta',
    steps: [['refused', 'EDS', { node: testNode(), names: Array.from({ length: 11 }, (_, index) => `n${index}`) }, /at most 10 names/]],
  },
];

declareRules('a server', METHODS, playServer);
