/** What is made beforehand is what is asked for later, made once for all who share it, and in steps that are short. */
import { expect, test } from '@jest/globals';
import { ENDPOINT_TYPE, ROUTE_TYPE } from '../xds/session/type-urls.ts';
import { build } from './build/index.ts';
import { createEncoder } from './encode.ts';
import { nodeOf, worldOf } from './testing.ts';
import type { Build } from './world.ts';

const MESH = ['shop', 'bank']
  .flatMap((namespace) => [
    `{apiVersion: v1, kind: Service, metadata: {name: web, namespace: ${namespace}}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}`,
    ...[1, 2].map(
      (instance) =>
        `{apiVersion: meshwork.dev/v1alpha1, kind: Workload, metadata: {name: web-${instance}, namespace: ${namespace}, labels: {app: web}}, spec: {address: 10.1.0.${instance}, ports: {http: 8080}, sidecar: {}}}`,
    ),
  ])
  .join('\n---\n');

/** How many steps an iterator takes. */
function stepsOf(iterator: Iterator<void, void>): number {
  let steps = 0;
  while (iterator.next().done !== true) steps++;
  return steps;
}

test('what the first of a kind shares is made beforehand in steps; its like find it, another namespace has its own', () => {
  const world = worldOf(MESH);
  const encoder = createEncoder(build);
  const [first, second, foreign] = ['shop/web-1', 'shop/web-2', 'bank/web-1'].map((key) => nodeOf(world, key));
  expect(stepsOf(encoder.prepare(world))).toBeGreaterThan(world.services.size);

  expect(stepsOf(encoder.prepareFor(world, first!))).toBeGreaterThanOrEqual(8);
  expect(stepsOf(encoder.prepareFor(world, first!))).toBe(0);
  expect(stepsOf(encoder.prepareFor(world, second!))).toBe(0);
  expect(stepsOf(encoder.prepareFor(world, foreign!))).toBeGreaterThanOrEqual(8);
  const [own, shared, other] = [first!, second!, foreign!].map((node) => encoder.encode(world, node));
  expect(shared!.get(ROUTE_TYPE)).toBe(own!.get(ROUTE_TYPE));
  expect(shared!.get(ENDPOINT_TYPE)).toBe(own!.get(ENDPOINT_TYPE));
  expect(other!.get(ROUTE_TYPE)).not.toBe(own!.get(ROUTE_TYPE));

  const next = worldOf(MESH);
  expect(stepsOf(encoder.prepareFor(next, nodeOf(next, 'shop/web-1')))).toBeGreaterThanOrEqual(8);
});

test('what does not fit together is an error beforehand, too', () => {
  const world = worldOf(MESH);
  const broken: Build = (now, node) => ({ ...build(now, node), clusters: [] });
  const encoder = createEncoder(broken);
  expect(() => stepsOf(encoder.prepareFor(world, nodeOf(world, 'shop/web-1')))).toThrow(
    'what was built for web-1.shop does not fit together',
  );
});
