import { toBinary } from '@bufbuild/protobuf';
import { expect, test } from '@jest/globals';
import { RouteConfigurationSchema } from '../gen/envoy/config/route/v3/route_pb.js';
import { NO_HEADER_MUTATIONS, type RouteConfiguration, type VirtualHost } from '../snapshot.ts';
import { decodeRoute, encodeRoute, newRouteConfiguration } from './route.ts';

const host = (name: string): VirtualHost => ({
  name,
  domains: [name, `${name}:80`],
  routes: [
    {
      name: 'default',
      match: {
        path: { kind: 'prefix', value: '/' },
        caseSensitive: true,
        headers: [],
        queryParameters: [],
        runtimeFraction: 1,
        grpcOnly: false,
      },
      action: { kind: 'direct', status: 503 },
      headerMutations: NO_HEADER_MUTATIONS,
      perFilterConfig: new Map(),
    },
  ],
  headerMutations: NO_HEADER_MUTATIONS,
  includeRequestAttemptCount: true,
  includeAttemptCountInResponse: false,
  requireTls: 'NONE',
  perFilterConfig: new Map(),
});

function table(virtualHosts: readonly VirtualHost[]): RouteConfiguration {
  return {
    name: 'outbound',
    virtualHosts,
    headerMutations: { ...NO_HEADER_MUTATIONS, responseRemove: ['x-left'] },
    validateClusters: false,
    ignorePortInHostMatching: true,
    mostSpecificHeaderMutationsWins: true,
    maxDirectResponseBodyBytes: 10,
  };
}

test('a table put together of virtual hosts that were encoded before has the bytes of the table encoded as a whole', () => {
  const shared = [host('a'), host('b'), host('c')];
  for (const hosts of [shared, [shared[2]!, host('d'), shared[0]!], []]) {
    const route = table(hosts);
    const bytes = encodeRoute(route);
    expect(Buffer.from(bytes).equals(toBinary(RouteConfigurationSchema, newRouteConfiguration(route)))).toBe(true);
    expect(decodeRoute(bytes).virtualHosts.map((one) => one.name)).toEqual(hosts.map((one) => one.name));
  }
});
