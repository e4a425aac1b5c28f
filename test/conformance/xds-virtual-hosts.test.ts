/** Rule 44, and what 19, 20, 22, 23 and 26 mean for it: virtual hosts by name, on the server's and on the client's side. */
import { describe, test } from '@jest/globals';
import { playClient } from './xds-client-script.ts';
import { playServer } from './xds-script.ts';
import type { ClientRow } from './xds-client-script.ts';
import type { ServerRow } from './xds-script.ts';

const SERVER: readonly ServerRow[] = [
  {
    rule: 44,
    behaviour: 'an empty first request asks for no virtual host, and a name for that one alone',
    mode: 'delta',
    steps: [
      ['publish', 'VHDS/r/a=1', 'VHDS/r/b=1'],
      ['ask', 'VHDS'],
      ['gets'],
      ['ask', 'VHDS', { names: ['r/a'] }],
      ['gets', 'VHDS r/a=1'],
    ],
  },
  {
    rule: 44,
    behaviour: 'an unknown host is a resource without a body, and is sent when it comes to be',
    mode: 'delta',
    steps: [
      ['publish', 'VHDS/r/a=1'],
      ['ask', 'VHDS', { names: ['r/ghost'] }],
      ['gets', 'VHDS r/ghost?'],
      ['ack', 'VHDS'],
      ['publish', 'VHDS/r/a=1', 'VHDS/r/ghost.default=1|r/ghost'],
      ['gets', 'VHDS r/ghost.default=1'],
    ],
  },
  {
    rule: 44,
    behaviour: 'a state-of-the-world stream is told that virtual hosts are for delta streams',
    mode: 'sotw',
    steps: [['refused', 'VHDS', { names: ['r/a'] }, /VHDS is served on delta streams only/]],
  },
  {
    rule: 26,
    behaviour: 'a virtual host that was asked for by an alias follows its changes and goes by both names',
    mode: 'delta',
    steps: [
      ['publish', 'VHDS/r/a.default=1|r/a'],
      ['ask', 'VHDS', { names: ['r/a'] }],
      ['gets', 'VHDS r/a.default=1'],
      ['ack', 'VHDS'],
      ['publish', 'VHDS/r/a.default=2|r/a'],
      ['gets', 'VHDS r/a.default=2'],
      ['ack', 'VHDS'],
      ['publish'],
      ['gets', 'VHDS -r/a.default -r/a'],
    ],
  },
  {
    rule: 26,
    behaviour: 'an alias that another virtual host takes over lets go of the first in the same response',
    mode: 'delta',
    steps: [
      ['publish', 'VHDS/r/a=1'],
      ['ask', 'VHDS', { names: ['r/a'] }],
      ['gets', 'VHDS r/a=1'],
      ['ack', 'VHDS'],
      ['publish', 'VHDS/r/a.default=1|r/a'],
      ['gets', 'VHDS r/a.default=1 -r/a'],
      ['ack', 'VHDS'],
      ['publish', 'VHDS/r/a.default=2|r/a'],
      ['gets', 'VHDS r/a.default=2'],
    ],
  },
  {
    rule: 4,
    behaviour: 'a client that comes back with what it asked for by an alias gets it only if it changed',
    mode: 'delta',
    steps: [
      ['publish', 'VHDS/r/a.default=1|r/a', 'VHDS/r/b.default=2|r/b'],
      ['ask', 'VHDS', { names: ['r/a', 'r/b'], initial: { 'r/a.default': '1', 'r/b.default': '1' } }],
      ['gets', 'VHDS r/b.default=2'],
    ],
  },
  {
    rule: 4,
    behaviour: 'a client that comes back before the resources are known is compared when they are, and told what is gone',
    mode: 'delta',
    steps: [
      ['ask', 'VHDS', { names: ['r/a', 'r/old'], initial: { 'r/a.default': '1', 'r/old.default': '1' } }],
      ['gets'],
      ['publish', 'VHDS/r/a.default=1|r/a'],
      ['gets', 'VHDS r/old? -r/old.default'],
    ],
  },
  {
    rule: 22,
    behaviour: 'a name that is asked for again is sent again though it did not change',
    mode: 'delta',
    steps: [
      ['publish', 'VHDS/r/a.default=1|r/a'],
      ['ask', 'VHDS', { names: ['r/a'] }],
      ['gets', 'VHDS r/a.default=1'],
      ['ack', 'VHDS'],
      ['ask', 'VHDS', { names: ['r/a'] }],
      ['gets', 'VHDS r/a.default=1'],
    ],
  },
  {
    rule: 35,
    behaviour: 'a cluster goes after the virtual hosts that may point at it',
    mode: 'delta',
    steps: [
      ['publish', 'CDS/a=1', 'VHDS/r/a=1'],
      ['ask', 'CDS', { names: ['a'] }],
      ['ask', 'VHDS', { names: ['r/a'] }],
      ['gets', 'CDS a=1', 'VHDS r/a=1'],
      ['ack', 'CDS'],
      ['ack', 'VHDS'],
      ['publish'],
      ['gets', 'VHDS -r/a'],
      ['ack', 'VHDS'],
      ['gets', 'CDS -a'],
    ],
  },
  {
    rule: 19,
    behaviour: 'clusters by name alone are not everything, and no name left is nothing',
    mode: 'delta',
    steps: [
      ['publish', 'CDS/a=1', 'CDS/b=1'],
      ['ask', 'CDS', { names: ['a'] }],
      ['gets', 'CDS a=1'],
      ['ack', 'CDS'],
      ['ask', 'CDS', { unsubscribe: ['a'] }],
      ['publish', 'CDS/a=2', 'CDS/b=2'],
      ['gets'],
      ['ask', 'CDS', { names: ['ghost'] }],
      ['gets', 'CDS -ghost'],
    ],
  },
];

