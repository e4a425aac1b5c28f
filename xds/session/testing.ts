/** Resource sets and nodes for tests of sessions and streams. */
import { createHash } from 'node:crypto';
import type { EncodedResource, NodeInfo } from './messages.ts';
import type { ResourceSet } from './server.ts';

export function testNode(overrides: Partial<NodeInfo> = {}): NodeInfo {
  return {
    id: 'web-1.default',
    cluster: 'web',
    metadata: {},
    locality: { region: '', zone: '', subZone: '' },
    userAgentName: 'test',
    userAgentVersion: '1',
    clientFeatures: [],
    ...overrides,
  };
}

/** A resource whose field 1 is its name, as in every xDS type, and whose field 15 is `body`. The version is a hash of it unless given. */
export function testResource(typeUrl: string, name: string, body = '', extra: Partial<EncodedResource> = {}): EncodedResource {
  const bytes = Buffer.concat([field(1, name), ...(body === '' ? [] : [field(15, body)])]);
  const version = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
  return { name, version, typeUrl, bytes, ...extra };
}

/** A set of the given resources; per type its version is a hash of the versions. `previous` makes `changedSince` answer. */
export function testSet(resources: readonly EncodedResource[], previous?: ResourceSet): ResourceSet {
  const types = new Map<string, Map<string, EncodedResource>>();
  for (const resource of resources) {
    let names = types.get(resource.typeUrl);
    if (names === undefined) types.set(resource.typeUrl, (names = new Map<string, EncodedResource>()));
    names.set(resource.name, resource);
  }
  const version = (typeUrl: string): string => {
    const hash = createHash('sha256');
    for (const [name, resource] of types.get(typeUrl) ?? []) hash.update(`${name} ${resource.version}\n`);
    return hash.digest('hex').slice(0, 12);
  };
  const byAlias = (typeUrl: string, name: string): EncodedResource | undefined =>
    [...(types.get(typeUrl)?.values() ?? [])].find((resource) => resource.aliases?.includes(name));
  const set: ResourceSet = {
    version,
    get: (typeUrl, name) => types.get(typeUrl)?.get(name) ?? byAlias(typeUrl, name),
    names: (typeUrl) => types.get(typeUrl)?.keys() ?? [],
  };
  if (previous !== undefined) {
    set.changedSince = (typeUrl, since) => {
      if (since !== previous.version(typeUrl)) return undefined;
      const named = (from: ResourceSet): string[] =>
        [...from.names(typeUrl)].flatMap((name) => [name, ...(from.get(typeUrl, name)?.aliases ?? [])]);
      const names = new Set([...named(previous), ...named(set)]);
      return [...names].filter((name) => previous.get(typeUrl, name)?.version !== set.get(typeUrl, name)?.version);
    };
  }
  return set;
}

function field(number: number, text: string): Buffer {
  const value = Buffer.from(text);
  const head = [(number << 3) | 2];
  let length = value.length;
  while (length > 127) {
    head.push((length & 127) | 128);
    length >>>= 7;
  }
  return Buffer.concat([Buffer.from([...head, length]), value]);
}
