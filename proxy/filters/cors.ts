/** Cross-origin requests: answers preflights and marks responses, by a policy of the route (envoy.extensions.filters.http.cors.v3). */
import { compileStringMatcher } from './matchers.ts';
import { localResponse } from '../http1/error-response.ts';
import type { ConfigReader } from './config.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import type { Filter, ProxyRequest, ProxyResponse } from '../service.ts';

export const cors: FilterEntry = {
  type: 'envoy.extensions.filters.http.cors.v3.Cors',
  names: ['envoy.filters.http.cors', 'envoy.cors'],
  build: () => undefined,
  routeTypes: ['envoy.extensions.filters.http.cors.v3.CorsPolicy', 'envoy.config.route.v3.CorsPolicy'],
  buildForRoute: (config, _listenerConfig, deps) => buildCors(config, deps),
};

function buildCors(config: ConfigReader, deps: FilterDeps): Filter | undefined {
  const origins = config.objects('allowOriginStringMatch').map(compileStringMatcher);
  const share = config.fraction('filterEnabled', 1);
  const allowCredentials = config.boolean('allowCredentials');
  const answers: readonly (readonly [string, string])[] = (
    [
      ['access-control-allow-methods', config.string('allowMethods')],
      ['access-control-allow-headers', config.string('allowHeaders')],
      ['access-control-max-age', config.string('maxAge')],
    ] as const
  ).filter(([, value]) => value !== '');
  const exposed = config.string('exposeHeaders');
  const forwardUnmatched = config.boolean('forwardNotMatchingPreflights', true);
  const valid = deps.counter('cors.origin_valid');
  const invalid = deps.counter('cors.origin_invalid');
  const mark = (response: ProxyResponse, origin: string): ProxyResponse => {
    response.headers.set('access-control-allow-origin', origin);
    if (allowCredentials) response.headers.set('access-control-allow-credentials', 'true');
    return response;
  };
  return (next) => (request) => {
    const origin = request.headers.get('origin');
    if (origin === undefined || (share < 1 && deps.random() >= share)) return next(request);
    const allowed = origins.some((test) => test(origin));
    (allowed ? valid : invalid)();
    if (isPreflight(request)) {
      if (!allowed) return forwardUnmatched ? next(request) : Promise.resolve(localResponse(request, 200, ''));
      const response = mark(localResponse(request, 200, ''), origin);
      for (const [name, value] of answers) response.headers.append(name, value);
      if (exposed !== '') response.headers.append('access-control-expose-headers', exposed);
      return Promise.resolve(response);
    }
    if (!allowed) return next(request);
    return next(request).then((response) => {
      if (exposed !== '') response.headers.set('access-control-expose-headers', exposed);
      return mark(response, origin);
    });
  };
}

function isPreflight(request: ProxyRequest): boolean {
  return request.method === 'OPTIONS' && request.headers.has('access-control-request-method');
}