const CLIENT: readonly ClientRow[] = [
  {
    rule: 44,
    behaviour: 'an update of the parent route configuration clears the table: what is wanted is asked for again',
    mode: 'delta',
    steps: [
      ['subscribe', 'RDS', 'r'],
      ['subscribe', 'VHDS', 'r/a', 'other/a'],
      ['connect'],
      ['sends', 'RDS +r node', 'VHDS +r/a +other/a'],
      ['receive', 'RDS', '1', 'r=1'],
      ['accept'],
      ['receive', 'VHDS', '2', 'r/a.default=1|r/a', 'other/a=1'],
      ['accept'],
      ['sends', 'RDS n=1', 'VHDS n=2'],
      ['receive', 'RDS', '3', 'r=2'],
      ['accept'],
      ['sends', 'RDS n=3', 'VHDS +r/a'],
      ['drop'],
      ['connect'],
      ['sends', 'RDS +r init(r=2) node', 'VHDS +r/a +other/a init(other/a=1)'],
    ],
  },
  {
    rule: 44,
    behaviour: 'a virtual host that was there and is answered without a body is gone',
    mode: 'delta',
    steps: [
      ['subscribe', 'VHDS', 'r/a'],
      ['connect'],
      ['sends', 'VHDS +r/a node'],
      ['receive', 'VHDS', '1', 'r/a=1'],
      ['accept'],
      ['updates', 'VHDS r/a=1'],
      ['receive', 'VHDS', '2', '?r/a|r/a'],
      ['updates', 'VHDS -r/a'],
      ['accept'],
      ['status', 'VHDS', { 'r/a': 'DOES_NOT_EXIST' }],
    ],
  },
  {
    rule: 44,
    behaviour: 'nothing is asked for on a state-of-the-world stream',
    mode: 'sotw',
    steps: [['subscribe', 'VHDS', 'r/a'], ['connect'], ['sends'], ['drop'], ['connect', 'delta'], ['sends', 'VHDS +r/a node']],
  },
  {
    rule: 26,
    behaviour: 'what was asked for by an alias stays when another name is given up, and its own name with it',
    mode: 'delta',
    steps: [
      ['subscribe', 'VHDS', 'r/a', 'r/b'],
      ['connect'],
      ['sends', 'VHDS +r/a +r/b node'],
      ['receive', 'VHDS', '1', 'r/a.default=1|r/a', 'r/b.default=1|r/b'],
      ['accept'],
      ['sends', 'VHDS n=1'],
      ['status', 'VHDS', { 'r/a.default': 'ACKED', 'r/b.default': 'ACKED' }],
      ['unsubscribe', 'VHDS', 'r/b'],
      ['sends', 'VHDS -r/b'],
      ['drop'],
      ['connect'],
      ['sends', 'VHDS +r/a init(r/a.default=1) node'],
    ],
  },
  {
    rule: 26,
    behaviour: 'a name that passes from one virtual host to another is not missing',
    mode: 'delta',
    steps: [
      ['subscribe', 'VHDS', 'r/a'],
      ['connect'],
      ['sends', 'VHDS +r/a node'],
      ['receive', 'VHDS', '1', 'r/a=1'],
      ['accept'],
      ['receive', 'VHDS', '2', 'r/a.default=1|r/a', '-r/a'],
      ['accept'],
      ['updates', 'VHDS r/a=1', 'VHDS r/a.default=1 -r/a'],
      ['status', 'VHDS', { 'r/a.default': 'ACKED' }],
    ],
  },
  {
    rule: 19,
    behaviour: 'a client of clusters by name never asks for everything, not even when it comes back with none',
    mode: 'delta',
    steps: [
      ['subscribe', 'CDS', 'a'],
      ['connect'],
      ['sends', 'CDS +a node'],
      ['unsubscribe', 'CDS', 'a'],
      ['sends', 'CDS -a'],
      ['drop'],
      ['connect'],
      ['sends'],
    ],
  },
  {
    rule: 20,
    behaviour: 'dropping the star leaves the names',
    mode: 'delta',
    steps: [['subscribe', 'CDS', '*', 'a'], ['connect'], ['sends', 'CDS +* +a node'], ['unsubscribe', 'CDS', '*'], ['sends', 'CDS -*']],
  },
  {
    rule: 23,
    behaviour: 'a cluster that was asked for by name and is not there is told',
    mode: 'delta',
    steps: [
      ['subscribe', 'CDS', 'ghost'],
      ['connect'],
      ['sends', 'CDS +ghost node'],
      ['receive', 'CDS', '1', '-ghost'],
      ['updates', 'CDS -ghost'],
      ['accept'],
      ['status', 'CDS', { ghost: 'DOES_NOT_EXIST' }],
    ],
  },
];

describe('a server of virtual hosts', () => {
  for (const row of SERVER) test(`rule ${row.rule}, ${row.mode}: ${row.behaviour}`, () => playServer(row));
});

describe('a client of virtual hosts', () => {
  for (const row of CLIENT) test(`rule ${row.rule}, ${row.mode}: ${row.behaviour}`, () => playClient(row));
});
