/** Changes headers of requests and responses (envoy.extensions.filters.http.header_mutation.v3). */
import { compileTextFormat } from './format.ts';
import type { ConfigReader } from './config.ts';
import type { Exchange } from './format.ts';
import type { FilterEntry } from './filter.ts';
import type { Headers } from '../headers.ts';
import type { Filter } from '../service.ts';

export const headerMutation: FilterEntry = {
  type: 'envoy.extensions.filters.http.header_mutation.v3.HeaderMutation',
  names: ['envoy.filters.http.header_mutation'],
  build: buildHeaderMutation,
  routeTypes: ['envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute'],
  // Envoy applies the listener's mutations and then the route's.
  buildForRoute: (config, listenerConfig) => {
    const outer = buildHeaderMutation(listenerConfig);
    const inner = buildHeaderMutation(config);
    if (outer === undefined || inner === undefined) return outer ?? inner;
    return (next) => outer(inner(next));
  },
};

export type Mutation = (headers: Headers, exchange: Exchange) => void;

function buildHeaderMutation(config: ConfigReader): Filter | undefined {
  const mutations = config.object('mutations');
  const onRequest = mutations?.objects('requestMutations').map(compileMutation) ?? [];
  const onResponse = mutations?.objects('responseMutations').map(compileMutation) ?? [];
  if (onRequest.length === 0 && onResponse.length === 0) return undefined;
  return (next) => (request) => {
    const exchange: Exchange = { request, response: undefined, startWallMs: 0, durationMs: 0 };
    for (const mutate of onRequest) mutate(request.headers, exchange);
    if (onResponse.length === 0) return next(request);
    return next(request).then((response) => {
      for (const mutate of onResponse) mutate(response.headers, { ...exchange, response });
      return response;
    });
  };
}

const APPEND_ACTIONS = ['APPEND_IF_EXISTS_OR_ADD', 'ADD_IF_ABSENT', 'OVERWRITE_IF_EXISTS_OR_ADD', 'OVERWRITE_IF_EXISTS'] as const;

function compileMutation(reader: ConfigReader): Mutation {
  const removed = reader.string('remove').toLowerCase();
  if (removed !== '') {
    if (removed === 'host' || removed.startsWith(':')) reader.fail('remove', 'must not name Host or a pseudo-header');
    return (headers) => headers.remove(removed);
  }
  return compileHeaderOption(reader.object('append') ?? reader.fail('', 'a mutation is remove or append'));
}

/** One HeaderValueOption: a header whose value may be a format, and what happens where it is there already. */
export function compileHeaderOption(option: ConfigReader): Mutation {
  const header = option.object('header') ?? option.fail('header', 'must be given');
  const name = header.string('key');
  const lower = name.toLowerCase();
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || lower === 'host') header.fail('key', 'must be a header name other than Host');
  const format = compileTextFormat(header.string('value'), `${header.path}.value`, { emptyText: '' });
  const action = option.oneOf('appendAction', APPEND_ACTIONS, 'APPEND_IF_EXISTS_OR_ADD');
  const keepEmpty = option.boolean('keepEmptyValue');
  return (headers, exchange) => {
    const value = format(exchange);
    if (value === '' && !keepEmpty) return;
    const exists = headers.has(lower);
    if (action === 'APPEND_IF_EXISTS_OR_ADD') headers.append(name, value);
    else if (action === 'ADD_IF_ABSENT' ? !exists : action === 'OVERWRITE_IF_EXISTS' ? exists : true) headers.set(name, value);
  };
}
