/** Files with resources, as path_config_source names them. */
import { expect, test } from '@jest/globals';
import { formatOf } from './config-text.ts';
import { parseResourceFile } from './resource-file.ts';

const CLUSTER = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
const options = { format: 'yaml', file: 'cds.yaml', kind: 'cluster' } as const;

test('a good resource is there although another one is bad', () => {
  const file = parseResourceFile(
    `version_info: "7"
resources:
- "@type": ${CLUSTER}
  name: good
  new_field: 1
- "@type": ${CLUSTER}
  name: bad
  connect_timeout: 0s
`,
    options,
  );

  expect(file).toMatchObject({ version: '7', resources: [{ kind: 'cluster', name: 'good' }] });
  expect(file.resources[0]?.dump()).toEqual({ '@type': CLUSTER, name: 'good' });
  expect(file.errors.map(({ message }) => message)).toEqual([
    'cds.yaml:8:20: cluster "bad": connect_timeout: must be more than 0ms, received "0ms"',
  ]);
  expect(file.warnings).toEqual(['cds.yaml:5:14: unknown field new_field is ignored']);
});

test('a resource may be wrapped with its name', () => {
  const file = parseResourceFile(
    `resources: {"@type": type.googleapis.com/envoy.service.discovery.v3.Resource, name: a, resource: {"@type": ${CLUSTER}, name: a}}`,
    options,
  );

  expect(file.resources.map(({ name }) => name)).toEqual(['a']);
});

test('another type and a second resource of the same name are refused', () => {
  const file = parseResourceFile(
    `resources: [{"@type": ${CLUSTER}, name: a}, {"@type": ${CLUSTER}, name: a}, {"@type": type.googleapis.com/envoy.config.listener.v3.Listener}]`,
    options,
  );

  expect(file.errors.map(({ message }) => message)).toEqual([
    expect.stringContaining('two resources are named "a"'),
    expect.stringContaining(`@type: must be ${CLUSTER}, received "type.googleapis.com/envoy.config.listener.v3.Listener"`),
  ]);
});

test('a file that is no list of resources is refused as a whole', () => {
  expect(() => parseResourceFile('- a', options)).toThrow('cds.yaml:1:1: must be an object with a list `resources`');
  expect(() => parseResourceFile('a: [', options)).toThrow(/^cds\.yaml:1:\d+: /);
  expect(() => formatOf('cds.pb')).toThrow('cds.pb: the file name must end in .yaml, .yml or .json');
});
