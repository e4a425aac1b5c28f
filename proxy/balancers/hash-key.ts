/** What stands for an endpoint in consistent hashing: `hash_key` of its `envoy.lb` metadata, else its address. */
import type { JsonObject } from '../../xds/snapshot.ts';
import type { Endpoint } from '../upstream/endpoint.ts';

export function hashKey(endpoint: Endpoint): string {
  const lb = endpoint.metadata['envoy.lb'];
  if (typeof lb === 'object' && lb !== null && !Array.isArray(lb)) {
    const key = (lb as JsonObject)['hash_key'];
    if (typeof key === 'string' && key !== '') return key;
  }
  return endpoint.key;
}
