/** Answers health checks itself, or marks those that pass through (envoy.extensions.filters.http.health_check.v3). */
import { compileHeaderMatcher } from './matchers.ts';
import { localResponse } from '../http1/error-response.ts';
import type { ConfigReader } from './config.ts';
import type { FilterDeps, FilterEntry } from './filter.ts';
import type { Filter, ProxyResponse } from '../service.ts';

export const healthCheck: FilterEntry = {
  type: 'envoy.extensions.filters.http.health_check.v3.HealthCheck',
  names: ['envoy.filters.http.health_check', 'envoy.health_check'],
  build: buildHealthCheck,
};

function buildHealthCheck(config: ConfigReader, deps: FilterDeps): Filter {
  const passThrough = config.boolean('passThroughMode');
  if (config.has('cacheTime')) config.fail('cacheTime', 'caching of health check answers is not supported');
  if (config.has('clusterMinHealthyPercentages'))
    config.fail('clusterMinHealthyPercentages', 'judging by the health of clusters is not supported');
  const tests = config.objects('headers').map((one) => compileHeaderMatcher(one));
  return (next) => (request) => {
    if (!tests.every((test) => test(request))) return deps.healthy() ? next(request) : marked(next(request));
    (request.info.filterState ??= new Map()).set('healthCheck', true);
    if (!deps.healthy()) {
      request.info.responseFlags = 'LH';
      request.info.responseDetails = 'health_check_failed';
      const response = localResponse(request, 503, '');
      response.headers.append('x-envoy-immediate-health-check-fail', 'true');
      return Promise.resolve(response);
    }
    if (passThrough) return next(request);
    request.info.responseDetails = 'health_check_ok';
    return Promise.resolve(localResponse(request, 200, ''));
  };
}

/** Callers that watch for it stop sending at once, before their next health check. */
async function marked(answer: Promise<ProxyResponse>): Promise<ProxyResponse> {
  const response = await answer;
  response.headers.append('x-envoy-immediate-health-check-fail', 'true');
  return response;
}
