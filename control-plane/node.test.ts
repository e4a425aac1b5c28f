import { expect, test } from '@jest/globals';
import { testNode } from '../xds/session/testing.ts';
import { nodeOf } from './node.ts';
import { worldOf } from './testing.ts';

const CALLER = { identity: undefined, authentication: 'none', workload: undefined, certificate: undefined, peer: '127.0.0.1:1' } as const;
const CLAIMED = { region: 'us', zone: 'us-1', subZone: '' };

test.each([
  ['its own', 'locality: { region: eu, zone: eu-1 }', { region: 'eu', zone: 'eu-1', subZone: '' }],
  ['the node’s when it has none', 'weight: 1', CLAIMED],
])('a workload’s locality is %s', (_what, field, expected) => {
  const world = worldOf(
    `{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: a }, spec: { address: 10.0.0.1, ${field} } }`,
  );

  expect(nodeOf(world, testNode({ id: 'a.default', locality: CLAIMED }), CALLER).locality).toEqual(expected);
  expect(nodeOf(world, testNode({ id: 'nobody.default', locality: CLAIMED }), CALLER).locality).toEqual(CLAIMED);
});
