import { expect, test } from '@jest/globals';
import { fitsDump, fitsItem, masked } from './dump-mask.ts';

test.each([
  ['BootstrapConfigDump', 'bootstrap.node.id', true],
  ['BootstrapConfigDump', 'bootstrap.static_resources.clusters', true],
  ['BootstrapConfigDump', 'bootstrap.static_resources.clusters.name', false],
  ['BootstrapConfigDump', 'bootstrap.nope', false],
  ['BootstrapConfigDump', 'last_updated.seconds', true],
  ['ClustersConfigDump', 'version_info', true],
  ['ClustersConfigDump', 'static_clusters', true],
  ['ClustersConfigDump', 'static_clusters.cluster', false],
  ['ClustersConfigDump', 'static_listeners', false],
  ['RoutesConfigDump', 'version_info', false],
])('%s takes the mask %s: %s', (dump, path, fits) => {
  expect(fitsDump(dump, [path])).toBe(fits);
});

test('one path that fits nothing spoils the mask, and items take their own fields', () => {
  expect(fitsDump('ClustersConfigDump', ['static_clusters', 'nope'])).toBe(false);
  expect([fitsItem('static_clusters', ['cluster.name']), fitsItem('static_clusters', ['listener'])]).toEqual([true, false]);
});

test('a mask keeps what it names and the type', () => {
  const dump = { '@type': 't', a: { b: 1, c: 2 }, d: [{ e: 1, f: 2 }], g: 3 };

  expect(masked(dump, ['a.b', 'a.c', 'd.e', 'h'])).toEqual({ '@type': 't', a: { b: 1, c: 2 }, d: [{ e: 1 }] });
});
