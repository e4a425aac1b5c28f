import { expect, test } from '@jest/globals';
import { mergeWorld } from '../catalog.ts';
import { parseResources } from '../kinds/parse.ts';
import { nodeOf } from '../testing.ts';
import type { World } from '../world.ts';
import { build } from './index.ts';

const SERVICE =
  '{ apiVersion: v1, kind: Service, metadata: { name: shop }, spec: { selector: { app: shop }, ports: [{ port: 80, targetPort: 8080 }] } }';
const workload = (name: string, fields: string, labels = 'app: shop'): string =>
  `{ apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: { name: ${name}, labels: { ${labels} } }, spec: { address: 10.0.0.1, ports: { http: 8080 }, ${fields} } }`;

/** One world after the other, as in a running control plane: what does not change stays the same object. */
function worlds(...texts: readonly string[]): readonly World[] {
  const mesh = parseResources('{ apiVersion: meshwork.dev/v1alpha1, kind: Mesh, metadata: { name: mesh } }', { source: 'a' });
  const service = parseResources(SERVICE, { source: 'a' });
  const state = mergeWorld([{ name: 'a', state: { resources: [...mesh.resources, ...service.resources], problems: [] } }]);
  return texts.map((text) => {
    const { resources } = parseResources(text, { source: 'b' });
    const world = mergeWorld([{ name: 'b', state: { resources: [...service.resources, ...resources], problems: [] } }]);
    return { ...world, mesh: state.mesh, policies: state.policies };
  });
}

test('the listeners of a proxy stay when its instance and its neighbours change in what listeners say nothing of', () => {
  const [before, after] = worlds(
    `${workload('one', 'weight: 1')}\n---\n${workload('two', 'weight: 1')}`,
    `${workload('one', 'weight: 7')}\n---\n${workload('two', 'draining: true')}`,
  );
  const metadata = {};
  const first = build(before!, nodeOf(before!, 'default/one', { metadata }));
  const second = build(after!, nodeOf(after!, 'default/one', { metadata }));
  expect(second.endpoints).not.toEqual(first.endpoints);
  expect(second.listeners).toBe(first.listeners);
});

test('they are made anew when the ports of the instance, its services or the port of its sidecar change', () => {
  const [before, ...changed] = worlds(
    workload('one', 'weight: 1'),
    workload('one', 'weight: 1').replace('8080', '8081'),
    workload('one', 'weight: 1', 'app: other'),
    workload('one', 'sidecar: { inboundPort: 15106 }'),
  );
  for (const after of changed) {
    const metadata = {};
    const first = build(before!, nodeOf(before!, 'default/one', { metadata }));
    const second = build(after, nodeOf(after, 'default/one', { metadata }));
    expect(second.listeners).not.toEqual(first.listeners);
    const anew = build(after, nodeOf(after, 'default/one', { metadata: {} }));
    expect(second.listeners).toEqual(anew.listeners);
  }
});
