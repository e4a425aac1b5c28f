import { expect, test } from '@jest/globals';
import { testNode } from '../xds/session/testing.ts';
import { claimProblem } from './identity.ts';
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

test.each([
  ['gRPC Node Pure JS', {}, 'grpc'],
  ['gRPC Go', {}, 'grpc'],
  ['envoy', {}, 'envoy'],
  ['meshwork', {}, 'sidecar'],
  ['', {}, 'sidecar'],
  ['envoy', { GENERATOR: 'grpc' }, 'grpc'],
  ['gRPC Go', { FLAVOUR: 'envoy' }, 'envoy'],
])('rule 42: a client that calls itself %j with metadata %j gets the flavour %s', (userAgentName, metadata, flavour) => {
  expect(nodeOf(worldOf(''), testNode({ userAgentName, metadata }), CALLER).flavour).toBe(flavour);
});

test.each([
  ['its own', {}, 'a.default', undefined],
  ['another workload', {}, 'b.default', 'the workload \\"default/b\\"'],
  ['another namespace by its id', {}, 'a.other', 'the namespace \\"other\\"'],
  ['another namespace by its metadata', { NAMESPACE: 'other' }, 'a.default', 'the namespace \\"other\\"'],
  ['another service account', { SERVICE_ACCOUNT: 'root' }, 'a.default', 'the service account \\"root\\"'],
  ["Istio's form of another namespace", {}, 'sidecar~10.0.0.1~a.other~other.svc.cluster.local', 'the namespace \\"other\\"'],
  ['no workload at all', {}, 'envoy', 'no workload'],
])('rule 50: a proven caller that claims %s', (_what, metadata, id, refused) => {
  const caller = { ...CALLER, identity: 'spiffe://cluster.local/ns/default/sa/a', authentication: 'lease', workload: 'default/a' } as const;

  const problem = claimProblem(caller, testNode({ id, metadata }), worldOf(''));

  if (refused === undefined) expect(problem).toBeUndefined();
  else expect(JSON.stringify(problem)).toContain(refused);
});
