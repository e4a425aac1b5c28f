/** What stands for an endpoint in consistent hashing: `hash_key` of its `envoy.lb` metadata, else its address. */
import type { JsonObject } from '../../xds/snapshot.ts';
import { filterMetadata } from '../filters/workload.ts';
import type { Endpoint } from '../upstream/endpoint.ts';

export function hashKey(endpoint: Endpoint): string {
  const lb = filterMetadata(endpoint.metadata)['envoy.lb'];
  if (typeof lb === 'object' && lb !== null && !Array.isArray(lb)) {
    const key = (lb as JsonObject)['hash_key'];
    if (typeof key === 'string' && key !== '') return key;
  }
  return endpoint.key;
}
